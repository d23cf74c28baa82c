"""Seeds as one writes them: a range such as ``1000:1010``. Needs no torch."""

import re


def seed_range(text: str) -> range:
    """The seeds that a text such as ``1000:1010`` names; its end is not among them.

    Args:
        text: two whole numbers A:B, 0 <= A < B.

    Returns:
        ``range(A, B)``.

    Raises:
        ValueError: the text is of another form.

    Example:
        >>> list(seed_range("5:8"))
        [5, 6, 7]
    """
    match = re.fullmatch(r"\s*(\d+):(\d+)\s*", text)
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(
            f"seeds are given as A:B, such as 1000:1010, two whole numbers with A < B; not {text!r}"
        )
    return range(int(match[1]), int(match[2]))
