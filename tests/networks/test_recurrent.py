"""Recurrent networks against torch's; rows of any lengths; what cannot be read."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mtl_course.data import pad
from mtl_course.data.batches import Table
from mtl_course.multitask import HardSharing, upgrad
from mtl_course.multitask.fit import step
from mtl_course.networks.recurrent import GRU, LSTM, LastState, gru_cell, lstm_cell
from mtl_course.training import regression

PAIRS = [(GRU, nn.GRU), (LSTM, nn.LSTM)]
LENGTHS = torch.tensor([3, 7, 1, 7, 4])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def twins(ours, theirs, layers=2, dtype=torch.float64):
    """The same network twice: by hand and torch's, with the weights of torch's."""
    oracle = theirs(3, 5, num_layers=layers, batch_first=True).to(dtype)
    network = ours(3, 5, layers=layers).to(dtype)
    network.load_state_dict(oracle.state_dict())
    return network, oracle


def padded(dtype=torch.float32):
    """Series of the lengths above, NaN after the end."""
    x = torch.randn(len(LENGTHS), 7, 3, dtype=dtype)
    x[torch.arange(7) >= LENGTHS[:, None]] = torch.nan
    return x


# ------------------------------------------------------------------------------------ torch's own
def test_the_gru_cell_is_torchs():
    cell, x, h = nn.GRUCell(3, 5).double(), torch.randn(4, 3).double(), torch.randn(4, 5).double()
    ours = gru_cell(x, h, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    torch.testing.assert_close(ours, cell(x, h), atol=1e-12, rtol=0)


def test_the_lstm_cell_is_torchs():
    cell, x = nn.LSTMCell(3, 5).double(), torch.randn(4, 3).double()
    h, c = torch.randn(2, 4, 5).double()
    ours = lstm_cell(x, h, c, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    torch.testing.assert_close(ours, cell(x, (h, c)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("ours, theirs", PAIRS)
@pytest.mark.parametrize("layers", [1, 2])
def test_parameters_have_torchs_names_and_shapes_in_its_order(ours, theirs, layers):
    network, oracle = ours(3, 5, layers), theirs(3, 5, layers)
    names = [(name, list(p.shape)) for name, p in network.named_parameters()]
    assert names == [(name, list(p.shape)) for name, p in oracle.named_parameters()]
    oracle.load_state_dict(network.state_dict())  # and the other way round
    assert all(0 < p.abs().max() <= 5**-0.5 for p in network.parameters()), "torch's range"


@pytest.mark.parametrize("ours, theirs", PAIRS)
@pytest.mark.parametrize("dtype, close", [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_outputs_and_gradients_of_full_rows_are_torchs(ours, theirs, dtype, close):
    network, oracle = twins(ours, theirs, dtype=dtype)
    x = torch.randn(4, 6, 3, dtype=dtype)
    outputs, last = network(x)
    expected, state = oracle(x)
    state = state[0] if isinstance(state, tuple) else state
    torch.testing.assert_close(outputs, expected, atol=close, rtol=0)
    torch.testing.assert_close(last, state[-1], atol=close, rtol=0)
    for model, z in ((network, outputs), (oracle, expected)):
        model.zero_grad()
        z.square().mean().backward()
    for a, b in zip(network.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=close, rtol=0)


@pytest.mark.parametrize("ours, theirs", PAIRS)
def test_rows_of_any_length_are_those_of_torchs_packed_sequences(ours, theirs):
    network, oracle = twins(ours, theirs)
    x = padded(torch.float64)
    outputs, last = network(x, LENGTHS)
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    expected, state = oracle(packed)
    expected, _ = pad_packed_sequence(expected, batch_first=True)
    state = state[0] if isinstance(state, tuple) else state
    torch.testing.assert_close(outputs, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(last, state[-1], atol=1e-12, rtol=0)


# ------------------------------------------------------------------------------ padding, gradients
@pytest.mark.parametrize("kind", [GRU, LSTM])
@pytest.mark.parametrize("filling", [1e30, torch.inf, torch.nan])
def test_padding_never_leaks(kind, filling):
    network, series, results = kind(3, 5, layers=2), padded(), []
    for value in (0.0, filling):
        network.zero_grad()
        outputs, last = network(series.masked_fill(series.isnan(), value), LENGTHS)
        (outputs.sum() + last.square().sum()).backward()
        results.append([outputs, last, *(p.grad.clone() for p in network.parameters())])
    for a, b in zip(*results, strict=True):
        assert a.isfinite().all() and torch.equal(a, b)


@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_a_row_does_not_depend_on_the_others(kind):
    network, x = kind(3, 5, layers=2).double(), padded(torch.float64)
    outputs, last = network(x, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, state = network(x[row : row + 1, :length])
        torch.testing.assert_close(outputs[row, :length], alone[0], atol=1e-12, rtol=0)
        torch.testing.assert_close(last[row], state[0], atol=1e-12, rtol=0)
        assert not outputs[row, length:].any()


@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_gradients_are_those_of_finite_differences(kind):
    network = kind(2, 3).double()
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: network(x, torch.tensor([4, 2])), (x,))


# -------------------------------------------------------------------------------------------- trunk
@pytest.mark.parametrize("ours, theirs", PAIRS)
def test_the_trunk_takes_torchs_networks_too(ours, theirs):
    network, oracle = twins(ours, theirs)
    x = padded(torch.float64)
    hand, fused = LastState(network), LastState(oracle)
    torch.testing.assert_close(hand(x), fused(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(hand.each_word(x), fused.each_word(x), atol=1e-12, rtol=0)
    assert hand.features == fused.features == 5
    fused(x).sum().backward()
    assert all(p.grad.isfinite().all() for p in oracle.parameters())
    for options in ({}, {"batch_first": True, "bidirectional": True}):
        with pytest.raises(ValueError, match="batch_first=True, one direction"):
            LastState(theirs(3, 5, **options))


def test_the_trunk_reads_texts_through_an_embedding():
    embed = nn.Embedding(9, 4, padding_idx=0)
    trunk = LastState(GRU(4, 5), embed)
    ids = torch.tensor([[3, 8, 2, 0], [5, 0, 0, 0]])
    _, last = trunk.network(embed(ids), torch.tensor([3, 1]))
    assert torch.equal(trunk(ids), last) and trunk.each_word(ids).shape == (2, 4, 5)


def test_a_batch_of_one_row_and_of_none():
    trunk = LastState(LSTM(3, 5))
    assert trunk(padded()[2:3]).shape == (1, 5)
    assert trunk(padded()[:0]).shape == (0, 5), "the last piece of a shorter set"


def test_its_features_can_be_balanced():
    """The gradients of all tasks go back through it, one by one or together."""
    trunk = LastState(GRU(3, 5))
    model = HardSharing(trunk, {"a": nn.Linear(5, 1), "b": nn.Linear(5, 1)})
    x = padded()
    batch = Table(x, {"a": torch.randn(5, 1), "b": torch.randn(5, 1)}).whole()
    tasks = {name: regression(name) for name in ("a", "b")}
    before = [p.clone() for p in trunk.parameters()]
    step(model, tasks, batch, torch.optim.SGD(model.parameters(), lr=0.1), upgrad)
    for a, b in zip(before, trunk.parameters(), strict=True):
        assert b.isfinite().all() and not torch.equal(a, b)


# ---------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    "lengths, message",
    [
        ([3, 0], "Row 1 has length 0; it must be 1 to 4"),
        ([5, 2], "Row 0 has length 5; it must be 1 to 4"),
        ([3], "one for each of the 2 rows"),
        ([3.0, 2.0], "whole numbers"),
    ],
)
def test_lengths_that_cannot_be(lengths, message):
    with pytest.raises(ValueError, match=message):
        GRU(3, 5)(torch.zeros(2, 4, 3), torch.tensor(lengths))


def test_series_that_cannot_be_read():
    trunk = LastState(GRU(3, 5))

    def changed(row, place, value):
        x = padded()
        x[row, place] = value
        return x

    for x, message in (
        (changed(2, 0, torch.nan), "Row 2 has no step, only padding"),
        (changed(1, 4, torch.nan), "Row 1 has a gap at place 4"),
        (changed(3, 2, torch.tensor([1.0, torch.nan, 1.0])), "Row 3 has nan at place 2, column 1"),
        (changed(3, 2, torch.inf), "Row 3 has inf at place 2, column 0"),
    ):
        with pytest.raises(ValueError, match=message):
            trunk(x)
    for shape in ((2, 0, 3), (2, 4), (2, 4, 4)):
        with pytest.raises(ValueError, match=r"shape|B, L"):
            trunk(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"series \[B, L, 3\] of at least one step"):
        GRU(3, 5)(torch.zeros(2, 0, 3))


def test_tokens_that_cannot_be_read():
    trunk = LastState(GRU(4, 5), nn.Embedding(9, 4))
    for ids, message in (
        ([[3, 2], [0, 0]], "Row 1 has no token, only padding"),
        ([[3, 2, 1], [4, 0, 2]], "Row 1 has a gap at place 1"),
        ([[3, 2], [4, 9]], "Row 1 has the token 9 at place 1, outside the vocabulary of 9"),
        ([[3, -2], [4, 8]], "Row 0 has the token -2 at place 1"),
    ):
        with pytest.raises(ValueError, match=message):
            trunk(torch.tensor(ids))


def test_sizes_that_cannot_be():
    for sizes in ((0, 5, 1), (3, 0, 1), (3, 5, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            GRU(*sizes)


def test_series_padded_by_the_loader_are_read_to_their_ends():
    series = [torch.randn(n, 3) for n in (4, 1, 6)]
    trunk = LastState(GRU(3, 5))
    alone = torch.cat([trunk(row[None]) for row in series])
    torch.testing.assert_close(trunk(pad(series)), alone)
