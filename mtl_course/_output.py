"""What a call shows: HTML in a notebook, plain text everywhere else.

The HTML brings its own look in `style` attributes, so that it is the same in the book, in
JupyterLab and on Colab, light and dark: text has the page's colour, and what is coloured (borders,
signs on their own ground) reads on white as on black. Each piece has a class, `mtl-...`, by which
the book may give it more.
"""

import html
import sys
import textwrap
import unicodedata

WIDTH = 76  # characters of a line of text
NBSP = "\u00a0"  # a space at which no line ends
# Grounds for white signs, 4.5 to 1 and more, and 3 to 1 against white and near-black pages.
TONES = {"good": "#1a7f37", "bad": "#bc4c00", "stop": "#cf222e", "calm": "#646d77"}
ON_PAPER = "-webkit-print-color-adjust:exact;print-color-adjust:exact"  # white on its ground
BORDER = "1px solid rgba(128,128,128,.4)"
# What takes the place of a character where a console has none for it.
PLAIN = {"✓": "+", "✗": "x", "○": "o", "–": "-", "—": "-", "−": "-", "…": "...", "±": "+-"}
PLAIN |= {"‘": "'", "’": "'", "“": '"', "”": '"', "×": "x", "·": "*", "≤": "<=", "≥": ">="}
PLAIN |= {"≈": "~", "→": "->"}


class Output:
    """Something to look at, in both forms.

    Args:
        html: shown by notebooks and the book.
        text: shown where there is no HTML; lines of at most 76 characters.
    """

    def __init__(self, html: str, text: str):
        self.html, self.text = html, text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def show(output: Output) -> None:
    """Display an output in a notebook; print its text where there is none."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None:
        from IPython.display import display

        display(output)
    else:
        print(printable(output.text))


def printable(text: str) -> str:
    """The text as the console can print it: signs that its encoding lacks become plain ones."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
        return text
    except LookupError:
        encoding = "ascii"
    except UnicodeEncodeError:
        pass
    plain = "".join(_plain(character) for character in text)
    return plain.encode(encoding, "backslashreplace").decode(encoding)


def _plain(character: str) -> str:
    """A character in plain ones: ``²`` as ``^2``, ``σ`` as ``sigma``; else itself."""
    if character.isascii() or character in PLAIN:
        return PLAIN.get(character, character)
    kind, _, inner = unicodedata.decomposition(character).partition("> ")
    if kind in ("<super", "<sub"):
        inner = chr(int(inner, 16))
        return ("^" if kind == "<super" else "_") + PLAIN.get(inner, inner)
    name = unicodedata.name(character, "")
    if name.startswith("GREEK") and " LETTER " in name and " WITH " not in name:
        spelled = name.split()[-1].replace("LAMDA", "LAMBDA")
        return spelled.capitalize() if "CAPITAL" in name else spelled.lower()
    return character


def wrapped(text: str, indent: str = "", more: str = "") -> str:
    """Each line of a text broken at `WIDTH`, at spaces; a longer word stays whole.

    Args:
        text: one line or several.
        indent: put before each line.
        more: put after that, where a line goes on.
    """
    return "\n".join(
        textwrap.fill(
            line,
            WIDTH,
            initial_indent=indent,
            subsequent_indent=indent + more,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.split("\n")
    )


def card(
    tone: str, sign: str, word: str, title: str, body: str = "", kind: str = "card", label: str = ""
) -> str:
    """HTML of a card: a badge with sign and word, a title, and what stands below.

    Args:
        tone: one of `TONES`.
        sign: one character, which says without colour what the tone says.
        word: says it in words.
        title: HTML beside the badge.
        body: HTML below.
        kind: ends the class's name.
        label: names the card to who cannot see it, as a group.
    """
    colour = TONES[tone]
    group = f' role="group" aria-label="{html.escape(label)}"' if label else ""
    badge = (
        f'<span class="mtl-badge" style="background:{colour};color:#fff;border-radius:1em;'
        f'padding:.1em .7em;font-size:.85em;font-weight:600;white-space:nowrap;{ON_PAPER}">'
        f'<span aria-hidden="true">{sign}</span> {html.escape(word)}</span>'
    )
    inner = f'<div>{badge} <span class="mtl-title">{title}</span></div>{body}'
    inner = inner.encode("utf-8", "backslashreplace").decode()  # halves of surrogate pairs
    return (
        f'<div class="mtl-{kind} mtl-{tone}"{group} style="border:{BORDER};'
        f"border-left:5px solid {colour};border-radius:6px;padding:.5em .9em;margin:.5em 0;"
        f'line-height:1.5;overflow-wrap:anywhere">{inner}</div>'
    )
