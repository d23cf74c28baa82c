"""Result tables: HTML and text say the same, the text keeps to its width, nothing is random."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from mtl_course import claims
from mtl_course.plots import tables
from mtl_course.plots.tables import table


class Grid(HTMLParser):
    """The cells of an HTML table as text, and what is bold."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.bold, self.scopes, self.caption = [], [], [], ""
        self.where = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.where.append("caption" if dict(attrs).get("class") == "mtl-caption" else tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.scopes.append(dict(attrs).get("scope"))

    def handle_endtag(self, tag):
        assert self.where.pop() in (tag, "caption"), "tags are closed in order"

    def handle_data(self, data):
        if "caption" in self.where:
            self.caption += data
        elif {"td", "th"} & set(self.where):
            self.rows[-1][-1] += data.replace("\u00a0", " ")
            if "strong" in self.where:
                self.bold.append(data)


@pytest.fixture
def shown(monkeypatch):
    """The outputs that were shown."""
    outputs = []
    monkeypatch.setattr(tables, "show", outputs.append)
    return outputs


def one(shown, *args, **kwargs):
    table(*args, **kwargs)
    return shown[-1].text, Grid(shown[-1].html)


RUNS = {"labels": [1, 5], "scratch": [[0.5, 0.6], [0.78, 0.80]], "tuned": [0.6, 0.7]}


def test_text_and_html_hold_the_same_cells(shown):
    text, grid = one(shown, RUNS, "Test accuracy")
    assert text.split("\n") == [
        "Test accuracy",
        "labels        scratch  tuned",
        "     1  0.550 ± 0.071  0.600",
        "     5  0.790 ± 0.014  0.700",
        "Mean ± standard deviation over 2 seeds",
    ]
    assert grid.caption == "Test accuracy"
    assert grid.rows == [
        ["labels", "scratch", "tuned"],
        ["1", "0.550 ± 0.071", "0.600"],
        ["5", "0.790 ± 0.014", "0.700"],
    ]
    assert grid.scopes == ["col"] * 3 + ["row", None, None] * 2


def test_html_is_the_same_in_every_run_and_has_no_id(shown):
    table(RUNS)
    table(RUNS)
    assert shown[0].html == shown[1].html and not re.search(r"\bid=", shown[0].html)


def test_rows_may_be_given_one_by_one(shown):
    rows = {"single": {3: 0.1, 6: 0.2}, "joint": {6: 0.4, 12: 0.5}}
    _, grid = one(shown, rows, corner="method")
    assert grid.rows == [
        ["method", "3", "6", "12"],
        ["single", "0.100", "0.200", "–"],
        ["joint", "–", "0.400", "0.500"],
    ]


class Frame(dict):
    """What `table` uses of a DataFrame."""

    def __init__(self, columns, index):
        super().__init__(columns)
        self.columns, self.index = list(columns), index


class RangeIndex(list):
    name = None


def test_a_data_frame_brings_its_index_unless_it_only_counts(shown):
    class Index(list):
        name = "method"

    columns = {"mean": [0.5, 0.25]}
    _, grid = one(shown, Frame(columns, Index(["a", "b"])))
    assert grid.rows[:2] == [["method", "mean"], ["a", "0.500"]]
    _, grid = one(shown, Frame({"name": ["x", "y"], **columns}, RangeIndex([0, 1])))
    assert grid.rows[:2] == [["name", "mean"], ["x", "0.500"]]
    levels = Frame({("mean", "test"): [0.5, 0.25]}, Index([("a", 1), ("b", 2)]))
    _, grid = one(shown, levels)
    assert grid.rows[:2] == [["method", "mean, test"], ["a, 1", "0.500"]]


@pytest.mark.parametrize(
    "value, digits, cell",
    [
        (None, 3, "–"),
        ("4 of 5", 3, "4 of 5"),
        (True, 3, "yes"),
        (np.bool_(False), 3, "no"),
        (12000, 3, "12000"),
        (12000, ",", "12,000"),
        (np.int64(7), 2, "7"),
        (0.12345, 2, "0.12"),
        (0.12345, "+.2f", "+0.12"),
        (0.5, ".0%", "50%"),
        (np.float32(0.5), 3, "0.500"),
        (torch.tensor([1.0, 2.0, 3.0]), 1, "2.0 ± 1.0"),
        (np.array([0.02, 0.04]), "+.2f", "+0.03 ± 0.01"),
        ([0.25], 2, "0.25"),
        (torch.tensor(0.25), 2, "0.25"),
        (float("nan"), 2, "nan"),
        (claims.Paired(0.02, 0.004, 0.012, 5), "+.3f", "+0.020 ± 0.012"),
    ],
)
def test_each_kind_of_cell(shown, value, digits, cell):
    text, grid = one(shown, {"name": ["a"], "value": [value]}, digits=digits)
    assert grid.rows[1][1] == cell and text.split("\n")[1].endswith(f"  {cell}")


def test_digits_may_differ_by_column(shown):
    _, grid = one(
        shown, {"n": [1], "gain": [0.12], "cost": [1234.5]}, digits={"gain": "+.1f", "cost": ",.0f"}
    )
    assert grid.rows[1] == ["1", "+0.1", "1,234"]


def test_below_it_stands_what_the_spread_is(shown):
    rows = {"m": ["a"], "x": [[1, 2, 3]], "y": [[1, 2]], "z": [claims.Paired(1, 1, 1, 5)]}
    text, _ = one(shown, rows, over="draws", note=["one", "two"])
    assert text.endswith(
        "Mean ± standard deviation over 2 to 3 draws. Differences: mean ± 95 % limit,\n"
        "paired\none\ntwo"
    )
    assert "over 2 to 3 draws. Differences: mean ± 95\u00a0% limit, paired</div>" in shown[-1].html


def test_the_best_is_bold_and_starred_by_column(shown):
    rows = {"m": ["a", "b", "c"], "acc": [0.5, 0.7, 0.7001], "loss": [1.0, None, 2.0]}
    text, grid = one(shown, rows, best={"acc": "max", "loss": "min"})
    assert grid.bold == ["1.000", "0.700", "0.700"], "what shows as the same number is as good"
    assert text.count("*") == 4 and text.endswith("* best of its column")
    assert "Bold: best of its column" in shown[-1].html


def test_the_best_by_row_and_a_nan_is_never_the_best(shown):
    rows = {"n": [1, 2], "a": [0.1, float("nan")], "b": [[0.2, 0.4], 0.5], "c": [0.2, 0.4]}
    _, grid = one(shown, rows, best="max", by="row")
    assert grid.bold == ["0.300", "0.500"]
    _, grid = one(shown, rows, best={1: "min"}, by="row")
    assert grid.bold == ["0.100"]


def test_stars_do_not_shift_the_numbers(shown):
    text, _ = one(shown, {"m": ["a", "b"], "x": [0.5, 0.7], "y": [10.5, 2.5]}, best="max")
    first, second = (line.rstrip("*") for line in text.split("\n")[1:3])
    assert first.index("0.500") == second.index("0.700")
    assert text.split("\n")[1] == "a  0.500   10.500*"


def test_a_wide_table_goes_on_below(shown):
    rows = {f"method {i}": {f"n = {n}": [0.1, 0.2 + i] for n in range(9)} for i in range(3)}
    text, grid = one(shown, rows, "A caption that is itself " + "longer than a line " * 5)
    assert all(len(line) <= 76 for line in text.split("\n"))
    assert len(grid.rows[0]) == 10
    for i in range(3):
        assert text.count(f"method {i}") == 3, "the names stand before each block"
    for n in range(9):
        assert text.count(f"n = {n}") == 1


def test_long_texts_and_headers_are_broken(shown):
    rows = {"a": ["x"], "quite a long header over numbers": [1.5], "t": ["word " * 20]}
    text, _ = one(shown, rows)
    assert all(len(line) <= 76 for line in text.split("\n"))
    assert sum("word" in line for line in text.split("\n")) > 1


def test_where_a_page_may_break_a_cell(shown):
    rows = {"m": ["tuned, head kept"], "x": [[1, 2]], "y": ["0.01, 0, 200"], "z": ["as it was"]}
    table(rows)
    whole = re.findall(r"white-space:nowrap[^>]*>([^<]*)<", shown[-1].html)
    assert whole == ["tuned, head kept", "1.500\u00a0", "as it was"]


def test_a_mean_and_its_spread_are_not_parted(shown):
    table({"m": ["a"], "x": [[1, 2]], "y": [claims.Paired(1, 1, 1, 5)]}, "From 0.5 ± 0.1 to 2 %")
    cells = re.sub(r"<[^>]*>", "", shown[-1].html)
    for whole in ("1.500 ± 0.707", "1.000 ± 1.000", "0.5 ± 0.1", "2 %"):
        assert whole.replace(" ", "\u00a0") in cells and whole not in cells
    assert "1.500 ± 0.707" in shown[-1].text, "a console has plain spaces"


def test_a_caption_is_no_part_of_its_table_and_so_as_wide_as_the_page(shown):
    caption = "Ten words that would take five lines above two digits"
    table({"n": [1], "x": [2]}, caption)
    above, below = shown[-1].html.split("<table", 1)
    assert f">{caption}</div>" in above and "caption" not in below
    assert 'role="group" aria-label="Ten words' in above


@pytest.mark.parametrize(
    "names, side",
    [
        (["5 labels", "30 labels"], "left"),
        (["1 to 5", "6 to 9"], "left"),
        (["3", "all"], "left"),
        ([1, 5], "right"),
        (["5 %", "0.5", "-1e-3", "1,000"], "right"),
        ([10, None], "right"),
    ],
)
def test_names_of_rows_stand_left_unless_all_are_numbers(shown, names, side):
    table({"": names, "x": [0.5] * len(names)})
    assert re.search(r'<th scope="row" style="text-align:(\w+)', shown[-1].html)[1] == side
    lines = shown[-1].text.split("\n")[1:]
    widths = {len(line) - len(line.lstrip()) for line in lines}
    assert widths == {0} or side == "right"


def test_numbers_stand_right_and_texts_left(shown):
    table({"m": ["a", "long name"], "x": [1, 10], "p": ["2 of 5", None], "t": ["no", "yes"]})
    html = shown[-1].html
    sides = re.findall(r'<th scope="col" style="text-align:(\w+)', html)
    assert sides == ["left", "right", "right", "left"]
    assert shown[-1].text.split("\n")[1] == "a           1  2 of 5  no"


def test_a_minus_is_a_minus_sign_in_html_only(shown):
    text, grid = one(shown, {"m": ["a-b"], "x": [-0.5]})
    assert grid.rows[1] == ["a-b", "−0.500"] and "-0.500" in text


def test_markup_is_rendered_and_what_looks_like_html_is_not(shown):
    text, grid = one(shown, {"$x^2$": ["`a<b>`"], "y": [1]}, "$R^2$ & <i>")
    assert grid.rows == [["x2", "y"], ["a<b>", "1"]] and grid.caption == "R2 & <i>"
    assert text.startswith("R² & <i>\nx²") and "`a<b>`" in text


def test_a_note_may_be_a_record(shown):
    class Record:
        def __str__(self):
            return "Record of today\n  on CPU"

    text, _ = one(shown, RUNS, note=Record())
    assert text.endswith("\nRecord of today on CPU")


def test_an_empty_corner_is_no_empty_header(shown):
    table({"a": {"x": 1}})
    assert '"></th>' not in shown[-1].html and '"></td>' in shown[-1].html


@pytest.mark.parametrize(
    "rows, options, words",
    [
        ({"a": [1, 2], "b": [1]}, {}, "same length"),
        ({"a": [1], "b": [[[1, 2], [3, 4]]]}, {}, "shape"),
        ({"a": [1], "b": [[]]}, {}, "shape"),
        ({"a": [1], "b": [1]}, {"best": "largest"}, "largest"),
        ({"a": [1], "b": [1]}, {"best": {"c": "max"}}, "'c'"),
        ({"a": [1], "b": [1]}, {"by": "cell"}, "cell"),
    ],
)
def test_what_is_no_table_is_refused(rows, options, words):
    with pytest.raises(ValueError, match=words):
        table(rows, **options)


def test_outside_a_notebook_it_is_printed(capsys):
    table(RUNS)
    said = capsys.readouterr()
    assert "0.550 ± 0.071" in said.out and said.err == ""
