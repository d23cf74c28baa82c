"""Tools for those who write the course: ``python -m mtl_course.dev COMMAND``.

Each command is one module with a `main`.
"""
