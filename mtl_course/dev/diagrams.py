"""Render ``book/diagrams/*.mmd`` (Mermaid) to SVG beside them.

``python -m mtl_course.dev diagrams [--check]``.
The pictures are committed, so that a page needs no script and a reader no network. Each carries the
hash of its source; ``--check`` lists those that no longer fit it, with neither npm nor a browser.
The book's icon and the card for those who share its address are drawings of our own (SVG), which
some readers want as PNG: those are made here too.
"""

import argparse
import binascii
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from . import browser

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "book" / "diagrams"
STATIC = ROOT / "book" / "_static"
# picture -> (its source, width, height)
PICTURES = {"favicon.png": ("logo.svg", 32, 32), "card.png": ("card.svg", 1200, 630)}
TOOLS = ROOT / "build" / "mermaid"  # npm's folder; not under version control

MERMAID = "11.12.0"
SETTINGS = {
    "startOnLoad": False,
    "deterministicIds": True,
    "htmlLabels": False,  # labels as SVG text: pictures in a page show no HTML
    "flowchart": {
        "htmlLabels": False,
        "curve": "monotoneY",
        "padding": 12,
        "rankSpacing": 36,
        "wrappingWidth": 280,
        "subGraphTitleMargin": {"top": 4, "bottom": 10},
    },
    # the widest first: boxes fit whichever of them a reader has
    "fontFamily": "'DejaVu Sans', Verdana, Arial, sans-serif",
    "theme": "base",
    "themeVariables": {
        "fontSize": "16px",
        "primaryColor": "#eef4f9",
        "primaryBorderColor": "#0072B2",
        "primaryTextColor": "#111111",
        "lineColor": "#444444",
        "edgeLabelBackground": "#ffffff",
        "clusterBkg": "#f6f6f6",
        "clusterBorder": "#888888",
    },
}
# In the page: draw, give the picture its size, a white ground to read on in dark mode too, a title
# and the hash.
DRAW = """async ({id, source, settings, title, hash}) => {
    mermaid.initialize(settings);
    document.body.innerHTML = (await mermaid.render(id, source)).svg;
    const svg = document.querySelector("svg"), margin = 8;
    const [x, y, width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    const [w, h] = [Math.ceil(width) + 2 * margin, Math.ceil(height) + 2 * margin];
    svg.setAttribute("viewBox", [x - margin, y - margin, w, h].join(" "));
    svg.setAttribute("width", w);
    svg.setAttribute("height", h);
    svg.removeAttribute("style");
    svg.setAttribute("data-source-sha256", hash);
    const ground = document.createElementNS(svg.namespaceURI, "rect");
    for (const [key, value] of Object.entries({x: x - margin, y: y - margin, width: w, height: h, rx: 8, fill: "#ffffff"}))
        ground.setAttribute(key, value);
    svg.prepend(ground);
    if (!svg.querySelector(":scope > title")) {
        const element = document.createElementNS(svg.namespaceURI, "title");
        element.textContent = title;
        svg.prepend(element);
    }
    // Mermaid's style sheet is the same for every kind of diagram: keep the rules that this one uses.
    for (const style of svg.querySelectorAll("style"))
        style.textContent = [...style.sheet.cssRules]
            .filter(rule => rule.selectorText && document.querySelector(rule.selectorText))
            .map(rule => rule.cssText).join("");
    // Leave out what no picture shows: the editor's notes, arrow heads that no line has, empty groups,
    // a box for every word, and digits beyond a tenth of a pixel.
    const used = new Set([...svg.querySelectorAll("*")].flatMap(element =>
        [...element.attributes].map(attribute => attribute.value.match(/url\\(#(.+?)\\)/)?.[1])));
    for (const marker of svg.querySelectorAll("marker")) if (!used.has(marker.id)) marker.remove();
    for (const line of svg.querySelectorAll("tspan.text-outer-tspan")) {
        const parts = [...line.children];
        if (parts.every(part => part.getAttribute("font-weight") === "normal" && part.getAttribute("font-style") === "normal"))
            line.textContent = line.textContent;
    }
    for (const group of [...svg.querySelectorAll("g")].reverse())
        if (!group.children.length && !group.textContent.trim()) group.remove();
    for (const element of svg.querySelectorAll("*"))
        for (const {name, value} of [...element.attributes]) {
            if (name.startsWith("data-") && name !== "data-source-sha256") element.removeAttribute(name);
            else if (name === "style" && !value.replaceAll(";", "").trim()) element.removeAttribute(name);
            else if (["d", "points", "transform", "x", "y", "width", "height", "cx", "cy", "r"].includes(name))
                element.setAttribute(name, value.replace(/-?\\d+\\.\\d+/g, number => String(+Number(number).toFixed(1))));
        }
    return new XMLSerializer().serializeToString(svg);
}"""  # noqa: E501  (it is part of the pictures' hash: another line break makes all of them anew)


class DiagramError(Exception):
    """A diagram could not be rendered; the message says what to do."""


def digest(source: str) -> str:
    """Hash of what decides the picture: source, settings and Mermaid's version."""
    return hashlib.sha256(json.dumps([MERMAID, SETTINGS, DRAW, source]).encode()).hexdigest()


def read(path: Path) -> str:
    """The text of a file, with universal newlines: the hash is the same on Windows."""
    return path.read_text(encoding="utf-8")


def stale(folder: Path = FOLDER) -> list[str]:
    """What is wrong with the pictures of a folder, in words; empty if each fits its source."""
    wrong = []
    for source in sorted(folder.glob("*.mmd")):
        picture = source.with_suffix(".svg")
        if not picture.exists():
            wrong.append(f"{picture.name} is missing")
        elif f'data-source-sha256="{digest(read(source))}"' not in read(picture):
            wrong.append(f"{picture.name} does not fit {source.name}, which changed")
    wrong += [
        f"{path.name} has no source"
        for path in sorted(folder.glob("*.svg"))
        if not path.with_suffix(".mmd").exists()
    ]
    return wrong


def stale_pictures(folder: Path = STATIC) -> list[str]:
    """The same for the PNG of icon and card; each carries the hash of its SVG."""
    wrong = []
    for name, (source, _, _) in PICTURES.items():
        picture = folder / name
        if not picture.exists():
            wrong.append(f"{name} is missing")
        elif picture_hash(read(folder / source)) not in picture.read_bytes():
            wrong.append(f"{name} does not fit {source}, which changed")
    return wrong


def picture_hash(source: str) -> bytes:
    return hashlib.sha256(source.encode()).hexdigest().encode()


def with_hash(png: bytes, digest: bytes) -> bytes:
    """A PNG with a text chunk before its last one, which says what it was made from."""
    text = b"tEXtsource-sha256\0" + digest
    chunk = (len(text) - 4).to_bytes(4, "big") + text + binascii.crc32(text).to_bytes(4, "big")
    return png[:-12] + chunk + png[-12:]


def render_pictures(folder: Path = STATIC) -> None:
    """Write the PNG of icon and card; DiagramError without a browser."""
    lacking = browser.missing()
    if lacking:
        raise DiagramError(f"Pictures are rendered in a browser, and {lacking}.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        page = browser.launch(playwright).new_context(offline=True).new_page()
        for name, (source, width, height) in PICTURES.items():
            svg = read(folder / source)
            page.set_viewport_size({"width": width, "height": height})
            style = "html,body{margin:0}svg{display:block;width:100%;height:auto}"
            page.set_content(f"<style>{style}</style>{svg}")
            png = page.screenshot(omit_background=True)
            (folder / name).write_bytes(with_hash(png, picture_hash(svg)))
            print(name)


def foreign(svg: str) -> list[str]:
    """What a picture holds that a page must not load or run.

    Scripts, HTML, fonts and addresses elsewhere.
    """
    svg = re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg)
    return re.findall(
        r"<script|<foreignObject|@import|@font-face|https?://[^\s\"')]+|url\((?!['\"]?#)[^)]*\)",
        svg,
    )


def mermaid_script() -> Path:
    """Mermaid as one file, from npm; DiagramError without npm or if it fails."""
    package = TOOLS / "node_modules" / "mermaid"
    if not package.exists() or json.loads(read(package / "package.json"))["version"] != MERMAID:
        npm = shutil.which("npm")
        if npm is None:
            raise DiagramError(
                "npm is missing, which fetches Mermaid: install Node.js. Readers do not need it."
            )
        TOOLS.mkdir(parents=True, exist_ok=True)
        print(f"Fetching mermaid {MERMAID} with npm ...", flush=True)
        command = [
            npm,
            "install",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(TOOLS),
            f"mermaid@{MERMAID}",
        ]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise DiagramError(f"npm could not fetch Mermaid:\n{result.stderr.strip()}")
    return package / "dist" / "mermaid.min.js"


def render(sources: list[Path]) -> None:
    """Write the picture of each source.

    DiagramError with Mermaid's words for a source that it cannot read.
    """
    lacking = browser.missing()
    if lacking:
        raise DiagramError(f"Diagrams are rendered in a browser, and {lacking}.")
    from playwright.sync_api import Error, sync_playwright

    script = mermaid_script()
    with sync_playwright() as playwright:
        page = browser.launch(playwright).new_context(offline=True).new_page()
        page.add_script_tag(path=script)
        for source in sources:
            text = read(source)
            # Unless the source has its own, as `accTitle: ...`.
            title = source.stem.replace("_", " ").capitalize()
            given = {
                "id": source.stem,
                "source": text,
                "settings": SETTINGS,
                "title": title,
                "hash": digest(text),
            }
            try:
                svg = page.evaluate(DRAW, given)
            except Error as error:
                raise DiagramError(f"{source.name}: {error.message}") from None
            if foreign(svg):
                raise DiagramError(
                    f"{source.name} gives a picture with {', '.join(foreign(svg))}, which a page"
                    " must not load."
                )
            source.with_suffix(".svg").write_text(svg + "\n", encoding="utf-8", newline="\n")
            print(f"{source.stem}.svg")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mtl_course.dev diagrams", description="Render the diagrams' sources to SVG."
    )
    parser.add_argument(
        "--check", action="store_true", help="only list the pictures that do not fit their source"
    )
    parser.add_argument(
        "--all", action="store_true", help="render all, not only those that changed"
    )
    options = parser.parse_args(arguments)

    wrong = [*stale(), *stale_pictures()]
    if options.check:
        print(
            "\n".join(
                [*wrong, "Run: make diagrams"] if wrong else ["Every picture fits its source."]
            )
        )
        return 1 if wrong else 0
    named = {line.split()[0] for line in wrong}
    changed = [
        path
        for path in sorted(FOLDER.glob("*.mmd"))
        if options.all or path.with_suffix(".svg").name in named
    ]
    try:
        if changed:
            render(changed)
        if options.all or stale_pictures():
            render_pictures()
    except DiagramError as error:
        print(error, file=sys.stderr)
        return 1
    left = [*stale(), *stale_pictures()]
    print("\n".join(left) or "Every picture fits its source.")
    return 1 if left else 0
