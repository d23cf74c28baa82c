"""Sliders: a plot drawn for each value of a dial, in one page that needs no server."""

import base64
import hashlib
import html
import io
import json
import re
import textwrap
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from .._output import Output, show
from .phone import enlarge, letters

FRAMES = 12  # at most
LIMIT = 400_000  # bytes of the whole output
CSS_INCH = 96  # pixels of a page per inch of a figure, whatever the resolution of its picture

STYLE = """\
.mtl-slider{margin:.5rem 0;max-width:100%}
.mtl-slider .frame{overflow-x:auto}
.mtl-slider img{display:block;width:var(--wide);max-width:100%;height:auto;margin:0;background:#fff}
.mtl-slider p{margin:0 0 .4rem}
.mtl-slider .dial{display:flex;gap:.6rem;align-items:center;max-width:36rem}
.mtl-slider .dial[hidden],.mtl-slider .name[hidden]{display:none}
.mtl-slider input{flex:1;min-width:6rem;margin:0;height:1.5rem;cursor:pointer;\
accent-color:#0072b2}
.mtl-slider input:focus-visible{outline:3px solid #56b4e9;outline-offset:2px}
.mtl-slider .value{font-weight:bold;font-variant-numeric:tabular-nums}
@media screen and (max-width:600px){.mtl-slider img{max-width:max(100%,.78*var(--wide))}}
@media print{.mtl-slider .dial{display:none}}"""

# Every copy of this slider in the page is set up once: JupyterLab can show a notebook twice. The
# frame that the page already shows is not stored a second time, so it is `null` among the others.
SCRIPT = """\
(() => {
  const frames = %(frames)s, texts = %(texts)s, alts = %(alts)s;
  for (const box of document.querySelectorAll('[id="%(id)s"]:not([data-ready])')) {
    box.dataset.ready = "";
    const find = what => box.querySelector(what);
    const image = find("img"), input = find("input"), value = find(".value");
    const first = image.src;
    const show = () => {
      const now = Number(input.value);
      image.src = frames[now] ? "data:image/png;base64," + frames[now] : first;
      image.alt = alts[now];
      value.textContent = texts[now];
      input.setAttribute("aria-valuetext", texts[now]);
    };
    const frame = find(".frame");  // on a phone it may scroll: a keyboard must reach it then
    const reach = () => { frame.tabIndex = frame.scrollWidth > frame.clientWidth ? 0 : -1; };
    input.addEventListener("input", show);
    addEventListener("resize", reach);
    find(".note").remove();
    find(".name").hidden = find(".dial").hidden = input.disabled = false;
    show();
    reach();
  }
})();"""

PAGE = """\
<figure class="mtl-slider" id="%(id)s"><style>%(style)s</style>
<p class="note">%(note)s</p>
<p class="name" hidden><label for="%(id)s-dial">%(label)s</label>%(sign)s\
<span class="value" aria-hidden="true">%(text)s</span></p>
<div class="dial" hidden><span aria-hidden="true">%(low)s</span>\
<input type="range" id="%(id)s-dial" min="0" max="%(last)d" step="1" \
value="%(start)d" aria-valuetext="%(text)s" autocomplete="off" disabled>\
<span aria-hidden="true">%(high)s</span></div>
<div class="frame" role="group" aria-label="%(label)s: picture" style="--wide:%(width)dpx">\
<img src="data:image/png;base64,%(image)s" width="%(width)d" height="%(height)d" alt="%(alt)s">\
</div>
<script>%(script)s</script></figure>"""


def slider(
    draw: Callable,
    values: Sequence,
    label: str,
    alt: str | Callable,
    *,
    text: str | Callable = "",
    start: int = 0,
    dpi: int = 144,
    colors: int = 64,
) -> None:
    """Show a plot for each value of a dial, with a slider that moves through them.

    All pictures are drawn now and stored in one output, which needs no server, no network and no
    running notebook. Without scripts, as in print, it shows the picture of the value at `start`.
    The axes stand still while the slider moves if `draw` sets the limits of each.

    Args:
        draw: called with each value; returns a matplotlib figure, or draws on the current one. All
            figures have one size.
        values: 2 to 12 of them, of any kind.
        label: what the dial sets, such as ``"strength λ"``; plain text.
        alt: what the picture of a value shows: a function of the value, or a template with
            ``{value}``, which stands for the value as `text` writes it.
        text: how a value is written: a function of the value, or a format such as ``"{:.2f}"``.
            Default: numbers as by ``"{:g}"``, infinity as ∞, all else as by ``str``.
        start: index of the value that is shown first.
        dpi: dots per inch of the pictures; an inch takes 96 pixels of the page.
        colors: of each picture, at most 256.

    Raises:
        ValueError: if there are too few or too many values, a picture is empty or of another size,
            the descriptions are empty or all the same, `start` is no index, or the output is
            larger than 400 KB.

    Example:
        >>> def draw(slope):
        ...     figure, ax = plt.subplots(figsize=(2, 1))
        ...     ax.plot([0, 1], [0, slope])
        ...     ax.set_ylim(0, 2)
        ...     return figure
        >>> slider(draw, [1, 2], "slope", "a line of slope {value}", dpi=40)
        [slider] slope = 1: a line of slope 1
        The other pictures, up to slope = 2, show in Colab, JupyterLab and the book.
    """
    show(_output(draw, values, label, alt, text, start, dpi, colors))


def _output(draw, values, label, alt, text="", start=0, dpi=144, colors=64) -> Output:
    """What `slider` shows, with the same arguments."""
    values = list(values)
    if not 2 <= len(values) <= FRAMES:
        raise ValueError(f"a slider has 2 to {FRAMES} values, and these are {len(values)}")
    if not 0 <= start < len(values):
        raise ValueError(f"start is {start}, which is no index of {len(values)} values")
    texts = [_written(value, text) for value in values]
    alts = [
        alt(value) if callable(alt) else alt.format(value=written)
        for value, written in zip(values, texts, strict=True)
    ]
    if not all(a.strip() for a in alts) or len(set(alts)) == 1:
        raise ValueError(
            "alt says for each picture what it shows: give a function of the value, or a text"
            " with {value} in it"
        )
    frames, size = _frames(draw, values, texts, dpi, colors)
    sign = ": " if all(isinstance(value, str) for value in values) else " = "
    page = _page(frames, size, texts, alts, label, sign, start)
    if (weight := len(page.encode())) > LIMIT:
        raise ValueError(
            f"this slider is {weight / 1000:.0f} KB, and {LIMIT // 1000} KB are the limit: give it"
            " fewer values, a smaller figsize, a lower dpi or fewer colors, or draw fewer points"
        )
    end = len(values) - 1 if start != len(values) - 1 else 0
    told = textwrap.fill(f"[slider] {label}{sign}{texts[start]}: {alts[start]}", 76)
    more = (
        f"The other pictures, up to {label}{sign}{texts[end]}, show in Colab, JupyterLab and the"
        " book."
    )
    return Output(page, f"{told}\n{textwrap.fill(more, 76)}")


def _written(value, text) -> str:
    """A value in words."""
    if callable(text):
        return str(text(value))
    if text:
        return text.format(value)
    try:
        return str(value) if isinstance(value, str | bool) else f"{value:g}".replace("inf", "∞")
    except (TypeError, ValueError):
        return str(value)


def _frames(draw, values, texts, dpi, colors) -> tuple[list[str], tuple[float, float]]:
    """A base64 PNG for each value, and the size of all in inches."""
    frames, sizes, least = [], [], None
    for value, written in zip(values, texts, strict=True):
        before = set(plt.get_fignums())
        try:
            plt.figure()  # the current one, in case `draw` makes none
            drawn = draw(value)
            figure = drawn if isinstance(drawn, Figure) else plt.gcf()
            if not figure.axes and not figure.get_children()[1:]:
                raise ValueError(f"draw({written}) has drawn nothing, and returns no figure")
            if least is None:  # of the words, in all frames alike
                least = letters(figure, CSS_INCH)
            if least:
                enlarge(figure, least)
            frames.append(_picture(figure, dpi, colors))
            sizes.append(tuple(figure.get_size_inches()))
        finally:  # else the notebook would show the figures a second time
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
    for size, written in zip(sizes, texts, strict=True):
        if size != sizes[0]:
            raise ValueError(
                f"the figure for {texts[0]} is {_inches(sizes[0])}, the one for {written}"
                f" {_inches(size)}: draw all in one size"
            )
    return frames, sizes[0]


def _inches(size) -> str:
    """A figure's size in words."""
    return f"{size[0]:g} by {size[1]:g} inches"


def _picture(figure, dpi, colors) -> str:
    """A figure as a base64 PNG with a palette, on white."""
    from PIL import Image

    raw, small = io.BytesIO(), io.BytesIO()
    with plt.rc_context({"savefig.bbox": None}):  # a reader's "tight" would cut each otherwise
        figure.savefig(raw, format="png", dpi=dpi, facecolor="white")
    image = Image.open(raw).convert("RGB")
    # Median cut, the default, would mix the colour of a small mark with others.
    image = image.quantize(colors, method=Image.Quantize.MAXCOVERAGE, kmeans=3)
    image.save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def _page(frames, size, texts, alts, label, sign, start) -> str:
    """The HTML; its ids follow the label and the contents, so two of a page differ."""
    contents = json.dumps([label, texts, alts, frames]).encode()
    words = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    name = f"slider-{words}-{hashlib.sha256(contents).hexdigest()[:8]}".replace("--", "-")
    say = html.escape
    others = [None if i == start else frame for i, frame in enumerate(frames)]
    script = SCRIPT % {
        "id": name,
        "frames": _script(others),
        "texts": _script(texts),
        "alts": _script(alts),
    }
    return PAGE % {
        "id": name,
        "style": STYLE,
        "note": say(
            f"One of {len(frames)} pictures, for {label}{sign}{texts[start]}."
            " Where scripts run, a slider shows the others."
        ),
        "label": say(label),
        "sign": sign,
        "text": say(texts[start]),
        "low": say(texts[0]),
        "high": say(texts[-1]),
        "last": len(frames) - 1,
        "start": start,
        "image": frames[start],
        "width": round(size[0] * CSS_INCH),
        "height": round(size[1] * CSS_INCH),
        "alt": say(alts[start]),
        "script": script,
    }


def _script(contents) -> str:
    """JSON that may stand between script tags."""
    return json.dumps(contents).replace("<", "\\u003c")
