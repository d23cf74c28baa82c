"""Meta-training: new tasks at every step, validation on fixed ones, the best parameters put back.

    f, generator = Functional(model), torch.Generator().manual_seed(1)
    params = f.parameters()
    held_out = validation.classification(200, ways=5, shots=1, queries=15, generator=generator)

    def backward(generator):
        episodes = train.classification(16, ways=5, shots=1, queries=15, generator=generator)
        return meta_backward(f, params, episodes, F.cross_entropy, steps=1, rate=0.4)

    def validate():
        with torch.no_grad():
            return meta_losses(f, params, held_out, F.cross_entropy, steps=5, rate=0.4).mean()

    optimizer = torch.optim.Adam(params.values(), lr=1e-3)
    history = fit_episodes(
        params, backward, optimizer, steps=10_000, validate=validate, every=500
    )

The loop, its checkpoints and its faults are those of `training.fit`.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ..training.checkpoint import TrainingState
from ..training.faults import require_plain_steps, require_trainable
from ..training.history import History
from ..training.loop import (
    compared,
    divergence,
    in_words,
    learning_rates,
    require_in_optimizer,
    run_epochs,
)
from ..training.modes import evaluating
from .functional import Params, models_with


def fit_episodes(
    parameters: Params | nn.Module,
    backward: Callable[[torch.Generator], Tensor],
    optimizer: torch.optim.Optimizer,
    steps: int,
    *,
    validate: Callable[[], float | Tensor],
    every: int,
    patience: int | None = None,
    schedule: LRScheduler | None = None,
    seed: int = 0,
    progress: bool = True,
    checkpoint: Path | None = None,
) -> History:
    """Take meta-steps in rounds, and keep the parameters of the best round.

    Validation decides after every round: the parameters of the round with the lowest loss are put
    back at the end, also after an error or an interrupt. Test tasks have no place here.

    Args:
        parameters: name -> `nn.Parameter`, all that is learned: ``f.parameters()``, and the rates
            of Meta-SGD, if any, under names of their own. Or a module, whose running statistics are
            then kept and put back with its parameters; every round sets its training mode. For
            validation it is in evaluation mode, and so is the model of a `Functional` to which the
            parameters belong.
        backward: (generator on their device) -> losses [T]. Draws a meta-batch, adds its gradient
            to ``.grad``, returns the tasks' losses.
        optimizer: over all the parameters.
        steps: how many meta-steps, a multiple of `every`.
        validate: the loss on validation episodes, lower is better; always the same episodes, or
            chance would choose.
        every: meta-steps per round.
        patience: so many rounds without a better loss end the run; None goes on to the end.
        schedule: stepped after every meta-step; it takes no loss (no ReduceLROnPlateau).
        seed: fixes the generator.
        progress: show a bar.
        checkpoint: saved after every round. A call with the same arguments goes on where the file
            left off, to the same parameters bit for bit where the operations are deterministic.
            `steps` and `patience` may be raised, to prolong a run; everything else must be as it
            was, with `backward`, `validate` and the options of optimizer and schedule.

    Returns:
        The losses, one per round: `train` is the mean over the tasks of the round, `best_epoch` the
        round (from 1) whose parameters are put back.

    Raises:
        ValueError: `steps` is no multiple of `every`, no parameter wants a gradient, the optimizer
            misses one, the schedule is another optimizer's, `backward` writes no gradient, or the
            checkpoint does not fit.
        TypeError: a schedule that needs a loss, or an optimizer that needs a closure.
        FloatingPointError: a loss is not finite or an inner loop diverges; it names the step and
            the learning rate.
        torch.OutOfMemoryError: the GPU is full; it says what to try.

    Example:
        The start of two tasks ``(w - 1)^2`` and ``(w - 3)^2``, each step on one that is drawn.

        >>> from mtl_course.meta import fit_episodes
        >>> w = nn.Parameter(torch.tensor(9.0))
        >>> def backward(generator):
        ...     centre = 1 + 2 * torch.randint(2, (1,), generator=generator)
        ...     losses = (w - centre).square()
        ...     losses.sum().backward()
        ...     return losses
        >>> history = fit_episodes(
        ...     {"w": w}, backward, torch.optim.SGD([w], lr=0.01), steps=60, every=20,
        ...     validate=lambda: (w - 2).square(), progress=False,
        ... )
        >>> len(history.validation), history.best_epoch, history.validation[-1] < 49
        (3, 3, True)
    """
    if every < 1 or steps % every:
        raise ValueError(
            f"{steps} steps are no whole number of rounds of {every};"
            " validation comes at the end of a round."
        )
    model = parameters if isinstance(parameters, nn.Module) else _as_module(parameters)
    require_trainable(model.parameters())
    require_in_optimizer(model.named_parameters(), optimizer)
    require_plain_steps(optimizer, schedule)
    judged = [model, *models_with(model.parameters())]
    device = next(model.parameters()).device
    generator, history = torch.Generator(device).manual_seed(seed), History()
    stateful = {"optimizer": optimizer}
    if schedule is not None:
        stateful["schedule"] = schedule
    kinds = {name: type(part).__name__ for name, part in stateful.items()}
    settings = {**kinds, "every": every, "seed": seed, "device": device.type}
    if checkpoint is not None:
        functions = {"backward": backward, "validate": validate}
        settings |= compared(optimizer, schedule, functions, data={})
    state = TrainingState(model, history, stateful, {"episodes": generator}, settings, device)

    def steps_taken() -> int:
        return every * len(history.train)

    def one_round() -> float:
        first, losses, counts, rates = steps_taken() + 1, [], [], []
        for step in range(first, first + every):
            optimizer.zero_grad()
            rates.append(learning_rates(optimizer))
            with _told_where(f"Step {step}, learning rate {in_words(rates[-1])}"):
                task_losses = backward(generator).detach()
            losses.append(task_losses.mean())
            counts.append(task_losses.numel())
            if all(p.grad is None for p in model.parameters()):
                raise ValueError(
                    "`backward` wrote no gradient:"
                    " it must call backward() on the loss, as meta.meta_backward does."
                )
            optimizer.step()
            if schedule is not None:
                schedule.step()
        # The only wait for the device in a round.
        means = torch.stack(losses).tolist()
        for k, mean in enumerate(means):
            if not math.isfinite(mean):
                raise divergence(f"training loss is {mean}", rates[k], f"step {first + k}")
        if len(set(counts)) == 1:
            return sum(means) / every
        tasks = sum(counts)
        return sum(count * mean for count, mean in zip(counts, means, strict=True)) / tasks

    def validation_loss() -> float:
        step, rates = steps_taken() + every, learning_rates(optimizer)
        place = f"Validation after step {step}, learning rate {in_words(rates)}"
        with _told_where(place), evaluating(*judged):
            loss = float(torch.as_tensor(validate()).detach())
        if not math.isfinite(loss):
            raise divergence(f"validation loss is {loss}", rates, f"step {step}")
        return loss

    return run_epochs(
        state,
        one_round,
        validation_loss,
        epochs=steps // every,
        patience=math.inf if patience is None else patience,
        progress=progress,
        checkpoint=checkpoint,
        unit="round",
    )


def _as_module(parameters: Params) -> nn.ParameterDict:
    """The parameters as one module, which the loop and its checkpoints take.

    A module's own parameters have no dots in their names, so "trunk.weight" is "trunk/weight" here.
    """
    return nn.ParameterDict({name.replace(".", "/"): p for name, p in parameters.items()})


@contextmanager
def _told_where(place: str) -> Iterator[None]:
    """An inner loop that diverges is said with the place where it happened."""
    try:
        yield
    except FloatingPointError as error:
        raise FloatingPointError(f"{place}: {error}") from error
