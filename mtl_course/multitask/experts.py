"""Patterns with experts: each task mixes the outputs of several small networks with a gate of its
own.

They are patterns in the sense of `mtl_course.multitask.sharing`: modules from x to a dict task ->
features. Gates are modules that give one logit an expert, so ``nn.Linear(d, experts)`` for rows of
d numbers, and for images any small network that ends like that.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def mix(logits: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """sum_e softmax(logits)_e outputs_e for each example: logits [B, E], outputs E tensors [B, ...]
    of one shape. ValueError if E differs.
    """
    if logits.shape[1] != len(outputs):
        raise ValueError(
            f"A gate has {logits.shape[1]} outputs for {len(outputs)} experts; it needs one for"
            " each."
        )
    return torch.einsum("be,be...->b...", logits.softmax(dim=1), torch.stack(list(outputs), dim=1))


class MMoE(nn.Module):
    """Multi-gate mixture of experts: z_t = sum_e softmax(gate_t(x))_e expert_e(x). All experts are
    shared, each task has a gate.

    Source: Ma et al., "Modeling task relationships in multi-task learning with multi-gate
    mixture-of-experts", KDD 2018, equations 6 to 8.
    """

    def __init__(self, experts: Sequence[nn.Module], gates: Mapping[str, nn.Module]):
        super().__init__()
        self.experts, self.gates = nn.ModuleList(experts), nn.ModuleDict(gates)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        outputs = [expert(x) for expert in self.experts]
        return {name: mix(gate(x), outputs) for name, gate in self.gates.items()}

    def weights(self, x: Tensor) -> dict[str, Tensor]:
        """What each gate gives to each expert: task -> [B, E], rows that sum to 1."""
        return {name: gate(x).softmax(dim=1) for name, gate in self.gates.items()}


class CGC(nn.Module):
    """Customised gate control, one level of `PLE`: task t mixes its own experts and the shared
    ones.

    own: task -> its experts; shared: experts for all. gates: task -> logits over its own experts,
        then the shared ones.
    shared_gate: logits over all experts, task by task and then the shared ones; the last level has
        none.
    forward: task -> input z_t, and the shared input -> task -> features, and the shared features
        (None without a shared gate).
    """

    def __init__(
        self,
        own: Mapping[str, Sequence[nn.Module]],
        shared: Sequence[nn.Module],
        gates: Mapping[str, nn.Module],
        shared_gate: nn.Module | None = None,
    ):
        super().__init__()
        if own.keys() != gates.keys():
            raise ValueError(
                f"The tasks differ: experts for {', '.join(own)}, gates for {', '.join(gates)}."
            )
        self.own = nn.ModuleDict({name: nn.ModuleList(experts) for name, experts in own.items()})
        self.shared, self.gates, self.shared_gate = (
            nn.ModuleList(shared),
            nn.ModuleDict(gates),
            shared_gate,
        )

    def forward(
        self, z: Mapping[str, Tensor], common: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        own = {name: [expert(z[name]) for expert in experts] for name, experts in self.own.items()}
        both = [expert(common) for expert in self.shared]
        features = {name: mix(gate(z[name]), own[name] + both) for name, gate in self.gates.items()}
        if self.shared_gate is None:
            return features, None
        return features, mix(
            self.shared_gate(common), [out for outs in own.values() for out in outs] + both
        )


class PLE(nn.Module):
    """Progressive layered extraction: levels of own and shared experts; the first reads x, each
    further one what the last gave.

    levels: `CGC` modules with the same tasks; all but the last need a shared gate if the next has
        shared experts. Without shared experts nothing is shared.
    Source: Tang et al., "Progressive layered extraction (PLE)", RecSys 2020.
    """

    def __init__(self, levels: Sequence[CGC]):
        super().__init__()
        self.levels = nn.ModuleList(levels)
        for before, after in pairwise(levels):
            if before.shared_gate is None and len(after.shared):
                raise ValueError(
                    "A level with shared experts follows one without a shared gate, so the shared"
                    " experts would have no input."
                )

    def _before_last(self, x):
        z, common = dict.fromkeys(self.levels[0].own.keys(), x), x
        for level in self.levels[:-1]:
            z, common = level(z, common)
        return z, common

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features, _ = self.levels[-1](*self._before_last(x))
        return features

    def weights(self, x: Tensor) -> dict[str, Tensor]:
        """Weights of the last level's gates: task -> [B, own + shared experts], rows that sum to 1."""
        z, _ = self._before_last(x)
        return {name: gate(z[name]).softmax(dim=1) for name, gate in self.levels[-1].gates.items()}
