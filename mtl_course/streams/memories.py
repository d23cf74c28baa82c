"""Memories: what a method of continual learning keeps of earlier tasks, and the term that it adds
to the loss.

`Replay` keeps examples, `Ewc` an anchor and a Fisher diagonal, `Distillation` the old network. A
memory has `loss(model, x, logits, now)`, its term in each step of task `now` (from 0);
`end_task(model, stream, now)`, which stores; and `numbers`: how many it holds, besides the network,
while the next task is learned. Several may be combined; none is fine-tuning.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

from .stream import Examples, Stream


class Reservoir:
    """At most `size` examples of a stream, each of those seen so far kept with the same
    probability, whatever its length will be.

    Source: Vitter, "Random sampling with a reservoir", ACM Transactions on Mathematical Software
    11, 1985 (algorithm R). ValueError for size < 1.
    """

    def __init__(self, size: int, seed: int = 0):
        if size < 1:
            raise ValueError(f"A reservoir must hold at least one example; its size is {size}.")
        self.size, self.seen, self.generator = size, 0, torch.Generator().manual_seed(seed)
        self.x: Tensor | None = None
        self.y: Tensor | None = None

    def __len__(self) -> int:
        return min(self.seen, self.size)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Show it examples x [n, ...], y [n], in this order."""
        if self.x is None:
            self.x, self.y = x.new_empty(self.size, *x.shape[1:]), y.new_empty(self.size)
        count = self.seen + torch.arange(1, len(x) + 1)  # how many have been seen with this one
        slot = (torch.rand(len(x), generator=self.generator, dtype=torch.float64) * count).long()
        slot = torch.where(count <= self.size, count - 1, slot)
        last = {
            s: row for row, s in enumerate(slot.tolist()) if s < self.size
        }  # of several in one slot the last stays
        slots, rows = (
            torch.tensor(list(part), dtype=torch.int64, device=x.device)
            for part in (last.keys(), last.values())
        )
        self.x[slots], self.y[slots] = x[rows], y[rows]
        self.seen += len(x)

    def draw(self, n: int) -> Examples:
        """`n` of the kept examples, drawn with replacement."""
        rows = torch.randint(len(self), (n,), generator=self.generator).to(self.x.device)
        return self.x[rows], self.y[rows]


class Replay:
    """Experience replay: with every batch, as many examples of earlier tasks, from a reservoir of
    `size`, and their loss.

    Sources: Rolnick et al., "Experience replay for continual learning", NeurIPS 2019; Chaudhry et
    al., "On tiny episodic memories in continual learning", 2019 (they add examples at each step;
    here a task's examples are added when it ends).
    """

    def __init__(self, stream: Stream, size: int, seed: int = 0):
        self.stream, self.buffer = stream, Reservoir(size, seed)

    @property
    def numbers(self) -> int:
        return 0 if self.buffer.x is None else self.buffer.x.numel() + self.buffer.y.numel()

    def loss(self, model: nn.Module, x: Tensor, logits: Tensor, now: int) -> Tensor:
        old, y = self.buffer.draw(len(x))
        return F.cross_entropy(self.stream.compete(model(old), y, now), y)

    def end_task(self, model: nn.Module, stream: Stream, now: int) -> None:
        self.buffer.add(*stream.train[now])


def fisher_diagonal(model: nn.Module, x: Tensor, classes: slice = slice(None)) -> dict[str, Tensor]:
    """Diagonal of the Fisher information of a classifier, name -> tensor shaped as the parameter;
    mean over inputs x [N, ...].

    ``F_i = mean over x, sum over c, of p(c|x) (d log p(c|x) / d theta_i)^2``: the labels are the
    model's own (not those of the data, which would give the empirical Fisher), and all of them,
    weighted, not drawn. Only `classes` compete. The model should be in evaluation mode. Source:
    Kunstner, Balles and Hennig, "Limitations of the empirical Fisher approximation for natural
    gradient descent", NeurIPS 2019.
    """
    params = {name: p.detach() for name, p in model.named_parameters()}

    def log_p(params, one):
        return F.log_softmax(functional_call(model, params, (one[None],))[0, classes], dim=0)

    with torch.no_grad():
        p = model(x)[:, classes].softmax(dim=1)
    group = max(
        1, 2**24 // (p.shape[1] * sum(q.numel() for q in params.values()))
    )  # so that the Jacobians fit
    total = {name: torch.zeros_like(q) for name, q in params.items()}
    for some, weights in zip(x.split(group), p.split(group), strict=True):
        for name, jacobian in vmap(jacrev(log_p), (None, 0))(params, some).items():
            total[name] += torch.einsum("nc,nc...->...", weights, jacobian.square())
    return {name: value / len(x) for name, value in total.items()}


def ewc_penalty(
    params: dict[str, Tensor], anchor: dict[str, Tensor], fisher: dict[str, Tensor], strength: float
) -> Tensor:
    """``strength / 2 * sum_i F_i (theta_i - anchor_i)^2``, over all names of `anchor`. Scalar.

    Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 114,
    2017, equation 3.
    """
    return (
        strength
        / 2
        * torch.stack(
            [(fisher[name] * (params[name] - anchor[name]).square()).sum() for name in anchor]
        ).sum()
    )


class Ewc:
    """Elastic weight consolidation: a quadratic penalty around the parameters after the last task;
    Fisher diagonals add up.

    samples: how many inputs of a task its Fisher diagonal is taken over. One anchor, the latest, is
        what the Laplace approximation asks for: Huszár, "Note on the quadratic penalties in elastic
        weight consolidation", PNAS 115, 2018; the 2017 paper keeps one a task.
    """

    def __init__(self, strength: float, samples: int = 100, seed: int = 0):
        self.strength, self.samples, self.generator = (
            strength,
            samples,
            torch.Generator().manual_seed(seed),
        )
        self.anchor: dict[str, Tensor] = {}
        self.fisher: dict[str, Tensor] = {}

    @property
    def numbers(self) -> int:
        return 2 * sum(p.numel() for p in self.anchor.values())

    def loss(self, model: nn.Module, x: Tensor, logits: Tensor, now: int) -> Tensor:
        return ewc_penalty(dict(model.named_parameters()), self.anchor, self.fisher, self.strength)

    def end_task(self, model: nn.Module, stream: Stream, now: int) -> None:
        x = stream.train[now][0]
        rows = torch.randperm(len(x), generator=self.generator)[: self.samples].to(x.device)
        new = fisher_diagonal(model.eval(), x[rows], stream.classes(now))
        self.fisher = {name: f + self.fisher.get(name, 0) for name, f in new.items()}
        self.anchor = {name: p.detach().clone() for name, p in model.named_parameters()}


def distillation_loss(logits: Tensor, old: Tensor, temperature: float = 2.0) -> Tensor:
    """``T^2 KL(old || new)`` of softmax(logits / T) over the last axis, mean over the first, summed
    over others. Scalar.

    Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015; Li and
    Hoiem use T = 2.
    """
    old, new = (F.log_softmax(values / temperature, dim=-1) for values in (old, logits))
    return temperature**2 * (old.exp() * (old - new)).sum() / len(logits)


class Distillation:
    """Learning without forgetting: on the new task's inputs, old classes' outputs are held to those
    of the old network.

    Source: Li and Hoiem, "Learning without forgetting", IEEE TPAMI 40, 2018: one term for each old
    task. Where the task is not told, all old classes are one distribution.
    """

    def __init__(self, stream: Stream, strength: float, temperature: float = 2.0):
        self.stream, self.strength, self.temperature = stream, strength, temperature
        self.old: nn.Module | None = None

    @property
    def numbers(self) -> int:
        return 0 if self.old is None else sum(p.numel() for p in self.old.state_dict().values())

    def loss(self, model: nn.Module, x: Tensor, logits: Tensor, now: int) -> Tensor:
        with torch.no_grad():
            old = self.old(x)
        shape = (len(x), now, -1) if self.stream.known else (len(x), -1)
        new, old = (values[:, : now * self.stream.per].reshape(shape) for values in (logits, old))
        return self.strength * distillation_loss(new, old, self.temperature)

    def end_task(self, model: nn.Module, stream: Stream, now: int) -> None:
        self.old = deepcopy(model).eval().requires_grad_(False)
