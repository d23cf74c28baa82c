"""A line of Markdown for pages and consoles: `code`, **bold**, *emphasis* and $formulas$.

A formula becomes HTML (italic letters, raised and lowered parts), not something for MathJax to
typeset: so it looks the same in the book, in JupyterLab and on Colab, and needs no script. On a
console it becomes Unicode. What is understood: letters, numbers, ``^`` and ``_``, the commands
below, ``\\frac``, ``\\sqrt``, ``\\text``, ``\\mathbf`` and accents. Anything longer belongs into
the text of a chapter.
"""

import html
import re
import unicodedata

NAMES_AND_SIGNS = """
cdot · times × pm ± le ≤ leq ≤ ge ≥ geq ≥ ne ≠ neq ≠ approx ≈ infty ∞ nabla ∇ partial ∂ sum ∑ prod ∏
in ∈ to → top ⊤ ell ℓ odot ⊙ circ ∘ ldots … dots … | ‖ lVert ‖ rVert ‖ langle ⟨ rangle ⟩ mid |
lvert | rvert | { { } } % % _ _
""".split()  # noqa: SIM905
SIGNS = dict(zip(NAMES_AND_SIGNS[::2], NAMES_AND_SIGNS[1::2], strict=True))
SIGNS |= {",": " ", ";": " ", " ": " ", "quad": " ", "!": "", "left": "", "right": ""}
SPACED = {"le", "leq", "ge", "geq", "ne", "neq", "approx", "in", "to", "mid"}
WORDS = {"log", "exp", "min", "max", "arg", "tanh", "sin", "cos", "det", "tr", "sign", "argmin"}
ACCENTS = {"hat": "\u0302", "bar": "\u0304", "tilde": "\u0303", "dot": "\u0307", "vec": "\u20d7"}
UPRIGHT = ("text", "mathrm", "operatorname", "textrm")
BOLD = ("mathbf", "boldsymbol", "bm")
RAISED = dict(zip("0123456789+-=()niTk", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱᵀᵏ", strict=True)) | {"−": "⁻", "⊤": "ᵀ"}
LOWERED = dict(zip("0123456789+-=()ijkmnt", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ᵢⱼₖₘₙₜ", strict=True)) | {"−": "₋"}

PIECES = re.compile(
    r"(?P<code>(?P<ticks>`+)(?!`)(?P<inner>.+?)(?<!`)(?P=ticks)(?!`))"
    r"|(?P<math>\$(?=\S)(?P<tex>[^$\n]+?)(?<=\S)\$(?!\d))"
    r"|(?P<bold>\*\*(?=\S)(?P<strong>.+?)(?<=\S)\*\*)"
    r"|(?P<slant>(?<![\w*])\*(?=[^\s*])(?P<em>[^*]+?)(?<=\S)\*(?![\w*]))",
    re.S,
)
TOGETHER = re.compile(r"(?<=[\d%)]) (±) (?=[\d.(])|(?<=\d) (%)")  # a number and what is its own
TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\s+|.", re.S)
CODE = (
    'style="background:rgba(128,128,128,.15);color:inherit;border:0;border-radius:3px;'
    'padding:.1em .3em;font-size:.9em"'
)


def to_html(text: str) -> str:
    """A line of Markdown as HTML, in which no line ends between a number and its spread."""
    text = TOGETHER.sub(lambda m: "\u00a0±\u00a0" if m[1] else "\u00a0%", text)
    parts, at = [], 0
    for piece in PIECES.finditer(text):
        parts.append(html.escape(text[at : piece.start()], quote=False))
        if piece["code"]:
            parts.append(f"<code {CODE}>{html.escape(piece['inner'].strip(), quote=False)}</code>")
        elif piece["math"]:
            parts.append(f'<span class="mtl-math">{math_html(piece["tex"])}</span>')
        elif piece["bold"]:
            parts.append(f"<strong>{to_html(piece['strong'])}</strong>")
        else:
            parts.append(f"<em>{to_html(piece['em'])}</em>")
        at = piece.end()
    return "".join([*parts, html.escape(text[at:], quote=False)])


def to_text(text: str) -> str:
    """A line of Markdown for a console: code keeps its backticks, formulas become Unicode."""

    def plain(piece):
        if piece["code"]:
            return piece["code"]
        if piece["math"]:
            return math_text(piece["tex"])
        return to_text(piece["strong"] or piece["em"])

    return PIECES.sub(plain, text)


# ----------------------------------------------------------------------------------------- formulas
def math_html(tex: str) -> str:
    """A formula as HTML."""
    return "".join(_as_html(node) for node in _parse(tex))


def math_text(tex: str) -> str:
    """A formula as Unicode."""
    return "".join(_as_text(node) for node in _parse(tex))


def unknown(text: str) -> set[str]:
    """The commands in a text's formulas that are not understood; they show as their names."""
    commands = set()
    for piece in PIECES.finditer(text):
        if piece["math"]:
            commands |= set(re.findall(r"\\([A-Za-z]+)", piece["tex"]))
    commands -= {"frac", "sqrt", *UPRIGHT, *BOLD, *ACCENTS, *SIGNS, *WORDS}
    return {name for name in commands if not _greek(name)}


def _greek(name: str) -> str:
    """The Greek letter of this name, or an empty text."""
    size = "SMALL" if name.islower() else "CAPITAL"
    spelled = name.upper().replace("LAMBDA", "LAMDA")
    try:
        return unicodedata.lookup(f"GREEK {size} LETTER {spelled}")
    except KeyError:
        return ""


def _parse(tex: str) -> list[tuple]:
    """Nodes (kind, content) of a formula."""
    tokens = TOKEN.findall(tex)[::-1]
    return _nodes(tokens, until=None)


def _nodes(tokens: list[str], until: str | None) -> list[tuple]:
    """Nodes up to a closing token, which is taken too."""
    nodes = []
    while tokens and tokens[-1] != until:
        new = _node(tokens)
        if nodes and new in ([("sign", "+")], [("sign", "−")]):  # between two, not before one
            new = [("sign", f" {new[0][1]} ")]
        nodes += new
    if tokens:
        tokens.pop()
    return nodes


def _argument(tokens: list[str]) -> list[tuple]:
    """Nodes of the group or the single token that comes next."""
    while tokens and tokens[-1].isspace():
        tokens.pop()
    if not tokens:
        return []
    if tokens[-1] == "{":
        tokens.pop()
        return _nodes(tokens, "}")
    return _node(tokens)


def _node(tokens: list[str]) -> list[tuple]:
    """The nodes that the next token begins, which are taken from `tokens`."""
    token = tokens.pop()
    if token == "{":
        return _nodes(tokens, "}")
    if token in "^_":
        if tokens and tokens[-1] == "*":  # a star, as of an optimum, and no product
            return [("sup" if token == "^" else "sub", [("sign", tokens.pop())])]
        return [("sup" if token == "^" else "sub", _argument(tokens))]
    if token == "\\frac":
        return [("frac", (_argument(tokens), _argument(tokens)))]
    if token.startswith("\\"):
        return _command(token[1:], tokens)
    if token.isspace():
        return []
    if token.isalpha():
        return [("letter", token)]
    if token in "=<>":
        return [("sign", f" {token} ")]
    return [("sign", {"-": "−", "*": "·", "'": "′"}.get(token, token))]


def _command(name: str, tokens: list[str]) -> list[tuple]:
    if name in ACCENTS:
        inner = _argument(tokens)
        return [("accent", (inner, ACCENTS[name]))]
    if name in UPRIGHT:
        return [("word", _raw(tokens))]
    if name in BOLD:
        return [("bold", _argument(tokens))]
    if name == "sqrt":
        return [("sqrt", _argument(tokens))]
    if name in SIGNS:
        return [("sign", f" {SIGNS[name]} " if name in SPACED else SIGNS[name])]
    if letter := _greek(name):
        return [("letter", letter)]
    while tokens and tokens[-1].isspace():
        tokens.pop()
    after = " " if tokens and re.match(r"\w|\\[A-Za-z]", tokens[-1]) else ""
    return [("word", name + after)]


def _raw(tokens: list[str]) -> str:
    """The text of a group as it is written."""
    if not tokens or tokens.pop() != "{":
        return ""
    taken = []
    while tokens and (token := tokens.pop()) != "}":
        taken.append(token)
    return "".join(taken)


def _as_html(node: tuple) -> str:
    kind, content = node
    if kind == "letter":
        return f"<i>{content}</i>"
    if kind in ("sign", "word"):
        return html.escape(content, quote=False)
    if kind == "accent":
        inner, mark = content
        return "".join(map(_as_html, inner)).replace("</i>", f"{mark}</i>", 1)
    if kind == "frac":
        return "/".join(_grouped(part, _as_html) for part in content)
    if kind == "sqrt":
        return "√" + _grouped(content, _as_html)
    inner = _tight("".join(map(_as_html, content)))
    return {"bold": f"<b>{inner}</b>"}.get(kind, f"<{kind}>{inner}</{kind}>")


def _as_text(node: tuple) -> str:
    kind, content = node
    if kind in ("letter", "sign", "word"):
        return content
    if kind == "accent":
        inner, mark = content
        return "".join(map(_as_text, inner)) + mark
    if kind == "frac":
        return "/".join(_grouped(part, _as_text) for part in content)
    if kind == "sqrt":
        return "√" + _grouped(content, _as_text)
    inner = _tight("".join(map(_as_text, content)))
    if kind == "bold":
        return inner
    letters = RAISED if kind == "sup" else LOWERED
    if inner and all(letter in letters for letter in inner):
        return "".join(letters[letter] for letter in inner)
    return ("^" if kind == "sup" else "_") + (inner if len(content) == 1 else f"({inner})")


def _tight(inner: str) -> str:
    """An index without the space around its signs."""
    return re.sub(r" ([-+−=]) ", r"\1", inner)


def _grouped(nodes: list[tuple], render) -> str:
    """Nodes in parentheses, unless they are one letter or number with its index."""
    inner = "".join(map(render, nodes))
    single = sum(kind not in ("sup", "sub") for kind, _ in nodes) <= 1
    return inner if single else f"({inner})"
