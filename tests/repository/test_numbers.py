"""Every decimal of a chapter's prose has a source, and the source has it."""

import copy
import re

import nbformat
import pytest

from mtl_course.dev import notebooks, numbers

CHAPTERS = [chapter.number for chapter, _ in notebooks.find([], labs=True)]


def chapter(number):
    """The notebook of a chapter and its file of sources, which must be there."""
    [(_, path)] = notebooks.find([number])
    file = numbers.FOLDER / f"{number}.json"
    how = f"python -m mtl_course.dev numbers {number} --write"
    assert file.exists(), f"there is no {file.relative_to(notebooks.ROOT)}: {how} begins it"
    return notebooks.read(path), numbers.load(number)


@pytest.mark.parametrize("number", CHAPTERS)
def test_every_number_of_the_prose_has_its_source(number):
    assert numbers.faults(*chapter(number)) == []


@pytest.mark.parametrize("number", CHAPTERS)
def test_altering_a_decimal_of_the_prose_is_seen(number):
    nb, sources = chapter(number)
    for cell in nb.cells:
        if cell.cell_type != "markdown":
            continue
        source = cell.source
        for written, times in numbers.written(source).items():
            altered = written[:-1] + str((int(written[-1]) + 1) % 10)
            seen = 0
            for place in re.finditer(rf"(?<![\w.,]){re.escape(written)}(?!\w|\.\d)", source):
                cell.source = source[: place.start()] + altered + source[place.end() :]
                if numbers.written(cell.source) != numbers.written(source):  # no heading's count
                    assert numbers.faults(nb, sources), (cell.id, written)
                    seen += 1
            assert seen == times, (cell.id, written)
        cell.source = source


@pytest.mark.parametrize("number", CHAPTERS)
def test_altering_what_a_cell_shows_is_seen(number):
    nb, sources = chapter(number)
    for listed in sources.values():
        for written, source in listed.items():
            _, source = numbers.counted(source)
            if source.startswith("shown "):
                other = copy.deepcopy(nb)
                [cell] = [c for c in other.cells if c.id == source.removeprefix("shown ")]
                cell.source, cell.outputs = "", []
                assert any(written in fault for fault in numbers.faults(other, sources))


def test_a_chapter_without_its_file_is_named(monkeypatch):
    monkeypatch.setattr(numbers, "FOLDER", notebooks.ROOT / "nowhere")
    with pytest.raises(AssertionError, match=r"there is no nowhere/01\.json: python -m .* 01"):
        chapter("01")


# ---------------------------------------------------------------------------------------- the tool
def page(prose, shown="", code="x = 1"):
    """A notebook of a code cell with this output, `a`, and a Markdown cell, `b`."""
    output = nbformat.v4.new_output("stream", name="stdout", text=shown)
    return nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(code, id="a", outputs=[output]),
            nbformat.v4.new_markdown_cell(prose, id="b"),
        ]
    )


def test_which_numbers_need_a_source():
    text = (
        "Joint learning explains 0.41, 13 % or 2.5 points more (not 3 schools), $1{,}000$ rows,"
        " `0.77`, 12 points, [a paper](https://doi.org/10.1023/A:1) and version 2.11.0."
    )
    assert list(numbers.written(text)) == ["0.41", "13", "2.5", "12"]


def test_each_of_equal_numbers_is_held():
    nb = page("It is 0.41 here, 0.41 there, and 0.77.", "0.41 0.77")
    sources = {"b": {"0.41": "2 x shown a", "0.77": "shown a"}}
    assert numbers.faults(nb, sources) == []
    assert numbers.proposed(nb, {}) == numbers.proposed(nb, sources) == sources
    for times in ("", "3 x "):
        sources["b"]["0.41"] = f"{times}shown a"
        assert numbers.faults(nb, sources) == ["cell b: 0.41 stands there 2 times"]
    nb.cells[1].source = "It is 0.77 here, 0.41 there, and 0.77."  # a number that is known, too
    assert "cell b: 0.77 stands there 2 times" in numbers.faults(nb, sources)


@pytest.mark.parametrize(
    "shown, number, right",
    [
        ("0.4149 ± 0.01", "0.41", True),
        ("0.4151", "0.41", False),
        ("-0.058", "5.8", True),  # points
        ("-0.058", "0.06", True),
        ("1,761 parameters", "1761.0", True),
        ("3.6e14", "3.6", False),
        ("run41", "41", False),
    ],
)
def test_a_cell_shows_what_rounds_to_the_number(shown, number, right):
    nb = page(f"It is {number} %.", shown)
    assert (numbers.faults(nb, {"b": {number: "shown a"}}) == []) == right


@pytest.mark.parametrize(
    "source, message",
    [
        (None, "0.41 has no source"),
        ("shown a", "cell a does not show it"),
        ("shown z", "there is no cell z"),
        ("= 1 - 0.6", "1 - 0.6 is 0.4"),
        ("cited https://arxiv.org/abs/1", "does not link"),
        ("given", "say what it is"),
        ("seen somewhere", "a source is shown, =, cited or given"),
    ],
)
def test_what_is_wrong_is_said(source, message):
    [fault] = numbers.faults(page("It is 0.41."), {"b": {"0.41": source} if source else {}})
    assert message in fault


def test_sources_that_hold():
    nb = page("It is 0.41 ([Author, 2020](https://arxiv.org/abs/1)).", code="rate = 0.41")
    for source in ("shown a", "= 0.6 - 0.19", "cited https://arxiv.org/abs/1", "given the rate"):
        assert numbers.faults(nb, {"b": {"0.41": source}}) == []


def test_a_number_that_left_the_prose_is_named():
    nb = page("Nothing is measured.")
    assert numbers.faults(nb, {"b": {"0.41": "given the rate"}}) == [
        "cell b: 0.41 is not in the prose"
    ]
    assert numbers.faults(nb, {"c": {}}) == ["there is no Markdown cell c"]


def test_a_cell_under_another_id_keeps_its_sources():
    nb = page("It is 0.41, then 0.77, at a rate of 0.2.", "0.412")
    known = {"0.41": "shown a", "0.77": "= 1 - 0.23", "0.2": "given the rate"}
    assert numbers.proposed(nb, {"y": {"0.2": "given another"}, "z": known}) == {"b": known}


def test_only_arithmetic_is_worked_out():
    assert numbers.worked("(1 - sqrt(0.25)) / 2 ** 2") == 0.125
    for text in ("__import__('os')", "x + 1", "[1][0]", "'a' * 3"):
        with pytest.raises(ValueError, match="not arithmetic"):
            numbers.worked(text)


def test_what_is_found_is_proposed_and_what_holds_is_kept(monkeypatch, tmp_path, capsys):
    nb = page("It is 0.41, then 0.77, at a rate of 0.2.", "0.412 0.771")
    kept = {"b": {"0.2": "given the rate"}}
    assert numbers.proposed(nb, kept) == {
        "b": {"0.41": "shown a", "0.77": "shown a", "0.2": "given the rate"}
    }
    monkeypatch.setattr(numbers, "FOLDER", tmp_path)
    monkeypatch.setattr(numbers.notebooks, "read", lambda path: nb)
    assert numbers.main(["01"]) == 1  # listed, and nothing written
    assert "0.2 has no source" in capsys.readouterr().out and not any(tmp_path.iterdir())
    assert numbers.main(["01", "--write"]) == 1
    assert numbers.load("01", tmp_path) == {"b": {"0.41": "shown a", "0.77": "shown a"}}
