"""A release: everything that answers, in one folder that cannot be half there.

A folder has the network as a program (`model.pt2`), the words it reads (`words.json`), what is said
of it (`card.json`), answers that must come out again (`golden.json`), and the checksums of all four
(`manifest.json`). It is written aside and then renamed.
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .ngrams import NGrams

FILES = ("model.pt2", "words.json", "card.json", "golden.json")


class ReleaseError(Exception):
    """A release that must not be served, and why.

    Example:
        >>> raise ReleaseError("card.json was altered.")
        Traceback (most recent call last):
        mtl_course.serving.release.ReleaseError: card.json was altered.
    """


def export_model(model: nn.Module, length: int, most: int) -> "torch.export.ExportedProgram":
    """A network as a program that needs none of its Python code, for batches of 1 to `most`.

    Args:
        model: takes int64 [B, length], gives a dict name -> [B, ...]; it is exported in eval mode
            and left in the mode it had.
        length: numbers per text.
        most: texts of the largest batch.

    Returns:
        The exported program; its `module()` is called like the network.

    Raises:
        ValueError: for a largest batch below 2.

    Source:
        PyTorch documentation, `torch.export`.

    Example:
        >>> class Count(nn.Module):
        ...     def forward(self, ids):
        ...         return {"words": (ids > 0).sum(1)}
        >>> program = export_model(Count(), length=3, most=8)
        >>> program.module()(torch.tensor([[4, 2, 0]]))["words"].tolist()
        [2]
    """
    if most < 2:
        raise ValueError(f"A batch that may vary holds at least 2 texts, not {most}.")
    modes = {module: module.training for module in model.modules()}
    example = torch.ones(2, length, dtype=torch.int64)
    batch = torch.export.Dim("batch", min=1, max=most)
    try:
        with torch.no_grad():
            return torch.export.export(model.eval(), (example,), dynamic_shapes=({0: batch},))
    finally:
        for module, mode in modes.items():
            module.training = mode


@dataclass(frozen=True)
class Release:
    """A model that is ready to answer. It is called with texts.

    Args:
        card: what is said of it, plain JSON: "version"; "tasks", name -> None for a number, or the
            names of its classes; and whatever else there is to say.
        reader: turns texts into numbers.
        model: from these numbers to name -> [N] or, with classes, [N, classes].
        golden: "texts", and "outputs" that they gave when the release was made, name -> lists;
            "tolerance", how far each may be off.

    Example:
        >>> reader = NGrams(["soft"], length=2)
        >>> release = Release({"version": "1", "tasks": {"words": None}}, reader,
        ...                   lambda ids: {"words": (ids > 0).sum(1)}, {})
        >>> release.outputs(["soft", "stiff"])["words"].tolist()
        [1, 0]
        >>> release.answers(["soft"])
        [{'words': 1.0}]
    """

    card: Mapping
    reader: NGrams
    model: nn.Module
    golden: Mapping

    @property
    def version(self) -> str:
        """Its name, one of a kind."""
        return self.card["version"]

    def outputs(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Name -> [N] or [N, classes], what the model says of texts."""
        with torch.inference_mode():
            return dict(self.model(self.reader(texts)))

    def answers(self, texts: Sequence[str]) -> list[dict]:
        """What a client gets for each text, plain JSON.

        Raises:
            FloatingPointError: if an output is not finite; it names the task.
        """
        return answers_of(self.outputs(texts), self.card["tasks"])


def answers_of(outputs: Mapping[str, Tensor], tasks: Mapping[str, Sequence | None]) -> list[dict]:
    """One dict a row: a number, or the likeliest class and its probability."""
    columns = {}
    for name, classes in tasks.items():
        if not torch.isfinite(outputs[name].double()).all():
            raise FloatingPointError(f"The model's {name} is not a finite number.")
        if classes is None:
            columns[name] = [round(float(v), 4) for v in outputs[name]]
        else:
            chance, best = outputs[name].max(dim=1)
            columns[name] = [
                {"class": classes[k], "chance": round(float(p), 4)}
                for k, p in zip(best.tolist(), chance, strict=True)
            ]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def save_release(
    folder: str | os.PathLike,
    program: "torch.export.ExportedProgram",
    reader: NGrams,
    card: Mapping,
    golden_texts: Sequence[str],
    tolerance: float = 1e-4,
) -> Path:
    """Write a release, or nothing: a folder that is there is never changed.

    Args:
        folder: where it goes; it must not exist.
        program: from `export_model`.
        reader: of the texts.
        card: "version", "tasks", and what else is to be said, plain JSON.
        golden_texts: texts whose answers are kept, to be asked again before it is served.
        tolerance: how far an output may be off then, absolutely.

    Returns:
        The folder.

    Raises:
        ReleaseError: if the folder exists, or the card lacks "version" or "tasks".

    Example:
        >>> save_release("/", None, None, {}, [])
        Traceback (most recent call last):
        mtl_course.serving.release.ReleaseError: The card lacks version and tasks.
    """
    folder = Path(folder)
    lacking = [key for key in ("version", "tasks") if key not in card]
    if lacking:
        raise ReleaseError(f"The card lacks {' and '.join(lacking)}.")
    if folder.exists():
        raise ReleaseError(f"{folder.name} is there already: a release never changes.")
    release = Release(card, reader, program.module(), {})
    outputs = {name: y.tolist() for name, y in release.outputs(golden_texts).items()}
    golden = {"texts": list(golden_texts), "outputs": outputs, "tolerance": tolerance}
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".release-", dir=folder.parent))
    try:
        torch.export.save(program, aside / "model.pt2")
        words = {"names": reader.names, "length": reader.length}
        for name, content in (("words", words), ("card", dict(card)), ("golden", golden)):
            (aside / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        sums = {name: _checksum(aside / name) for name in FILES}
        (aside / "manifest.json").write_text(json.dumps(sums), encoding="utf-8")
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return folder


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_release(folder: str | os.PathLike) -> Release:
    """Read a release whose files are all what they were.

    Args:
        folder: from `save_release`.

    Returns:
        The release. `regressions` says whether it still answers as it did.

    Raises:
        ReleaseError: if a file is missing or was altered; it names the file.

    Example:
        >>> load_release("no such folder")
        Traceback (most recent call last):
        mtl_course.serving.release.ReleaseError: no such folder has no manifest.json.
    """
    folder = Path(folder)
    try:
        sums = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except OSError:
        raise ReleaseError(f"{folder.name} has no manifest.json.") from None
    except ValueError:
        raise ReleaseError(f"manifest.json of {folder.name} was altered.") from None
    for name in FILES:
        if not (folder / name).is_file():
            raise ReleaseError(f"{folder.name} has no {name}.")
        if not isinstance(sums, dict) or _checksum(folder / name) != sums.get(name):
            raise ReleaseError(f"{name} of {folder.name} was altered.")
    words, card, golden = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("words", "card", "golden")
    )
    model = torch.export.load(folder / "model.pt2").module()
    return Release(card, NGrams(words["names"], words["length"]), model, golden)


def regressions(release: Release) -> list[str]:
    """A sentence for each golden answer that does not come out again; none if all do.

    Args:
        release: with golden texts and their outputs.

    Returns:
        Sentences that name the task, the text's number and both values.

    Example:
        >>> golden = {"texts": ["soft"], "outputs": {"words": [2.0]}, "tolerance": 0.1}
        >>> release = Release({"version": "1", "tasks": {"words": None}}, NGrams(["soft"], 2),
        ...                   lambda ids: {"words": (ids > 0).sum(1)}, golden)
        >>> regressions(release)
        ['words of golden text 0 is 1, not 2.']
    """
    golden, sentences = release.golden, []
    now = release.outputs(golden["texts"])
    for name, expected in golden["outputs"].items():
        if name not in now:
            sentences.append(f"The model gives no {name} any more.")
            continue
        for row, (a, b) in enumerate(zip(now[name].tolist(), expected, strict=True)):
            pairs = list(zip(a, b, strict=True)) if isinstance(b, list) else [(a, b)]
            # written so that a NaN, which is near nothing, does not pass
            if not all(math.fabs(x - y) <= golden["tolerance"] for x, y in pairs):
                x, y = max(pairs, key=lambda pair: (pair[0] != pair[0], abs(pair[0] - pair[1])))
                sentences.append(f"{name} of golden text {row} is {x:.4g}, not {y:.4g}.")
    return sentences
