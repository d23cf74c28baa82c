"""Batches for several tasks: which rows come, in which order, and without a step that waits for the
device.
"""

import pytest
import torch

from mtl_course.checks.devices import PretendedGPU
from mtl_course.data.batches import Separate, Table
from mtl_course.training import syncs


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows_table(n=23, labelled=None):
    """A table whose inputs and labels are the row numbers."""
    rows = torch.arange(n)
    return Table(rows[:, None].float(), {"a": rows, "b": 100 + rows}, labelled)


def separate(sizes):
    """Sets whose inputs and labels tell their task and row: 1000 t + row."""
    sets = {name: 1000 * t + torch.arange(n) for t, (name, n) in enumerate(sizes.items())}
    return Separate({name: (rows[:, None].float(), rows) for name, rows in sets.items()})


# ------------------------------------------------------------------------------------------ a table
@pytest.mark.parametrize("size", [1, 7, 23, 50])
def test_a_table_gives_every_row_once_in_the_order_of_the_generator(size):
    batches = list(rows_table().batches(size, seeded(3)))
    expected = torch.randperm(23, generator=seeded(3))
    assert [len(b.x) for b in batches] == [len(part) for part in expected.split(size)]
    assert torch.equal(torch.cat([b.x[:, 0] for b in batches]).long(), expected)
    for b in batches:
        for name, offset in (("a", 0), ("b", 100)):
            rows, y = b.targets[name]
            assert rows == slice(None) and torch.equal(y, b.x[:, 0].long() + offset)


@pytest.mark.parametrize("size", [1, 5, 23, 40])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_batch_of_a_partly_labelled_table_has_the_labels_of_its_rows(size, share):
    mask = torch.rand(23, generator=seeded(1)) < share
    mask[4] = True
    batches = list(rows_table(labelled={"b": mask}).batches(size, seeded(3)))
    order = torch.randperm(23, generator=seeded(3)).split(size)
    assert len(batches) == len(order)
    for batch, rows in zip(batches, order, strict=True):
        expected = [(place, 100 + row) for place, row in enumerate(rows.tolist()) if mask[row]]
        assert ("b" in batch.targets) == bool(expected)
        if expected:
            places, labels = batch.targets["b"]
            assert list(zip(places.tolist(), labels.tolist(), strict=True)) == expected
        assert torch.equal(batch.targets["a"][1], rows)


def test_the_whole_table_is_in_order_and_not_copied():
    mask = torch.arange(23) % 5 == 2
    table = rows_table(labelled={"b": mask})
    whole = table.whole()
    assert whole.x.data_ptr() == table.x.data_ptr()
    rows, labels = whole.targets["b"]
    assert rows.tolist() == [2, 7, 12, 17, 22] and labels.tolist() == [102, 107, 112, 117, 122]
    assert torch.equal(whole.targets["a"][1], table.targets["a"])


# ------------------------------------------------------------------------------------ separate sets
def naive(sizes, size, order):
    """Row numbers of every batch, one `next` a row: the plain way to say what an epoch is."""

    def endless(n):
        while True:
            yield from torch.randperm(n, generator=order).tolist()

    streams, longest = {name: endless(n) for name, n in sizes.items()}, max(sizes.values())
    for start in range(0, longest, size):
        yield {
            name: [next(s) for _ in range(min(size, longest - start, sizes[name]))]
            for name, s in streams.items()
        }


SIZES = [{"a": 20, "b": 7, "c": 1}, {"a": 5, "b": 32}, {"a": 6, "b": 6}, {"a": 9}]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("size", [1, 4, 6, 16, 100])
def test_separate_sets_equal_one_row_at_a_time(sizes, size):
    order, plain = seeded(2), seeded(2)
    for _ in range(3):  # epochs, from one generator
        batches = list(separate(sizes).batches(size, order))
        expected = list(naive(sizes, size, plain))
        assert len(batches) == len(expected)
        for batch, rows in zip(batches, expected, strict=True):
            start = 0
            for t, name in enumerate(sizes):
                where, labels = batch.targets[name]
                assert labels.tolist() == [1000 * t + row for row in rows[name]]
                assert where == slice(start, start + len(labels)) and torch.equal(
                    batch.x[where][:, 0].long(), labels
                )
                start += len(labels)
            assert len(batch.x) == start
    assert torch.equal(order.get_state(), plain.get_state())


@pytest.mark.parametrize("size", [3, 4, 7, 16])
def test_a_shorter_set_is_shuffled_anew_after_each_pass(size):
    batches = list(separate({"long": 64, "short": 7}).batches(size, seeded()))
    seen = {
        name: torch.cat([b.targets[name][1] for b in batches]).tolist()
        for name in ("long", "short")
    }
    assert sorted(seen["long"]) == list(range(64)), "the longest, once"
    passes = [seen["short"][i : i + 7] for i in range(0, len(seen["short"]), 7)]
    whole = [p for p in passes if len(p) == 7]
    assert all(sorted(p) == list(range(1000, 1007)) for p in whole) and len(set(passes[-1])) == len(
        passes[-1]
    )
    assert len(whole) > 3 and len({tuple(p) for p in whole}) == len(whole)


@pytest.mark.parametrize(
    "data", [separate({"a": 20, "b": 7}), rows_table()], ids=["separate", "table"]
)
def test_the_generators_state_fixes_an_epoch(data):
    order = seeded(5)
    list(data.batches(4, order))
    state = order.get_state()
    second = [b.x for b in data.batches(4, order)]
    again = torch.Generator()
    again.set_state(state)
    assert all(torch.equal(a, b.x) for a, b in zip(second, data.batches(4, again), strict=True))
    assert any(not torch.equal(a, b.x) for a, b in zip(second, data.batches(4, order), strict=True))


def test_all_rows_of_separate_sets_are_there_one_task_after_the_other():
    whole = separate({"a": 3, "b": 2}).whole()
    assert whole.x[:, 0].tolist() == [0, 1, 2, 1000, 1001]
    assert whole.targets["b"][0] == slice(3, 5) and whole.targets["b"][1].tolist() == [1000, 1001]


def test_some_tasks_only():
    mask = torch.arange(23) % 5 == 2
    table = rows_table(labelled={"b": mask})
    few = table.only(["b"])
    assert (
        few.x is table.x
        and list(few.targets) == ["b"]
        and few.labelled["b"] is mask
        and not table.only(["a"]).labelled
    )
    sets = separate({"a": 20, "b": 7})
    assert list(sets.only(["b"]).sets) == ["b"] and sets.only(["b"]).sets["b"] is sets.sets["b"]
    assert [len(rows) for rows in (table, few, sets, sets.only(["b"]))] == [23, 23, 20, 7]


def test_a_repeated_set_makes_an_epoch_as_long_as_beside_a_longer_one():
    again = separate({"a": 20, "b": 7}).only(["b"]).repeated(20)
    x, y = again.sets["b"]
    assert y.tolist() == [1000 + row % 7 for row in range(20)] and torch.equal(x[:, 0].long(), y)
    assert len(list(again.batches(6, seeded()))) == len(
        list(separate({"a": 20, "b": 7}).batches(6, seeded()))
    )
    assert separate({"b": 7}).repeated(3).sets["b"][1].tolist() == [0, 1, 2]


def test_channels_last_stays():
    x, last = torch.randn(10, 3, 4, 4).to(memory_format=torch.channels_last), torch.channels_last
    y = torch.arange(10)
    for data in (Table(x, {"a": y}), Separate({"a": (x, y), "b": (x[:4], y[:4])})):
        for batch in [*data.batches(4, seeded()), data.whole()]:
            assert batch.x.is_contiguous(memory_format=last) and not batch.x.is_contiguous()


# ------------------------------------------------------------------------------------------ devices
def waits(data, size):
    with syncs.SyncCounter() as found:
        batches = sum(1 for _ in data.batches(size, seeded()))
    assert batches > 1
    return found


def test_no_batch_waits_for_the_device():
    assert not waits(rows_table(), 2) and not waits(separate({"a": 20, "b": 7}), 2)
    partly = rows_table(labelled={"b": torch.arange(23) % 2 == 0})
    assert waits(partly, 2) == waits(partly, 12) == {"nonzero": 1, "tolist": 1}, "once an epoch"


def test_batches_stay_on_the_device_of_the_data():
    gpu = PretendedGPU()

    def moved(pairs):
        return {name: tuple(gpu.take(v) for v in pair) for name, pair in pairs.items()}

    mask = gpu.take(torch.arange(23) % 2 == 0)
    table = rows_table()
    on_gpu = Table(
        gpu.take(table.x), {name: gpu.take(y) for name, y in table.targets.items()}, {"b": mask}
    )
    sets = Separate(moved(separate({"a": 20, "b": 7}).sets))
    with gpu:
        for data in (on_gpu, sets):
            for batch in [*data.batches(6, seeded()), data.whole()]:
                tensors = [
                    batch.x,
                    *(
                        v
                        for pair in batch.targets.values()
                        for v in pair
                        if isinstance(v, torch.Tensor)
                    ),
                ]
                assert {gpu.place(v) for v in tensors} == {"cuda"}
