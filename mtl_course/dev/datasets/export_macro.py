"""Write the table of the US macroeconomic data.

``python -m mtl_course.dev.datasets.export_macro``, on Linux (x86-64) with Python 3.11.
statsmodels carries the series, which are in the public domain. Its wheels differ from platform to
platform and its source archive needs a compiler, so the course embeds the numbers, as they stand
there, instead of fetching a wheel of 12 MB for 18 kB.
"""

import gzip
import sys

from ...data import cache
from ...data.manifest import FOLDER, Info
from ...data.tiers import packages

STATSMODELS = Info(
    name="macro",
    title="",
    tier="P",
    source="",
    licence="",
    citation="",
    shape={},
    package="statsmodels",
    version="0.15.0",
    archive="statsmodels-0.15.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    sha256="b67886b66d9c7ca118526accedb5c6de7ffd74c015dc0492ea0b1690192b65da",
    download=12_087_914,
)


def main() -> int:
    with cache.staging() as staged:
        table = packages.member(
            packages.download(STATSMODELS, staged), "statsmodels/datasets/macrodata/macrodata.csv"
        )
    text = table.decode("ascii").replace("\r\n", "\n").replace('"', "")
    path = FOLDER / "tables" / "macro.csv.gz"
    path.write_bytes(gzip.compress(text.encode("ascii"), mtime=0))
    print(f"{text.count(chr(10)) - 1} quarters written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
