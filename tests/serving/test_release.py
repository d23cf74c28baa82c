"""A release answers as the network it was made from, and is refused once it does not."""

import json

import pytest
import torch
from torch import nn

from mtl_course.serving import (
    NGrams,
    Release,
    ReleaseError,
    export_model,
    load_release,
    regressions,
    save_release,
)

TEXTS = ["A very soft dress.", "Stiff, and too long!", "?"]


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.drop = nn.Embedding(9, 4, padding_idx=0), nn.Dropout(0.5)
        self.stars, self.kind = nn.Linear(4, 1), nn.Linear(4, 3)

    def forward(self, ids):
        z = self.drop(self.words(ids).sum(1))
        return {"stars": self.stars(z)[:, 0], "kind": self.kind(z).softmax(1)}


@pytest.fixture
def reader():
    return NGrams(["a", "very", "soft", "dress", "very soft", "too", "long", "too long"], length=5)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Small()


CARD = {"version": "1.0", "tasks": {"stars": None, "kind": ["top", "dress", "coat"]}}


def test_the_program_is_the_network_for_every_batch(model):
    model.train()
    program = export_model(model, length=5, most=40).module()
    assert model.training and model.drop.training  # as it was
    for size in (1, 2, 7, 40):
        ids = torch.randint(0, 9, (size, 5))
        expected = model.eval()(ids)
        model.train()
        for name, y in program(ids).items():
            torch.testing.assert_close(y, expected[name], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="at least 2"):
        export_model(model, 5, 1)


def test_a_saved_release_comes_back_and_answers_the_same(tmp_path, model, reader):
    program = export_model(model, 5, 40)
    folder = save_release(tmp_path / "one", program, reader, CARD, TEXTS)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]  # nothing aside is left
    release = load_release(folder)
    assert release.version == "1.0" and regressions(release) == []
    with torch.no_grad():
        now = model.eval()(reader(TEXTS))
    for name, y in release.outputs(TEXTS).items():
        torch.testing.assert_close(y, now[name], atol=1e-5, rtol=0)
    first = release.answers(TEXTS)[0]
    assert first["stars"] == pytest.approx(float(now["stars"][0]), abs=1e-4)
    assert first["kind"]["class"] == CARD["tasks"]["kind"][int(now["kind"][0].argmax())]
    with pytest.raises(ReleaseError, match="there already"):
        save_release(folder, program, reader, CARD, TEXTS)


@pytest.mark.parametrize("name", ["model.pt2", "words.json", "card.json", "golden.json"])
def test_an_altered_or_missing_file_is_named(tmp_path, model, reader, name):
    folder = save_release(tmp_path / "one", export_model(model, 5, 4), reader, CARD, TEXTS)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ReleaseError, match=f"{name} of one was altered"):
        load_release(folder)
    (folder / name).unlink()
    with pytest.raises(ReleaseError, match=f"one has no {name}"):
        load_release(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ReleaseError, match=r"manifest.json of one was altered"):
        load_release(folder)


def test_a_save_that_fails_leaves_nothing(tmp_path, model, reader, monkeypatch):
    def full(*_, **__):
        raise OSError("No space left on device")

    program = export_model(model, 5, 4)
    monkeypatch.setattr(torch.export, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_release(tmp_path / "one", program, reader, CARD, TEXTS)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ReleaseError, match="lacks tasks"):
        save_release(tmp_path / "one", program, reader, {"version": "1"}, TEXTS)


def test_every_kind_of_regression_is_told(model, reader):
    golden = {"texts": TEXTS, "tolerance": 1e-3}
    golden["outputs"] = {n: y.tolist() for n, y in model.eval()(reader(TEXTS)).items()}
    golden = json.loads(json.dumps(golden))
    assert regressions(Release(CARD, reader, model, golden)) == []

    def changed(**outputs):
        return Release(CARD, reader, lambda ids: {**model(ids), **outputs}, golden)

    (said,) = regressions(changed(stars=model(reader(TEXTS))["stars"] + torch.tensor([0, 0.1, 0])))
    assert said.startswith("stars of golden text 1 is")
    told = regressions(changed(kind=torch.full((3, 3), torch.nan)))
    assert len(told) == 3 and "is nan, not" in told[0]
    fewer = Release(CARD, reader, lambda ids: {"stars": model(ids)["stars"]}, golden)
    assert regressions(fewer) == ["The model gives no kind any more."]


def test_an_answer_that_is_not_finite_names_its_task(reader):
    release = Release(
        CARD,
        reader,
        lambda ids: {"stars": torch.full((len(ids),), torch.inf), "kind": torch.ones(len(ids), 3)},
        {},
    )
    with pytest.raises(FloatingPointError, match="The model's stars"):
        release.answers(["soft"])


def test_ngrams_are_counted_once_per_text_and_cut():
    reader = NGrams.learned(["a a b", "a b", "b c"], least=2, most=2, length=2)
    assert reader.names == ["b", "a"]  # as frequent as "a b" comes by its name
    assert reader(["a b a b c"]).tolist() == [[2, 1]]
    assert reader([]).shape == (0, 2) and reader.known([]).shape == (0,)
    assert reader.known(["?", "A c"]).tolist() == [0, 0.5]
    with pytest.raises(ValueError, match="twice"):
        NGrams(["a", "a"], 3)
    with pytest.raises(ValueError, match="at least one"):
        NGrams(["a"], 0)
