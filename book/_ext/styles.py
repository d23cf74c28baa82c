"""One style sheet with what the book uses, and its icons: 2 MB less than the theme's.

The theme brings the whole of Bootstrap and of Font Awesome; a page shows about fifteen icons. At
the end of a build this reads the pages and the scripts, keeps the rules whose classes occur in
them, and draws the icons that occur, from the theme's own file, as masks in the text's colour.

It begins from the theme's files each time, so a page with something new finds its rules.
"""

import re
from pathlib import Path
from urllib.parse import quote

from sphinx.errors import ExtensionError

# In the order in which the theme's pages load them.
SOURCES = (
    "basic.css",
    "styles/pydata-sphinx-theme.css",
    "pygments.css",
    "styles/sphinx-book-theme.css",
    "togglebutton.css",
    "copybutton.css",
    "mystnb.*.css",
    "sphinx-design.min.css",
)
TARGET = "book.css"
ICONS = "scripts/fontawesome.js"
NO_CLASSES = ("fontawesome.js", "tex-svg.js", "searchindex.js")  # scripts that name none of ours

ICON = re.compile(r'["\']?([a-z0-9-]+)["\']?:\[(\d+),(\d+),\[([^\]]*)\],"[0-9a-f]+","([^"]+)"\]')
# Font Awesome's own rules: a sign of its font in front of an element.
BY_FONT = re.compile(r"\.(?:fa[bsr]?|fa-[\w-]+)(?:::?(?:before|after))?")
# Signs of the text's own font in the places where the theme would load a font of icons.
SIGNS = """
:root{--fa-font-solid:700 1em/1 var(--pst-font-family-base);--fa-font-brands:var(--fa-font-solid);
--pst-icon-check-circle:"\\2713";--pst-icon-info-circle:"i";--pst-icon-exclamation-triangle:"!";
--pst-icon-exclamation-circle:"!";--pst-icon-times-circle:"\\00d7";--pst-icon-lightbulb:"\\2605";
--pst-icon-download:"\\2193";--pst-icon-angle-left:"\\2039";--pst-icon-angle-right:"\\203a";
--pst-icon-external-link:"\\2197";--pst-icon-search-minus:"\\00d7";--pst-icon-github:"";
--pst-icon-gitlab:"";--pst-icon-share:"\\2192";--pst-icon-bell:"\\2022";--pst-icon-pencil:"\\270e"}
:where(.fa-solid,.fa-regular,.fa-brands,.fas,.far,.fab){display:inline-block;width:1em;height:1em;
vertical-align:-.125em;background:currentColor;-webkit-mask:var(--icon) center/contain no-repeat;
mask:var(--icon) center/contain no-repeat;forced-color-adjust:preserve-parent-color}
.fa-lg{font-size:1.25em;line-height:.05em;vertical-align:-.075em}
"""


def rules(css: str):
    """(prelude, body) of each rule at the top level; body is None for a statement such as @charset.

    Braces in strings and in ``url(...)`` do not count.
    """
    start = at = depth = 0
    prelude = ""
    while at < len(css):
        sign = css[at]
        if css.startswith("/*", at):
            end = css.find("*/", at)
            end = len(css) if end < 0 else end + 2
            if depth == 0:
                css = css[:at] + css[end:]
            else:
                at = end
            continue
        if sign in "\"'":
            at += 1
            while at < len(css) and css[at] != sign:
                at += 2 if css[at] == "\\" else 1
        elif css.startswith("url(", at) and css[at + 4] not in "\"'":
            at = css.index(")", at)
        elif sign == "\\":
            at += 1
        elif sign == "{":
            depth += 1
            if depth == 1:
                prelude, start = css[start:at].strip(), at + 1
        elif sign == "}":
            depth -= 1
            if depth == 0:
                yield prelude, css[start:at]
                start = at + 1
        elif sign == ";" and depth == 0:
            yield css[start : at + 1].strip(), None
            start = at + 1
        at += 1


def split(selectors: str) -> list[str]:
    """The selectors of a list, at the commas outside brackets."""
    parts, depth = [""], 0
    for sign in selectors:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def names(selector: str) -> list[str]:
    """Classes and ids that an element must have, or its parents, for a selector to apply."""
    while "(" in selector:  # :not(...), :is(...): no harm in keeping too much
        shorter = re.sub(r"\([^()]*\)", "", selector)
        if shorter == selector:
            break
        selector = shorter
    selector = re.sub(r"\[[^\]]*\]", "", selector)
    found = re.findall(r"[.#]((?:\\.|[\w-])+)", selector)
    return [re.sub(r"\\(.)", r"\1", name) for name in found]


def slim(css: str, used: set[str]) -> str:
    """The rules of a style sheet that can apply where only these names occur."""
    kept = []
    for prelude, body in rules(css):
        if body is None:
            kept += [] if prelude.startswith(("@charset", "@import")) else [prelude]
        elif prelude.startswith(("@media", "@supports", "@layer", "@container")):
            inside = slim(body, used)
            kept += [f"{prelude}{{{inside}}}"] if inside else []
        elif prelude.startswith(("@font-face", "@keyframes fa-")):
            continue  # the theme's fonts are icons
        elif prelude.startswith("@"):
            kept.append(f"{prelude}{{{body}}}")
        else:
            selectors = [
                part
                for part in split(prelude)
                if set(names(part)) <= used and not BY_FONT.fullmatch(part.strip())
            ]
            kept += [f"{','.join(selectors)}{{{body}}}"] if selectors else []
    return "".join(kept)


def words(folder: Path) -> set[str]:
    """All words of the pages' tags and of the scripts that may be names of classes or ids."""
    found = set()
    for path in folder.rglob("*.html"):
        for tag in re.findall(r"<[a-zA-Z][^>]*>", path.read_text(encoding="utf-8")):
            found.update(re.findall(r"[\w-]+", tag))
    for path in (folder / "_static").rglob("*.js"):
        if path.name not in NO_CLASSES and "text" not in path.relative_to(folder).parts[1:2]:
            found.update(re.findall(r"[\w-]+", path.read_text(encoding="utf-8")))
    return found


def icons(script: str, used: set[str]) -> str:
    """A mask for each icon of the theme's that occurs."""
    drawn = {}
    for name, width, height, others, path in ICON.findall(script):
        aliases = re.findall(r'"([a-z0-9-]+)"', others)
        for alias in (name, *aliases):
            if f"fa-{alias}" in used:
                drawn[alias] = (width, height, path)
    lines = []
    for name, (width, height, path) in sorted(drawn.items()):
        box = f"xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}'"
        svg = f"<svg {box}><path d='{path}'/></svg>"
        lines.append(f'.fa-{name}{{--icon:url("data:image/svg+xml,{quote(svg, safe=" =:/")}")}}')
    return "\n".join(lines)


def write(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir)
    static = folder / "_static"
    used = words(folder)
    parts, licences = [], []
    for pattern in SOURCES:
        for path in sorted(static.glob(pattern)):
            css = path.read_text(encoding="utf-8")
            css = re.sub(r"/\*# sourceMappingURL=.*?\*/", "", css)
            licences += re.findall(r"/\*!.*?\*/", css, re.S)
            parts.append(slim(css, used))
    if len(parts) < len(SOURCES):
        raise ExtensionError(f"The theme's style sheets are not in {static}: build anew (--fresh).")
    parts += [SIGNS, icons((static / ICONS).read_text(encoding="utf-8"), used)]
    text = "\n".join([*dict.fromkeys(licences), *parts])
    target = static / TARGET
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        target.write_text(text, encoding="utf-8")


def setup(app):
    app.connect("build-finished", write, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
