"""What tasks share in a network: patterns make each task's features, heads read outputs off them.

A network is ``Network(pattern, heads)``. A pattern is a module from inputs x to a dict task ->
features. Heads are a module from that dict to a dict task -> output. Any pattern goes with any
heads, and with layers of any kind inside, as long as what is added up has one shape. Patterns with
experts are in `mtl_course.multitask.experts`; chapter 4 has the equations.

A trunk of your own joins in these five lines; a pattern of your own is a module like `Shared`:

    trunk = torchvision.models.resnet18(weights="DEFAULT")
    trunk.fc = nn.Identity()  # x [B, 3, H, W] -> features [B, 512]
    heads = Parallel({"left": nn.Linear(512, 10), "right": nn.Linear(512, 10)})
    model = Network(Shared(trunk, heads), heads)
    model(x)["left"]  # logits [B, 10]
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """A pattern below heads: x [B, ...] -> dict task -> output.

    Args:
        pattern: module from x to a dict task -> features.
        heads: module from that dict to a dict task -> output.

    Raises:
        ValueError: when called, if pattern and heads do not have the same tasks; it names them.
        AttributeError: when asked for its `trunk`, unless `Parallel` heads stand on a `Shared` one.

    Example:
        >>> heads = Parallel({"price": nn.Linear(8, 1), "kind": nn.Linear(8, 3)})
        >>> model = Network(Shared(nn.Linear(5, 8), heads), heads)
        >>> {task: list(y.shape) for task, y in model(torch.randn(4, 5)).items()}
        {'price': [4, 1], 'kind': [4, 3]}
    """

    def __init__(self, pattern: nn.Module, heads: nn.Module):
        super().__init__()
        self.pattern, self.heads = pattern, heads

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Outputs of all tasks, in the order of the heads."""
        features = self.pattern(x)
        outputs = self.heads(features)
        if headless := [name for name in features if name not in outputs]:
            raise ValueError(
                f"The pattern makes features for {', '.join(map(repr, headless))},"
                f" which have no head; the heads are {', '.join(outputs)}."
            )
        return outputs

    @property
    def trunk(self) -> nn.Module:
        """What all tasks share, where `Parallel` heads stand on a `Shared` trunk.

        Such a network can be balanced, as a `HardSharing` can. AttributeError for any other: there
        is no one trunk below it.
        """
        if isinstance(self.pattern, Shared) and isinstance(self.heads, Parallel):
            return self.pattern.trunk
        raise AttributeError(
            "Only shared weights below parallel heads have one trunk that all tasks share."
        )


class HardSharing(nn.Module):
    """One trunk for all tasks and one head per task (hard parameter sharing).

    It computes what ``Network(Shared(trunk, heads), Parallel(heads))`` computes: use this where
    hard sharing is all you need, and `Network` where pattern or heads will be exchanged for others.
    With a single head it is a single-task network of the same size.

    Args:
        trunk: module from inputs [B, ...] to features [B, k].
        heads: task -> module from those features to the task's output. `forward` returns a dict
            task -> output.

    Source:
        Caruana, "Multitask learning", Machine Learning 28, 1997; chapter 1, equations 2 and 3.

    Example:
        >>> heads = {"price": nn.Linear(8, 1), "kind": nn.Linear(8, 3)}
        >>> model = HardSharing(nn.Linear(5, 8), heads)
        >>> {task: list(y.shape) for task, y in model(torch.randn(4, 5)).items()}
        {'price': [4, 1], 'kind': [4, 3]}
        >>> model(torch.randn(4, 5))["price"].sum().backward()  # one task reaches the shared trunk
        >>> model.trunk.weight.grad is None, model.heads["kind"].weight.grad is None
        (False, True)
    """

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module]):
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleDict(heads)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Outputs of all tasks; the trunk runs once."""
        features = self.trunk(x)
        return {name: head(features) for name, head in self.heads.items()}


# ----------------------------------------------------------------------------------------- patterns
class Shared(nn.Module):
    """Shared weights: one trunk for all tasks, z_t = f(x).

    With `Parallel` heads on top this is hard parameter sharing, as `HardSharing` is.

    Args:
        trunk: module from inputs [B, ...] to features.
        tasks: names of the tasks, or a mapping whose keys they are, such as the heads.

    Example:
        >>> features = Shared(nn.Linear(5, 8), ["price", "kind"])(torch.randn(4, 5))
        >>> features["price"] is features["kind"], list(features["kind"].shape)
        (True, [4, 8])
    """

    def __init__(self, trunk: nn.Module, tasks: Iterable[str]):
        super().__init__()
        self.trunk, self.tasks = trunk, tuple(tasks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Task -> features, the same tensor for every task."""
        z = self.trunk(x)
        return dict.fromkeys(self.tasks, z)


class OwnTrunks(nn.ModuleDict):
    """A trunk for each task, z_t = f_t(x), given as a dict task -> trunk.

    These are single-task networks side by side. With `spread` as a penalty they share softly: each
    task keeps its own parameters, near the mean of all.

    Raises:
        ValueError: from `spread`, if the trunks differ in the shapes of their parameters.

    Example:
        >>> layers = {task: nn.Linear(1, 1, bias=False) for task in ("price", "kind")}
        >>> trunks = OwnTrunks(layers)
        >>> _ = nn.init.constant_(trunks["price"].weight, 1.0)
        >>> _ = nn.init.constant_(trunks["kind"].weight, 3.0)
        >>> {task: z.item() for task, z in trunks(torch.ones(1, 1)).items()}
        {'price': 1.0, 'kind': 3.0}
        >>> trunks.spread().item()  # (1 - 2)^2 + (3 - 2)^2
        2.0
    """

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Task -> features of its trunk."""
        return {name: trunk(x) for name, trunk in self.items()}

    def spread(self) -> Tensor:
        """Squared distance of the trunks from their mean: sum_t |theta_t - mean|^2, a scalar.

        Raises:
            ValueError: if the trunks differ in the shapes of their parameters.

        Source:
            Evgeniou and Pontil, "Regularized multi-task learning", KDD 2004, for linear models.
        """
        params = [list(trunk.parameters()) for trunk in self.values()]
        if len({tuple(p.shape for p in trunk) for trunk in params}) != 1:
            raise ValueError(
                f"The trunks of {', '.join(self)} have parameters of different shapes:"
                " only one structure can be shared."
            )
        stacks = [torch.stack(alike) for alike in zip(*params, strict=True)]
        return sum((stack - stack.mean(0)).square().sum() for stack in stacks)


class CrossStitch(nn.Module):
    """A column of layers per task, mixed after every layer: z_t <- sum_s alpha_ts z_s.

    The mixing weights alpha [T, T] are learned, one matrix per layer, and lie in `stitches`. Like
    the weights of losses they want no weight decay.

    Args:
        columns: task -> its layers, as many for every task; the outputs at one depth have one
            shape.
        diagonal: what alpha has on its diagonal at first. The rest of 1 is spread over the other
            tasks, so that rows sum to 1; with 1.0 the tasks begin as separate networks.

    Raises:
        ValueError: if the columns are not equally long.

    Source:
        Misra et al., "Cross-stitch networks for multi-task learning", CVPR 2016, equation 1.

    Example:
        >>> columns = {task: [nn.Linear(5, 8), nn.ReLU()] for task in ("price", "kind")}
        >>> pattern = CrossStitch(columns)
        >>> [[round(a, 1) for a in row] for row in pattern.stitches[0].tolist()]
        [[0.9, 0.1], [0.1, 0.9]]
        >>> {task: list(z.shape) for task, z in pattern(torch.randn(4, 5)).items()}
        {'price': [4, 8], 'kind': [4, 8]}
    """

    def __init__(self, columns: Mapping[str, Sequence[nn.Module]], diagonal: float = 0.9):
        super().__init__()
        depths = {name: len(layers) for name, layers in columns.items()}
        if len(set(depths.values())) != 1:
            raise ValueError(f"Columns need as many layers for every task, but there are {depths}.")
        self.columns = nn.ModuleDict(
            {name: nn.ModuleList(layers) for name, layers in columns.items()}
        )
        tasks, depth = len(depths), next(iter(depths.values()))
        alpha = torch.full((tasks, tasks), (1 - diagonal) / max(tasks - 1, 1))
        alpha.fill_diagonal_(diagonal)
        self.stitches = nn.ParameterList(alpha.clone() for _ in range(depth))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Task -> features after its last layer and the last mixing."""
        z = [x] * len(self.columns)
        rows_of_layers = zip(*self.columns.values(), strict=True)
        for alpha, layers in zip(self.stitches, rows_of_layers, strict=True):
            unmixed = torch.stack([layer(z_t) for layer, z_t in zip(layers, z, strict=True)])
            z = torch.tensordot(alpha, unmixed, dims=1)
        return dict(zip(self.columns, z, strict=True))


class MTAN(nn.Module):
    """One trunk in blocks, and each task masks what every block gives (attention).

    With p_j = block_j(p_{j-1}), task t sees z_tj = sigmoid(attention_tj([p_{j-1}, z_t,j-1])) * p_j,
    and its features are the last z_tj. In the paper a further layer stands between a block's input
    and the mask; it can be put into the attention module.

    Args:
        blocks: the trunk, block after block.
        attention: task -> one module per block, from the block's input joined with what the task
            saw of it along dimension 1 (for the first block x alone) to logits of the shape of the
            block's output.

    Raises:
        ValueError: if a task has not one attention module for each block; it names the task.

    Source:
        Liu, Johns and Davison, "End-to-end multi-task learning with attention", CVPR 2019.

    Example:
        >>> attention = {task: [nn.Linear(5, 8), nn.Linear(16, 8)] for task in ("price", "kind")}
        >>> pattern = MTAN([nn.Linear(5, 8), nn.Linear(8, 8)], attention)
        >>> {task: list(z.shape) for task, z in pattern(torch.randn(4, 5)).items()}
        {'price': [4, 8], 'kind': [4, 8]}
    """

    def __init__(self, blocks: Sequence[nn.Module], attention: Mapping[str, Sequence[nn.Module]]):
        super().__init__()
        if unequal := [name for name, layers in attention.items() if len(layers) != len(blocks)]:
            raise ValueError(
                f"Task {', '.join(map(repr, unequal))} needs one attention module for each of the"
                f" {len(blocks)} blocks."
            )
        self.blocks = nn.ModuleList(blocks)
        self.attention = nn.ModuleDict(
            {name: nn.ModuleList(layers) for name, layers in attention.items()}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Task -> what it sees of the last block's output."""
        p, seen = x, {name: [x] for name in self.attention}
        for j, block in enumerate(self.blocks):
            p = block(p)
            for name, layers in self.attention.items():
                z = torch.sigmoid(layers[j](torch.cat(seen[name], dim=1))) * p
                seen[name] = [p, z]
        return {name: z for name, (_, z) in seen.items()}


# -------------------------------------------------------------------------------------------- heads
class Parallel(nn.ModuleDict):
    """Each task reads its own features and nothing else: y_t = h_t(z_t).

    Given as a dict task -> head.

    Raises:
        ValueError: when called without the features of a task that has a head.

    Example:
        >>> heads = Parallel({"price": nn.Linear(8, 1), "kind": nn.Linear(8, 3)})
        >>> z = {"price": torch.randn(4, 8), "kind": torch.randn(4, 8)}
        >>> {task: list(y.shape) for task, y in heads(z).items()}
        {'price': [4, 1], 'kind': [4, 3]}
    """

    def forward(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Task -> output of its head."""
        return {name: head(_features(z, name)) for name, head in self.items()}


class Cascade(nn.ModuleDict):
    """Heads in sequence: a task also reads earlier outputs, y_t = h_t([z_t, y_1..y_{t-1}]).

    Given as a dict task -> head, in the order in which they are computed. Features and outputs are
    flattened and joined along dimension 1, so head t takes as many more numbers as the earlier
    heads give. What is read is what was predicted, never the label, so that training and use are
    alike; the gradient of a later task flows into the earlier heads.

    Raises:
        ValueError: when called without the features of a task that has a head.

    Example:
        >>> heads = Cascade({"price": nn.Linear(8, 1), "kind": nn.Linear(8 + 1, 3)})
        >>> z = {"price": torch.randn(4, 8), "kind": torch.randn(4, 8)}
        >>> {task: list(y.shape) for task, y in heads(z).items()}
        {'price': [4, 1], 'kind': [4, 3]}
    """

    def forward(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Task -> output, one after the other."""
        outputs = {}
        for name, head in self.items():
            outputs[name] = head(_join([_features(z, name), *outputs.values()]))
        return outputs


class Cooperative(nn.Module):
    """Heads that exchange drafts: u_t = h_t(z_t), then y_t = u_t + e_t([u_s for s != t]).

    If all corrections are zero this is `Parallel`.

    Args:
        drafts: task -> head from its features to a draft of its output.
        exchange: task -> module from the drafts of all other tasks, flattened and joined in order
            along dimension 1, to a correction of the shape of the draft.

    Raises:
        ValueError: if drafts and exchange name different tasks, or when called without the features
            of one.

    Example:
        >>> drafts = {"price": nn.Linear(8, 1), "kind": nn.Linear(8, 3)}
        >>> heads = Cooperative(drafts, {"price": nn.Linear(3, 1), "kind": nn.Linear(1, 3)})
        >>> z = {"price": torch.randn(4, 8), "kind": torch.randn(4, 8)}
        >>> {task: list(y.shape) for task, y in heads(z).items()}
        {'price': [4, 1], 'kind': [4, 3]}
    """

    def __init__(self, drafts: Mapping[str, nn.Module], exchange: Mapping[str, nn.Module]):
        super().__init__()
        if drafts.keys() != exchange.keys():
            raise ValueError(
                f"The tasks differ: drafts for {', '.join(drafts)},"
                f" exchange for {', '.join(exchange)}."
            )
        self.drafts, self.exchange = Parallel(drafts), nn.ModuleDict(exchange)

    def forward(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Task -> its draft, corrected by what the other tasks drafted."""
        drafts = self.drafts(z)
        outputs = {}
        for name, draft in drafts.items():
            others = [other for task, other in drafts.items() if task != name]
            outputs[name] = draft + self.exchange[name](_join(others))
        return outputs


def _features(z: Mapping[str, Tensor], name: str) -> Tensor:
    """A task's features; ValueError where the pattern made none."""
    if name not in z:
        raise ValueError(
            f"There is a head for task {name!r} but the pattern makes no features for it;"
            f" it makes some for {', '.join(z)}."
        )
    return z[name]


def _join(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors [B, ...] flattened and laid side by side: [B, numbers]."""
    return torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)
