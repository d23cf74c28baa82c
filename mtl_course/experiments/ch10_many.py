"""Many small GRUs side by side, each with heads of its own. Needs no Jupyter.

Chapter 10 trains a network for each stock, each rate and each method. One after the other, the
processor would spend its time on starting small products. Here parameters are stacked, name ->
[G, ...], and every step of all G networks is one batched product. Network g sees its rows alone:
the results are those of G separate trainings.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..networks.recurrent import GRU
from .common import seeded

Parameters = dict[str, Tensor]


class Heads(nn.Module):
    """A GRU and linear heads on its states.

    Args:
        inputs: numbers per step.
        features: numbers per state.
        heads: name -> outputs.
    """

    def __init__(self, inputs: int, features: int, heads: Mapping[str, int]):
        super().__init__()
        self.trunk = GRU(inputs, features)
        self.heads = nn.ModuleDict({name: nn.Linear(features, n) for name, n in heads.items()})


def copies(
    inputs: int, features: int, heads: Mapping[str, int], seed: int, count: int
) -> Parameters:
    """Parameters of `count` networks that all begin as the same one, name -> [count, ...]."""
    model = seeded(lambda: Heads(inputs, features, heads), seed)
    return {
        name: p.detach().expand(count, *p.shape).clone() for name, p in model.named_parameters()
    }


def states(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The state of every network after every step.

    Args:
        parameters: as from `copies`.
        x: [G, B, L, D], what each network reads. What stands after the end of a row comes after
            it: it changes no state before.

    Returns:
        [G, B, L, H].
    """
    w_x, w_h, b_x, b_h = (
        parameters[f"trunk.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    (G, B, L, D), H = x.shape, w_h.shape[2]
    inputs = torch.baddbmm(b_x[:, None], x.reshape(G, B * L, D), w_x.mT).view(G, B, L, 3 * H)
    h, steps = x.new_zeros(G, B, H), []
    for x_t in inputs.unbind(2):
        h_t = torch.baddbmm(b_h[:, None], h, w_h.mT)
        r, z = torch.sigmoid(x_t[..., : 2 * H] + h_t[..., : 2 * H]).chunk(2, dim=-1)
        n = torch.tanh(x_t[..., 2 * H :] + r * h_t[..., 2 * H :])
        h = n + z * (h - n)
        steps.append(h)
    return torch.stack(steps, dim=2)


def last(outputs: Tensor, lengths: Tensor) -> Tensor:
    """The state [G, B, H] at each row's last step, from [G, B, L, H] and lengths [G, B]."""
    place = (lengths - 1)[..., None, None].expand(*lengths.shape, 1, outputs.shape[-1])
    return outputs.gather(2, place)[:, :, 0]


def head(parameters: Mapping[str, Tensor], name: str, features: Tensor) -> Tensor:
    """A head's outputs [G, ..., n] on features [G, ..., H]."""
    weight, bias = parameters[f"heads.{name}.weight"], parameters[f"heads.{name}.bias"]
    flat = features.flatten(1, -2)
    return torch.baddbmm(bias[:, None], flat, weight.mT).view(*features.shape[:-1], -1)


def train(
    parameters: Parameters,
    loss: Callable[[Parameters], Tensor],
    rates: Sequence[float],
    stops: Sequence[int],
    judge: Callable[[int, Parameters], None],
) -> Parameters:
    """Adam on every network by itself; `judge(step, parameters)` is called at each stop.

    Args:
        parameters: as from `copies`; they stay as they are.
        loss: parameters -> [G], each network's loss on a batch that it draws at each call.
        rates: [G], each network's.
        stops: steps at which to judge; training ends with the last. 0 judges the start.
        judge: called without gradients.

    Returns:
        The parameters at the end.
    """
    parameters = {name: p.clone().requires_grad_() for name, p in parameters.items()}
    first, second = (
        {name: torch.zeros_like(p) for name, p in parameters.items()} for _ in range(2)
    )
    rates = torch.as_tensor(rates, dtype=torch.float32)
    if 0 in stops:
        with torch.no_grad():
            judge(0, parameters)
    for step in range(1, max(stops, default=0) + 1):
        total = loss(parameters).sum()
        # what a loss does not use, a head without a task, has the gradient 0 and stays as it is
        gradients = torch.autograd.grad(total, list(parameters.values()), materialize_grads=True)
        with torch.no_grad():
            for (name, p), g in zip(parameters.items(), gradients, strict=True):
                m, v = first[name], second[name]
                m.mul_(0.9).add_(g, alpha=0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                size = (v / (1 - 0.999**step)).sqrt_().add_(1e-8)
                p -= rates.view(-1, *[1] * (p.dim() - 1)) * (m / (1 - 0.9**step)) / size
            if step in stops:
                judge(step, parameters)
    return {name: p.detach() for name, p in parameters.items()}
