"""Chapter 13: LoRA beside full fine-tuning of an encoder of sentences."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV

from mtl_course.experiments import ch13, ch13_text
from mtl_course.experiments.ch13_text import FULL, LORA, PROBE, Plan, Study
from mtl_course.networks.sentence_encoder import SentenceEncoder, encode
from tests.data_tools import load_or_skip

TINY = Plan(
    labels=40,
    held_out=(40, 80),
    steps=12,
    batch=8,
    rank=2,
    rates={LORA: (1e-3, 1e-2), FULL: (1e-4, 1e-3)},
    strengths=(0.1, 10.0),
)


@cache
def source():
    """A small encoder with weights at random, and texts whose rating is a count of words."""
    torch.manual_seed(0)
    encoder = SentenceEncoder(20, width=16, layers=2, heads=2, hidden=32, positions=12).eval()
    ids = torch.randint(3, 20, (200, 8))
    ids[::3, 5:] = 0  # some are shorter
    return encoder, ids, (ids < 8).sum(1).float() - 1.5 * (ids > 15).sum(1)


def test_the_whole_experiment_at_tiny_size():
    said = []
    before = {name: p.clone() for name, p in source()[0].named_parameters()}
    results = ch13_text.run_text(range(2), said.append, plan=TINY, source=source())
    assert len(said) == 2 and len(results["seeds"]) == 2
    assert results["rates"] == {LORA: [1e-3, 1e-2], FULL: [1e-4, 1e-3]}
    whole = sum(p.numel() for p in before.values())
    assert results["parameters"] == whole
    for row in results["seeds"]:
        assert list(row) == [PROBE, LORA, FULL]
        # queries and values of two layers, each with A [2, 16] and B [16, 2]; and the head
        trained = [row[method]["trained"] for method in row]
        assert trained == [17, 17 + 2 * 2 * 2 * (16 + 16), 17 + whole]
        for method in (LORA, FULL):
            best = int(np.argmax(row[method]["validation by rate"]))
            assert row[method]["rate"] == TINY.rates[method][best]
    # no method has touched the encoder from which the next one starts
    assert all(torch.equal(p, before[name]) for name, p in source()[0].named_parameters())
    again = ch13_text.one_method(TINY, LORA, 1, source())
    assert again == results["seeds"][1][LORA]


def test_every_text_is_in_one_part_only_and_ratings_are_scaled_by_training_texts():
    study = Study(TINY, 3, source())
    parts = study.train, study.validation, study.test
    assert [len(part) for part in parts] == [40, 40, 80]
    assert len(torch.cat(parts).unique()) == 160
    torch.testing.assert_close(study.y[study.train].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(study.y[study.train].std(), torch.tensor(1.0))
    with pytest.raises(ValueError, match="needs 260 tweets; there are 200"):
        Study(replace(TINY, labels=140), 3, source())


def test_the_probe_is_the_ridge_regression_that_validation_tweets_prefer():
    study = Study(TINY, 1, source())
    row = study.probe()
    x = encode(study.encoder, study.ids[study.train]).double().numpy()
    fit = RidgeCV([row["strength"]]).fit(x, study.y[study.train].double().numpy())
    test = encode(study.encoder, study.ids[study.test]).double().numpy()
    y = study.y[study.test].double().numpy()
    wanted = 1 - ((fit.predict(test) - y) ** 2).sum() / (y**2).sum()
    assert row["test"] == pytest.approx(wanted, abs=1e-5)
    best = int(np.argmax(row["validation by strength"]))
    assert row["strength"] == TINY.strengths[best]


@pytest.mark.parametrize("method", [LORA, FULL])
def test_what_a_method_trains_and_what_it_leaves_alone(method):
    study = Study(TINY, 0, source())
    start, model = study.prepared(method), study.tuned(method, 1e-2)
    texts = study.ids[study.test]
    # LoRA starts as the encoder that it updates, and both heads from zero
    torch.testing.assert_close(start.encoder(texts), study.encoder(texts))
    assert not start(texts).any()
    moved = {
        name
        for name, p in model.named_parameters()
        if not torch.equal(p, start.get_parameter(name))
    }
    frozen = dict(model.named_parameters()).keys() - moved
    if method == LORA:
        assert all(".A." in name or ".B." in name or name.startswith("head") for name in moved)
        assert {name.split(".")[-3] for name in moved if ".A." in name} == {"query", "value"}
    else:
        # a key's bias moves no attention: the softmax takes it away
        assert all(name.endswith("key.bias") or "positions" in name for name in frozen)
    assert study.score(model, study.train) > study.score(start, study.train) == pytest.approx(0)


def test_the_tested_rate_is_the_one_that_validation_tweets_prefer():
    plan = replace(TINY, rates={LORA: (1e-2, 1e-9)})  # with the second one only the head learns
    study = Study(plan, 0, source())
    row = study.searched(LORA)
    scores = [study.score(study.tuned(LORA, rate), study.validation) for rate in (1e-2, 1e-9)]
    assert row["validation by rate"] == pytest.approx(scores, abs=1e-6) and scores[0] > scores[1]
    assert row["rate"] == 1e-2
    test = study.score(study.tuned(LORA, 1e-2), study.test)
    assert row["test"] == pytest.approx(test, abs=1e-6)


def test_it_is_a_part_of_the_chapters_record():
    assert ch13.RECORDS["text"] is ch13_text.run_text


def test_the_pretrained_encoder_reads_the_rated_tweets():
    load_or_skip("minilm")
    load_or_skip("vader")
    encoder, ids, rating = ch13_text.tweets(16)
    assert ids.shape == (4200, 16) and rating.shape == (4200,)
    assert -4 <= rating.min() < -2 and 2 < rating.max() <= 4
    # what the frozen encoder knows tells more than the mean rating does
    plan = Plan(labels=100, held_out=(50, 50), length=16, steps=1, strengths=(3.0, 30.0))
    study = Study(plan, 0, (encoder, ids, rating))
    assert study.probe()["test"] > 0.1
    trained = [p for p in study.prepared(LORA).parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == 6 * 2 * 4 * (384 + 384) + 385
