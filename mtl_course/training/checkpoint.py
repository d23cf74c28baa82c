"""Checkpoints of a training run: written whole or not at all.

A run that is read back goes on as if it had never stopped.
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
class TrainingState:
    """All of a run that must come back for it to go on exactly.

    Args:
        model: what is trained.
        history: its losses so far.
        stateful: name -> what else has a state dict (optimizer, schedule, gradient scaler,
            weighting).
        generators: name -> the run's own sources of chance. Torch's own, on the CPU and on
            `device`, are kept too.
        settings: plain values that must be the same when the run goes on.
        device: where the model is.
    """

    model: nn.Module
    history: History
    stateful: Mapping[str, Any]
    generators: Mapping[str, torch.Generator]
    settings: Mapping[str, str | int | None]
    device: torch.device


def save(path: Path, state: TrainingState, best: Mapping[str, Any], least: float) -> None:
    """Write a checkpoint; the old one stays until the new one is whole and on the disk.

    Args:
        path: the file; its folder is made where there is none.
        state: the run as it is now.
        best: the model's state dict at the best epoch so far.
        least: the validation loss of that epoch.
    """
    generators = {name: generator.get_state() for name, generator in state.generators.items()}
    content = {
        "model": state.model.state_dict(),
        "best": best,
        "least": least,
        "history": asdict(state.history),
        "settings": dict(state.settings),
        "parts": {name: part.state_dict() for name, part in state.stateful.items()},
        "generators": generators,
        "chance": _chance(state.device),
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


def resume(path: Path, state: TrainingState) -> tuple[dict[str, Any], float]:
    """Put everything back as the checkpoint has it.

    Args:
        path: the file that `save` wrote.
        state: the run as it starts; changed in place.

    Returns:
        The model's state dict at the best epoch so far, and the validation loss of that epoch.

    Raises:
        ValueError: the file is damaged, or of another model, another kind of run or other
            settings. The model is then as it was.
    """
    saved = _read(path)
    differences = [
        *_differences(saved["settings"], state.settings),
        *_differences(_shapes(saved["model"]), _shapes(state.model.state_dict())),
    ]
    same_kind = (
        saved["parts"].keys() == state.stateful.keys()
        and saved["generators"].keys() == state.generators.keys()
        and saved["history"].keys() == asdict(state.history).keys()
    )
    if differences or not same_kind:
        raise _of_another_run(path, differences)
    try:
        for name, part in state.stateful.items():
            part.load_state_dict(saved["parts"][name])
    except Exception as error:
        raise _of_another_run(path, [str(error)]) from error
    state.model.load_state_dict(saved["model"])
    for name, value in saved["history"].items():
        setattr(state.history, name, value)
    for name, generator in state.generators.items():
        generator.set_state(saved["generators"][name])
    torch.set_rng_state(saved["chance"]["cpu"])
    if state.device.type == "cuda":
        torch.cuda.set_rng_state(saved["chance"]["cuda"], state.device)
    return saved["best"], saved["least"]


def _read(path: Path) -> dict[str, Any]:
    """The content of the file, looked through; ValueError if it is no whole checkpoint."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        _shapes(content["model"])
        for name in ("best", "settings", "parts", "generators", "history", "chance"):
            content[name].keys()
        float(content["least"])
    except Exception as error:
        raise ValueError(
            f"{path} is not a whole checkpoint ({type(error).__name__})."
            " Delete it to start anew, or restore it."
        ) from error
    return content


def _of_another_run(path: Path, differences: list[str]) -> ValueError:
    """The error for a whole checkpoint that does not fit, with the first three differences."""
    more = " ..." if len(differences) > 3 else ""
    what = f" ({'; '.join(differences[:3])}{more})" if differences else ""
    return ValueError(
        f"{path} holds another model or another kind of run{what}."
        " Name another file, or delete it to start anew."
    )


def _chance(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's own random numbers: of the CPU, and of the device if it is a GPU."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _shapes(state_dict: Mapping[str, Any]) -> dict[str, tuple[int, ...] | str]:
    """Name -> shape of a tensor, or the type of anything else."""
    return {
        name: tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        for name, value in state_dict.items()
    }


def _differences(saved: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs between two mappings, one short text per name."""
    return [
        f"{name}: {saved.get(name, 'none')} in the file, {here.get(name, 'none')} here"
        for name in {**saved, **here}
        if saved.get(name) != here.get(name)
    ]
