"""What the tasks share: patterns that make the features of each task, and heads that read
predictions off them.

A network is ``Network(pattern, heads)``. A pattern is a module from inputs x to a dict task ->
features; heads are a module from that dict to a dict task -> output. Any pattern goes with any
heads, and with layers of any kind inside: fully connected, convolutions or what you like, as long
as what is added up has one shape. A new pattern is one small module of yours. Patterns with experts
are in `mtl_course.multitask.experts`; chapter 4 has the equations.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Pattern and heads: x [B, ...] -> dict task -> output. ValueError that names the tasks if the
    two do not have the same.
    """

    def __init__(self, pattern: nn.Module, heads: nn.Module):
        super().__init__()
        self.pattern, self.heads = pattern, heads

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.pattern(x)
        outputs = self.heads(features)
        if lost := [name for name in features if name not in outputs]:
            raise ValueError(
                f"The pattern makes features for {', '.join(map(repr, lost))}, which have no head;"
                f" the heads are {', '.join(outputs)}."
            )
        return outputs

    @property
    def trunk(self) -> nn.Module:
        """What all tasks share, of `Shared` weights below `Parallel` heads: such a network can be
        balanced, as `multitask.HardSharing` can.
        """
        if isinstance(self.pattern, Shared) and isinstance(self.heads, Parallel):
            return self.pattern.trunk
        raise AttributeError(
            "Only shared weights below parallel heads have one trunk that all tasks share."
        )


class HardSharing(nn.Module):
    """One trunk for all tasks and one head a task (hard parameter sharing).

    trunk: module from inputs [B, ...] to features [B, k]; heads: task name -> module from features
        to that task's output. `forward` returns a dict from task name to output. With a single head
        it is a single-task network of the same size. Source: Caruana, "Multitask learning", Machine
        Learning 28, 1997; chapter 1, equations 2 and 3.
    """

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module]):
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleDict(heads)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.trunk(x)
        return {name: head(features) for name, head in self.heads.items()}


# ----------------------------------------------------------------------------------------- patterns
class Shared(nn.Module):
    """Shared weights: one trunk for all tasks, z_t = f(x). With `Parallel` heads this is
    `multitask.HardSharing`.
    """

    def __init__(self, trunk: nn.Module, tasks: Iterable[str]):
        super().__init__()
        self.trunk, self.tasks = trunk, tuple(tasks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = self.trunk(x)
        return {name: z for name in self.tasks}


class OwnTrunks(nn.ModuleDict):
    """A trunk for each task, z_t = f_t(x): single-task networks side by side, or, with `spread` as
    a penalty, a shared structure.
    """

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: trunk(x) for name, trunk in self.items()}

    def spread(self) -> Tensor:
        """Squared distance of the trunks' parameters from their mean over tasks, summed: sum_t
        |theta_t - mean|^2. Scalar.

        Source: Evgeniou and Pontil, "Regularized multi-task learning", KDD 2004, for linear models.
        ValueError if the trunks differ.
        """
        parts = [list(trunk.parameters()) for trunk in self.values()]
        if len({tuple(p.shape for p in own) for own in parts}) != 1:
            raise ValueError(
                f"The trunks of {', '.join(self)} have parameters of different shapes: only one"
                " structure can be shared."
            )
        stacks = [torch.stack(same) for same in zip(*parts, strict=True)]
        return sum((stack - stack.mean(0)).square().sum() for stack in stacks)


class CrossStitch(nn.Module):
    """A column of layers for each task; after every layer the columns are mixed, z_t <- sum_s
    alpha_ts z_s, with learned alpha [T, T].

    columns: task -> its layers, as many for every task; the outputs at one depth have one shape.
        `own` is what alpha has on its diagonal at first; the rest of 1 is spread over the other
        tasks. The alphas are in `stitches`, one matrix a layer; like the weights of losses they
        want no weight decay.
    Source: Misra et al., "Cross-stitch networks for multi-task learning", CVPR 2016, equation 1.
    """

    def __init__(self, columns: Mapping[str, Sequence[nn.Module]], own: float = 0.9):
        super().__init__()
        depths = {name: len(layers) for name, layers in columns.items()}
        if len(set(depths.values())) != 1:
            raise ValueError(f"Columns need as many layers for every task, but there are {depths}.")
        self.columns = nn.ModuleDict(
            {name: nn.ModuleList(layers) for name, layers in columns.items()}
        )
        tasks, depth = len(depths), next(iter(depths.values()))
        start = torch.full((tasks, tasks), (1 - own) / max(tasks - 1, 1)).fill_diagonal_(own)
        self.stitches = nn.ParameterList(start.clone() for _ in range(depth))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = [x] * len(self.columns)
        for alpha, layers in zip(
            self.stitches, zip(*self.columns.values(), strict=True), strict=True
        ):
            before = torch.stack([layer(part) for layer, part in zip(layers, z, strict=True)])
            z = torch.tensordot(alpha, before, dims=1)
        return dict(zip(self.columns, z, strict=True))


class MTAN(nn.Module):
    """One trunk in blocks, and masks for each task: p_j = block_j(p_{j-1}), z_tj =
    sigmoid(attention_tj([p_{j-1}, z_t,j-1])) * p_j.

    blocks: the trunk. attention: task -> one module a block, from the block's input and what the
        task saw of it, joined along dimension 1 (for the first block x alone), to logits of the
        shape of the block's output. Source: Liu, Johns and Davison, "End-to-end multi-task learning
        with attention", CVPR 2019; there a further layer stands between a block's input and the
        mask, which can be put into the attention module.
    """

    def __init__(self, blocks: Sequence[nn.Module], attention: Mapping[str, Sequence[nn.Module]]):
        super().__init__()
        if wrong := [name for name, layers in attention.items() if len(layers) != len(blocks)]:
            raise ValueError(
                f"Task {', '.join(map(repr, wrong))} needs one attention module for each of the"
                f" {len(blocks)} blocks."
            )
        self.blocks = nn.ModuleList(blocks)
        self.attention = nn.ModuleDict(
            {name: nn.ModuleList(layers) for name, layers in attention.items()}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        p, seen = x, {name: [x] for name in self.attention}
        for j, block in enumerate(self.blocks):
            p = block(p)
            for name, layers in self.attention.items():
                z = torch.sigmoid(layers[j](torch.cat(seen[name], dim=1))) * p
                seen[name] = [p, z]
        return {name: z for name, (_, z) in seen.items()}


# -------------------------------------------------------------------------------------------- heads
class Parallel(nn.ModuleDict):
    """Each task reads its own features and nothing else: y_t = h_t(z_t). Given as a dict task ->
    head.
    """

    def forward(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: head(_features(z, name)) for name, head in self.items()}


class Cascade(nn.ModuleDict):
    """Sequential: in the order of the dict, a task also reads the outputs of those before it, y_t =
    h_t([z_t, y_1, ..., y_{t-1}]).

    All are flattened and joined along dimension 1, so head t takes as many numbers more as the
    earlier heads give. What is read is what was predicted, never the label, so that training and
    use are alike; the gradient of a later task flows into the earlier ones.
    """

    def forward(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = {}
        for name, head in self.items():
            outputs[name] = head(_join([_features(z, name), *outputs.values()]))
        return outputs


class Cooperative(nn.Module):
    """The tasks exchange predictions: drafts u_t = h_t(z_t), then y_t = u_t + e_t([u_s for s !=
    t]).

    drafts: task -> head. exchange: task -> module from the drafts of all other tasks, flattened and
        joined in order, to a correction. If all corrections are zero this is `Parallel`.
    """

    def __init__(self, drafts: Mapping[str, nn.Module], exchange: Mapping[str, nn.Module]):
        super().__init__()
        if drafts.keys() != exchange.keys():
            raise ValueError(
                f"The tasks differ: drafts for {', '.join(drafts)}, exchange for"
                f" {', '.join(exchange)}."
            )
        self.drafts, self.exchange = Parallel(drafts), nn.ModuleDict(exchange)

    def forward(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        drafts = self.drafts(z)
        return {
            name: (
                u + self.exchange[name](_join([v for other, v in drafts.items() if other != name]))
            )
            for name, u in drafts.items()
        }


def _features(z, name):
    if name not in z:
        raise ValueError(
            f"There is a head for task {name!r} but the pattern makes no features for it; it makes"
            f" some for {', '.join(z)}."
        )
    return z[name]


def _join(parts):
    return torch.cat([part.flatten(1) for part in parts], dim=1)
