"""Freezing for good, undoing it, and a fresh head in place of the source's."""

from torch import nn


def _stay_in_eval(module: nn.Module, inputs: tuple) -> None:
    if module.training:
        module.eval()


def freeze(module: nn.Module) -> nn.Module:
    """Fix a module for good: no gradients, and evaluation mode even after ``model.train()``.
    Returns the module, changed in place.

    Evaluation mode matters because BatchNorm moves its running statistics, and dropout drops,
    whenever they run in training mode; `requires_grad` has no say in that. A hook puts the module
    back into it before every forward pass, so no later call undoes it.
    """
    module.requires_grad_(False)
    module.eval()
    if _stay_in_eval not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_stay_in_eval)
    return module


def unfreeze(module: nn.Module) -> nn.Module:
    """Undo `transfer.freeze` for a module and its parts: they want gradients, and ``model.train()``
    reaches them. Returns it, changed in place.
    """
    for part in module.modules():
        for key, hook in list(part._forward_pre_hooks.items()):
            if hook is _stay_in_eval:
                del part._forward_pre_hooks[key]
    return module.requires_grad_(True)


def replace_head(model: nn.Module, classes: int, name: str = "head") -> nn.Linear:
    """Put a fresh linear head with `classes` outputs in the place of ``model.<name>``, on its
    device and in its dtype; returns it.

    An optimizer that was built before still holds the old head's parameters: build it anew.
    TypeError if the old head is no nn.Linear.
    """
    old = model.get_submodule(name)
    if not isinstance(old, nn.Linear):
        raise TypeError(
            f"{name!r} is a {type(old).__name__}, not an nn.Linear: name the last layer, such as"
            " 'head.2'."
        )
    new = nn.Linear(
        old.in_features,
        classes,
        bias=old.bias is not None,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
    return new
