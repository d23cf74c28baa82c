"""Rows of tables as features: who gets which vector, what is refused, and with which words."""

import pytest
import torch
from torch import nn

from mtl_course.data import Columns
from mtl_course.multitask import HardSharing
from mtl_course.networks.tables import TableEmbedding
from mtl_course.networks.trunks import mlp

TRAIN = {"age": [20.0, 30, 40], "job": ["cook", "smith", "cook"], "town": [7, 7, 9]}


def made(unknown="refuse", width=2):
    columns = Columns(TRAIN, ["age"], ["job", "town"], unknown)
    return columns, TableEmbedding(columns.numbers, columns.levels, width)


def test_every_category_of_every_column_has_a_vector_of_its_own():
    columns, embedding = made()
    x = torch.from_numpy(columns(TRAIN))
    z = embedding(x)
    assert z.shape == (3, embedding.features) == (3, 5)
    assert torch.equal(z[:, 0], x[:, 0])
    assert torch.equal(z[0, 1:3], z[2, 1:3]) and not torch.equal(z[0, 1:3], z[1, 1:3])
    assert torch.equal(z[0, 3:], z[1, 3:]) and not torch.equal(z[0, 3:], z[2, 3:])
    vectors = torch.cat([z[:2, 1:3], z[1:, 3:]])
    assert len(vectors.unique(dim=0)) == 4 == len(embedding.vectors.weight) - 1


def test_an_unknown_category_says_nothing_and_learns_nothing():
    columns, embedding = made("zero")
    x = torch.from_numpy(columns({"age": [30], "job": ["clerk"], "town": [9]}))
    z = embedding(x)
    assert not z[0, 1:3].any() and z[0, 3:].any()
    z.sum().backward()
    assert not embedding.vectors.weight.grad[0].any() and embedding.vectors.weight.grad.any()


def test_it_stands_below_a_trunk_and_trains():
    columns, embedding = made()
    trunk = nn.Sequential(embedding, *mlp([embedding.features, 8]))
    model = HardSharing(trunk, {"a": nn.Linear(8, 1), "b": nn.Linear(8, 3)})
    outputs = model(torch.from_numpy(columns(TRAIN))[:1])
    assert {task: list(y.shape) for task, y in outputs.items()} == {"a": [1, 1], "b": [1, 3]}
    assert "counts" not in "".join(embedding.state_dict()), "what is known beforehand is not saved"


def test_categories_alone_and_numbers_alone():
    assert TableEmbedding([], {"job": 2}, 3)(torch.tensor([[1.0], [2.0]])).shape == (2, 3)
    assert TableEmbedding(["age"], {})(torch.tensor([[1.0], [2.0]])).tolist() == [[1.0], [2.0]]
    with pytest.raises(ValueError, match="at least one column"):
        TableEmbedding([], {})


@pytest.mark.parametrize(
    "row, message",
    [
        ([0.5, 3, 1], "Row 1 has the code 3.0 in column 'job', whose codes are 0 to 2"),
        ([0.5, 1, -1], "Row 1 has the code -1.0 in column 'town'"),
        ([0.5, 1, 1.5], "Row 1 has the code 1.5 in column 'town'"),
        ([torch.nan, 1, 1], "Row 1 has nan in column 'age'"),
        ([0.5, torch.nan, 1], "Row 1 has the code nan in column 'job'"),
    ],
)
def test_rows_that_cannot_be_read(row, message):
    with pytest.raises(ValueError, match=message):
        made()[1](torch.tensor([[0.0, 1, 1], row]))


def test_a_missing_column():
    with pytest.raises(ValueError, match=r"3 columns \(age, job, town\); .* shape \[1, 2\]"):
        made()[1](torch.zeros(1, 2))
