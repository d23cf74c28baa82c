"""Patterns with experts: each task mixes the outputs of several small networks with its own gate.

They are patterns in the sense of `mtl_course.multitask.sharing`: modules from x to a dict task ->
features. A gate is a module that gives one logit per expert: ``nn.Linear(d, experts)`` for rows of
d numbers, and for images any small network that ends like that.

`MMoE` and `PLE` run every expert on every row. `TopOne` runs for each row only the experts that
some task's gate puts first.
"""

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise

import torch
from torch import Tensor, nn


def mix(logits: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """Mix the outputs of experts for each example: sum_e softmax(logits)_e outputs_e.

    Args:
        logits: [B, E], what the gate gives to each of the E experts.
        outputs: E tensors [B, ...] of one shape.

    Returns:
        [B, ...], a weighted mean of the outputs for each example.

    Raises:
        ValueError: if there is not one logit for each expert.

    Example:
        >>> outputs = [torch.zeros(2, 3), torch.ones(2, 3)]
        >>> mix(torch.tensor([[0.0, 0.0], [-100.0, 0.0]]), outputs).tolist()
        [[0.5, 0.5, 0.5], [1.0, 1.0, 1.0]]
    """
    if logits.shape[1] != len(outputs):
        raise ValueError(
            f"A gate has {logits.shape[1]} outputs for {len(outputs)} experts;"
            " it needs one for each."
        )
    shape = (-1, *[1] * (outputs[0].dim() - 1))
    chances = [p.view(shape) for p in logits.softmax(dim=1).unbind(dim=1)]
    mixture = chances[0] * outputs[0]
    # one after the other: a stack would copy all outputs, and again on the way back
    for p, output in zip(chances[1:], outputs[1:], strict=True):
        mixture = torch.addcmul(mixture, p, output)
    return mixture


class MMoE(nn.Module):
    """Multi-gate mixture of experts: z_t = sum_e softmax(gate_t(x))_e expert_e(x).

    All experts are shared, each task has a gate. With one expert it is hard parameter sharing.

    Args:
        experts: E modules from x to features of one shape.
        gates: task -> module from x [B, ...] to logits [B, E].

    Raises:
        ValueError: when called, if a gate has not one logit for each expert.

    Source:
        Ma et al., "Modeling task relationships in multi-task learning with multi-gate
        mixture-of-experts", KDD 2018, equations 6 to 8.

    Example:
        >>> gates = {"price": nn.Linear(5, 2), "kind": nn.Linear(5, 2)}
        >>> pattern = MMoE([nn.Linear(5, 8), nn.Linear(5, 8)], gates)
        >>> x = torch.randn(4, 5)
        >>> {task: list(z.shape) for task, z in pattern(x).items()}
        {'price': [4, 8], 'kind': [4, 8]}
        >>> [round(total, 4) for total in pattern.weights(x)["kind"].sum(dim=1).tolist()]
        [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, experts: Sequence[nn.Module], gates: Mapping[str, nn.Module]):
        super().__init__()
        self.experts, self.gates = nn.ModuleList(experts), nn.ModuleDict(gates)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Task -> its mixture of the experts' outputs; every expert runs once."""
        outputs = [expert(x) for expert in self.experts]
        return {name: mix(gate(x), outputs) for name, gate in self.gates.items()}

    def weights(self, x: Tensor) -> dict[str, Tensor]:
        """What each gate gives to each expert: task -> [B, E], rows that sum to 1."""
        return {name: gate(x).softmax(dim=1) for name, gate in self.gates.items()}


class CGC(nn.Module):
    """Customised gate control, one level of `PLE`: a task mixes private and shared experts.

    `forward(z, common)` takes task -> input z_t and the input of the shared experts. It returns
    task -> features, and the shared features for the next level (None without a shared gate).

    Args:
        private: task -> its private experts, E_t of them.
        shared: experts for all tasks, E_s of them.
        gates: task -> module from z_t to logits [B, E_t + E_s], the private experts first.
        shared_gate: module from the shared input to logits over all experts, task by task and then
            the shared ones; None for the last level, which has no use for one.

    Raises:
        ValueError: if `private` and `gates` name different tasks, or when called with a gate that
            has not one logit for each expert.

    Source:
        Tang et al., "Progressive layered extraction (PLE)", RecSys 2020.

    Example:
        >>> private = {"price": [nn.Linear(5, 8)], "kind": [nn.Linear(5, 8)]}
        >>> gates = {"price": nn.Linear(5, 3), "kind": nn.Linear(5, 3)}  # 1 private + 2 shared
        >>> level = CGC(private, [nn.Linear(5, 8), nn.Linear(5, 8)], gates)
        >>> x = torch.randn(4, 5)
        >>> features, common = level({"price": x, "kind": x}, x)
        >>> list(features["price"].shape), common
        ([4, 8], None)
    """

    def __init__(
        self,
        private: Mapping[str, Sequence[nn.Module]],
        shared: Sequence[nn.Module],
        gates: Mapping[str, nn.Module],
        shared_gate: nn.Module | None = None,
    ):
        super().__init__()
        if private.keys() != gates.keys():
            raise ValueError(
                f"The tasks differ: experts for {', '.join(private)}, gates for {', '.join(gates)}."
            )
        self.private = nn.ModuleDict(
            {name: nn.ModuleList(experts) for name, experts in private.items()}
        )
        self.shared = nn.ModuleList(shared)
        self.gates = nn.ModuleDict(gates)
        self.shared_gate = shared_gate

    def forward(
        self, z: Mapping[str, Tensor], common: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Task -> features, and the features of the shared experts' next level."""
        private = {
            name: [expert(z[name]) for expert in experts] for name, experts in self.private.items()
        }
        shared = [expert(common) for expert in self.shared]
        features = {
            name: mix(gate(z[name]), private[name] + shared) for name, gate in self.gates.items()
        }
        if self.shared_gate is None:
            return features, None
        everything = [*chain.from_iterable(private.values()), *shared]
        return features, mix(self.shared_gate(common), everything)


class PLE(nn.Module):
    """Progressive layered extraction: levels of private and shared experts.

    The first level reads x, each further one what the last gave. Without shared experts nothing is
    shared.

    Args:
        levels: `CGC` modules with the same tasks. All but the last need a shared gate if the next
            has shared experts.

    Raises:
        ValueError: if shared experts would have no input, since the level below has no shared gate.

    Source:
        Tang et al., "Progressive layered extraction (PLE)", RecSys 2020.

    Example:
        >>> def level(d, shared_gate):
        ...     private = {"price": [nn.Linear(d, 8)], "kind": [nn.Linear(d, 8)]}
        ...     gates = {"price": nn.Linear(d, 2), "kind": nn.Linear(d, 2)}
        ...     return CGC(private, [nn.Linear(d, 8)], gates, shared_gate)
        >>> pattern = PLE([level(5, nn.Linear(5, 3)), level(8, None)])
        >>> {task: list(z.shape) for task, z in pattern(torch.randn(4, 5)).items()}
        {'price': [4, 8], 'kind': [4, 8]}
    """

    def __init__(self, levels: Sequence[CGC]):
        super().__init__()
        self.levels = nn.ModuleList(levels)
        for lower, upper in pairwise(levels):
            if lower.shared_gate is None and len(upper.shared):
                raise ValueError(
                    "A level with shared experts follows one without a shared gate,"
                    " so the shared experts would have no input."
                )

    def _into_the_last(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """What the last level reads: task -> z_t, and the shared input."""
        z, common = dict.fromkeys(self.levels[0].private.keys(), x), x
        for level in self.levels[:-1]:
            z, common = level(z, common)
        return z, common

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Task -> features of the last level."""
        features, _ = self.levels[-1](*self._into_the_last(x))
        return features

    def weights(self, x: Tensor) -> dict[str, Tensor]:
        """Weights of the last level's gates: task -> [B, E_t + E_s], rows that sum to 1."""
        z, _ = self._into_the_last(x)
        return {name: gate(z[name]).softmax(dim=1) for name, gate in self.levels[-1].gates.items()}


class TopOne(nn.Module):
    """Sparse experts: a row goes to each task's best expert alone, z_t = p_e(x) expert_e(x).

    e is the expert with the largest chance p of gate_t(x); its factor p is how the gate learns. An
    expert runs once, on the rows that at least one task sends to it, and not at all without any:
    the cost per row is that of one expert per task, however many there are.

    Nothing keeps a gate from sending all rows to one expert. Add a multiple of `balance(x)` to the
    losses against that. Experts must not look at the whole batch, as BatchNorm does: theirs may
    have one row.

    Args:
        experts: E modules from x to features of one shape.
        gates: task -> module from x [B, ...] to logits [B, E].

    Raises:
        ValueError: when called, if a gate has not one logit for each expert, or without rows.

    Source:
        Fedus, Zoph and Shazeer, "Switch Transformers", JMLR 23, 2022, equations 1 and 2, here with
        a gate for each task.

    Example:
        >>> gates = {"price": nn.Linear(5, 4), "kind": nn.Linear(5, 4)}
        >>> pattern = TopOne([nn.Linear(5, 8) for _ in range(4)], gates)
        >>> {task: list(z.shape) for task, z in pattern(torch.randn(1, 5)).items()}
        {'price': [1, 8], 'kind': [1, 8]}
        >>> pattern.balance(torch.randn(64, 5)).item() >= 1
        True
    """

    def __init__(self, experts: Sequence[nn.Module], gates: Mapping[str, nn.Module]):
        super().__init__()
        self.experts, self.gates = nn.ModuleList(experts), nn.ModuleDict(gates)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Task -> the output of each row's best expert, times its chance."""
        best = {name: chances.max(dim=1) for name, chances in self.weights(x).items()}
        chosen = torch.stack([indices for _, indices in best.values()])
        outputs, start, places = [], 0, torch.zeros_like(chosen)
        for e, expert in enumerate(self.experts):
            here = chosen == e
            rows = here.any(dim=0)
            where = rows.nonzero().squeeze(1)
            if not len(where):
                continue
            outputs.append(expert(x[where]))
            # where each row's output will stand once they are all in one tensor
            places = torch.where(here, start + rows.cumsum(dim=0) - 1, places)
            start += len(where)
        together = torch.cat(outputs)
        features = {}
        for (name, (chance, _)), place in zip(best.items(), places, strict=True):
            z = together[place]
            features[name] = z * chance.view(-1, *[1] * (z.dim() - 1))
        return features

    def weights(self, x: Tensor) -> dict[str, Tensor]:
        """What each gate gives to each expert before the best is taken: task -> [B, E]."""
        if not len(x):
            raise ValueError("There are no rows.")
        chances = {name: gate(x).softmax(dim=1) for name, gate in self.gates.items()}
        for name, p in chances.items():
            if p.shape[1] != len(self.experts):
                raise ValueError(
                    f"The gate of {name!r} has {p.shape[1]} outputs for {len(self.experts)}"
                    " experts; it needs one for each."
                )
        return chances

    def balance(self, x: Tensor) -> Tensor:
        """The mean over tasks of `balance_loss`, with the graph of the gates."""
        return torch.stack([balance_loss(p) for p in self.weights(x).values()]).mean()


def balance_loss(chances: Tensor) -> Tensor:
    """How unevenly a gate uses its experts: E sum_e share_e mean_e; 1 where all are alike.

    share_e is the share of the rows whose best expert is e, mean_e the mean chance of e. The first
    has no gradient: the loss lowers the chances of experts that many rows go to.

    Args:
        chances: [B, E], rows that sum to 1.

    Returns:
        Scalar; E where all rows go to one expert with certainty.

    Raises:
        ValueError: if it is not a matrix with at least one row, or has a NaN; it names the row.

    Source:
        Fedus, Zoph and Shazeer, "Switch Transformers", JMLR 23, 2022, equations 4 to 6.

    Example:
        >>> balance_loss(torch.tensor([[0.75, 0.25], [0.25, 0.75]])).item()
        1.0
        >>> balance_loss(torch.tensor([[0.75, 0.25], [0.75, 0.25]])).item()
        1.5
    """
    if chances.dim() != 2 or not len(chances):
        raise ValueError(
            f"Chances must be [B, E] with at least one row; they are {list(chances.shape)}."
        )
    if (bad := chances.isnan().any(dim=1)).any():
        raise ValueError(f"Row {int(bad.nonzero()[0])} of the chances has a NaN.")
    experts = chances.shape[1]
    shares = torch.bincount(chances.argmax(dim=1), minlength=experts) / len(chances)
    return experts * (shares.to(chances) * chances.mean(dim=0)).sum()
