"""The directive ``data-sets``: the appendix on data, made from the manifest.

So ``mtl_course/data/manifest.toml`` and the book cannot disagree.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

DATA = Path("mtl_course", "data")


def read_manifest(root: Path):
    """The module `mtl_course.data.manifest`, from its file: no package is installed here."""
    spec = spec_from_file_location("mtl_course_manifest", root / DATA / "manifest.py")
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.read.cache_clear()
    return module


def link(text: str) -> str:
    return f"<{text}>" if text.startswith(("http://", "https://")) else text


def chapters(numbers, root: Path) -> str:
    """Links to the notebooks of these chapters, and the numbers of those that are planned."""
    found = {number: sorted((root / "notebooks").glob(f"{number}_*.ipynb")) for number in numbers}
    here = [
        f"[{int(number)}](/notebooks/{paths[0].name})" for number, paths in found.items() if paths
    ]
    planned = [str(int(number)) for number, paths in found.items() if not paths]
    return (
        ", ".join(here)
        + ("; " if here and planned else "")
        + (f"planned: {', '.join(planned)}" if planned else "")
    )


def sizes(shape) -> str:
    """The sizes of a set's arrays, such as ``x`` 4,059 × 9, ``y`` 4,059."""
    return ", ".join(
        f"`{array}` " + " × ".join(f"{size:,}" for size in shape[array]) for array in shape
    )


def entry(info, tiers, root: Path) -> list[str]:
    """One set as Markdown: what it holds, then where it is from and under which licence."""
    origin = f"{tiers[info.tier]} (tier {info.tier})"
    if info.package:
        origin += f": {info.package} {info.version}, {info.download / 1e6:.1f} MB"
    licence = info.licence + (
        f"; stated in {link(info.licence_source)}" if info.licence_source else ""
    )
    lines = [
        info.note,
        "",
        f'- Load it: `data.load("{info.name}")`',
        f"- Arrays: {sizes(info.shape)}",
        f"- How you get it: {origin}",
        f"- Source: {link(info.source)}",
        f"- Licence: {licence}",
    ]
    if info.licence_text:
        lines.append(f"- Its text goes with the table: `mtl_course/data/{info.licence_text}`")
    if info.citation:
        lines.append(f"- Described by: {{cite:t}}`{info.citation}`")
    if info.chapters:
        lines.append(f"- Chapters: {chapters(info.chapters, root)}")
    return lines


class DataSets(SphinxDirective):
    """All sets: a table to find one, then an entry each. Takes neither arguments nor content."""

    def run(self):
        root = Path(self.env.srcdir)
        for name in ("manifest.toml", "manifest.py"):
            self.env.note_dependency(str(root / DATA / name))
        manifest = read_manifest(root)
        infos = list(manifest.read().values())
        table = ["| Name | What it is | Tier |", "|---|---|---|"]
        table += [
            f"| [`{info.name}`](#data-{info.name}) | {info.title} | {info.tier} |" for info in infos
        ]
        return [
            *self.parse(table, nodes.Element()).children,
            *(self.section(info, manifest.TIERS, root) for info in infos),
        ]

    def section(self, info, tiers, root: Path) -> nodes.section:
        label = f"data-{info.name}"
        section = nodes.section(
            "", nodes.title("", info.title), ids=[nodes.make_id(label)], names=[label]
        )
        self.state.document.note_explicit_target(
            section
        )  # {ref}`data-exam` and the table's links resolve
        return self.parse(entry(info, tiers, root), section)

    def parse(self, lines: list[str], parent: nodes.Element) -> nodes.Element:
        self.state.nested_parse(StringList(lines, "manifest.toml"), self.content_offset, parent)
        return parent


def setup(app):
    app.add_directive("data-sets", DataSets)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
