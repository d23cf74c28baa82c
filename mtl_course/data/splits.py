"""Seeded splits, as row numbers.

NumPy has frozen the stream of RandomState, so a seed names the same rows on every machine.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def split_per_task(
    task: ArrayLike, n_train: int, seed: int, n_max: int | None = None
) -> tuple[NDArray, NDArray]:
    """Rows to train on, a few random ones of every task, and rows to test on.

    `n_max` rows of every task are set aside for training, of which the first `n_train` are used;
    all others are test rows. For one seed and one `n_max`, the test rows are the same for every
    `n_train`, and the training rows of a smaller one are among those of a larger one, so that a
    learning curve compares like with like. A task with at most `n_max` rows has none to test on and
    is left out of both. A task's rows depend on its own number and rows only.

    Args:
        task: int [N], from 0 on: the task of each row, or its class.
        n_train: training rows per task.
        seed: of the random order.
        n_max: rows per task that are kept out of the test; by default `n_train`.

    Returns:
        Sorted int64 row numbers to train on, and to test on.

    Raises:
        ValueError: if `n_train` is not in 1..n_max, no task is large enough, or `task` is not [N]
            whole numbers.

    Example:
        >>> task = [0, 0, 0, 1, 1, 1, 1, 2]  # the last task is too small
        >>> train, test = split_per_task(task, n_train=1, seed=0, n_max=2)
        >>> len(train), len(test), sorted(set(train) & set(test))
        (2, 3, [])
        >>> more, same = split_per_task(task, n_train=2, seed=0, n_max=2)
        >>> set(train) < set(more), test.tolist() == same.tolist()
        (True, True)
    """
    n_max = n_train if n_max is None else n_max
    if not 1 <= n_train <= n_max:
        raise ValueError(f"n_train must be between 1 and n_max = {n_max}; it is {n_train}.")
    shuffled = [rows for rows in _shuffled(task, seed).values() if len(rows) > n_max]
    if not shuffled:
        raise ValueError(f"No task has more than {n_max} rows.")
    train = np.concatenate([rows[:n_train] for rows in shuffled])
    test = np.concatenate([rows[n_max:] for rows in shuffled])
    return np.sort(train), np.sort(test)


def per_class(y: ArrayLike, n: int, seed: int) -> NDArray:
    """A few random rows of every class.

    They are the training rows of ``split_per_task(y, n, seed, n_max)``, so a smaller `n` gives some
    of the rows of a larger one.

    Args:
        y: int [N], from 0 on: the class of each row.
        n: rows per class.
        seed: of the random order.

    Returns:
        Sorted int64 row numbers, n per class.

    Raises:
        ValueError: if n < 1, a class has fewer than n rows, or y is not [N] whole numbers.

    Example:
        >>> y = np.array([0, 1, 0, 1, 0, 1])
        >>> rows = per_class(y, n=2, seed=0)
        >>> sorted(y[rows].tolist())
        [0, 0, 1, 1]
        >>> set(per_class(y, n=1, seed=0)) < set(rows)
        True
    """
    shuffled = _shuffled(y, seed)
    smallest = min(shuffled, key=lambda label: len(shuffled[label]))
    if not 1 <= n <= len(shuffled[smallest]):
        raise ValueError(
            f"n must be between 1 and {len(shuffled[smallest])},"
            f" the number of rows of class {smallest}; it is {n}."
        )
    return np.sort(np.concatenate([rows[:n] for rows in shuffled.values()]))


def _shuffled(labels: ArrayLike, seed: int) -> dict[int, NDArray]:
    """Label -> its rows in a random order, which depends on seed, label and these rows only."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(
            "Expected whole numbers from 0 on, one per row;"
            f" got {labels.dtype} of shape {labels.shape}."
        )
    orders = {}
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        orders[int(label)] = np.random.RandomState([seed, label]).permutation(rows).astype(np.int64)
    return orders
