"""Full-size experiments, one module a chapter. Each has ``run(profile, seeds) -> dict`` of plain
JSON, which the record command writes.
"""
