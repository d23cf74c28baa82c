"""Finished models added up: averages, task vectors, TIES and soups, on state dicts.

All of it rests on one assumption: the models are descendants of one and the same model. Weights of
networks that were trained from different beginnings do not mean the same, place by place. Where
weights look unrelated these functions refuse to mix them.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ._names import as_list, fits

State = Mapping[str, Tensor]
RELATED = 0.3  # least cosine between the weights of relatives; of strangers it is about 0
ENOUGH = 100  # entries that a matrix must have for its cosine to tell


def _checked(states: Sequence[State], names: Sequence[str], skip: Sequence[str]) -> list[str]:
    """Names of the tensors to mix. Whatever does not fit is named in a ValueError."""
    first = states[0]
    for name, state in zip(names[1:], states[1:], strict=True):
        if missing := first.keys() ^ state.keys():
            raise ValueError(
                f"{name} and {names[0]} have not the same tensors: {', '.join(sorted(missing))}"
                " is in one of them only."
            )
    mixed = []
    for key, value in first.items():
        others = [state[key] for state in states[1:]]
        for name, other in zip(names[1:], others, strict=True):
            if other.shape != value.shape:
                raise ValueError(
                    f"{key!r} has shape {tuple(other.shape)} in {name} but {tuple(value.shape)}"
                    f" in {names[0]}."
                )
        if fits(key, skip):
            continue
        if value.is_floating_point():
            mixed.append(key)
        elif any(not torch.equal(value, other.to(value.device)) for other in others):
            raise ValueError(
                f"{key!r} counts in whole numbers and differs between the models: it cannot be"
                f" mixed. Say skip=[{key!r}], or a pattern such as '*num_batches_tracked', to keep"
                f" that of {names[0]}."
            )
    return mixed


def _related(
    states: Sequence[State], names: Sequence[str], keys: Sequence[str], least: float | None
) -> None:
    """Refuse states whose matrices point in unrelated directions."""
    if least is None:
        return
    for key in keys:
        first = states[0][key].flatten().double()
        if states[0][key].ndim < 2 or len(first) < ENOUGH or not first.any():
            continue
        for name, state in zip(names[1:], states[1:], strict=True):
            other = state[key].flatten().double()
            cosine = float(torch.cosine_similarity(first, other, dim=0))
            if other.any() and cosine < least:
                raise ValueError(
                    f"{name} and {names[0]} do not look like descendants of one model: the cosine"
                    f" of {key!r} is {cosine:.2f} (unrelated networks have about 0). Merge models"
                    " that were tuned from one checkpoint, heads included, or say related=None."
                )


def _numbered(states: Sequence[State]) -> list[str]:
    if len(states) == 0:
        raise ValueError("There is no model to merge: the list is empty.")
    return [f"model {i}" for i in range(len(states))]


def average(
    states: Sequence[State],
    weights: Sequence[float] | None = None,
    *,
    skip: str | Sequence[str] = (),
    related: float | None = RELATED,
) -> dict[str, Tensor]:
    """Average the weights of models of one ancestor: a uniform soup.

    Args:
        states: their state dicts, at least one.
        weights: one per model, which sum to 1; None weighs all alike.
        skip: patterns of names that are taken from the first model as they are, such as
            ``"*num_batches_tracked"``.
        related: least cosine between two models' weight matrices; None asks for none.

    Returns:
        A state dict of the same names.

    Raises:
        ValueError: if names or shapes differ, whole numbers differ, the weights do not sum to 1,
            or matrices look unrelated; it says which.

    Source:
        Wortsman et al., "Model soups", ICML 2022, section 2.

    Example:
        >>> average([{"w": torch.tensor([1.0, 4.0])}, {"w": torch.tensor([3.0, 0.0])}])
        {'w': tensor([2., 2.])}
    """
    names, skip = _numbered(states), as_list(skip)
    weights = [1 / len(states)] * len(states) if weights is None else [float(w) for w in weights]
    if len(weights) != len(states) or abs(sum(weights) - 1) > 1e-6:
        raise ValueError(
            f"Give one weight per model, {len(states)}, with a sum of 1; they are {weights}."
        )
    mixed = _checked(states, names, skip)
    _related(states, names, mixed, related)
    result = {key: value.clone() for key, value in states[0].items()}
    for key in mixed:
        result[key] = sum(w * state[key] for w, state in zip(weights, states, strict=True))
    return result


def interpolate(
    start: State,
    end: State,
    t: float,
    *,
    skip: str | Sequence[str] = (),
    related: float | None = RELATED,
) -> dict[str, Tensor]:
    """A point on the straight line between two models: (1 - t) start + t end.

    If the loss does not rise on the way, the two are linearly connected.

    Args:
        start: a state dict.
        end: another, of the same names.
        t: 0 at the start, 1 at the end; beyond these the line goes on.
        skip: as for `average`.
        related: as for `average`.

    Returns:
        A state dict.

    Source:
        Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", ICML 2020.

    Example:
        >>> interpolate({"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}, 0.25)
        {'w': tensor([1.5000])}
    """
    return average([start, end], [1 - t, t], skip=skip, related=related)


def task_vector(
    tuned: State,
    base: State,
    *,
    skip: str | Sequence[str] = (),
    related: float | None = RELATED,
) -> dict[str, Tensor]:
    """What tuning has changed: tuned weights minus those of the model it began from.

    Args:
        tuned: a state dict.
        base: that of its ancestor.
        skip: patterns of names to leave out.
        related: as for `average`.

    Returns:
        name -> difference, for the floating-point tensors.

    Raises:
        ValueError: as `average` does; above all if `base` is not the ancestor.

    Source:
        Ilharco et al., "Editing models with task arithmetic", ICLR 2023, section 2.

    Example:
        >>> task_vector({"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([1.0, 1.0])})
        {'w': tensor([2., 0.])}
    """
    states, names = [base, tuned], ["the base", "the tuned model"]
    mixed = _checked(states, names, as_list(skip))
    _related(states, names, mixed, related)
    return {key: tuned[key] - base[key] for key in mixed}


def add_vectors(
    base: State, vectors: Sequence[State], coefficient: float | Sequence[float] = 1.0
) -> dict[str, Tensor]:
    """Task arithmetic: base + coefficient x the sum of task vectors.

    A negative coefficient takes a task away: the model forgets it.

    Args:
        base: state dict of the common ancestor.
        vectors: from `task_vector`, `ties` or `lora_delta`; what one does not name stays.
        coefficient: for all of them, or one each; chosen on validation data.

    Returns:
        A state dict.

    Raises:
        ValueError: if a vector names a tensor that the base lacks, or has another shape, or there
            are not as many coefficients as vectors.

    Source:
        Ilharco et al., "Editing models with task arithmetic", ICLR 2023, section 2.

    Example:
        >>> base, vector = {"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([2.0, 0.0])}
        >>> add_vectors(base, [vector], -0.5)
        {'w': tensor([0., 1.])}
    """
    scales = coefficient
    if not isinstance(coefficient, Sequence):
        scales = [coefficient] * len(vectors)
    if len(scales) != len(vectors):
        raise ValueError(f"{len(vectors)} task vectors but {len(scales)} coefficients.")
    result = {key: value.clone() for key, value in base.items()}
    for i, (scale, vector) in enumerate(zip(scales, vectors, strict=True)):
        for key, value in vector.items():
            if key not in base:
                raise ValueError(f"Vector {i} has {key!r}, which the base does not have.")
            if value.shape != base[key].shape:
                raise ValueError(
                    f"{key!r} has shape {tuple(value.shape)} in vector {i} but"
                    f" {tuple(base[key].shape)} in the base."
                )
            result[key] = result[key] + scale * value
    return result


def ties(vectors: Sequence[State], keep: float = 0.2) -> dict[str, Tensor]:
    """TIES: trim task vectors, elect a sign for each weight, average those that agree with it.

    1. Trim: in each vector the share `keep` of its entries with the largest size stays, over all
       of its tensors together; the others become 0.
    2. Elect: each weight's sign is that of the sum of the trimmed entries.
    3. Merge: the mean of the entries that have this sign; 0 where there is none.

    Args:
        vectors: from `task_vector`, of the same names and shapes.
        keep: share of the entries that stay, above 0 and at most 1.

    Returns:
        One task vector, for `add_vectors` with a coefficient.

    Raises:
        ValueError: if there is no vector, names or shapes differ, or `keep` is out of range.
        FloatingPointError: for a vector with a NaN or inf, which has no rank among sizes; names it.

    Source:
        Yadav et al., "TIES-Merging: resolving interference when merging models", NeurIPS 2023,
        algorithm 1.

    Example:
        >>> a, b = torch.tensor([4.0, 0.1, -1.0]), torch.tensor([2.0, -0.2, 3.0])
        >>> ties([{"w": a}, {"w": b}], keep=0.67)["w"]
        tensor([3., 0., 3.])
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep is a share above 0 and at most 1; it is {keep}.")
    keys = _checked(vectors, [f"vector {n.split()[1]}" for n in _numbered(vectors)], ())
    flat = torch.stack([torch.cat([v[key].flatten() for key in keys]) for v in vectors])
    if (bad := ~flat.isfinite().all(dim=1)).any():
        raise FloatingPointError(f"Vector {int(bad.nonzero()[0])} is not finite: it diverged.")
    # Trim: whatever is as large as the k-th largest stays.
    k = max(1, round(keep * flat.shape[1]))
    threshold = flat.abs().topk(k, dim=1).values[:, -1:]
    flat = flat * (flat.abs() >= threshold)
    # Elect and merge.
    agree = flat * flat.sum(0).sign() > 0
    merged = (flat * agree).sum(0) / agree.sum(0).clamp_min(1)
    sizes = [vectors[0][key].numel() for key in keys]
    parts = merged.split(sizes)
    return {key: part.view_as(vectors[0][key]) for key, part in zip(keys, parts, strict=True)}


def greedy_soup(
    states: Sequence[State],
    score: Callable[[dict[str, Tensor]], float],
    *,
    skip: str | Sequence[str] = (),
    related: float | None = RELATED,
) -> tuple[dict[str, Tensor], list[int]]:
    """Average models one by one, the best first, and keep each that does not lower the score.

    Args:
        states: of models tuned for one task, such as those of a search over rates.
        score: state dict -> a number on *validation* data, the higher the better.
        skip: as for `average`.
        related: as for `average`.

    Returns:
        The soup, and the numbers of the models in it, in the order of their joining.

    Raises:
        ValueError: if there is no model, or what `average` refuses.
        FloatingPointError: for a score that is NaN, which is neither higher nor lower than another;
            it names the model or the soup.

    Source:
        Wortsman et al., "Model soups", ICML 2022, recipe 1.

    Example:
        >>> states = [{"w": torch.tensor([x])} for x in (1.0, 4.0, -9.0)]
        >>> soup, chosen = greedy_soup(states, lambda s: -abs(float(s["w"]) - 2), related=None)
        >>> soup, chosen
        ({'w': tensor([2.5000])}, [0, 1])
    """
    scores = [
        _ordered(score(dict(state)), name)
        for state, name in zip(states, _numbered(states), strict=True)
    ]
    order = sorted(range(len(states)), key=lambda i: -scores[i])
    chosen, best = order[:1], scores[order[0]]
    soup = average([states[order[0]]])
    for i in order[1:]:
        trial = average([states[j] for j in (*chosen, i)], skip=skip, related=related)
        if (value := _ordered(score(trial), f"the soup with model {i}")) >= best:
            soup, best, chosen = trial, value, [*chosen, i]
    return soup, chosen


def _ordered(score: float, name: str) -> float:
    """The score itself; FloatingPointError if it is NaN."""
    if math.isnan(score):
        raise FloatingPointError(f"The score of {name} is NaN: leave out models that diverged.")
    return score
