"""Meta-training: meta-batches drawn anew at every step, validation on fixed episodes, the best
parameters put back.

    f, g = functional.Functional(model), torch.Generator().manual_seed(1) params, held_out =
    f.parameters(), validation.classification(200, ways=5, shots=1, queries=15, generator=g)

    def backward(generator):
        episodes = train.classification(16, ways=5, shots=1, queries=15, generator=generator)
        return meta.meta_backward(f, params, episodes, F.cross_entropy, steps=1, rate=0.4)

    def validate():
        with torch.no_grad():
            return meta.meta_losses(f, params, held_out, F.cross_entropy, 5, 0.4).mean()

    history = fit_episodes(params, backward, torch.optim.Adam(params.values(), lr=1e-3), 10_000,
    validate=validate, every=500)

`loop` runs it and `checkpoint` keeps it, as they do for `training.fit`.
"""

import math
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ..training.checkpoint import Run
from ..training.history import History
from ..training.loop import not_finite, require_held, run_epochs
from .functional import Params


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
    """Take `steps` meta-steps, in rounds of `every`; returns the losses, one value a round: steps
    ``every``, ``2 * every``, ...

    parameters: name -> `nn.Parameter`, all that is learned: ``f.parameters()``, and the rates of
        Meta-SGD, if any, under names of their own.
        Or a module, whose running statistics are then kept and put back with its parameters; every
        round sets its training mode.
    backward: (generator on their device) -> losses [T]. Draws a meta-batch, adds its gradient to
        ``.grad``, returns the tasks' losses.
    validate: the loss on validation episodes, lower is better; always the same ones, or chance
        would choose. It decides after every round:
        the best parameters are put back at the end, and `patience` rounds without a better loss end
        the run. Test tasks have no place here.
    schedule: stepped after every step. seed: fixes the generator. checkpoint: saved after every
        round; a call with the same arguments goes on
        where the file left off, to the same parameters bit for bit where the operations are
        deterministic; more `steps` prolong a run.

    In the history, `train` is the mean loss over the tasks of a round and `best_epoch` the round
    (from 1) whose parameters are put back. ValueError if `steps` is no multiple of `every`, the
    optimizer misses a parameter, `backward` writes no gradient, or the checkpoint does not fit;
    FloatingPointError, with the step and the learning rate, if a loss is not finite or an inner
    loop diverges; torch.OutOfMemoryError with what to try. Then, too, and after an interrupt, the
    best parameters are put back first.
    """
    if every < 1 or steps % every:
        raise ValueError(
            f"{steps} steps are no whole number of rounds of {every}; validation comes at the end"
            " of a round."
        )
    held = parameters  # one module, for the loop and its checkpoints
    if not isinstance(held, nn.Module):
        held = nn.ParameterDict({name.replace(".", "/"): p for name, p in parameters.items()})
    require_held(held.named_parameters(), optimizer)
    device = next(held.parameters()).device
    generator, history = torch.Generator(device).manual_seed(seed), History()
    parts = {"optimizer": optimizer} | ({} if schedule is None else {"schedule": schedule})
    settings = {name: type(part).__name__ for name, part in parts.items()} | {
        "every": every,
        "seed": seed,
        "device": device.type,
    }

    def rate() -> str:
        return " and ".join(sorted({f"{group['lr']:g}" for group in optimizer.param_groups}))

    def done() -> int:
        return every * len(history.train)

    def one_round() -> float:
        losses, rates = [], []
        for step in range(done() + 1, done() + every + 1):
            optimizer.zero_grad()
            with _named(f"Step {step}, learning rate {rate()}"):
                losses.append(backward(generator).detach())
            if all(p.grad is None for p in held.parameters()):
                raise ValueError(
                    "`backward` wrote no gradient: it must call backward() on the loss, as"
                    " meta.meta_backward does."
                )
            rates.append(rate())
            optimizer.step()
            if schedule is not None:
                schedule.step()
        means = torch.stack(
            [loss.mean() for loss in losses]
        ).tolist()  # the only wait for the device in a round
        for k, mean in enumerate(means):
            if not math.isfinite(mean):
                raise not_finite(
                    f"training loss is {mean} at a learning rate of {rates[k]}",
                    done() + 1 + k,
                    "step",
                )
        return sum(means) / every

    def judge() -> float:
        step = done() + every
        with _named(f"Validation after step {step}, learning rate {rate()}"):
            loss = float(torch.as_tensor(validate()).detach())
        if not math.isfinite(loss):
            raise not_finite(
                f"validation loss is {loss} at a learning rate of {rate()}", step, "step"
            )
        return loss

    return run_epochs(
        Run(held, history, parts, {"episodes": generator}, settings, device),
        one_round,
        judge,
        epochs=steps // every,
        patience=math.inf if patience is None else patience,
        progress=progress,
        checkpoint=checkpoint,
        unit="round",
    )


@contextmanager
def _named(where: str):
    """A loss or an inner loop that is not finite is said with where it happened."""
    try:
        yield
    except FloatingPointError as error:
        raise FloatingPointError(f"{where}: {error}") from error
