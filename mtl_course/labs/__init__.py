"""Open tasks with a ladder: `score` grades what a learner wrote, `practice` gives a task.

One file per lab, ``lab_1.py`` to ``lab_5.py``: its tasks, its budget, its rungs.
"""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "score": "scorer",  # how far a function comes on the held-out tasks
        "practice": "scorer",  # a task to work on, with its answers
    },
)
