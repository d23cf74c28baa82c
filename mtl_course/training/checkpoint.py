"""Checkpoints of a training run: written whole or not at all, and read back so that it goes on as
if it had never stopped.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .history import History


@dataclass(frozen=True)
class Run:
    """All of a run that must come back for it to go on exactly.

    parts: whatever else has a state dict (optimizer, schedule, gradient scaler, weighting).
    generators: its own sources of chance; torch's own, on the CPU and on `device`, are kept too.
    settings: plain values that must be the same when the run goes on.
    """

    model: nn.Module
    history: History
    parts: Mapping[str, Any]
    generators: Mapping[str, torch.Generator]
    settings: Mapping[str, str | int | None]
    device: torch.device


def save(path: Path, run: Run, best: Mapping[str, Any], least: float) -> None:
    """Write a checkpoint; the old one stays until the new one is whole and on the disk."""
    content = {
        "model": run.model.state_dict(),
        "best": best,
        "least": least,
        "history": asdict(run.history),
        "settings": dict(run.settings),
        "parts": {name: part.state_dict() for name, part in run.parts.items()},
        "generators": {name: generator.get_state() for name, generator in run.generators.items()},
        "chance": _chance(run.device),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(path.suffix + ".part")
    try:
        with open(aside, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def resume(path: Path, run: Run) -> tuple[dict[str, Any], float]:
    """Put everything back as the checkpoint has it; returns the best weights so far and their
    validation loss.

    ValueError, with the model as it was, if the file is damaged, or of another model, another kind
    of run or other settings.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        saved, settings, best, least = (
            _shapes(content["model"]),
            content["settings"],
            content["best"],
            content["least"],
        )
        parts, generators, chance, history = (
            content["parts"],
            content["generators"],
            content["chance"],
            content["history"],
        )
        known = parts.keys(), generators.keys(), history.keys()
    except Exception as error:
        what = f"{path} is not a whole checkpoint ({type(error).__name__})"
        raise ValueError(f"{what}. Delete it to start anew, or restore it.") from error
    differ = [
        *_differences(settings, run.settings),
        *_differences(saved, _shapes(run.model.state_dict())),
    ]
    if differ or known != (run.parts.keys(), run.generators.keys(), asdict(run.history).keys()):
        raise _other(path, differ)
    try:
        for name, part in run.parts.items():
            part.load_state_dict(parts[name])
    except Exception as error:
        raise _other(path, [str(error)]) from error
    run.model.load_state_dict(content["model"])
    for name, value in history.items():
        setattr(run.history, name, value)
    for name, generator in run.generators.items():
        generator.set_state(generators[name])
    torch.set_rng_state(chance["cpu"])
    if run.device.type == "cuda":
        torch.cuda.set_rng_state(chance["cuda"], run.device)
    return best, least


def _other(path, differ):
    what = f" ({'; '.join(differ[:3])}{' ...' if len(differ) > 3 else ''})" if differ else ""
    return ValueError(
        f"{path} holds another model or another kind of run{what}. Name another file, or delete it"
        " to start anew."
    )


def _chance(device):
    """The state of torch's own random numbers: those of the CPU, and of the device if it is a GPU."""
    return {"cpu": torch.get_rng_state()} | (
        {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    )


def _shapes(state):
    return {
        name: tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        for name, value in state.items()
    }


def _differences(saved, here):
    """What differs between two mappings, one short text for each name."""
    differ = [name for name in {**saved, **here} if saved.get(name) != here.get(name)]
    return [
        f"{name}: {saved.get(name, 'none')} in the file, {here.get(name, 'none')} here"
        for name in differ
    ]
