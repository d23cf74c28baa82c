"""Adapters and BitFit: a few new layers, or only the biases, beside frozen weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ._names import as_list, fits, matching, put
from .freezing import freeze


class AdapterLayer(nn.Module):
    """A frozen layer with a bottleneck behind it: y + up(act(down(y))), y its output.

    `up` starts from zero, so that at first nothing changes. Behind a convolution the bottleneck
    sees each pixel's channels.

    Args:
        base: an nn.Linear or nn.Conv2d; it stays the same object.
        width: of the bottleneck.
        activation: class of the module in its middle.

    Raises:
        TypeError: if it is another kind of layer.
        ValueError: if the width is below 1.

    Source:
        Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, figure 2; they
        start near zero, not at it.

    Example:
        >>> layer = AdapterLayer(nn.Linear(8, 6), width=2)
        >>> sum(p.numel() for p in layer.parameters() if p.requires_grad)  # 6*2 + 2 + 2*6 + 6
        32
    """

    def __init__(self, base: nn.Module, width: int, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        if not isinstance(base, nn.Linear | nn.Conv2d):
            raise TypeError(
                f"Adapters are for nn.Linear and nn.Conv2d, not for {type(base).__name__}."
            )
        if width < 1:
            raise ValueError(f"An adapter's width is at least 1; it is {width}.")
        self.base = base.requires_grad_(False)
        like = {"device": base.weight.device, "dtype": base.weight.dtype}
        if isinstance(base, nn.Linear):
            self.down = nn.Linear(base.out_features, width, **like)
            self.up = nn.Linear(width, base.out_features, **like)
        else:
            self.down = nn.Conv2d(base.out_channels, width, 1, **like)
            self.up = nn.Conv2d(width, base.out_channels, 1, **like)
        self.act = activation()
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives, corrected by the bottleneck."""
        y = self.base(x)
        return y + self.up(self.act(self.down(y)))


def add_adapters(
    model: nn.Module,
    patterns: str | Sequence[str],
    width: int,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Module:
    """Freeze a model, and put a small bottleneck to train behind its layers of certain names.

    The model computes what it did before. A head that is to be trained as well is opened
    afterwards: ``unfreeze(model.head)``.

    Args:
        model: changed in place; frozen as by `freeze`, BatchNorm's statistics too.
        patterns: of the dotted names of nn.Linear and nn.Conv2d layers; ``*`` stands for anything.
        width: of the bottlenecks.
        activation: class of the module in their middle.

    Returns:
        The same model.

    Raises:
        ValueError: if a pattern matches no layer, a layer has an adapter already, or the width is
            below 1; or for a layer of nn.MultiheadAttention, which reads its weight and never
            calls it, so that an adapter behind it would do nothing.

    Source:
        Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, section 2.1.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        >>> model = add_adapters(model, "0", width=2)
        >>> sum(value.numel() for value in trainable_state(model).values())
        322
    """
    chosen = matching(model, patterns, (AdapterLayer, nn.Linear, nn.Conv2d), (AdapterLayer,))
    for path, layer in chosen.items():
        if isinstance(layer, AdapterLayer):
            raise ValueError(f"Layer {path!r} has an adapter already.")
        if isinstance(layer, NonDynamicallyQuantizableLinear):
            raise ValueError(
                f"Layer {path!r} belongs to an nn.MultiheadAttention, which never calls it:"
                " use LoRA there, or a pattern that leaves it out."
            )
    if width < 1:
        raise ValueError(f"An adapter's width is at least 1; it is {width}.")
    modes = {path: layer.training for path, layer in chosen.items()}
    freeze(model)
    for path, layer in chosen.items():
        put(model, layer, AdapterLayer(layer, width, activation).train(modes[path]))
    return model


def bitfit(model: nn.Module, patterns: str | Sequence[str] = "*") -> list[str]:
    """Freeze a model but for its biases.

    Args:
        model: changed in place; frozen as by `freeze`, BatchNorm's statistics too.
        patterns: of the names of parameters, such as ``"trunk.*"``; of those that match, the
            biases are trained. Norms have a bias, too.

    Returns:
        The names of the parameters that are trained.

    Raises:
        ValueError: if a pattern matches no bias; the biases that there are are named.

    Source:
        Ben Zaken, Goldberg and Ravfogel, "BitFit", ACL 2022, section 3.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2, bias=False))
        >>> bitfit(model)
        ['0.bias', '1.bias']
    """
    patterns = as_list(patterns)
    biases = {
        name: p
        for name, p in model.named_parameters()
        if name.rpartition(".")[2] in ("bias", "in_proj_bias")
    }
    for pattern in patterns:
        if not any(fits(name, [pattern]) for name in biases):
            raise ValueError(
                f"The pattern {pattern!r} matches no bias;"
                f" the model has {', '.join(list(biases)[:8]) or 'none'}."
            )
    freeze(model)
    names = [name for name in biases if fits(name, patterns)]
    for name in names:
        biases[name].requires_grad_(True)
    return names


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """What a task has of its own: the parameters that want gradients, as a state dict.

    ``model.load_state_dict(state, strict=False)`` puts them back.

    Args:
        model: with adapters, biases or a head to train.

    Returns:
        name -> copy, detached.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> _ = bitfit(model, "1.*")
        >>> list(trainable_state(model))
        ['1.bias']
    """
    with torch.no_grad():
        return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
