"""Inline Markdown and small formulas, for pages and for consoles."""

import pytest

from mtl_course import _markup
from mtl_course._markup import math_html, math_text, to_html, to_text


@pytest.mark.parametrize(
    "tex, text, html",
    [
        ("x", "x", "<i>x</i>"),
        (r"x^\top Q x", "xᵀQx", "<i>x</i><sup>⊤</sup><i>Q</i><i>x</i>"),
        (r"\sigma^2 / n", "σ²/n", "<i>σ</i><sup>2</sup>/<i>n</i>"),
        (r"w_{t+1}", "wₜ₊₁", "<i>w</i><sub><i>t</i>+1</sub>"),
        (r"w_t - \eta g", "wₜ − ηg", "<i>w</i><sub><i>t</i></sub> − <i>η</i><i>g</i>"),
        (r"-x", "−x", "−<i>x</i>"),
        (r"\lambda \ge 10^{-6}", "λ ≥ 10⁻⁶", "<i>λ</i> ≥ 10<sup>−6</sup>"),
        (r"\frac{\sigma^2}{n+1}", "σ²/(n + 1)", "<i>σ</i><sup>2</sup>/(<i>n</i> + 1)"),
        (r"\sqrt{2}", "√2", "√2"),
        (r"\hat{y}", "y\u0302", "<i>y\u0302</i>"),
        (r"\mathbf{g}_i", "gᵢ", "<b><i>g</i></b><sub><i>i</i></sub>"),
        (r"L_\text{val}", "L_val", "<i>L</i><sub>val</sub>"),
        (r"\log p(y \mid x)", "log p(y | x)", "log <i>p</i>(<i>y</i> | <i>x</i>)"),
        (r"a < b", "a < b", "<i>a</i> &lt; <i>b</i>"),
        (r"\Delta_m", "Δₘ", "<i>Δ</i><sub><i>m</i></sub>"),
        (r"x^{ab}", "x^(ab)", "<i>x</i><sup><i>a</i><i>b</i></sup>"),
        (r"x^", "x^()", "<i>x</i><sup></sup>"),
        (r"\frac{a", "a/", "<i>a</i>/"),
        (r"\what", "what", "what"),
        ("}", "}", "}"),
        ("n^*", "n^*", "<i>n</i><sup>*</sup>"),
        ("a*b", "a·b", "<i>a</i>·<i>b</i>"),
    ],
)
def test_formulas(tex, text, html):
    assert math_text(tex) == text
    assert math_html(tex) == html


def test_code_bold_and_emphasis():
    line = "Print `a <b> $x$`, **not `b`** and *this*."
    assert to_text(line) == "Print `a <b> $x$`, not `b` and this."
    html = to_html(line)
    assert ">a &lt;b&gt; $x$</code>" in html and "<em>this</em>" in html
    assert html.index("<strong>") < html.index(">b</code></strong>")


@pytest.mark.parametrize("line", ["2 * 3 * 4", "a*b*c", "from $5 to $6", "one ` only", "**", "$ $"])
def test_what_is_no_markup_stays(line):
    assert to_text(line) == to_html(line) == line


def test_html_in_a_line_is_shown_not_run():
    assert to_html("<script>&") == "&lt;script&gt;&amp;"


def test_commands_that_are_not_understood_are_named():
    assert _markup.unknown(r"$\alpha \odot \Sigma$ and $\frac{\log x}{\mathbf{y}}$") == set()
    assert _markup.unknown(r"$\begin{x}$, `$\verb$`") == {"begin"}


def test_every_formula_of_the_exercises_is_understood():
    import mtl_course.exercises  # noqa: F401  registers them
    from mtl_course.checks.exercise import REGISTRY

    for name, exercise in REGISTRY.items():
        laws = [title for title, *_ in getattr(exercise, "laws", [])]
        for text in (*exercise.hints, *(told for _, told in exercise.mistakes), *laws):
            assert _markup.unknown(text) == set(), f"{name}: {text}"


def test_a_number_stays_with_its_spread_and_its_per_cent_on_a_page():
    assert to_html("0.58 ± 0.05 (5 seeds), 95 %") == "0.58\u00a0±\u00a00.05 (5 seeds), 95\u00a0%"
    assert to_html("mean ± spread") == "mean ± spread"
    assert to_text("0.58 ± 0.05, 95 %") == "0.58 ± 0.05, 95 %"
