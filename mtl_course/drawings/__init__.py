"""Drawings of mechanisms: SVG files, and the Python that draws them.

`plots.drawing("name")` shows a file; ``python -m mtl_course.dev drawings`` draws all of them again.
A drawing is a function decorated with `pen.drawing` in any module here. Its language: shared parts
blue, tasks in their own colours, frozen parts hatched, data flow from left to right with solid
arrows, gradients dashed. A name that ends in ``_phone`` is the narrow twin of another drawing.
"""
