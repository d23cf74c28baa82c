"""The exercises, one module a chapter (``ch01``, ``ch02``, ...). Importing this package registers them all."""
