"""Inputs of several kinds in one loop, and sets of unequal kind."""

import pytest
import torch

from mtl_course.data import Inputs, Table, Unequal


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def unequal(pictures=7, texts=3):
    """Inputs that tell their row."""
    rows, ids = torch.arange(pictures), torch.arange(1, texts + 1)
    return Unequal(
        {
            "picture": (rows[:, None, None, None].expand(-1, 1, 4, 4).float(), rows),
            "text": (ids[:, None].expand(-1, 5), ids),
        }
    )


def test_each_task_gets_rows_of_its_own_kind_with_their_labels():
    data, seen = unequal(), {"picture": [], "text": []}
    for batch in data.batches(3, seeded()):
        assert list(batch.x) == list(batch.targets) == ["picture", "text"]
        for name, (rows, labels) in batch.targets.items():
            x = batch.x[name]
            assert rows == slice(None) and (x.flatten(1)[:, 0] == labels).all()
            seen[name] += labels.tolist()
    assert sorted(seen["picture"]) == list(range(7)), "the longest set once"
    assert len(seen["text"]) == 7, "the other again and again"
    assert all(seen["text"].count(label) >= 2 for label in (1, 2, 3))


def test_it_answers_as_separate_sets_do():
    data = unequal()
    assert len(data) == 7 and data.rows_of_step(3) == 6
    assert type(data.only(["text"])) is Unequal and len(data.only(["text"])) == 3
    assert len(data.repeated(10).sets["text"][0]) == 10
    whole = data.whole()
    assert torch.equal(whole.x["text"], data.sets["text"][0]) and len(whole.x) == 7
    with pytest.raises(ValueError, match="Task 'b' has 2 inputs and 3 labels"):
        Unequal({"a": (torch.zeros(2, 3), torch.ones(2)), "b": (torch.zeros(2), torch.ones(3))})
    with pytest.raises(ValueError, match="Task 'a' has 0 inputs"):
        Unequal({"a": (torch.zeros(0, 3), torch.ones(0))})
    with pytest.raises(ValueError, match="at least one task"):
        Unequal({})


def test_two_views_of_the_same_rows_are_a_table():
    rows = torch.arange(6)
    x = Inputs({"picture": rows[:, None].float(), "name": 10 * rows[:, None]})
    table = Table(x, {"kind": rows})
    for batch in table.batches(4, seeded()):
        _, labels = batch.targets["kind"]
        assert (batch.x["picture"][:, 0] == labels).all()
        assert (batch.x["name"][:, 0] == 10 * labels).all()
    assert x.device == torch.device("cpu") and "name" in x and "other" not in x


def test_a_picture_without_its_name_is_told():
    x = Inputs({"picture": torch.zeros(6, 2), "name": torch.zeros(5, 2)})
    with pytest.raises(ValueError, match="Row 5 has a 'picture' and no 'name'"):
        next(Table(x, {"kind": torch.arange(6)}).batches(4, seeded()))
    with pytest.raises(ValueError, match="There are no inputs"):
        Inputs({})


def test_pieces_of_a_longer_and_a_shorter_set():
    x = Inputs({"a": torch.arange(5), "b": torch.arange(3)})
    pieces = x.split(2)
    assert [len(p) for p in pieces] == [2, 2, 1]
    assert [len(p["b"]) for p in pieces] == [2, 1, 0]
    for name in x:
        assert torch.equal(torch.cat([p[name] for p in pieces]), x[name])
