"""Seeded splits, as row numbers. NumPy has frozen the stream of RandomState, so a seed names the
same rows on every machine.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def split_per_task(
    task: ArrayLike, n_train: int, seed: int, n_max: int | None = None
) -> tuple[NDArray, NDArray]:
    """Rows to train on, `n_train` random ones of every task, and to test on, all but the `n_max`
    (default `n_train`) set aside.

    `task` [N] holds a task number, or a class label, a row; the two results are sorted int64 row
    numbers. For one seed and one `n_max`, the test rows are the same for every `n_train`, and the
    training rows of a smaller one are among those of a larger one, so that a learning curve
    compares like with like. A task with at most `n_max` rows has none to test on and is left out of
    both. A task's rows depend on its own number and rows only. ValueError if `n_train` is not in
    1..n_max, or no task is large enough.
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
    """Sorted row numbers (int64) of `n` random rows of every class of `y` [N]; a smaller `n` gives
    some of those of a larger one.

    They are the training rows of `split_per_task(y, n, seed, n_max)`. ValueError if `n` < 1 or a
    class has fewer than `n` rows.
    """
    shuffled = _shuffled(y, seed)
    smallest = min(shuffled, key=lambda label: len(shuffled[label]))
    if not 1 <= n <= len(shuffled[smallest]):
        raise ValueError(
            f"n must be between 1 and {len(shuffled[smallest])}, the number of rows of class"
            f" {smallest}; it is {n}."
        )
    return np.sort(np.concatenate([rows[:n] for rows in shuffled.values()]))


def _shuffled(labels: ArrayLike, seed: int) -> dict[int, NDArray]:
    """The rows of each label, in a random order that depends on the seed, the label and the label's
    rows only.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(
            f"Expected whole numbers from 0 on, one a row; got {labels.dtype} of shape"
            f" {labels.shape}."
        )
    return {
        int(label): (
            np.random.RandomState([seed, label])
            .permutation(np.flatnonzero(labels == label))
            .astype(np.int64)
        )
        for label in np.unique(labels)
    }
