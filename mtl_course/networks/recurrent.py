"""Recurrent networks by hand: the cells of GRU and LSTM, layers of them, and a trunk of either.

    trunk = LastState(GRU(12, 32))  # series [B, L, 12], NaN after the end -> features [B, 32]
    trunk = LastState(GRU(16, 32), nn.Embedding(5000, 16))  # texts int64 [B, L], 0 after the end

Parameters have the names and shapes of torch's, so states can be loaded both ways:
``GRU(12, 32).load_state_dict(nn.GRU(12, 32).state_dict())``. `LastState` takes torch's own networks
too, whose steps are fused.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .sequences import embedded, present


# -------------------------------------------------------------------------------------------- cells
def gru_cell(
    x: Tensor, h: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> Tensor:
    """One step of a GRU: h' = (1 - z) n + z h.

    The gates r = sigmoid(W_r x + U_r h), to reset, and z = sigmoid(W_z x + U_z h), to keep; the
    candidate n = tanh(W_n x + r (U_n h)). Each product has its bias.

    Args:
        x: inputs [B, D].
        h: states [B, H].
        weight_ih: [3 H, D], the matrices W of r, z and n.
        weight_hh: [3 H, H], the matrices U of r, z and n.
        bias_ih: [3 H], of the products with x.
        bias_hh: [3 H], of the products with h.

    Returns:
        The next states [B, H].

    Source:
        Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical
        Machine Translation", EMNLP 2014, equations 5 to 8; r after the product, as in cuDNN.

    Example:
        >>> zeros = torch.zeros(6, 1), torch.zeros(6, 2), torch.zeros(6), torch.zeros(6)
        >>> gru_cell(torch.ones(1, 1), torch.tensor([[4.0, -2.0]]), *zeros)  # z = 1/2, n = 0
        tensor([[ 2., -1.]])
    """
    return _gru(F.linear(x, weight_ih, bias_ih), h, weight_hh, bias_hh)


def _gru(inputs: Tensor, h: Tensor, weight_hh: Tensor, bias_hh: Tensor) -> Tensor:
    """`gru_cell`, its products with x already made: inputs [B, 3 H]."""
    r_x, z_x, n_x = inputs.chunk(3, dim=1)
    r_h, z_h, n_h = F.linear(h, weight_hh, bias_hh).chunk(3, dim=1)
    r = torch.sigmoid(r_x + r_h)
    z = torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * n_h)
    return (1 - z) * n + z * h


def lstm_cell(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: c' = f c + i g, h' = o tanh(c').

    The gates i, f and o (in, forget, out) are sigmoid(W x + U h) with matrices of their own, and
    g = tanh(W_g x + U_g h). Each product has its bias.

    Args:
        x: inputs [B, D].
        h: states [B, H].
        c: memories [B, H].
        weight_ih: [4 H, D], the matrices W of i, f, g and o.
        weight_hh: [4 H, H], the matrices U of i, f, g and o.
        bias_ih: [4 H], of the products with x.
        bias_hh: [4 H], of the products with h.

    Returns:
        The next states and the next memories, both [B, H].

    Source:
        Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997; the
        forget gate: Gers, Schmidhuber and Cummins, "Learning to Forget: Continual Prediction with
        LSTM", Neural Computation 12(10), 2000.

    Example:
        >>> zeros = torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4), torch.zeros(4)
        >>> h, c = lstm_cell(torch.ones(1, 1), torch.ones(1, 1), torch.full((1, 1), 4.0), *zeros)
        >>> c.item(), round(h.item(), 4)  # every gate is 1/2: c' = 4 / 2, h' = tanh(2) / 2
        (2.0, 0.482)
    """
    return _lstm(F.linear(x, weight_ih, bias_ih), h, c, weight_hh, bias_hh)


def _lstm(inputs: Tensor, h: Tensor, c: Tensor, weight_hh: Tensor, bias_hh: Tensor):
    """`lstm_cell`, its products with x already made: inputs [B, 4 H]."""
    i, f, g, o = (inputs + F.linear(h, weight_hh, bias_hh)).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


# ------------------------------------------------------------------------------------------- layers
class _Recurrent(nn.Module):
    """Layers of one kind of cell, from the first step to each row's last."""

    def __init__(self, inputs: int, features: int, layers: int, gates: int, states: int):
        """`gates` are stacked in each matrix; of the `states` that a cell hands on, the first is
        its output."""
        super().__init__()
        if min(inputs, features, layers) < 1:
            raise ValueError(
                "inputs, features and layers must be at least 1;"
                f" they are {inputs}, {features} and {layers}."
            )
        self.inputs, self.features, self.layers, self.states = inputs, features, layers, states
        rows, bound = gates * features, features**-0.5
        for layer in range(layers):
            shapes = {
                "weight_ih": (rows, features if layer else inputs),
                "weight_hh": (rows, features),
                "bias_ih": (rows,),
                "bias_hh": (rows,),
            }
            for name, shape in shapes.items():
                values = torch.empty(shape).uniform_(-bound, bound)
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(values))

    def _next(self, inputs: Tensor, state: Tensor, weight_hh: Tensor, bias_hh: Tensor) -> Tensor:
        """The next state [S, n, H] of n rows, from inputs [n, gates H] and state [S, n, H]."""
        raise NotImplementedError

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The last layer's output at each step, and each row's last one.

        What stands after a row's end has no influence, whatever it is, NaN among it.

        Args:
            x: series [B, L, inputs].
            lengths: int64 [B], steps of each row, 1 to L; None if all rows have L.

        Returns:
            Outputs [B, L, features], zero after the end of a row, and last ones [B, features].

        Raises:
            ValueError: for another shape, and for a length below 1 or above L; it names the row.
        """
        if x.dim() != 3 or x.shape[2] != self.inputs or not x.shape[1]:
            raise ValueError(
                f"This network reads series [B, L, {self.inputs}] of at least one step; these have"
                f" the shape {list(x.shape)}."
            )
        rows, steps = x.shape[:2]
        if lengths is None:
            lengths = torch.full((rows,), steps, device=x.device)
        _require_lengths(lengths, rows, steps)
        place = torch.arange(steps, device=x.device)
        there = place < lengths.to(x.device)[:, None]
        # The longest rows first: at every step those that go on are the first n.
        order = lengths.to(x.device).argsort(descending=True, stable=True)
        longest = int(lengths.max()) if rows else steps
        running = there[:, :longest].sum(0).tolist()
        z = x.masked_fill(~there[..., None], 0)[order, :longest]
        for layer in range(self.layers):
            z, last = self._layer(z, running, layer)
        back = order.argsort()
        return F.pad(z, (0, 0, 0, steps - longest))[back], last[back]

    def _layer(self, z: Tensor, running: list[int], layer: int) -> tuple[Tensor, Tensor]:
        """Outputs [B, L, H] and last ones [B, H] of a layer; at step t the first n rows go on."""
        weight_ih, weight_hh, bias_ih, bias_hh = (
            getattr(self, f"{name}_l{layer}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        inputs = F.linear(z, weight_ih, bias_ih).unbind(1)  # the products with x, all at once
        state, outputs = z.new_zeros(self.states, len(z), self.features), []
        for x_t, n in zip(inputs, running, strict=True):
            new = self._next(x_t[:n], state[:, :n], weight_hh, bias_hh)
            state = torch.cat([new, state[:, n:]], dim=1) if n < len(z) else new
            outputs.append(F.pad(new[0], (0, 0, 0, len(z) - n)))
        return torch.stack(outputs, dim=1), state[0]

    def extra_repr(self) -> str:
        return f"{self.inputs}, {self.features}, layers={self.layers}"


class GRU(_Recurrent):
    """Layers of `gru_cell`: series to the states at each step, and at each row's last.

    Called with x [B, L, inputs] and lengths int64 [B] (None: all L), it gives outputs
    [B, L, features], zero after the end of a row, and last ones [B, features]. A row depends on no
    other row and on nothing after its end.

    Args:
        inputs: numbers per step.
        features: numbers per state.
        layers: how many, each upon the outputs of the one before.

    Raises:
        ValueError: for a size below 1; when called, for another shape, and for a length below 1 or
            above L; it names the row.

    Source:
        As `gru_cell`.

    Example:
        >>> network = GRU(12, 8)
        >>> outputs, last = network(torch.randn(2, 5, 12), torch.tensor([5, 3]))
        >>> list(outputs.shape), torch.equal(last[1], outputs[1, 2]), outputs[1, 3:].any().item()
        ([2, 5, 8], True, False)
    """

    def __init__(self, inputs: int, features: int, layers: int = 1):
        super().__init__(inputs, features, layers, gates=3, states=1)

    def _next(self, inputs: Tensor, state: Tensor, weight_hh: Tensor, bias_hh: Tensor) -> Tensor:
        return _gru(inputs, state[0], weight_hh, bias_hh)[None]


class LSTM(_Recurrent):
    """Layers of `lstm_cell`: series to the states at each step, and at each row's last.

    It is called, and answers, as `GRU` is and does.

    Args:
        inputs: numbers per step.
        features: numbers per state.
        layers: how many, each upon the outputs of the one before.

    Raises:
        ValueError: as from `GRU`.

    Source:
        As `lstm_cell`.

    Example:
        >>> outputs, last = LSTM(12, 8, layers=2)(torch.randn(2, 5, 12))
        >>> list(outputs.shape), torch.equal(last, outputs[:, -1])
        ([2, 5, 8], True)
    """

    def __init__(self, inputs: int, features: int, layers: int = 1):
        super().__init__(inputs, features, layers, gates=4, states=2)

    def _next(self, inputs: Tensor, state: Tensor, weight_hh: Tensor, bias_hh: Tensor) -> Tensor:
        return torch.stack(_lstm(inputs, *state, weight_hh, bias_hh))


def _require_lengths(lengths: Tensor, rows: int, steps: int) -> None:
    """ValueError unless these are whole numbers from 1 to `steps`, one per row."""
    if lengths.shape != (rows,) or lengths.is_floating_point():
        raise ValueError(
            f"lengths must be whole numbers, one for each of the {rows} rows; they are"
            f" {lengths.dtype} {list(lengths.shape)}."
        )
    if lengths.device.type == "cpu" and (bad := (lengths < 1) | (lengths > steps)).any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"Row {row} has length {int(lengths[row])}; it must be 1 to {steps}, the steps of x."
        )


# -------------------------------------------------------------------------------------------- trunk
class LastState(nn.Module):
    """A recurrent trunk: padded series or texts in, each row's last state out.

    Args:
        network: `GRU` or `LSTM`, or torch's with batch_first=True, in one direction.
        embed: module from x to what the network reads, [B, L, inputs]: ``nn.Embedding`` for texts;
            None for series, which are read as they are.

    Raises:
        ValueError: for a network of torch that is not batch_first or reads both ways; when called,
            as from `present`: an empty row, a gap, a number that is not finite; a token without a
            place in the embedding.

    Example:
        >>> trunk = LastState(GRU(3, 8))
        >>> x = torch.randn(2, 5, 3)
        >>> x[1, 2:] = torch.nan  # the second series has two steps
        >>> list(trunk(x).shape), torch.allclose(trunk(x)[1], trunk(x[1:, :2])[0])
        ([2, 8], True)
        >>> words = LastState(LSTM(4, 8), nn.Embedding(100, 4, padding_idx=0))
        >>> list(words(torch.tensor([[5, 7, 9], [5, 0, 0]])).shape)
        [2, 8]
    """

    def __init__(self, network: nn.Module, embed: nn.Module | None = None):
        super().__init__()
        if isinstance(network, nn.RNNBase) and (
            not network.batch_first or network.bidirectional or network.proj_size
        ):
            raise ValueError(
                "A network of torch must be made with batch_first=True, one direction and no"
                " projection."
            )
        self.embed, self.network = embed, network

    @property
    def features(self) -> int:
        """Numbers per row that it gives."""
        network = self.network
        return network.hidden_size if isinstance(network, nn.RNNBase) else network.features

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [B, L, features] and last ones [B, features]."""
        there = present(x)
        lengths = there.sum(1)
        z = x if self.embed is None else embedded(self.embed, x, there)
        if not isinstance(self.network, nn.RNNBase):
            return self.network(z, lengths)
        packed = pack_padded_sequence(z, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, last = self.network(packed)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
        return outputs, (last[0] if isinstance(last, tuple) else last)[-1]

    def each_word(self, x: Tensor) -> Tensor:
        """The network's output [B, L, features] at each word or step, zero after the end."""
        return self._read(x)[0]

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, features]: x is padded, series with NaN and texts with 0."""
        return self._read(x)[1]
