"""On a phone the panels of a figure stand below each other, and nothing of it is lost."""

import base64
import io
import json
from importlib.util import module_from_spec, spec_from_file_location
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from mtl_course import plots
from mtl_course.dev.notebooks import ROOT

spec = spec_from_file_location("book_ext_panels", ROOT / "book" / "_ext" / "panels.py")
panels = module_from_spec(spec)
spec.loader.exec_module(panels)


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plots.use_style()
        yield
        plt.close("all")


def picture(figure) -> Image.Image:
    """A figure as a notebook stores it."""
    file = io.BytesIO()
    figure.savefig(file, dpi=220)
    return Image.open(file).convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)


def ink(image: Image.Image) -> int:
    return int((np.asarray(image.convert("L")) < panels.PALE).sum())


def spines(image: Image.Image):
    return panels.axes(panels.Paper(image.convert("RGB")))


def drawn(axes):
    for k, ax in enumerate(np.ravel(axes)):
        ax.plot([0, 0.5, 1], [0, 0.3 + 0.1 * k, 0.5])
        ax.set(ylim=(-1, 1), xlim=(-0.1, 1.1), title=f"panel {k}")


def test_two_panels_follow_each_other_and_keep_every_dot():
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    drawn(axes)
    for ax in axes:
        ax.set(xlabel="steps of training", ylabel="a loss")
    before = picture(figure)
    phone = panels.below_each_other(before)
    upper, lower = spines(phone)
    assert upper[3] < lower[1] and abs(upper[0] - lower[0]) < 10
    assert ink(phone) == ink(before)
    assert phone.width < 0.6 * before.width


def test_panels_that_share_an_axis_get_its_numbers_each():
    figure, axes = plt.subplots(2, 2, figsize=(8.4, 5), sharex=True, sharey=True)
    drawn(axes)
    figure.suptitle("A title of all four that is far too long for one line on a phone")
    figure.supylabel("a name of both rows")
    figure.supxlabel("a name of both columns, below")
    before = picture(figure)
    phone = panels.below_each_other(before)
    found = sorted(spines(phone), key=lambda box: box[1])
    assert len(found) == 4
    paper = panels.Paper(phone.convert("RGB"))
    for left, top, right, bottom in found:
        numbers = (left - 50, top, left - panels.TICK, bottom)
        assert not paper.empty(numbers), "the numbers on the left are missing"
        below = (left, bottom + panels.TICK, right, bottom + 50)
        assert not paper.empty(below), "the numbers below are missing"
    assert ink(phone) > ink(before)


def test_a_scale_of_colours_stays_with_its_panel():
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3))
    drawn(axes[1:])
    axes[1].set(ylabel="a name")
    axes[0].grid(False)
    shown = axes[0].imshow(np.eye(4), cmap="Blues")
    figure.colorbar(shown, ax=axes[0])
    before = picture(figure)
    phone = panels.below_each_other(before)
    assert ink(phone) == ink(before)
    _, lower = sorted(spines(phone), key=lambda box: box[1])
    paper = panels.Paper(phone.convert("RGB"))
    # Down the edge of the scale, which stands above the lower panel.
    assert any(bottom < lower[1] for x, top, bottom in paper.down if x > lower[0] + 200)


def test_a_name_longer_than_its_panel_does_not_come_under_another():
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.4), gridspec_kw={"width_ratios": [1, 3]})
    drawn(axes)
    axes[0].set_xlabel("a name which is longer than it")
    assert panels.below_each_other(picture(figure)) is None
    axes[0].set_xlabel("short")
    before = picture(figure)
    assert ink(panels.below_each_other(before)) == ink(before)


@pytest.mark.parametrize("columns", [1, 2])
def test_one_panel_or_panels_that_nothing_divides_stay_as_they_are(columns):
    figure, axes = plt.subplots(1, columns, figsize=(8, 3))
    drawn(axes)
    if columns == 2:  # a line that goes through both panels
        line = plt.Line2D([0, 1], [0.5, 0.5], transform=figure.transFigure, color="black")
        figure.add_artist(line)
    assert panels.below_each_other(picture(figure)) is None


def notebook(folder, image, phone=None):
    """A page with one figure, and where the build has put it."""
    file = io.BytesIO()
    image.save(file, "PNG")
    size = {"width": image.width // 2} | ({"phone": phone} if phone else {})
    png = base64.b64encode(file.getvalue()).decode()
    output = {"data": {"image/png": png}, "metadata": {"image/png": size}}
    (folder / "page.ipynb").write_text(json.dumps({"cells": [{"outputs": [output]}]}))
    (folder / "figure.png").write_bytes(file.getvalue())
    env = SimpleNamespace(doc2path=lambda name: folder / f"{name}.ipynb")
    builder = SimpleNamespace(format="html", images={"figure.png": "figure.png"})
    return SimpleNamespace(srcdir=folder, outdir=folder / "html", env=env, builder=builder)


def page(app):
    (app.outdir).mkdir(exist_ok=True)
    context = {"body": '<img src="../_images/figure.png" alt="A line">'}
    panels.below(app, "page", "", context, object())
    return context["body"]


def test_a_phone_shows_the_drawing_of_one_panel_that_the_notebook_holds(tmp_path):
    figure, ax = plt.subplots(figsize=(7, 3))
    drawn(ax)
    own = base64.b64encode(b"its narrower drawing").decode()
    body = page(notebook(tmp_path, picture(figure), own))
    assert f'<source media="{panels.PHONE}" srcset="../_images/figure-phone.png" />' in body
    assert (tmp_path / "html/_images/figure-phone.png").read_bytes() == b"its narrower drawing"
    assert "<picture>" not in page(notebook(tmp_path, picture(figure)))


def test_panels_are_cut_all_the_same_and_a_narrow_figure_stays(tmp_path):
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    drawn(axes)
    own = base64.b64encode(b"its narrower drawing").decode()
    assert "<picture>" in page(notebook(tmp_path, picture(figure), own))
    assert Image.open(tmp_path / "html/_images/figure-phone.png").width < 1000
    figure, ax = plt.subplots(figsize=(5, 3))
    drawn(ax)
    assert "<picture>" not in page(notebook(tmp_path, picture(figure), own))


def stored():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    data = base64.b64decode("".join(output["data"]["image/png"]))
                    yield f"{path.stem} {cell['id']}", Image.open(io.BytesIO(data))


def test_nothing_is_lost_of_any_figure_of_the_book():
    cut = 0
    for name, image in stored():
        if image.width <= panels.DOTS * panels.WIDE:
            continue
        phone = panels.below_each_other(image)
        if phone is None:
            continue
        cut += 1
        assert phone.width <= 1000, f"{name}: {phone.width} dots, too wide to read"
        # A legend that is too wide is made smaller.
        assert ink(phone) >= 0.97 * ink(image), f"{name}: something is missing"
    assert cut >= 30
