"""Sequences of unequal length: padded, numbered, in batches of like length; what is refused."""

import pytest
import torch
from torch import nn

from mtl_course.checks.devices import PretendedGPU
from mtl_course.data import Sequences, pad, text_ids
from mtl_course.multitask import HardSharing, fit_tasks
from mtl_course.networks import GRU, LastState, WordPiece, present, vocabulary
from mtl_course.training import classification, syncs

TOKENS = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "it", "fit", "##s"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ids_of(lengths):
    """Texts of these lengths that tell their row: row + 1, again and again."""
    x = torch.arange(1, len(lengths) + 1)[:, None].expand(-1, max(lengths)).clone()
    x[torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]] = 0
    return x


def table(n=50, longest=30, pool=16, **options):
    lengths = torch.randint(1, longest + 1, (n,), generator=seeded(1)).tolist()
    return Sequences(ids_of(lengths), {"row": torch.arange(n)}, pool=pool, **options), lengths


# --------------------------------------------------------------------------------------- to tensors
def test_series_are_padded_with_what_cannot_be_read():
    series = [torch.randn(n, 3).numpy() for n in (2, 5, 1)]
    x = pad(series)
    assert x.shape == (3, 5, 3) and x.dtype == torch.float32
    assert present(x).sum(1).tolist() == [2, 5, 1]
    for row, values in zip(x, series, strict=True):
        assert torch.equal(row[: len(values)], torch.from_numpy(values))
    assert pad([[1.0, 2.0], [3.0]]).shape == (2, 2, 1)


@pytest.mark.parametrize(
    "series, message",
    [
        ([], "There is no series"),
        ([[[1.0]], []], r"Series 1 has the shape \[0, 1\]; it needs at least one step"),
        ([[[1.0]], [[1.0, 2.0]]], "Series 1 has 2 columns and series 0 has 1"),
        ([[[1.0]], [[1.0], [float("nan")]]], "Series 1 has nan at step 1, column 0"),
        ([[[float("inf")]]], "Series 0 has inf at step 0, column 0"),
    ],
)
def test_series_that_cannot_be_padded(series, message):
    with pytest.raises(ValueError, match=message):
        pad(series)


def test_texts_are_numbered_by_the_pieces_there_are():
    texts = ["It fits", "it", "it is it"]
    assert torch.equal(text_ids(texts, TOKENS), TOKENS(texts))
    assert text_ids(["it fits it"], TOKENS, length=3).tolist() == [[2, 4, 3]]


@pytest.mark.parametrize(
    "texts, message",
    [
        ([], "There is no text"),
        (["it", None], "Row 1 is no text but None"),
        (["it", float("nan")], "Row 1 is no text but nan"),
        (["it", " \n"], "Row 1 is an empty text"),
        (["it", "what else"], "Row 1, 'what else', has no piece that is in the vocabulary"),
        (["it", "\u200b"], "Row 1, .* has no piece"),
    ],
)
def test_texts_that_say_nothing(texts, message):
    with pytest.raises(ValueError, match=message):
        text_ids(texts, TOKENS)


def test_a_vocabulary_has_the_frequent_words_and_spells_the_others():
    texts = ["the cat sat", "the cat ran", "the dog"]
    pieces = vocabulary(texts, size=26)
    assert pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(pieces) == len(set(pieces)) == 26 and pieces[23:] == ["the", "cat", "dog"]
    tokens = WordPiece(pieces)
    assert tokens.pieces("the Cat") == ["the", "cat"]
    assert tokens.pieces("tao") == ["t", "##a", "##o"], "spelled with what occurs inside a word"
    assert vocabulary(reversed(texts), 26) == pieces, "the same in any order"
    assert len(vocabulary(texts, 1000)) == 28, "there are no more words"
    with pytest.raises(ValueError, match="take 23 pieces and size is 9"):
        vocabulary(texts, 9)


# ------------------------------------------------------------------------------------------ batches
@pytest.mark.parametrize("size", [1, 7, 10, 64])
@pytest.mark.parametrize("pool", [1, 3, 16])
def test_every_row_comes_once_with_its_label_and_no_longer_than_its_batch(size, pool):
    rows, lengths = table(pool=pool)
    seen = []
    for batch in rows.batches(size, seeded()):
        _, labels = batch.targets["row"]
        assert (batch.x[:, 0] == labels + 1).all(), "labels go with their rows"
        assert batch.x.shape[1] == max(lengths[row] for row in labels.tolist())
        seen += labels.tolist()
    assert sorted(seen) == list(range(50)) and seen != sorted(seen)
    sizes = [len(batch.x) for batch in rows.batches(size, seeded())]
    assert sizes == [min(size, 50 - start) for start in range(0, 50, size)]


def test_batches_have_less_padding_and_come_in_another_order_each_time():
    rows, lengths = table(n=400)
    generator = seeded()
    first, second = (list(rows.batches(20, generator)) for _ in range(2))
    places = sum(batch.x.numel() for batch in first)
    assert places < 1.1 * sum(lengths) < 0.6 * rows.x.numel()
    widths = [batch.x.shape[1] for batch in first]
    assert widths != sorted(widths), "short and long batches are mixed"
    assert not all(torch.equal(a.x, b.x) for a, b in zip(first, second, strict=True))
    again = list(rows.batches(20, seeded()))
    assert all(torch.equal(a.x, b.x) for a, b in zip(first, again, strict=True))


def test_a_last_row_joins_the_batch_before_it_and_partial_labels_stay_with_their_rows():
    mask = torch.arange(21) % 3 == 0
    rows, _ = table(n=21, labelled={"row": mask})
    batches = list(rows.batches(10, seeded(), least=2))
    assert [len(batch.x) for batch in batches] == [10, 11]
    seen = []
    for batch in batches:
        places, labels = batch.targets["row"]
        assert (batch.x[places, 0] == labels + 1).all()
        seen += labels.tolist()
    assert sorted(seen) == list(range(0, 21, 3))


def test_no_batch_waits_for_the_device():
    gpu, (rows, _) = PretendedGPU(), table()
    on_gpu = Sequences(gpu.take(rows.x), {"row": gpu.take(rows.targets["row"])})
    with gpu:
        with syncs.SyncCounter() as waits:
            batches = list(on_gpu.batches(8, seeded()))
        assert waits == {"tolist": 2}, "for numbers on the CPU, once an epoch"
        assert len(batches) == 7
        assert len({batch.x.shape[1] for batch in batches}) > 1


def test_some_tasks_alone_and_everything_at_once():
    rows, _ = table(n=9)
    both = Sequences(rows.x, {"a": torch.arange(9), "b": torch.arange(9)}, pool=2)
    alone = both.only(["b"])
    assert type(alone) is Sequences and list(alone.targets) == ["b"] and alone.pool == 2
    assert torch.equal(alone.whole().x, rows.x)


def test_a_network_that_reads_series_trains_on_them():
    torch.manual_seed(0)
    kinds = torch.arange(60) % 2
    x = pad([torch.randn(1 + n % 7, 2) + 3 * kinds[n] for n in range(60)])
    data = Sequences(x, {"kind": kinds, "other": 1 - kinds})
    heads = {"kind": nn.Linear(4, 2), "other": nn.Linear(4, 2)}
    model = HardSharing(LastState(GRU(2, 4)), heads)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    tasks = {name: classification(name) for name in heads}
    history = fit_tasks(model, tasks, data, data, optimizer, epochs=10, batch=8, progress=False)
    assert min(history.best.values()) > 0.9


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.tensor([[3, 2], [0, 0]]), "Row 1 has nothing but padding"),
        (torch.tensor([[3, 2, 1], [3, 0, 1]]), "Row 1 goes on after its padding"),
        (torch.tensor([[[1.0], [2.0]], [[torch.nan], [2.0]]]), "Row 1 goes on after its padding"),
        (torch.full((2, 3, 1), torch.nan), "Row 0 has nothing but padding"),
        (torch.ones(2, 3), r"floats \[N, L, D\] for series; these are torch.float32 \[2, 3\]"),
    ],
)
def test_sequences_that_cannot_be_read(x, message):
    with pytest.raises(ValueError, match=message):
        Sequences(x, {"a": torch.arange(2)})
    with pytest.raises(ValueError, match="pool must be at least 1"):
        Sequences(torch.ones(2, 3).long(), {"a": torch.arange(2)}, pool=0)
