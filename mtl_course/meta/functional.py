"""A model as a function of its parameters, for `torch.func`; with BatchNorm handled by name."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from ..training.graphs import has_looped

Params = dict[str, Tensor]


class Functional:
    """``f(params, x)``: the output of `model` with these parameters [name -> tensor] in place of
    its own. The model is never changed.

    transductive, for a model with BatchNorm: True normalises with the statistics of the very batch
    that is passed, so that the prediction for one query depends on the other queries, a help that
    many published numbers contain; False uses the model's running statistics, which must have been
    learned before (they do not change here). ValueError if such a model comes without the choice.
    """

    def __init__(self, model: nn.Module, transductive: bool | None = None):
        self.model, self.transductive = model, transductive
        self._twin = deepcopy(
            model
        )  # its modes and statistics may be set; the parameters always come from outside
        self._norms = [m for m in self._twin.modules() if isinstance(m, _BatchNorm)]
        if self._norms and transductive is None:
            raise ValueError(
                "The model has BatchNorm: say transductive=True (statistics of the batch at hand,"
                " the queries' own among them) or transductive=False (the running statistics); or"
                " use GroupNorm or LayerNorm, which need no choice."
            )
        self._recurrent = any(isinstance(m, nn.RNNBase) for m in self._twin.modules())
        for layer in self._twin.modules():
            if type(layer) is nn.Linear:
                layer.__class__ = _WeightFirst
        for norm in self._norms if transductive else ():
            norm.track_running_stats = False
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        self._buffers = [name for name, _ in self._twin.named_buffers()]
        self._group: dict[torch.device, int] = {}

    def parameters(self) -> Params:
        """The model's own parameters by name: where the meta-gradient is to arrive, and what the
        optimizer holds.
        """
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        self._twin.train(self.model.training)
        if not self.transductive:
            for norm in self._norms:
                norm.eval()
        rest = {name: p for name, p in self.model.named_parameters() if name not in params}
        buffers = dict(self.model.named_buffers())
        return functional_call(
            self._twin, {**rest, **{name: buffers[name] for name in self._buffers}, **params}, (x,)
        )

    def at_once(self, x: Tensor) -> int:
        """How many tasks to take together (vmap), for inputs like x [n, ...] of one task; 1 is one
        after the other.

        Each has parameters of its own after a step; from some four million of them together on (on
        a CPU), a larger group only needs more memory. One after the other: recurrent layers, which
        vmap cannot take, and convolutions on a CPU, which it makes slower.
        """
        if x.device not in self._group:
            alone = self._recurrent or x.device.type == "cpu" and self._convolves(x)
            room = 2**22 if x.device.type == "cpu" else 2**26
            self._group[x.device] = (
                1
                if alone
                else max(2, room // max(1, sum(p.numel() for p in self.parameters().values())))
            )
        return self._group[x.device]

    def _convolves(self, x):
        with (
            torch.enable_grad(),
            torch.random.fork_rng(devices=[]),
        ):  # dropout must not draw here: a run that goes on asks again
            out = self(self.parameters(), x)
        return any(
            has_looped(o.grad_fn, ("Convolution",))
            for o in (out.values() if isinstance(out, dict) else (out,))
        )


class _WeightFirst(nn.Linear):
    """A linear layer as (W x^T)^T + b: under vmap the gradient of W then lies in memory as W does.

    By `F.linear` it would be transposed there, and adding it to W or over the tasks takes several
    times as long.
    """

    def forward(self, x):
        if x.ndim != 2:
            return super().forward(x)
        out = (self.weight @ x.mT).mT
        return out if self.bias is None else out + self.bias
