"""The package of the executed course on multi-task, transfer and meta-learning.

Its rooms are named like the parts of the book: `data`, `networks`, `training`, `multitask`,
`transfer`, `meta`, `streams`, `trust`, `serving`, `labs`. Each says in its ``__init__`` what it
offers. Importing the package is cheap: torch is imported by the modules that compute with it,
when they are first used.
"""

from ._lazy import exports

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "setup": "runtime",  # the first cell: device, profile, seeds, style
        "claim": "claims",  # a sentence of the text, held against evidence
        "check": "checks",  # an answer to an exercise
        "hint": "checks",
        "solution": "checks",
        "progress": "checks",  # the exercises of the course at a glance
        "use": "checks",  # the learner's function if it passes, else the reference
    },
)
