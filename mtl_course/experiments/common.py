"""What the experiments of several chapters need, once. Needs no Jupyter.

Chapters 1, 2, 7 and 12 train many small networks side by side: their parameters are stacked, name
-> [R, ...], and `torch.func.vmap` computes all R forward passes in one call (`stacked`,
`many_outputs`, `right_answers`). Chapters 4 and 5 score a task by the share of the best constant's
loss that a network explains (`constants`, `explained`) and choose by that score on validation data
(`TrainedNetwork`, `best_on_validation`, `one_network_per_task`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ..multitask.fit import TaskHistory
from ..multitask.weighting import Weighting

Built = TypeVar("Built")
Setting = TypeVar("Setting")


# ---------------------------------------------------------------------------- seeds and inputs
def seeded(build: Callable[[], Built], seed: int) -> Built:
    """What `build()` returns when torch draws from `seed`.

    The caller's own stream of random numbers is where it was afterwards, so that the order in which
    networks are built changes none of them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def standardised(values: Tensor, like: Tensor, limit: float | None = None) -> Tensor:
    """Columns in units of the mean and deviation of `like`.

    Args:
        values: [N, d].
        like: [n, d], the training rows: nothing else may say what the scale is.
        limit: clip to plus and minus so many deviations; None does not clip.

    Returns:
        [N, d]. A column that is constant in `like` is divided by 1e-6.
    """
    scaled = (values - like.mean(0)) / like.std(0).clamp_min(1e-6)
    return scaled if limit is None else scaled.clamp(-limit, limit)


# ---------------------------------------------------------------- many small networks at once
def stacked(build: Callable[[], nn.Module], seeds: Sequence[int]) -> dict[str, Tensor]:
    """Parameters of a freshly built network per seed, name -> [len(seeds), ...], detached."""
    parameters, _ = stack_module_state([seeded(build, seed) for seed in seeds])
    return {name: p.detach() for name, p in parameters.items()}


def many_outputs(model: nn.Module) -> Callable[[Mapping[str, Tensor], Tensor], Tensor]:
    """(stacked parameters, inputs [R, B, ...]) -> outputs [R, B, ...] of R networks.

    They have the form of `model`. Network r sees the inputs r and nothing else: the results are
    those of R separate calls.
    """
    return vmap(lambda parameters, x: functional_call(model, parameters, (x,)))


@torch.no_grad()
def right_answers(
    model: nn.Module, parameters: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> Tensor:
    """Which of the same examples x [N, ...], y [N] each of R networks gets right: bool [R, N]."""
    logits = vmap(lambda one: functional_call(model, one, (x,)))(dict(parameters))
    return logits.argmax(dim=2) == y


# ---------------------------------------------------------------------- the share explained
def constants(train: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> dict[str, float]:
    """Loss of the best constant prediction: the mean of a number, the shares of the classes.

    Args:
        train: task -> labels that the constant is fitted to; float [n] or [n, 1] for a regression,
            int64 [n] for a classification.
        labels: task -> labels that it is judged on.

    Returns:
        task -> mean squared error, or cross-entropy in nats.
    """
    losses = {}
    for name, y in train.items():
        target = labels[name]
        if y.is_floating_point():
            losses[name] = float(((target - y.mean(0)) ** 2).mean())
        else:
            shares = torch.bincount(y, minlength=int(target.max()) + 1) / len(y)
            losses[name] = float(-shares.log()[target].mean())
    return losses


def explained(losses: Mapping[str, float], constant: Mapping[str, float]) -> dict[str, float]:
    """Task -> 1 - loss / loss of the best constant: R2 for a squared error.

    0 is no better than the constant, 1 is perfect. It has no unit, so that it can be averaged.
    """
    return {name: 1 - losses[name] / constant[name] for name in losses}


@dataclass
class TrainedNetwork:
    """A trained network, its history, and task -> share explained on the validation data.

    weighting: as training left it; None where the losses were added up.
    """

    model: nn.Module
    history: TaskHistory
    explained: dict[str, float]
    weighting: Weighting | None = None

    @property
    def score(self) -> float:
        """Mean over tasks of the share explained on the validation data."""
        return float(np.mean(list(self.explained.values())))


def best_on_validation(
    train: Callable[[Setting], TrainedNetwork], settings: Iterable[Setting]
) -> tuple[TrainedNetwork, Setting]:
    """Train with every setting; the network with the best validation score, and its setting.

    A setting whose training diverges is a trial that is spent. Of equal ones the first is taken.

    Raises:
        FloatingPointError: if training diverged with every setting.
    """
    best, chosen, tried = None, None, []
    for setting in settings:
        tried.append(setting)
        try:
            trained = train(setting)
        except FloatingPointError:
            continue
        if best is None or trained.score > best.score:
            best, chosen = trained, setting
    if best is None:
        raise FloatingPointError(f"Training diverged with all of {tried}: offer lower rates.")
    return best, chosen


def one_network_per_task(searches: Mapping[str, dict]) -> dict:
    """Results of one network per task, in the form of one joint network's.

    Args:
        searches: task -> what a search for this task alone gave: "validation", its score; "chosen",
            its setting; and anything else by task, such as "explained".
    """
    names = next(iter(searches.values())).keys() - {"validation", "chosen"}
    by_task = {key: {t: row[key][t] for t, row in searches.items()} for key in sorted(names)}
    return by_task | {
        "validation": float(np.mean([row["validation"] for row in searches.values()])),
        "chosen": {t: row["chosen"] for t, row in searches.items()},
    }


def one_line(results: Mapping[str, dict], digits: int = 3) -> str:
    """ "method 0.123, ..." from method -> a search's result: the mean share explained."""
    means = {method: np.mean(list(row["explained"].values())) for method, row in results.items()}
    return ", ".join(f"{method} {mean:.{digits}f}" for method, mean in means.items())
