"""Seeded splits, as row numbers. NumPy froze the stream of RandomState, so a seed names the same rows on every machine and version."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def split_per_task(task: ArrayLike, n_train: int, seed: int, n_max: int | None = None) -> tuple[NDArray, NDArray]:
    """Rows for training and for testing: `n_train` random rows of every task, and the rows that `n_max` (default `n_train`) leaves over.

    `task` [N] holds a task number (or a class label) per row; returned are two sorted int64 arrays of row numbers. With one seed and one
    `n_max`, the training rows of a smaller `n_train` are among those of a larger one and the test rows are the same, so a learning
    curve compares like with like. A task without a row to test on, that is with at most `n_max` rows, is left out of both. A task's rows
    depend on its own number and rows only. ValueError if n_train is not in 1..n_max or no task is large enough.
    """
    task = _labels(task)
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
    """Sorted row numbers (int64) of `n` random rows of every class of `y` [N]; those of a smaller n are among those of a larger one.

    They are also the training rows of `split_per_task(y, n, seed, n_max)`. ValueError if a class has fewer than `n` rows, or n < 1.
    """
    shuffled = _shuffled(_labels(y), seed)
    smallest = min(shuffled, key=lambda label: len(shuffled[label]))
    if not 1 <= n <= len(shuffled[smallest]):
        raise ValueError(f"n must be between 1 and {len(shuffled[smallest])}, the number of rows of class {smallest}; it is {n}.")
    return np.sort(np.concatenate([rows[:n] for rows in shuffled.values()]))


def _labels(values: ArrayLike) -> NDArray:
    values = np.asarray(values)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "iu":
        raise ValueError(f"Expected one whole number a row, at least one row; got shape {values.shape} of {values.dtype}.")
    return values


def _shuffled(labels: NDArray, seed: int) -> dict[int, NDArray]:
    """The rows of each label in a random order that depends on the seed, the label and the label's rows only."""
    return {
        int(label): np.random.RandomState([seed, int(label) % 2**32]).permutation(np.flatnonzero(labels == label))
        for label in np.unique(labels)
    }
