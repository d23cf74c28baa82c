"""From a source task to a target task: freezing, new heads, L2-SP, checkpoints that fit in part, maps between label spaces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def _stay_in_eval(module: nn.Module, inputs: tuple) -> None:
    if module.training:
        module.eval()


def freeze(module: nn.Module) -> nn.Module:
    """Fix a module for good: no gradients, and evaluation mode even after ``model.train()``. Returns the module, changed in place.

    Evaluation mode matters because BatchNorm moves its running statistics, and dropout drops, whenever they run in training mode;
    `requires_grad` has no say in that. A hook puts the module back into it before every forward pass, so no later call undoes it.
    """
    module.requires_grad_(False)
    module.eval()
    if _stay_in_eval not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_stay_in_eval)
    return module


def replace_head(model: nn.Module, classes: int, name: str = "head") -> nn.Linear:
    """Put a fresh linear head with `classes` outputs in the place of ``model.<name>``, on its device and in its dtype; returns it.

    An optimizer that was built before still holds the old head's parameters: build it anew. TypeError if the old head is no nn.Linear.
    """
    old = model.get_submodule(name)
    if not isinstance(old, nn.Linear):
        raise TypeError(f"{name!r} is a {type(old).__name__}, not an nn.Linear: name the last layer, such as 'head.2'.")
    new = nn.Linear(old.in_features, classes, bias=old.bias is not None, device=old.weight.device, dtype=old.weight.dtype)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
    return new


def l2_sp(parameters: Mapping[str, Tensor], source: Mapping[str, Tensor], strength: float | Tensor, new: float | Tensor = 0.0) -> Tensor:
    """The L2-SP penalty: `strength` x ||theta - theta_source||^2 where there is a source, `new` x ||theta||^2 where there is none.

    parameters: name -> tensor, as ``dict(model.named_parameters())``; source: the starting point, for the names that have one (the trunk).
    It is constant: detach it and copy it (``{name: p.detach().clone() ...}``), or it moves along with the model. Returns a scalar.
    Source: Li, Grandvalet and Davoine, "Explicit inductive bias for transfer learning with convolutional networks", ICML 2018,
    section 3 (their factors alpha and beta are twice ours). ValueError if a shape differs, or a name of `source` is no parameter.
    """
    if unknown := source.keys() - parameters.keys():
        raise ValueError(f"The source has {', '.join(sorted(unknown))}, which the model does not.")
    terms = []
    for name, p in parameters.items():
        if name not in source:
            terms.append(new * p.square().sum())
        elif source[name].shape != p.shape:
            raise ValueError(f"{name} has shape {tuple(p.shape)} but {tuple(source[name].shape)} in the source: leave a new head out of it.")
        else:
            terms.append(strength * (p - source[name]).square().sum())
    return torch.stack(terms).sum()


@dataclass(frozen=True)
class Loaded:
    """What `load_source` did: names that were loaded, names left as they were (new), names of the checkpoint that were not used."""

    loaded: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self):
        parts = [f"{len(self.loaded)} tensors loaded", f"new: {', '.join(self.new) or 'none'}", f"not used: {', '.join(self.unused) or 'none'}"]
        return "; ".join(parts)


def load_source(model: nn.Module, state: Mapping[str, Tensor], new: Sequence[str] = ("head",)) -> Loaded:
    """Load a source checkpoint into a model whose parts named in `new` are its own. Returns a report; print it.

    Every tensor outside `new` must be in `state` with the same shape and nothing else may be, or a ValueError lists what does not fit and
    the model stays as it was. ``load_state_dict(strict=False)`` skips missing and unexpected names without a word instead.
    """
    own = model.state_dict()
    fresh = [name for name in own if any(name == part or name.startswith(part + ".") for part in new)]
    unused = [name for name in state if any(name == part or name.startswith(part + ".") for part in new)]
    shared = [name for name in own if name not in fresh]
    problems = [f"{name} is missing" for name in shared if name not in state]
    problems += [f"{name} is unexpected" for name in state if name not in own and name not in unused]
    for name in shared:
        if name in state and state[name].shape != own[name].shape:
            problems.append(f"{name} has shape {tuple(state[name].shape)}, the model needs {tuple(own[name].shape)}")
    if problems:
        raise ValueError("The checkpoint does not fit: " + "; ".join(problems) + f". Only {', '.join(new) or 'nothing'} may be new.")
    model.load_state_dict({name: state[name] for name in shared}, strict=False)
    return Loaded(tuple(shared), tuple(fresh), tuple(unused))


def label_map(source_probabilities: Tensor, labels: Tensor, classes: int, prior: float = 0.0) -> Tensor:
    """Estimate P(target label | source label) from a few target examples: a matrix [source classes, target classes], rows sum to 1.

    source_probabilities: [n, source classes], the source model's output on the target inputs, rows sum to 1; labels: int64 [n].
    Every example adds its probabilities to its label's column, and `prior` stands in every cell before the first one.
    ``source_probabilities @ label_map(...)`` then are probabilities of target labels. A row without any mass becomes uniform.
    Source: Nguyen, Hassner, Seeger and Archambeau, "LEEP: a new measure to evaluate transferability of learned representations",
    ICML 2020, equations 1 and 2 (there without a prior). ValueError if the lengths differ or a label is outside 0..classes - 1.
    """
    if len(source_probabilities) != len(labels):
        raise ValueError(f"{len(source_probabilities)} rows of probabilities but {len(labels)} labels.")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"Labels must lie in 0..{classes - 1}; they go from {int(labels.min())} to {int(labels.max())}.")
    one_hot = nn.functional.one_hot(labels, classes).to(source_probabilities)
    mass = source_probabilities.T @ one_hot + prior
    total = mass.sum(dim=1, keepdim=True)
    return torch.where(total > 0, mass / total.clamp_min(torch.finfo(mass.dtype).tiny), torch.full_like(mass, 1 / classes))
