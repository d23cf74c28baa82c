"""The cards that the page on how to use the book shows are what the checks say."""

import pytest

from mtl_course.dev import cards
from mtl_course.dev.notebooks import ROOT

PAGE = (ROOT / "book" / "how_to_use.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shown():
    return cards.cards()


@pytest.mark.parametrize("name", ["not_started", "not_yet", "solved"])
def test_a_card_is_not_stale(shown, name):
    path = ROOT / cards.FOLDER / f"{name}.html"
    stale = f"{path.name} is stale: run `python -m mtl_course.dev cards`"
    assert path.read_text(encoding="utf-8") == shown[name], stale


def test_each_card_shows_the_state_that_it_is_named_after(shown):
    for name, html in shown.items():
        assert f'aria-label="{cards.EXERCISE}: {name.replace("_", " ")}' in html
    assert "Hint (it behaves like a known mistake)" in shown["not_yet"]


def test_the_page_shows_the_wrong_answer_and_all_the_cards(shown):
    assert cards.WRONG.strip() in PAGE and f'check("{cards.EXERCISE}")' in PAGE
    for name in shown:
        assert f":file: {cards.FOLDER.name}/{name}.html" in PAGE
    assert {path.stem for path in (ROOT / cards.FOLDER).glob("*.html")} == set(shown)


def test_the_command_writes_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cards, "cards", lambda: {"a": "<p>ä</p>\n"})
    assert cards.main([], root=tmp_path) == 0
    assert (tmp_path / "book/cards/a.html").read_text(encoding="utf-8") == "<p>ä</p>\n"
    assert capsys.readouterr().out == "book/cards/a.html\n"
