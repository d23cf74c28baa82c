"""Write the table of the Flavia leaves.

``python -m mtl_course.dev.datasets.export_flavia [FILE]``, FILE being a copy of the source.

The measurements are those of a public repository (MIT licence); no picture is used. The source has
one row per picture, in the order of their numbers, and no labels: the species follow from the
ranges of numbers that Flavia's own page gives, which add up to its 1,907 rows. Where the source
took a speck for the leaf (an area below 900 pixels; the smallest leaf has 38,454), the row is left
out.
"""

import csv
import gzip
import hashlib
import io
import sys
import urllib.request
from pathlib import Path

from ...data.manifest import FOLDER

COMMIT = "b1da70d7776414fe78ae475d3e5c522198633fe5"
SOURCE = f"https://raw.githubusercontent.com/AayushG159/Plant-Leaf-Identification/{COMMIT}/Flavia%20py%20files/Flavia_features.csv"
SHA256 = "b6c0969b1330e1523800afbce68c22c8bc9767583cd795e1527529f10a24ea47"
SPECK = 900  # pixels
# fmt: off
NAMES = (
    "area", "perimeter", "box_width", "box_height", "aspect_ratio", "rectangularity", "circularity",
    "mean_red", "mean_green", "mean_blue", "sd_red", "sd_green", "sd_blue",
    "contrast", "correlation", "inverse_difference_moment", "entropy",
)
# fmt: on
SPECIES = {  # name -> numbers of its first and last picture
    "Phyllostachys edulis": (1001, 1059),
    "Aesculus chinensis": (1060, 1122),
    "Berberis anhweiensis": (1552, 1616),
    "Cercis chinensis": (1123, 1194),
    "Indigofera tinctoria": (1195, 1267),
    "Acer palmatum": (1268, 1323),
    "Phoebe nanmu": (1324, 1385),
    "Kalopanax septemlobus": (1386, 1437),
    "Cinnamomum japonicum": (1497, 1551),
    "Koelreuteria paniculata": (1438, 1496),
    "Ilex macrocarpa": (2001, 2050),
    "Pittosporum tobira": (2051, 2113),
    "Chimonanthus praecox": (2114, 2165),
    "Cinnamomum camphora": (2166, 2230),
    "Viburnum awabuki": (2231, 2290),
    "Osmanthus fragrans": (2291, 2346),
    "Cedrus deodara": (2347, 2423),
    "Ginkgo biloba": (2424, 2485),
    "Lagerstroemia indica": (2486, 2546),
    "Nerium oleander": (2547, 2612),
    "Podocarpus macrophyllus": (2616, 2675),
    "Prunus serrulata": (3001, 3055),
    "Ligustrum lucidum": (3056, 3110),
    "Toona sinensis": (3111, 3175),
    "Prunus persica": (3176, 3229),
    "Manglietia fordiana": (3230, 3281),
    "Acer buergerianum": (3282, 3334),
    "Mahonia bealei": (3335, 3389),
    "Magnolia grandiflora": (3390, 3446),
    "Populus x canadensis": (3447, 3510),
    "Liriodendron chinense": (3511, 3563),
    "Citrus reticulata": (3566, 3621),
}


def rows(source: bytes) -> list[list]:
    """Species and measurements, to seven digits, of every leaf that was measured.

    ValueError if the source is another one.
    """
    digest = hashlib.sha256(source).hexdigest()
    if digest != SHA256:
        raise ValueError(f"The source has the sha256 {digest}, expected {SHA256}.")
    _, *leaves = csv.reader(io.StringIO(source.decode("ascii")))
    pictures = sorted(
        (number, name)
        for name, (first, last) in SPECIES.items()
        for number in range(first, last + 1)
    )
    labelled = zip(pictures, leaves, strict=True)
    return [
        [name, *(f"{float(value):.7g}" for value in leaf[1:])]
        for (_, name), leaf in labelled
        if float(leaf[1]) >= SPECK
    ]


def main(arguments: list[str]) -> int:
    if arguments:
        source = Path(arguments[0]).read_bytes()
    else:
        with urllib.request.urlopen(SOURCE, timeout=60) as response:
            source = response.read()
    table = rows(source)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["species", *NAMES], *table])
    path = FOLDER / "tables" / "flavia.csv.gz"
    path.write_bytes(gzip.compress(text.getvalue().encode("ascii"), mtime=0))
    print(f"{len(table):,} leaves of {len(SPECIES)} species written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
