"""Grading: a submission's source is taken out and run where it can do no harm.

`submission` reads the notebook and runs nothing. `process` starts a fresh process per exercise,
with limits, and ends all that it leaves behind. In there, `pupil` runs the learner's code. `wire`
carries values between the two, and `judge` holds the answers against the exercise.
``python -m mtl_course.grade`` is the door.
"""
