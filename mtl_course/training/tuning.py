"""A search for settings: with Optuna where it is installed, else at random points. Both end
unpromising trials early.

An objective is a generator. It asks for its settings and yields the score of the unfinished run
after each stage, larger is better:

    def objective(suggest):
        rate = suggest("rate", 1e-4, 1e-1)
        for epochs in (5, 10, 20):
            yield ...  # train on, up to this epoch; the score on validation data

    found = tuning.search(objective, trials=20)
    print(tuning.best(found).settings)

A trial is pruned when its score is below the median of what the earlier trials had at that stage;
the first few never are.
"""

import math
import random
import statistics
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec

Objective = Callable[[Callable[[str, float, float], float]], Iterator[float]]


@dataclass
class Trial:
    """The settings of a trial, its score after each stage, and whether it was ended early, or
    diverged (FloatingPointError).
    """

    settings: dict[str, float] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    ended: bool = False


def search(objective: Objective, trials: int, seed: int = 0) -> list[Trial]:
    """`optuna_search` where Optuna is installed (``pip install optuna``), else `random_search`."""
    return (optuna_search if find_spec("optuna") else random_search)(objective, trials, seed)


def best(found: list[Trial]) -> Trial:
    """The trial with the best last score among those that ran to their end. ValueError if none did."""
    whole = [trial for trial in found if not trial.ended and trial.scores]
    if not whole:
        raise ValueError(
            f"None of the {len(found)} trials ran to its end: take more of them, or lower learning"
            " rates."
        )
    return max(whole, key=lambda trial: trial.scores[-1])


def random_search(objective: Objective, trials: int, seed: int = 0, start: int = 4) -> list[Trial]:
    """Settings drawn uniformly on a logarithmic scale; the first `start` trials are not pruned.

    Source: Bergstra and Bengio, "Random search for hyper-parameter optimization", JMLR 13, 2012.
    """
    draw, found = random.Random(seed), []
    for number in range(trials):
        trial = Trial()

        def suggest(name, low, high, trial=trial):
            trial.settings[name] = math.exp(draw.uniform(math.log(low), math.log(high)))
            return trial.settings[name]

        def prune(trial=trial, number=number):
            stage = len(trial.scores)
            rivals = [
                earlier.scores[stage - 1] for earlier in found if len(earlier.scores) >= stage
            ]
            return number >= start and bool(rivals) and trial.scores[-1] < statistics.median(rivals)

        _run(objective(suggest), trial, prune)
        found.append(trial)
    return found


def optuna_search(objective: Objective, trials: int, seed: int = 0, start: int = 4) -> list[Trial]:
    """Optuna's tree-structured Parzen estimator draws near good earlier trials, and its median rule
    prunes.

    Source: Akiba et al., "Optuna: a next-generation hyperparameter optimization framework", KDD
    2019.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its progress bars, where a notebook has no widgets
        import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=start)
    study = optuna.create_study(
        direction="maximize",
        sampler=sampler,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=start),
    )
    found = []
    for _ in range(trials):
        trial, asked = Trial(), study.ask()

        def suggest(name, low, high, trial=trial, asked=asked):
            trial.settings[name] = asked.suggest_float(name, low, high, log=True)
            return trial.settings[name]

        def prune(trial=trial, asked=asked):
            asked.report(trial.scores[-1], len(trial.scores))
            return asked.should_prune()

        _run(objective(suggest), trial, prune)
        state = optuna.trial.TrialState.PRUNED if trial.ended else optuna.trial.TrialState.COMPLETE
        study.tell(asked, None if trial.ended else trial.scores[-1], state)
        found.append(trial)
    return found


def _run(stages, trial, prune):
    try:
        for score in stages:
            trial.scores.append(float(score))
            if prune():
                trial.ended = True
                break
    except FloatingPointError:
        trial.ended = True  # a diverged trial is a trial
    finally:
        stages.close()
