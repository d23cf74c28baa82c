"""Small models: weights as 8-bit integers, bytes as they are stored, memory of a forward pass.

Only the weights are rounded; inputs, activations and arithmetic stay in floating point. torch's own
tools for pruning (`torch.nn.utils.prune`) go with it.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..training.modes import evaluating

CONVOLUTIONS = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


# --------------------------------------------------------------------------------- 8-bit weights
def quantize(weight: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Round each output channel of a weight to whole numbers times a scale of its own.

    Symmetric: 0 stays 0, and the largest entry of a channel becomes +-(2^(bits-1) - 1). No entry
    moves by more than half its channel's scale.

    Args:
        weight: [out, ...], of floating point, finite.
        bits: 2 to 8; the numbers are stored in int8 whatever it is.

    Returns:
        (int8 [out, ...], scale [out], in the weight's dtype and above 0).

    Raises:
        ValueError: bits out of range, or a weight without an output dimension.
        TypeError: a weight that is not of floating point.
        FloatingPointError: a weight that is not finite.

    Example:
        >>> q, scale = quantize(torch.tensor([[254.0, -127.3], [0.0, 15.875]]))
        >>> q.tolist(), scale.tolist()
        ([[127, -64], [0, 127]], [2.0, 0.125])
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits is {bits}; int8 holds 2 to 8 of them.")
    if not weight.is_floating_point():
        raise TypeError(f"The weight is {weight.dtype} already; quantize takes floating point.")
    if weight.ndim < 1 or not weight.numel():
        raise ValueError(f"A weight has output channels; this one has shape {tuple(weight.shape)}.")
    weight = weight.detach()
    if not weight.isfinite().all():
        raise FloatingPointError("The weight is not finite: its training diverged.")
    top = 2 ** (bits - 1) - 1
    largest = weight.abs().flatten(1).amax(dim=1) if weight.ndim > 1 else weight.abs()
    # A channel of zeros has no scale of its own. Nor has one so small that its scale would be 0.
    scale = largest / top
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    q = (weight / _along(scale, weight)).round().clamp(-top, top)
    return q.to(torch.int8), scale


def dequantize(q: Tensor, scale: Tensor) -> Tensor:
    """The weight that whole numbers and scales stand for.

    Args:
        q: int8 [out, ...].
        scale: [out].

    Returns:
        [out, ...], in the scale's dtype.

    Raises:
        ValueError: another number of scales than of output channels.

    Example:
        >>> dequantize(torch.tensor([[2, -1], [0, 3]], dtype=torch.int8), torch.tensor([0.5, 2.0]))
        tensor([[ 1.0000, -0.5000],
                [ 0.0000,  6.0000]])
    """
    if scale.shape != q.shape[:1]:
        raise ValueError(
            f"There are {tuple(scale.shape)} scales for a weight of shape {tuple(q.shape)}:"
            " one per output channel."
        )
    return q.to(scale.dtype) * _along(scale, q)


class Int8Layer(nn.Module):
    """A linear layer or convolution whose weight is stored in 8 bits; it computes in floats.

    The weight is a buffer: this layer is for use, not for training. `quantized` puts it into a
    model.

    Args:
        layer: an nn.Linear, nn.Conv1d, nn.Conv2d or nn.Conv3d; it is left as it is.
        bits: 2 to 8.

    Raises:
        TypeError: a layer of another type.

    Example:
        >>> layer = nn.Linear(64, 3)
        >>> small = Int8Layer(layer)
        >>> x = torch.ones(1, 64)
        >>> error = (small(x) - layer(x)).abs()
        >>> bool((error <= 64 * small.scale / 2 + 1e-6).all()), small.weight_int8.dtype
        (True, torch.int8)
    """

    def __init__(self, layer: nn.Module, bits: int = 8):
        super().__init__()
        if type(layer) not in (nn.Linear, *CONVOLUTIONS):
            raise TypeError(
                f"Int8Layer takes nn.Linear and convolutions, not {type(layer).__name__}."
            )
        q, scale = quantize(layer.weight, bits)
        self.register_buffer("weight_int8", q)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.apply_weight = _with_weight(layer)
        self.shown = f"{layer.extra_repr()}, bits={bits}"

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return self.shown

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output with the rounded weight."""
        weight = dequantize(self.weight_int8, self.scale)
        return self.apply_weight(x, weight.to(x.dtype), self.bias)


def quantized(model: nn.Module, bits: int = 8) -> nn.Module:
    """A copy of a model whose linear layers and convolutions store their weights in 8 bits.

    Biases, norms, embeddings and whatever else there is stay in floats. A layer that occurs twice
    is one layer in the copy, too, and layers that share a weight share its numbers. Subclasses of
    these layers (as in nn.MultiheadAttention) and transposed convolutions are left alone.

    Args:
        model: any module; left as it is.
        bits: 2 to 8.

    Returns:
        The copy, in evaluation mode.

    Raises:
        ValueError: there is no such layer in it, or bits is out of range.
        FloatingPointError: a weight that is not finite; names the layer.

    Example:
        >>> model = nn.Sequential(nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 10))
        >>> small = quantized(model)
        >>> stored_bytes(model), stored_bytes(small)  # 4 bytes a number, and 1
        (17128, 4464)
    """
    copy = deepcopy(model)
    if type(copy) in (nn.Linear, *CONVOLUTIONS):
        return Int8Layer(copy, bits).eval()
    made: dict[int, Int8Layer] = {}
    numbers: dict[int, Int8Layer] = {}  # of each weight, which layers may share
    for path, parent in list(copy.named_modules()):
        for name, child in list(parent._modules.items()):
            if type(child) not in (nn.Linear, *CONVOLUTIONS):
                continue
            if id(child) not in made:
                try:
                    made[id(child)] = Int8Layer(child, bits)
                except FloatingPointError as error:
                    where = f"{path}.{name}" if path else name
                    raise FloatingPointError(f"Layer {where}: {error}") from None
                first = numbers.setdefault(id(child.weight), made[id(child)])
                made[id(child)].weight_int8 = first.weight_int8
                made[id(child)].scale = first.scale
            setattr(parent, name, made[id(child)])
    if not made:
        raise ValueError(
            f"{type(model).__name__} has no linear layer and no convolution to store in 8 bits."
        )
    return copy.eval()


# ------------------------------------------------------------------------------- bytes and memory
def stored_bytes(model: nn.Module) -> int:
    """Bytes of all numbers that a checkpoint of the model holds; what is shared counts once.

    Args:
        model: any module. A file has a few kilobytes more, for names and shapes.

    Returns:
        Bytes.

    Example:
        >>> stored_bytes(nn.Linear(10, 4)), stored_bytes(nn.Linear(10, 4).half())  # 44 numbers
        (176, 88)
    """
    return sum(t.numel() * t.element_size() for t in _stored(model))


def sparse_bytes(model: nn.Module) -> int:
    """Bytes of a checkpoint that leaves zeros out, with one bit per number to say where.

    Args:
        model: any module, such as a pruned one after ``prune.remove``. A tensor that is shorter as
            it is stays as it is.

    Returns:
        Bytes.

    Example:
        >>> layer = nn.Linear(16, 4, bias=False)
        >>> layer.weight.data[:3] = 0
        >>> stored_bytes(layer), sparse_bytes(layer)  # 64 x 4, and 16 x 4 + 64 / 8
        (256, 72)
    """
    total = 0
    for t in _stored(model):
        kept = int(t.count_nonzero()) * t.element_size() + (t.numel() + 7) // 8
        total += min(kept, t.numel() * t.element_size())
    return total


def working_bytes(model: nn.Module, x: Tensor) -> int:
    """The most memory that a layer's input and output take together, in a forward pass.

    For a chain of layers this is what a device must have beside the weights: it forgets a layer's
    input when the output is there. Shortcuts keep more alive.

    Args:
        model: any module; its mode is put back.
        x: inputs on the model's device; one row for a device that sees one at a time.

    Returns:
        Bytes. Flattening moves nothing and counts nothing.

    Example:
        >>> model = nn.Sequential(nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 10))
        >>> working_bytes(model, torch.zeros(1, 256))  # (256 + 16) x 4
        1088
    """
    most = 0

    def look(module, inputs, output):
        nonlocal most
        tensors = [t for t in (*inputs, output) if isinstance(t, Tensor)]
        most = max(most, sum(t.numel() * t.element_size() for t in tensors))

    leaves = [m for m in model.modules() if not any(True for _ in m.children())]
    leaves = [m for m in leaves if not isinstance(m, nn.Flatten | nn.Identity)]
    hooks = [m.register_forward_hook(look) for m in leaves]
    try:
        with evaluating(model), torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return most


def call_seconds(models: Mapping[str, nn.Module], x: Tensor, rounds: int = 100) -> dict[str, float]:
    """Median time of a forward pass of each model, in evaluation mode and without gradients.

    The calls take turns, so that whatever else the machine does slows all of them down; compare
    their ratios, not the seconds.

    Args:
        models: name -> module from x to anything; modes are put back.
        x: inputs on the models' device.
        rounds: calls of each.

    Returns:
        Name -> seconds.

    Raises:
        ValueError: fewer than one round.

    Example:
        >>> models = {"wide": nn.Linear(512, 512), "narrow": nn.Linear(512, 2)}
        >>> seconds = call_seconds(models, torch.zeros(64, 512), rounds=20)
        >>> seconds["wide"] > seconds["narrow"]
        True
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; a median needs at least one call of each.")
    taken: dict[str, list[float]] = {name: [] for name in models}
    with evaluating(*models.values()), torch.no_grad():
        for _ in range(rounds):
            for name, model in models.items():
                start = time.perf_counter()
                model(x)
                if x.is_cuda:
                    torch.cuda.synchronize(x.device)
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


# ---------------------------------------------------------------------------------------- helpers
def _stored(model: nn.Module) -> list[Tensor]:
    """The tensors of a model's state, each once, whatever names it has."""
    tensors = [t for t in model.state_dict(keep_vars=True).values() if isinstance(t, Tensor)]
    places = {(t.data_ptr(), t.dtype, tuple(t.shape)) if t.numel() else id(t): t for t in tensors}
    return list(places.values())


def _along(scale: Tensor, weight: Tensor) -> Tensor:
    """One number per output channel, shaped so that it multiplies the weight."""
    return scale.view(-1, *[1] * (weight.ndim - 1))


def _with_weight(layer: nn.Module) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """(x, weight, bias) -> what the layer would give with them."""
    if isinstance(layer, nn.Linear):
        return F.linear
    return _Convolution(layer)


class _Convolution:
    """A convolution's stride and padding, without its weight. Copies and pickles like data."""

    def __init__(self, layer: nn.Module):
        self.run = CONVOLUTIONS[type(layer)]
        self.options = (layer.stride, layer.padding, layer.dilation, layer.groups)
        self.mode, self.pad = layer.padding_mode, layer._reversed_padding_repeated_twice

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        stride, padding, dilation, groups = self.options
        if self.mode != "zeros":
            x, padding = F.pad(x, self.pad, mode=self.mode), 0
        return self.run(x, weight, bias, stride, padding, dilation, groups)
