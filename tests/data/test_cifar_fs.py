"""The published split of CIFAR-100's classes for few-shot learning."""

import numpy as np
import pytest
from data_tools import need

from mtl_course import data
from mtl_course.data import cifar_fs, episodes


def test_sixty_four_sixteen_and_twenty_disjoint_classes():
    assert {part: len(set(names)) for part, names in cifar_fs.SPLIT.items()} == {
        "train": 64,
        "validation": 16,
        "test": 20,
    }
    episodes.require_disjoint(cifar_fs.SPLIT)
    assert (
        "rose" in cifar_fs.SPLIT["test"]
        and "tulip" in cifar_fs.SPLIT["train"]
        and "otter" in cifar_fs.SPLIT["validation"]
    )


def test_they_are_the_fine_classes_of_cifar100(data_root):
    need("cifar100_partial")
    cifar = data.load("cifar100_partial")
    parts = cifar_fs.classes(cifar.names)
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(100))
    assert [cifar.names[label] for label in parts["test"]] == sorted(cifar_fs.SPLIT["test"])


def test_other_names_are_refused():
    names = [name for part in cifar_fs.SPLIT.values() for name in part]
    assert cifar_fs.classes(names)["validation"] == list(range(64, 80))
    for others in (
        names[1:],
        [*names, "unicorn"],
        ["roses" if name == "rose" else name for name in names],
    ):
        with pytest.raises(ValueError, match="100 fine classes of CIFAR-100"):
            cifar_fs.classes(others)
