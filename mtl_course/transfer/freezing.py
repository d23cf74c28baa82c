"""Freezing for good, undoing it, and a fresh head in place of the source's."""

from torch import nn

from ..training.modes import hold, is_held, release


def _stay_in_eval(module: nn.Module, inputs: tuple) -> None:
    """Forward pre-hook of a frozen module, for whoever sets ``training`` without `train`."""
    if module.training:
        for inner in module.modules():
            if is_held(inner):
                inner.training = False


def freeze(module: nn.Module) -> nn.Module:
    """Fix a module for good: no gradients, and evaluation mode even after ``model.train()``.

    Evaluation mode matters because BatchNorm moves its running statistics, and dropout drops,
    whenever they run in training mode; `requires_grad` has no say in that. The module and all
    modules in it stay in evaluation mode, whichever of them is called and in whatever way.

    Args:
        module: a model or a module of it; changed in place.

    Returns:
        The same module.

    Example:
        >>> import torch
        >>> norm = freeze(nn.BatchNorm1d(2))
        >>> _ = norm.train()(torch.full((3, 2), 5.0))  # would move the statistics of any other
        >>> norm.running_mean.tolist(), norm.weight.requires_grad
        ([0.0, 0.0], False)
    """
    module.requires_grad_(False)
    hold(module)
    if _stay_in_eval not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_stay_in_eval)
    return module


def unfreeze(module: nn.Module) -> nn.Module:
    """Undo `freeze` for a module and all modules in it.

    They want gradients again, have the mode that they were frozen in, and ``model.train()`` reaches
    them.

    Args:
        module: a model or a module of it; changed in place.

    Returns:
        The same module.

    Example:
        >>> import torch
        >>> norm = unfreeze(freeze(nn.BatchNorm1d(2)))
        >>> _ = norm.train()(torch.full((3, 2), 5.0))
        >>> norm.running_mean.tolist(), norm.weight.requires_grad  # a tenth of the way to 5
        ([0.5, 0.5], True)
    """
    release(module)
    for inner in module.modules():
        for key, hook in list(inner._forward_pre_hooks.items()):
            if hook is _stay_in_eval:
                del inner._forward_pre_hooks[key]
    return module.requires_grad_(True)


def replace_head(model: nn.Module, classes: int, name: str = "head") -> nn.Linear:
    """Put a fresh linear head in the place of an old one, on its device and in its dtype.

    Under every name that the old head has in the model. An optimizer that was built before still
    has the old head's parameters: build it anew.

    Args:
        model: changed in place.
        classes: number of outputs of the new head.
        name: of the old head in the model, dotted if it lies deeper, such as "head.2".

    Returns:
        The new head, freshly initialised, with a bias if the old one had one.

    Raises:
        TypeError: if the old head is no nn.Linear.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 10))
        >>> replace_head(model, classes=3, name="2")
        Linear(in_features=8, out_features=3, bias=True)
    """
    old = model.get_submodule(name)
    if not isinstance(old, nn.Linear):
        raise TypeError(
            f"{name!r} is a {type(old).__name__}, not an nn.Linear:"
            " name the last layer, such as 'head.2'."
        )
    new = nn.Linear(
        old.in_features,
        classes,
        bias=old.bias is not None,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    for parent in list(model.modules()):
        for child, module in list(parent._modules.items()):
            if module is old:
                setattr(parent, child, new)
    return new
