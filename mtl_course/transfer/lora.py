"""LoRA: low-rank updates beside frozen weights, many of them on one model.

A layer with weight W computes with W + (alpha / r) B A. Only A and B are trained: [r, inputs] and
[outputs, r]. For a convolution that is a convolution A with r channels, and one of 1 x 1 after it.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..training.modes import places
from ._names import matching, put
from .freezing import freeze


def _most(layer: nn.Module) -> int:
    """The largest rank that a change of this layer's weight can have."""
    return min(len(layer.weight), layer.weight[0].numel())


class LoRALayer(nn.Module):
    """A frozen nn.Linear or nn.Conv2d with low-rank updates, of which at most one is in use.

    `weight` and `bias` are those that it computes with, so that modules which read them, such as
    nn.MultiheadAttention, see the update as well.

    Args:
        base: the layer; it stays the same object.

    Raises:
        TypeError: if it is another kind of layer.
        ValueError: for a convolution in groups.

    Example:
        >>> layer = LoRALayer(nn.Linear(8, 5))
        >>> layer.add("sketches", r=2)
        >>> {name: list(p.shape) for name, p in layer.named_parameters() if p.requires_grad}
        {'A.sketches': [2, 8], 'B.sketches': [5, 2]}
    """

    def __init__(self, base: nn.Module):
        super().__init__()
        if not isinstance(base, nn.Linear | nn.Conv2d):
            raise TypeError(f"LoRA is for nn.Linear and nn.Conv2d, not for {type(base).__name__}.")
        if isinstance(base, nn.Conv2d) and base.groups > 1:
            raise ValueError(f"LoRA is not for convolutions in groups; this one has {base.groups}.")
        self.base = base.requires_grad_(False)
        self.A, self.B = nn.ParameterDict(), nn.ParameterDict()
        self.alpha: dict[str, float] = {}
        self.active: str | None = None
        self.merged: str | None = None

    def add(self, name: str, r: int, alpha: float | None = None) -> None:
        """Add an update that changes nothing yet, since B is zero, and use it.

        Args:
            name: of the update.
            r: its rank.
            alpha: its scale is alpha / r; None takes r, a scale of 1.
        """
        if not 1 <= r <= _most(self.base):
            raise ValueError(f"The rank of an update is between 1 and {_most(self.base)}, not {r}.")
        if name in self.A:
            raise ValueError(f"There is an adapter {name!r} already: take another name.")
        weight = self.base.weight
        # As torch draws a layer of this shape, so that A's outputs have a scale of their own.
        A = nn.init.kaiming_uniform_(weight.new_empty(r, *weight.shape[1:]), a=math.sqrt(5))
        self.A[name] = nn.Parameter(A)
        self.B[name] = nn.Parameter(weight.new_zeros(len(weight), r))
        self.alpha[name] = float(r if alpha is None else alpha)
        self.use(name)

    def use(self, name: str | None) -> None:
        """Compute with this update, or with none; only the one in use wants gradients."""
        if name is not None and name not in self.A:
            raise ValueError(
                f"There is no adapter {name!r}; there is {', '.join(self.A) or 'none'}."
            )
        self.unmerge()
        self.active = name
        for other in self.A:
            self.A[other].requires_grad_(other == name)
            self.B[other].requires_grad_(other == name)

    def delta(self, name: str) -> Tensor:
        """The update (alpha / r) B A, in the shape of the weight."""
        A, B = self.A[name], self.B[name]
        return (self.alpha[name] / len(A) * B @ A.flatten(1)).view(self.base.weight.shape)

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update in use to the weight; until `unmerge` nothing of it is trained."""
        if self.active is not None and self.merged is None:
            self.base.weight += self.delta(self.active)
            self.merged = self.active
            self.A[self.merged].requires_grad_(False)
            self.B[self.merged].requires_grad_(False)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the update out of the weight again, up to rounding."""
        if self.merged is not None:
            self.base.weight -= self.delta(self.merged)
            self.A[self.merged].requires_grad_(True)
            self.B[self.merged].requires_grad_(True)
            self.merged = None

    @property
    def weight(self) -> Tensor:
        """The weight that the layer computes with."""
        plain = self.active is None or self.merged is not None
        return self.base.weight if plain else self.base.weight + self.delta(self.active)

    @property
    def bias(self) -> Tensor | None:
        """The layer's own bias."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives, with the update in use."""
        if self.active is None or self.merged is not None:
            return self.base(x)
        if isinstance(self.base, nn.Conv2d):
            # A convolution with r channels takes nearly as long as the layer's own: add the
            # matrices instead, which are small beside the pictures.
            return self.base._conv_forward(x, self.weight, self.base.bias)
        A, B = self.A[self.active], self.B[self.active]
        B = self.alpha[self.active] / len(A) * B
        return self.base(x) + F.linear(F.linear(x, A), B)

    def extra_repr(self) -> str:
        """Names and ranks of the updates."""
        ranks = ", ".join(f"{name}: r={len(A)}" for name, A in self.A.items())
        return f"{ranks}; in use: {self.active}"


def lora_layers(model: nn.Module) -> dict[str, LoRALayer]:
    """The layers of a model that carry LoRA updates, by their names.

    Args:
        model: after `add_lora`.

    Returns:
        name -> layer.

    Raises:
        ValueError: if there is none.

    Example:
        >>> model = add_lora(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), "0", r=1)
        >>> list(lora_layers(model))
        ['0']
    """
    layers = {n: module for n, module in model.named_modules() if isinstance(module, LoRALayer)}
    if not layers:
        raise ValueError("No layer of this model carries LoRA: call add_lora first.")
    return layers


def add_lora(
    model: nn.Module,
    patterns: str | Sequence[str],
    r: int,
    alpha: float | None = None,
    name: str = "default",
) -> nn.Module:
    """Freeze a model, and give its layers of certain names a low-rank update to train.

    The model computes what it did before, because B starts from zero. Call it again with another
    name for a second adapter on the same frozen weights; the new one is in use. A head that is to
    be trained as well is opened afterwards: ``unfreeze(model.head)``.

    Args:
        model: changed in place; frozen as by `freeze`, BatchNorm's statistics too.
        patterns: of the dotted names of nn.Linear and nn.Conv2d layers, such as ``"trunk.*"`` or
            ``["*.query", "*.value"]``; ``*`` stands for anything.
        r: rank of the updates.
        alpha: the update is scaled by alpha / r; None takes r, a scale of 1.
        name: of the adapter.

    Returns:
        The same model.

    Raises:
        ValueError: if a pattern matches no layer, a layer cannot have that rank, or the name is
            taken or has a dot; the model is as it was then.

    Source:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4.1; A
        is drawn as in their code.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        >>> model = add_lora(model, "0", r=4)
        >>> {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
        {'0.A.default': 256, '0.B.default': 256}
    """
    if not name or "." in name or hasattr(nn.ParameterDict(), name):
        raise ValueError(f"{name!r} cannot be the name of an adapter: take a word without dots.")
    chosen = matching(model, patterns, (LoRALayer, nn.Linear, nn.Conv2d), closed=(LoRALayer,))
    for path, layer in chosen.items():
        base = layer.base if isinstance(layer, LoRALayer) else layer
        if getattr(base, "groups", 1) > 1:
            raise ValueError(
                f"Layer {path!r} is a convolution in {base.groups} groups: leave it out."
            )
        if not 1 <= r <= _most(base):
            raise ValueError(
                f"Layer {path!r} has a weight of shape {tuple(base.weight.shape)}: the rank of an"
                f" update is between 1 and {_most(base)}, not {r}."
            )
        if base is not layer and name in layer.A:
            raise ValueError(f"Layer {path!r} has an adapter {name!r} already: take another name.")
    modes = {path: layer.training for path, layer in chosen.items()}
    freeze(model)
    for path, layer in chosen.items():
        if not isinstance(layer, LoRALayer):
            fresh = LoRALayer(layer).train(modes[path])
            put(model, layer, fresh)
            layer = fresh
        layer.add(name, r, alpha)
    use_lora(model, name)
    return model


def use_lora(model: nn.Module, name: str | None) -> None:
    """Switch to another adapter, or to none: the frozen model as it came.

    Args:
        model: with LoRA layers. Those that do not have this adapter compute without any.
        name: of the adapter, or None.

    Raises:
        ValueError: if no layer has it.

    Example:
        >>> model = add_lora(nn.Sequential(nn.Linear(4, 3)), "*", r=1, name="noise")
        >>> model = add_lora(model, "*", r=2, name="blur")
        >>> use_lora(model, "noise")
        >>> [n for n, p in model.named_parameters() if p.requires_grad]
        ['0.A.noise', '0.B.noise']
    """
    layers = lora_layers(model)
    names = sorted({known for layer in layers.values() for known in layer.A})
    if name is not None and name not in names:
        raise ValueError(f"There is no adapter {name!r}; there are {', '.join(names)}.")
    for layer in layers.values():
        layer.use(name if name in layer.A else None)


def merge_lora(model: nn.Module) -> None:
    """Add the update in use to the weights, so that a pass costs what it did without LoRA.

    Args:
        model: with LoRA layers. While it is merged, its updates want no gradients.

    Raises:
        ValueError: if a layer shares its weight with another layer, which would get the update as
            well; the model is as it was then.

    Example:
        >>> model = add_lora(nn.Sequential(nn.Linear(4, 3)), "*", r=1)
        >>> _ = nn.init.ones_(model[0].B["default"])
        >>> x = torch.ones(2, 4)
        >>> before = model(x)
        >>> merge_lora(model)
        >>> torch.allclose(model(x), before, atol=1e-6)
        True
    """
    layers = lora_layers(model)
    weights: dict[str, list[str]] = {}
    for place, name in places(model).items():
        weights.setdefault(name, []).append(place)
    for path, layer in layers.items():
        own = f"{path}.base.weight" if path else "base.weight"
        others = next((spots for spots in weights.values() if own in spots), [])
        if layer.active is not None and len(others) > 1:
            other = next(spot for spot in others if spot != own)
            raise ValueError(
                f"Layer {path!r} shares its weight with {other!r}, which a merged update would"
                " change as well: leave it unmerged, or untie them."
            )
    for layer in layers.values():
        layer.merge()


def unmerge_lora(model: nn.Module) -> None:
    """Take the update out of the weights again, so that it can be trained or exchanged.

    Args:
        model: with LoRA layers. The weights are what they were, up to rounding.

    Example:
        >>> model = add_lora(nn.Sequential(nn.Linear(4, 3)), "*", r=1)
        >>> merge_lora(model)
        >>> unmerge_lora(model)
        >>> model[0].merged is None
        True
    """
    for layer in lora_layers(model).values():
        layer.unmerge()


def remove_lora(model: nn.Module) -> nn.Module:
    """Put the plain layers back, with what is merged into them.

    After `merge_lora` this is a model of the first form with new weights; else it is the frozen
    model as it came. Its parameters stay frozen.

    Args:
        model: with LoRA layers; changed in place.

    Returns:
        The same model, or the plain layer where the model was a LoRA layer itself.

    Example:
        >>> model = add_lora(nn.Sequential(nn.Linear(4, 3)), "*", r=1)
        >>> merge_lora(model)
        >>> remove_lora(model)
        Sequential(
          (0): Linear(in_features=4, out_features=3, bias=True)
        )
    """
    for layer in lora_layers(model).values():
        if layer is model:
            return layer.base
        put(model, layer, layer.base)
    return model


def lora_state(model: nn.Module, name: str = "default") -> dict[str, Tensor]:
    """One adapter alone, as a state dict: all that must be stored for its task.

    Args:
        model: with LoRA layers.
        name: of the adapter.

    Returns:
        Copies: layer's name + ".A" [r, ...], ".B" [outputs, r], ".alpha" (scalar).

    Raises:
        ValueError: if no layer has it.

    Example:
        >>> model = add_lora(nn.Sequential(nn.Linear(4, 3)), "*", r=1, alpha=8)
        >>> {key: list(value.shape) for key, value in lora_state(model).items()}
        {'0.A': [1, 4], '0.B': [3, 1], '0.alpha': []}
    """
    state = {}
    for path, layer in lora_layers(model).items():
        if name in layer.A:
            state[f"{path}.A"] = layer.A[name].detach().clone()
            state[f"{path}.B"] = layer.B[name].detach().clone()
            state[f"{path}.alpha"] = torch.tensor(layer.alpha[name])
    if not state:
        raise ValueError(f"No layer has an adapter {name!r}.")
    return state


def load_lora(model: nn.Module, state: Mapping[str, Tensor], name: str = "default") -> nn.Module:
    """Put a stored adapter onto a model, under a name, and use it.

    Args:
        model: the frozen model that it was trained on, with or without other adapters.
        state: from `lora_state`; ranks and scales are read from it.
        name: of the adapter from now on.

    Returns:
        The same model.

    Raises:
        ValueError: if the state names a layer that the model does not have, or has other shapes.

    Example:
        >>> model = add_lora(nn.Sequential(nn.Linear(4, 3)), "*", r=1, name="noise")
        >>> other = load_lora(nn.Sequential(nn.Linear(4, 3)), lora_state(model, "noise"), "noise")
        >>> torch.equal(other[0].A["noise"], model[0].A["noise"])
        True
    """
    there = {
        n for n, m in model.named_modules() if isinstance(m, LoRALayer | nn.Linear | nn.Conv2d)
    }
    paths = [key.removesuffix(".A") for key in state if key.endswith(".A")]
    for path in paths:
        A, B = state[f"{path}.A"], state.get(f"{path}.B")
        if path not in there:
            raise ValueError(f"The adapter is for a layer {path!r}, which the model does not have.")
        layer = model.get_submodule(path)
        weight = (layer.base if isinstance(layer, LoRALayer) else layer).weight
        if B is None or A.shape[1:] != weight.shape[1:] or B.shape != (len(weight), len(A)):
            shapes = tuple(A.shape), None if B is None else tuple(B.shape)
            raise ValueError(
                f"The adapter does not fit layer {path!r}: its A and B are {shapes[0]} and"
                f" {shapes[1]}, the weight is {tuple(weight.shape)}."
            )
    if not paths:
        raise ValueError("This is no adapter: it has no entry that ends in '.A'.")
    for path in paths:
        add_lora(model, path, len(state[f"{path}.A"]), float(state[f"{path}.alpha"]), name)
        layer = model.get_submodule(path)
        with torch.no_grad():
            layer.A[name].copy_(state[f"{path}.A"])
            layer.B[name].copy_(state[f"{path}.B"])
    use_lora(model, name)
    return model


def lora_delta(model: nn.Module, name: str = "default") -> dict[str, Tensor]:
    """What an adapter adds to the weights: its task vector, by the names of the plain model.

    Args:
        model: with LoRA layers.
        name: of the adapter.

    Returns:
        name of a weight -> (alpha / r) B A, in its shape, detached.

    Raises:
        ValueError: if no layer has it.

    Example:
        >>> model = add_lora(nn.Sequential(nn.Linear(4, 3)), "*", r=1)
        >>> {key: list(value.shape) for key, value in lora_delta(model).items()}
        {'0.weight': [3, 4]}
    """
    layers = {path: layer for path, layer in lora_layers(model).items() if name in layer.A}
    if not layers:
        raise ValueError(f"No layer has an adapter {name!r}.")
    return {
        f"{path}.weight" if path else "weight": layer.delta(name).detach()
        for path, layer in layers.items()
    }
