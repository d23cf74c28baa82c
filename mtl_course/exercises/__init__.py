"""The exercises, one module per chapter (``ch01``, ``ch02``, ...).

Importing this package registers them all.
"""

import re
from importlib import import_module
from pkgutil import iter_modules

for _module in sorted(module.name for module in iter_modules(__path__)):
    if re.fullmatch(r"ch\d+", _module):
        import_module(f".{_module}", __name__)
