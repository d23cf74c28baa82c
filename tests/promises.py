"""What each balancing method promises, once for all: `test_balancing` puts every True to hard
cases, `test_ch06` holds chapter 6's table against all of it.

True: kept for any gradients, or with the condition in the promise's name. False: chapter 6's table
must find a counterexample.
"""

PROMISES = (
    "no conflict, 2 tasks",
    "no conflict, any",
    "any order",
    "scale-free",
    "sum if none conflicts",
    "rests on the front",
)
KEPT = {
    "sum": (False, False, True, False, True, False),
    "mgda": (True, True, True, False, False, True),
    "pcgrad": (True, False, False, False, True, False),
    "cagrad": (False, False, True, False, False, False),
    "imtl_g": (True, False, True, False, False, True),
    "aligned_mtl": (False, False, True, False, False, True),
    "nash_mtl": (True, True, True, True, False, False),
    "fairgrad": (True, True, True, False, False, False),
    "upgrad": (True, True, True, False, True, True),
    "dualproj": (True, True, True, False, True, True),
}


def who(promise: str) -> list[str]:
    """The methods that keep it."""
    return [method for method, row in KEPT.items() if row[PROMISES.index(promise)]]
