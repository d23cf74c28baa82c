"""Tools for those who write the course: ``python -m mtl_course.dev <command>``. Each command is one
module with a `main`.
"""
