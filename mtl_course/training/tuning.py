"""A search for settings: with Optuna where it is installed, else at random points.

Both end unpromising trials early. An objective is a generator. It asks for its settings and yields
the score of the unfinished run after each stage, larger is better:

    def objective(suggest):
        rate = suggest("rate", 1e-4, 1e-1)
        for epochs in (5, 10, 20):
            yield ...  # train on, up to this epoch; the score on validation data

    trials = tuning.search(objective, trials=20)
    print(tuning.best(trials).settings)

A trial is pruned when its score is below the median of what the earlier trials had at that stage;
the first few never are.
"""

import math
import random
import statistics
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from importlib.util import find_spec

Suggest = Callable[[str, float, float], float]
Objective = Callable[[Suggest], Generator[float, None, None]]


@dataclass
class Trial:
    """One setting of a search and what came of it.

    Args:
        settings: name -> value.
        scores: the score after each stage, larger is better.
        ended: whether it was pruned, or diverged (FloatingPointError).

    Example:
        >>> Trial({"rate": 0.1}, scores=[0.5, 0.7]).ended
        False
    """

    settings: dict[str, float] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    ended: bool = False


def search(objective: Objective, trials: int, seed: int = 0) -> list[Trial]:
    """`optuna_search` where Optuna is installed, else `random_search`.

    ``pip install optuna`` installs it.

    Args:
        objective: (suggest) -> scores, one per stage; ``suggest(name, low, high)`` gives a setting.
        trials: how many.
        seed: the same seed gives the same trials.

    Returns:
        The trials, in the order in which they ran.

    Example:
        >>> def objective(suggest):
        ...     yield -abs(suggest("rate", 1e-4, 1.0) - 0.01)
        >>> len(search(objective, trials=3))
        3
    """
    if find_spec("optuna"):
        return optuna_search(objective, trials, seed)
    return random_search(objective, trials, seed)


def best(trials: list[Trial]) -> Trial:
    """The trial with the best last score among those that ran to their end.

    Args:
        trials: as a search gives them.

    Returns:
        One of them.

    Raises:
        ValueError: none ran to its end with a score; NaN is none.

    Example:
        >>> pruned = Trial({"rate": 1.0}, scores=[0.9], ended=True)
        >>> best([pruned, Trial({"rate": 0.1}, [0.2, 0.6]), Trial({"rate": 0.01}, [0.4, 0.5])])
        Trial(settings={'rate': 0.1}, scores=[0.2, 0.6], ended=False)
    """
    whole = [
        trial
        for trial in trials
        if not trial.ended and trial.scores and not math.isnan(trial.scores[-1])
    ]
    if not whole:
        raise ValueError(
            f"None of the {len(trials)} trials ran to its end:"
            " take more of them, or lower learning rates."
        )
    return max(whole, key=lambda trial: trial.scores[-1])


def random_search(objective: Objective, trials: int, seed: int = 0, start: int = 4) -> list[Trial]:
    """Settings drawn uniformly on a logarithmic scale.

    Args:
        objective: (suggest) -> scores, one per stage; ``suggest(name, low, high)`` gives a setting.
        trials: how many.
        seed: the same seed gives the same trials.
        start: the first so many are not pruned.

    Returns:
        The trials, in the order in which they ran.

    Source:
        Bergstra and Bengio, "Random search for hyper-parameter optimization", JMLR 13, 2012.

    Example:
        >>> def objective(suggest):
        ...     rate = suggest("rate", 1e-4, 1.0)
        ...     for stage in (1, 2):
        ...         yield stage - abs(rate - 0.01)
        >>> trials = random_search(objective, trials=20)
        >>> any(trial.ended for trial in trials[:4]), any(trial.ended for trial in trials[4:])
        (False, True)
    """
    draw = random.Random(seed)
    earlier: list[Trial] = []
    for number in range(trials):
        trial = Trial()

        def suggest(name, low, high, trial=trial):
            trial.settings[name] = math.exp(draw.uniform(math.log(low), math.log(high)))
            return trial.settings[name]

        def prune(trial=trial, number=number):
            stage = len(trial.scores)
            rivals = [rival.scores[stage - 1] for rival in earlier if len(rival.scores) >= stage]
            return number >= start and bool(rivals) and trial.scores[-1] < statistics.median(rivals)

        _run(objective(suggest), trial, prune)
        earlier.append(trial)
    return earlier


def optuna_search(objective: Objective, trials: int, seed: int = 0, start: int = 4) -> list[Trial]:
    """Optuna's tree-structured Parzen estimator draws near good earlier trials.

    Its median rule prunes.

    Args:
        objective: (suggest) -> scores, one per stage; ``suggest(name, low, high)`` gives a setting.
        trials: how many.
        seed: the same seed gives the same trials.
        start: the first so many are drawn at random and not pruned.

    Returns:
        The trials, in the order in which they ran.

    Source:
        Akiba et al., "Optuna: a next-generation hyperparameter optimization framework", KDD 2019.

    Example:
        >>> def objective(suggest):
        ...     yield -abs(suggest("rate", 1e-4, 1.0) - 0.01)
        >>> all(1e-4 <= trial.settings["rate"] <= 1 for trial in optuna_search(objective, trials=5))
        True
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its progress bars, where a notebook has no widgets
        import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=start),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=start),
    )
    earlier: list[Trial] = []
    for _ in range(trials):
        trial, asked = Trial(), study.ask()

        def suggest(name, low, high, trial=trial, asked=asked):
            trial.settings[name] = asked.suggest_float(name, low, high, log=True)
            return trial.settings[name]

        def prune(trial=trial, asked=asked):
            asked.report(trial.scores[-1], len(trial.scores))
            return asked.should_prune()

        _run(objective(suggest), trial, prune)
        if trial.ended:
            study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(asked, trial.scores[-1])
        earlier.append(trial)
    return earlier


def _run(stages: Generator[float, None, None], trial: Trial, prune: Callable[[], bool]) -> None:
    """One trial, stage by stage, until it is over or pruned; one that diverged is a trial too."""
    try:
        for score in map(float, stages):
            if math.isnan(score):  # neither better nor worse than another, so it diverged
                trial.ended = True
                break
            trial.scores.append(score)
            if prune():
                trial.ended = True
                break
    except FloatingPointError:
        trial.ended = True
    finally:
        stages.close()
