"""The door to the records: ``python -m mtl_course.record 01`` runs a chapter's experiment and
writes its record.
"""

import sys

from .records.command import main

if __name__ == "__main__":
    sys.exit(main())
