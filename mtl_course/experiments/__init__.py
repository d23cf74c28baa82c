"""Full-size experiments, one module per chapter.

Each has ``run(profile, seeds, report=print, *, plan=None) -> dict`` of plain JSON, which the record
command writes, and ``PLANS``, the plan of each profile. `common` has what several of them need.
"""
