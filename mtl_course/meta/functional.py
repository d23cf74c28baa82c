"""A model as a function of its parameters, for `torch.func`; with BatchNorm handled by name."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm

from ..training.graphs import has_looped, uses
from ..training.modes import is_held, places

Params = dict[str, Tensor]

_functionals: weakref.WeakSet["Functional"] = weakref.WeakSet()


def models_with(parameters: Iterable[Tensor]) -> list[nn.Module]:
    """The models of all functionals that one of these parameters belongs to."""
    wanted = {id(p) for p in parameters}
    return [f.model for f in _functionals if any(id(p) in wanted for p in f.model.parameters())]


class Functional:
    """``f(params, x)``: a model's output with these parameters in place of its own.

    The model itself is never changed, nor any buffer of it. The mode of each module (training or
    evaluation) and the buffers are read anew at every call; so are the parameters that `params`
    does not name. A frozen norm keeps its running statistics, and spectral norms the estimates that
    they have.

    With BatchNorm there is a choice to make, so it has to be made. Statistics of the very batch
    that is passed (`transductive`) let the prediction for one query depend on the other queries, a
    help that many published numbers contain. The running statistics must have been learned before;
    they do not change here. InstanceNorm with running statistics has the same choice.

    Args:
        model: any module that takes inputs [n, ...].
        transductive: for a model with BatchNorm, True for the statistics of the batch at hand,
            False for the running statistics; None where there is no BatchNorm.
        at_once: how many tasks are taken together; None leaves it to `Functional.at_once`.

    Raises:
        ValueError: a model with BatchNorm comes without the choice, or with the choice of running
            statistics that it does not have; or `at_once` is below 1.

    Example:
        >>> from mtl_course.meta import Functional
        >>> f = Functional(nn.Linear(2, 1, bias=False))
        >>> f({"weight": torch.tensor([[3.0, 4.0]])}, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([[3.],
                [4.]])
    """

    def __init__(
        self, model: nn.Module, transductive: bool | None = None, at_once: int | None = None
    ):
        # The twin's modes and statistics may be set; its parameters always come from outside.
        self.model, self.transductive, self._twin = model, transductive, deepcopy(model)
        modules = list(self._twin.modules())
        self._modules = list(zip(modules, model.modules(), strict=True))
        # The statistics of a norm of the twin are there, or None, as a call needs them.
        self._norms = [
            (twin, norm, {key: twin._buffers[key] for key in _STATISTICS})
            for twin, norm in self._modules
            if isinstance(norm, _BatchNorm)
            or (isinstance(norm, _NormBase) and norm.running_mean is not None)
        ]
        self._require_choice()
        if at_once is not None and at_once < 1:
            raise ValueError(f"at_once is {at_once}; at least one task is taken at a time.")
        self._recurrent = any(isinstance(m, nn.RNNBase) for m in modules)
        for layer in modules:
            # Another forward pass for the twin's linear layers. The class is swapped, not the
            # module, so that names, hooks and layers that occur twice stay as they are.
            if type(layer) is nn.Linear:
                layer.__class__ = _Linear
        # Power iterations write to their module, and do so in training mode only.
        self._estimates = [m for m in modules if isinstance(m, _SpectralNorm)]
        self._buffers = list(self._places_of_buffers())
        self._names = {name for name, _ in self._twin.named_parameters()}
        self._places = places(self._twin)
        self._tied = len(self._places) > len(self._names)
        self.linear = {n: m for n, m in self._twin.named_modules() if isinstance(m, _Linear)}
        self._given, self._chosen, self._rows = at_once, {}, {}
        _functionals.add(self)

    def _require_choice(self) -> None:
        """ValueError if a norm needs a choice that has not been made, or not that one."""
        norms = [norm for _, norm, _ in self._norms if not is_held(norm)]
        if norms and self.transductive is None:
            batch = any(isinstance(norm, _BatchNorm) for norm in norms)
            kind = "BatchNorm" if batch else "InstanceNorm with running statistics"
            raise ValueError(
                f"The model has {kind}: say transductive=True (statistics of the batch at hand,"
                " the queries' own among them) or transductive=False (the running statistics); or"
                " use GroupNorm or LayerNorm, which need no choice."
            )
        if self.transductive is False and any(norm.running_mean is None for norm in norms):
            raise ValueError(
                "transductive=False asks for running statistics, and a BatchNorm of the model keeps"
                " none (track_running_stats=False): say transductive=True."
            )

    def _places_of_buffers(self) -> Iterator[tuple[str, nn.Module, str, bool]]:
        """Name, module of the model and key of each buffer, and whether a call may write to it."""
        norms = {id(norm) for _, norm, _ in self._norms}
        for prefix, module in self.model.named_modules():
            safe = id(module) in norms or isinstance(module, _SpectralNorm)
            for key, buffer in module._buffers.items():
                if buffer is not None:
                    yield f"{prefix}.{key}".lstrip("."), module, key, not safe

    def parameters(self) -> Params:
        """Name -> each parameter of the model that learns.

        It is where the meta-gradient arrives, and what the optimizer holds.
        """
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        # The flags themselves: `train` would walk through the modules, and reach a frozen one.
        for twin, module in self._modules:
            twin.__dict__["training"] = module.training
        for estimate in self._estimates:
            estimate.__dict__["training"] = False
        for twin, norm, statistics in self._norms:
            running = norm.running_mean is not None and (not self.transductive or is_held(norm))
            twin._buffers.update(statistics if running else _NONE)
            twin.__dict__["training"] = not running
        values = dict(params)
        # To list a module's names takes longer than a small layer: only where some are missing.
        if not params.keys() >= self._names:
            values = {**dict(self.model.named_parameters()), **values}
        if self._tied:
            values = self._in_every_place(values)
        if self._buffers:
            values |= self._values_of_buffers()
        return functional_call(self._twin, values, (x,), tie_weights=False)

    def _in_every_place(self, values: Params) -> Params:
        """Place -> value, for values under any name of a tied parameter; others as they are."""
        values = {self._places.get(name, name): value for name, value in values.items()}
        tied = {place: values[name] for place, name in self._places.items()}
        return {**values, **tied}

    def _values_of_buffers(self) -> Params:
        """Name -> what the model has there now, or a copy where a call may write to it."""
        used = {id(norm): twin for twin, norm, _ in self._norms}
        values = {}
        for name, module, key, written in self._buffers:
            if (twin := used.get(id(module))) is not None and twin._buffers[key] is None:
                continue
            value = module._buffers[key]
            values[name] = value.clone() if written else value
        return values

    def at_once(self, x: Tensor) -> int:
        """How many tasks to take together (vmap), for one task's inputs x [n, ...].

        Each may have parameters of its own after a step; from some four million of them together on
        (on a CPU), a larger group only needs more memory. One after the other (1): recurrent
        layers, which vmap cannot take, and convolutions on a CPU, which it makes slower.
        """
        if self._given is not None:
            return self._given
        if x.device not in self._chosen:
            on_cpu = x.device.type == "cpu"
            size = sum(p.numel() for p in self.parameters().values())
            alone = self._recurrent or (on_cpu and self._convolves(x))
            room = 2**22 if on_cpu else 2**26
            self._chosen[x.device] = 1 if alone else max(2, room // max(1, size))
        return self._chosen[x.device]

    @contextmanager
    def shifted(self, shifts: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
        """Meanwhile, what ``shifts[name](x)`` gives is added to the output of that linear layer."""
        layers = [(self.linear[name], shift) for name, shift in shifts.items()]
        try:
            for layer, shift in layers:
                layer.shift = shift
            yield
        finally:
            for layer, _ in layers:
                layer.shift = None

    def plain_linear(self, x: Tensor) -> dict[str, int]:
        """Linear layers that do nothing but their one product, for one task's inputs x [n, ...].

        Name -> rows of its input [rows, in], for each layer that is called once, on a matrix, and
        whose weight and bias occur nowhere else in the graph of the output.
        """
        key = x.shape, x.device, self.model.training
        if key not in self._rows:
            self._rows[key] = self._look_at_layers(x)
        return self._rows[key]

    def _look_at_layers(self, x: Tensor) -> dict[str, int]:
        shapes: dict[str, list[torch.Size]] = {name: [] for name in self.linear}

        def noted(name: str) -> Callable[[Tensor], Tensor]:
            def shift(x: Tensor) -> Tensor:
                shapes[name].append(x.shape)
                return x.new_zeros(())

            return shift

        with self.shifted({name: noted(name) for name in self.linear}):
            outputs = self._dry_run(x)
        times, learned, rows = uses([out.grad_fn for out in outputs]), self.parameters(), {}
        for name, layer in self.linear.items():
            full_names = [f"{name}.{kind}".lstrip(".") for kind, _ in layer.named_parameters()]
            used_once = all(times[learned.get(full_name)] == 1 for full_name in full_names)
            if used_once and [len(shape) for shape in shapes[name]] == [2]:
                rows[name] = shapes[name][0][0]
        return rows

    def _convolves(self, x: Tensor) -> bool:
        return any(has_looped(out.grad_fn, ("Convolution",)) for out in self._dry_run(x))

    def _dry_run(self, x: Tensor) -> list[Tensor]:
        """The outputs for x [n, ...], for a look at their graph.

        Dropout must not draw here: a run that goes on from a checkpoint looks again.
        """
        devices = [] if x.device.type == "cpu" else [x.device]
        with torch.enable_grad(), torch.random.fork_rng(devices):
            output = self(self.parameters(), x)
        return list(output.values()) if isinstance(output, dict) else [output]


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_NONE = dict.fromkeys(_STATISTICS)


class _Linear(nn.Linear):
    """A linear layer as (W x^T)^T + b: under vmap the gradient of W then lies in memory as W does.

    By `F.linear` it would be transposed there, and adding it to W or over the tasks takes several
    times as long. Where W is shared by all tasks and the output is shifted, `F.linear` is faster.
    """

    shift: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.shift is not None:
            return F.linear(x, self.weight, self.bias) + self.shift(x)
        if x.ndim != 2:
            return super().forward(x)
        out = (self.weight @ x.mT).mT
        return out if self.bias is None else out + self.bias
