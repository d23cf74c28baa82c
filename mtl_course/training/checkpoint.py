"""Checkpoints of a training run: written whole or not at all.

A run that is read back goes on as if it had never stopped. So everything that shapes it must be as
it was: the data, the functions, the options of optimizer and schedule (`fingerprint` makes short
texts of them). What may change on purpose are those settings that only say when to stop, the number
of epochs or steps and the patience: a run that had them from the start would have come by the same
state. The number of processes may change too: the first one writes and reads for all of them, and
the state is that of one.
"""

import errno
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from .distributed import on_first
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
        settings: plain values that must be the same when the run goes on; None for one that
            cannot be known.
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

    Of several processes, the first one writes, and all have the error if it fails.

    Args:
        path: the file; its folder is made where there is none.
        state: the run as it is now.
        best: the model's state dict at the best epoch so far.
        least: the validation loss of that epoch.

    Raises:
        OSError: the file cannot be written; for a full disk it says so. The old file is whole.
    """
    on_first(lambda: _write(path, state, best, least))


def _write(path: Path, state: TrainingState, best: Mapping[str, Any], least: float) -> None:
    """`save`, by this process."""
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
    aside = path.with_suffix(path.suffix + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "wb") as file:
            told = _TellsItsError(file)
            try:
                torch.save(content, told)
            except RuntimeError as error:
                # Torch's writer says only that it is at another place than it should be.
                raise (told.error or error) from None
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise _not_saved(path, error) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


class _TellsItsError:
    """A file that remembers which error a write ended with; torch.save replaces it by its own."""

    def __init__(self, file: BinaryIO):
        self.file, self.error = file, None

    def write(self, data: bytes) -> int:
        """Write to the file."""
        try:
            # At once: what waits in a buffer would fail later, when nobody can tell why.
            written = self.file.write(data)
            self.file.flush()
            return written
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Flush the file."""
        self.file.flush()


def _not_saved(path: Path, error: OSError) -> OSError:
    """The error for a checkpoint that could not be written, with what to do about it."""
    kept = " The checkpoint before it is whole." if path.exists() else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "Free some space, and run it again."
        text = f"{os.strerror(error.errno)}: the disk of the checkpoint {path} is full.{kept}"
        return OSError(error.errno, f"{text} {advice}")
    said = error.strerror or str(error)
    return type(error)(error.errno, f"The checkpoint {path} could not be written ({said}).{kept}")


def resume(path: Path, state: TrainingState) -> tuple[dict[str, Any], float]:
    """Put everything back as the checkpoint has it.

    The file is looked through whole before anything is changed.

    Args:
        path: the file that `save` wrote.
        state: the run as it starts; changed in place.

    Returns:
        The model's state dict at the best epoch so far, and the validation loss of that epoch.

    Raises:
        ValueError: the file is damaged, or of another model, another kind of run, other data or
            other settings; names what differs. The model is then as it was.
    """
    saved = on_first(lambda: _read(path))
    differences = [
        *_differences(saved["settings"], _settled(state.settings, saved["settings"])),
        *_differences(_shapes(saved["model"]), _shapes(state.model.state_dict())),
    ]
    same_kind = (
        saved["parts"].keys() == state.stateful.keys()
        and saved["generators"].keys() == state.generators.keys()
        and saved["history"].keys() == asdict(state.history).keys()
    )
    if differences or not same_kind:
        raise _of_another_run(path, differences)
    _try_generators(path, saved, state)
    as_it_was = {name: deepcopy(part.state_dict()) for name, part in state.stateful.items()}
    model_as_it_was = deepcopy(state.model.state_dict())
    try:
        for name, part in state.stateful.items():
            part.load_state_dict(saved["parts"][name])
        state.model.load_state_dict(saved["model"])
    except Exception as error:
        state.model.load_state_dict(model_as_it_was)
        for name, part in state.stateful.items():
            part.load_state_dict(as_it_was[name])
        raise _of_another_run(path, [str(error)]) from error
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
        # Torch itself compares no checksum: it would train on with a flipped bit.
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"{damaged} is damaged")
        content = torch.load(path, map_location="cpu", weights_only=True)
        for name in ("model", "best", "settings", "parts", "generators", "history", "chance"):
            content[name].keys()
        if _shapes(content["model"]) != _shapes(content["best"]):
            raise ValueError("the best weights are of another model")
        float(content["least"])
        if len(content["history"]["train"]) != len(content["history"]["validation"]):
            raise ValueError("the history has epochs of one kind only")
    except Exception as error:
        raise _not_whole(path, type(error).__name__) from error
    return content


def _not_whole(path: Path, why: str) -> ValueError:
    """The error for a file that is damaged or no checkpoint at all."""
    return ValueError(
        f"{path} is not a whole checkpoint ({why}). Delete it to start anew, or restore it."
    )


def _try_generators(path: Path, saved: Mapping[str, Any], state: TrainingState) -> None:
    """ValueError unless every state of a generator can be set; tried on copies."""
    states = [
        (generator, saved["generators"][name]) for name, generator in state.generators.items()
    ]
    try:
        for generator, value in states:
            torch.Generator(generator.device).set_state(value)
        torch.Generator().set_state(saved["chance"]["cpu"])
        if state.device.type == "cuda":
            here, there = torch.cuda.get_rng_state(state.device), saved["chance"]["cuda"]
            if (here.shape, here.dtype) != (there.shape, there.dtype):
                raise ValueError("the state of the GPU's generator has another size")
    except Exception as error:
        raise _not_whole(path, f"a generator's state is damaged: {error}") from error


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


def _settled(settings: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of this run, as the file has them where one of the two cannot be known."""
    unknown = {name for name, value in settings.items() if value is None}
    unknown |= {name for name, value in saved.items() if value is None}
    return {name: saved.get(name) if name in unknown else settings[name] for name in settings}


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
