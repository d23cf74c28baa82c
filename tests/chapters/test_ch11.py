"""Chapter 11: the text's rules are the package's code, its experiments are what the text says."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import data, networks, records, transfer
from mtl_course.exercises import ch11 as exercises
from mtl_course.experiments import (
    ch11,
    ch11_domains,
    ch11_encoder,
    ch11_fusion,
    ch11_tasks,
    ch11_turns,
    ch11_words,
)
from mtl_course.networks.sentence_encoder import SentenceEncoder

TINY = ch11.Plan(
    pieces=200,
    length=12,
    width=8,
    layers=1,
    labels=(20, 40),
    alone=20,
    validation=40,
    test=60,
    pretrain_steps=4,
    pretrain_batch=8,
    rates=(1e-2, 1e-3),
    steps=4,
    looks=2,
    batch=8,
)


# ---------------------------------------------------------------------------- the text's equations
def test_equation_1_is_the_packages_attention_and_the_exercise():
    z, weights = networks.attention(
        torch.tensor([[1.0]]), torch.tensor([[0.0], [math.log(3)]]), torch.tensor([[10.0], [30.0]])
    )
    assert z.item() == pytest.approx(25.0) and weights[0].tolist() == pytest.approx([0.25, 0.75])
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 6, generator=g) for n in (3, 5, 5))
    there = torch.arange(5) < torch.tensor([[2], [5]])
    ours = exercises.padded_attention(q, k, v, there)
    torch.testing.assert_close(ours, networks.attention(q, k, v, there[:, None])[0])


def test_equation_2_is_a_task_token_whose_matrices_are_one():
    words = nn.Embedding(9, 6, padding_idx=0)
    trunk = networks.Transformer(words, 6, layers=1, longest=5).eval()
    pattern = networks.TaskTokens(trunk, ["b", "a"], 6)
    with torch.no_grad():
        for layer in (getattr(pattern.attention, n) for n in ("query", "key", "value", "out")):
            layer.weight.copy_(torch.eye(6))
            layer.bias.zero_()
    ids = torch.tensor([[2, 7, 3, 0], [2, 3, 4, 5]])
    tokens = dict(zip(pattern.tasks, pattern.tokens, strict=True))
    by_hand = exercises.task_token_features(tokens, trunk.each_word(ids), ids != 0)
    for task, z in pattern(ids).items():
        torch.testing.assert_close(z, by_hand[task], atol=1e-5, rtol=1e-5)


def test_equation_3_is_the_loss_of_pretraining(monkeypatch):
    """The first step's loss, by a loop over the hidden places."""
    ids, pieces = torch.randint(5, 30, (20, 12)), [str(k) for k in range(29)]
    pieces[4:4] = ["[MASK]"]
    plan = replace(TINY, pretrain_steps=1, masked=0.5)
    seen = []
    plain = F.cross_entropy
    monkeypatch.setattr(
        ch11.F, "cross_entropy", lambda *args: seen.append(args) or plain(*args), raising=True
    )
    _, loss = ch11.pretrain(plan, ids, pieces, 3)
    g = torch.Generator().manual_seed(3)
    rows = torch.randint(len(ids), (plan.pretrain_batch,), generator=g)
    hidden, asked = ch11.mask_words(ids[rows], 0.5, 4, 30, g)
    trunk = ch11.new_trunk(plan, 30, 3)
    h, total = trunk.each_word(hidden), 0.0
    for row, place in asked.nonzero().tolist():
        scores = torch.stack([h[row, place] @ e for e in trunk.embed.weight])
        total -= float(scores.log_softmax(0)[ids[rows][row, place]].detach())
    assert loss == pytest.approx(total / int(asked.sum()), rel=1e-4)


def test_equation_4_is_late_fusion_and_the_exercise_hides_as_the_package_does():
    torch.manual_seed(0)
    there = torch.rand(50, 3) < 0.7
    there[:, 1] = True
    g = torch.Generator().manual_seed(4)
    u, lots = torch.rand(50, generator=g), torch.rand(50, 3, generator=g)
    kept = networks.modality_dropout(there, 0.5, torch.Generator().manual_seed(4))
    assert torch.equal(kept, exercises.hide_modality(there, lots, u, 0.5))


def test_equation_5_by_hand():
    assert float(transfer.pair_loss(torch.eye(2), torch.eye(2), 1.0)) == pytest.approx(
        math.log(1 + math.exp(-1)), abs=1e-6
    )


# ---------------------------------------------------------------------------------- masked words
def test_masked_words_are_asked_for_and_nothing_else():
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 100, (400, 20), generator=g)
    ids[:, 0], ids[:, 10], ids[:, 11:] = 2, 3, 0
    before = ids.clone()
    hidden, asked = ch11.mask_words(ids, 0.2, 4, 100, g)
    assert torch.equal(ids, before)
    words = ids > 4
    assert not (asked & ~words).any(), "no start, end or padding"
    assert torch.equal(hidden[~asked], ids[~asked])
    share = asked[words].float().mean()
    assert share == pytest.approx(0.2, abs=0.02)
    kinds = hidden[asked]
    assert (kinds == 4).float().mean() == pytest.approx(0.8, abs=0.04)
    assert (kinds == ids[asked]).float().mean() == pytest.approx(0.1, abs=0.04)
    assert kinds.min() >= 4 and kinds.max() < 100


def test_a_fresh_trunk_guesses_words_evenly():
    """As the text says: its first loss is near the logarithm of the vocabulary."""
    plan = replace(TINY, width=64)
    trunk = ch11.new_trunk(plan, 2500, 0)
    ids = torch.randint(5, 2500, (20, 12))
    logits = trunk.each_word(torch.full_like(ids, 4)) @ trunk.embed.weight.T
    loss = F.cross_entropy(logits.flatten(0, 1), ids.flatten())
    assert loss.item() == pytest.approx(math.log(2500), abs=0.3)


def test_no_review_is_on_two_sides_and_all_fit_whole():
    whole = torch.rand(900, generator=torch.Generator().manual_seed(0)) < 0.5
    plan = replace(TINY, labels=(30, 60))
    parts = ch11.split(plan, whole, 1)
    sets = {name: set(rows.tolist()) for name, rows in parts.items()}
    assert len(sets["train"]) == 60 and len(sets["test"]) == 60 and len(sets["validation"]) == 40
    assert not sets["train"] & (sets["test"] | sets["validation"])
    assert not sets["test"] & sets["validation"]
    assert all(whole[rows].all() for rows in parts.values())


def test_the_trunk_of_masked_words_has_read_no_review_that_is_labelled(monkeypatch):
    ids = torch.randint(5, 20, (50, 12))
    whole = torch.arange(50) < 20
    monkeypatch.setattr(ch11, "reviews", lambda length, pieces: (ids, whole, {}, ["x"] * 20))
    seen = []
    monkeypatch.setattr(ch11, "pretrain", lambda plan, ids, pieces: seen.append(ids))
    ch11.pretrained.__wrapped__(TINY)
    assert torch.equal(seen[0], ids[~whole])


def test_scores_and_losses_are_what_the_text_says():
    y, guess = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0])
    assert ch11_tasks.score("stars", guess, y) == pytest.approx(1 - 1.25 / (42 / 9))
    yes = np.array([0.0, 1.0, 1.0, 0.0])
    assert ch11_tasks.score("recommend", np.array([0.1, 0.9, 0.2, 0.3]), yes) == 0.75
    assert ch11_tasks.score("department", np.eye(3)[[0, 1, 1]], np.array([0, 1, 2])) == 2 / 3
    out = torch.tensor([[0.3], [2.0]])
    assert ch11.task_loss("stars", out, torch.tensor([0.0, 1.0])) == pytest.approx(1.09 / 2)
    two = ch11.task_loss("recommend", out, torch.tensor([0.0, 1.0]))
    assert two == pytest.approx((math.log(1 + math.exp(0.3)) + math.log(1 + math.exp(-2))) / 2)


@pytest.mark.parametrize("present", [(1, 4), (0, 2, 5)])
def test_a_class_without_an_example_is_never_said(present):
    x = np.random.default_rng(0).normal(size=(60, 3))
    y = np.array(present)[np.arange(60) % len(present)]
    model = ch11_tasks.LogisticRegression().fit(x, y)
    logits = ch11_tasks.class_logits(model, 6)(x)
    assert logits.shape == (60, 6) and np.isinf(np.delete(logits, present, axis=1)).all()
    assert np.array_equal(logits.argmax(1), model.predict(x))


# ------------------------------------------------------------------------------- runs, in small
@pytest.fixture
def few_reviews(monkeypatch):
    """The first 2,500 reviews in place of all."""
    plain = ch11.reviews
    monkeypatch.setattr(ch11, "reviews", lambda length, pieces: plain(30, 1500, 2500))
    ch11.pretrained.cache_clear()
    rows = data.load("reviews")
    texts = [str(text) for text in rows.text[:2500]]
    monkeypatch.setattr(
        ch11,
        "bags",
        lambda pieces: ch11.TfidfVectorizer(min_df=2).fit_transform(texts),
    )


def test_run_gives_plain_json_and_a_seed_decides_it(few_reviews):
    plan = replace(TINY, length=30)
    lines = []
    results = json.loads(json.dumps(ch11.run("cpu", [0, 1], lines.append, plan=plan)))
    assert len(results["seeds"]) == 2 and len(lines) == 2
    first = results["seeds"][0]
    assert set(first["joint"]) == {"scratch", "masked words"}
    assert set(first["joint"]["scratch"]["20"]["test"]) == set(ch11.TASKS)
    assert set(first["bag of words"]["40"]) == set(ch11.TASKS)
    assert json.loads(json.dumps(ch11.one_seed(plan, 0))) == first
    shared = json.loads(json.dumps(ch11.run_priorities([0], lines.append, plan=plan)))
    row = shared["seeds"][0]
    assert shared["labels"] == 20 and set(row["alone"]) == set(ch11.TASKS)
    assert set(row["pair"]["test"]) == {"stars", "recommend"}
    assert row["together"] == first["joint"]["masked words"]["20"], "the same run as in the first"
    assert row["together"]["test"] != row["priority"]["test"]


def test_the_bag_of_words_is_ridge_regression(few_reviews):
    from sklearn.linear_model import Ridge

    plan = replace(TINY, length=30, labels=(40, 60))
    _, targets, _, parts = ch11.prepared(plan, 0)
    found = ch11.bag_of_words(plan, targets, parts["train"], parts)
    x, best = ch11.bags(plan.pieces), None
    for strength in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0):
        y = targets["stars"].numpy()
        fit = Ridge(alpha=strength, fit_intercept=False)
        mean = y[parts["train"]].mean()
        fit.fit(x[parts["train"].numpy()], y[parts["train"]] - mean)
        scores = [
            ch11.score("stars", fit.predict(x[parts[n].numpy()]) + mean, y[parts[n]])
            for n in ("validation", "test")
        ]
        best = max(best or scores, scores, key=lambda pair: pair[0])
    assert found["stars"] == pytest.approx(best[1], abs=1e-4)


def test_every_task_may_stop_where_validation_is_best(few_reviews):
    plan = replace(TINY, length=30, looks=4)
    ids, targets, pieces, parts = ch11.prepared(plan, 0)
    trunk = ch11.new_trunk(plan, len(pieces), 0)
    best = ch11.train(
        plan, trunk, ids, targets, parts["train"], parts["validation"], 1e-2, 0,
        dict.fromkeys(ch11.TASKS, 1.0),
    )  # fmt: skip
    y = {name: values[parts["validation"]].numpy() for name, values in targets.items()}
    for name in ch11.TASKS:
        value, _, model = best[name]
        guess = ch11.outputs_of(model, ids[parts["validation"]])[name]
        assert ch11.score(name, guess, y[name]) == pytest.approx(value)
    means = [ch11.score(n, ch11.outputs_of(best["all"][2], ids[parts["validation"]])[n], y[n])
             for n in ch11.TASKS]  # fmt: skip
    assert np.mean(means) == pytest.approx(best["all"][0])
    assert all(best[name][0] >= m - 1e-9 for name, m in zip(ch11.TASKS, means, strict=True))


def test_the_top_upon_cached_states_is_the_whole_encoder():
    encoder = SentenceEncoder(50, width=8, layers=3, heads=2, hidden=16).eval()
    ids = torch.tensor([[2, 7, 9, 3], [2, 7, 3, 0]])
    lower = SentenceEncoder(50, width=8, layers=3, heads=2, hidden=16).eval()
    lower.load_state_dict(encoder.state_dict())
    lower.layers = lower.layers[:2]
    top = ch11_encoder.Top(encoder, 2, ["stars"]).eval()
    z = top.features(lower.each_word(ids), ids != 0)
    torch.testing.assert_close(z, encoder(ids))
    before = [p.clone() for p in encoder.parameters()]
    top(lower.each_word(ids).detach(), ids != 0)["stars"].sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))
    assert all(p.grad is None for p in encoder.parameters())


def test_the_encoders_experiment_runs_in_small(monkeypatch):
    encoder = SentenceEncoder(50, width=8, layers=3, heads=2, hidden=16).eval()
    g = torch.Generator().manual_seed(0)
    targets = {
        "stars": torch.randn(60, generator=g),
        "recommend": (torch.rand(60, generator=g) < 0.5).float(),
        "department": torch.randint(3, (60,), generator=g),
    }
    states, there = torch.randn(60, 5, 8, generator=g), torch.ones(60, 5, dtype=torch.bool)
    monkeypatch.setattr(ch11_encoder, "states_of", lambda *_: (encoder, states, there, targets))
    plan = ch11_encoder.Plan(
        pool=60, labels=20, validation=20, frozen_layers=2, steps=2, rates=(1e-3,), strengths=(1.0,)
    )
    results = json.loads(json.dumps(ch11_encoder.run_encoder([0], lambda line: None, plan=plan)))
    row = results["seeds"][0]
    for way in (ch11_encoder.FROZEN, ch11_encoder.TOGETHER, ch11_encoder.ALONE):
        assert set(row[way]) == set(ch11.TASKS)


# ------------------------------------------------------------------------------- tasks in turns
TURNS = ch11_turns.Plan(
    pool=60, labels=20, validation=20, features=4, rates=(1e-2,), steps=8, looks=4, batch=6
)


def made_up_reviews():
    """Features of sixty reviews, and labels that hang on them."""
    z = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    return z, {
        "stars": z[:, 0] + z[:, 1],
        "recommend": (z[:, 0] > 0).float(),
        "department": (z[:, 2:4].argmax(1) + 3 * (z[:, 4] > 0)).long(),
    }


def test_turns_are_orders_and_a_rest_for_a_task_that_no_longer_gains():
    turns, all_tasks = ch11_turns.turns(TURNS), tuple(ch11.TASKS)
    assert tuple(turns["recommend first"](4, {})) == ("recommend",)
    assert tuple(turns["recommend first"](5, {})) == all_tasks
    assert tuple(turns["recommend last"](4, {})) == all_tasks
    assert tuple(turns["recommend last"](5, {})) == ("recommend",)
    stop, best = turns["a stop per task"], {"stars": 2, "recommend": 4, "department": 4}
    assert tuple(stop(1, {})) == tuple(stop(2, {})) == all_tasks
    assert tuple(stop(4, dict.fromkeys(all_tasks, 2))) == all_tasks
    assert stop(5, best) == stop(6, best) == ["recommend", "department"]
    assert tuple(stop(7, best)) == all_tasks, "none is left, so all count"


def test_a_task_whose_turn_it_is_not_moves_nothing_of_its_own():
    z, targets = made_up_reviews()
    rows = {"train": torch.arange(20), "validation": torch.arange(20, 40)}
    weights = dict.fromkeys(ch11.TASKS, 1.0)
    best = ch11_turns.train(
        TURNS, z, targets, rows, 1e-2, 0, weights, lambda step, best: ("stars", "department")
    )
    model = best["recommend"][2]
    assert not any(p.any() for p in model.heads["recommend"].parameters())
    assert all(p.any() for p in best["stars"][2].heads["stars"].parameters())
    heavy = ch11_turns.train(TURNS, z, targets, rows, 1e-2, 0, weights | {"stars": 50.0})
    assert heavy["stars"][0] != best["stars"][0]


def test_each_task_keeps_its_own_best_look_and_turns_run_in_small(monkeypatch):
    z, targets = made_up_reviews()
    rows = {"train": torch.arange(20), "validation": torch.arange(20, 40)}
    best = ch11_turns.train(TURNS, z, targets, rows, 1e-2, 0, dict.fromkeys(ch11.TASKS, 1.0))
    held = {n: y[20:40] for n, y in targets.items()}
    for name, (value, step, model) in best.items():
        assert ch11_turns.scores(model, z[20:40], held)[name] == pytest.approx(value)
        assert step in (2, 4, 6, 8)
    monkeypatch.setattr(ch11_turns, "features_of", lambda *_: made_up_reviews())
    found = json.loads(json.dumps(ch11_turns.run_turns([0], lambda line: None, plan=TURNS)))
    assert found["labels"] == 20 and set(found["seeds"][0]) == set(ch11_turns.WAYS)
    for row in found["seeds"][0].values():
        assert set(row["test"]) == set(row["rate"]) == set(row["step"]) == set(ch11.TASKS)


# -------------------------------------------------------------------------- four kinds of texts
def made_up_domains(n=60):
    """Features of four domains with ten documents each, whose ratings hang on one column."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(4, n, 6, generator=g)
    y = z[..., 0].double() + 0.1 * torch.randn(4, n, generator=g)
    return [(z[k], y[k], torch.arange(n) % 10) for k in range(4)]


def test_no_document_is_on_two_sides():
    plan = ch11_domains.Plan(labels=(5, 20), validation=8, test=16)
    document = torch.tensor([3, 3, 3, 8, 8, 1, 1, 1, 1, 5] * 8) + 10 * torch.arange(80).div(
        10, rounding_mode="floor"
    )
    for seed in range(5):
        parts = ch11_domains.split(plan, document, seed)
        assert [len(parts[n]) for n in ("test", "validation", "train")] == [16, 8, 20]
        sides = [set(document[rows].tolist()) for rows in parts.values()]
        assert not any(a & b for k, a in enumerate(sides) for b in sides[k + 1 :])
        assert len(torch.cat(list(parts.values())).unique()) == 44


def test_whole_documents_are_in_the_pool(monkeypatch):
    """But for the last one, which the pool may cut."""
    count = 40
    names = list(ch11_domains.DOMAINS)
    rated = type("Rated", (), {
        "domain_names": names, "domain": np.repeat(np.arange(4), count),
        "document": np.tile(np.arange(count) // 4, 4), "rating": np.arange(4.0 * count),
        "text": np.array([f"t{k}" for k in range(4 * count)]),
    })  # fmt: skip
    monkeypatch.setattr(ch11_domains.data, "load", lambda name: rated)
    rated.vocabulary = ()
    monkeypatch.setattr(ch11_domains, "WordPiece", lambda v: lambda texts, length: texts)
    monkeypatch.setattr(ch11_domains, "minilm", lambda files: None)
    monkeypatch.setattr(
        ch11_domains,
        "encode",
        lambda encoder, texts: torch.tensor([[float(text[1:])] for text in texts]),
    )
    domains = ch11_domains.features_of.__wrapped__(10, 8)
    for number, (z, y, document) in enumerate(domains):
        assert len(y) == 10 and len(document.unique()) == 3
        assert (document.unique(return_counts=True)[1] == 4).sum() == 2
        assert (y >= 40 * number).all() and (y < 40 * (number + 1)).all()
        torch.testing.assert_close(z[:, 0] / z[0, 0], (y / y[0]).float(), msg="rows in step")
        assert torch.equal(document, (y.long() % 40) // 4)


def test_ties_of_ridges_hold_at_their_limits_and_the_domains_run_in_small(monkeypatch):
    monkeypatch.setattr(ch11_domains, "features_of", lambda *_: made_up_domains())
    plan = ch11_domains.Plan(
        labels=(5, 20), validation=12, test=18, features=4, rates=(1e-2,), steps=4, looks=2, batch=4
    )
    rows = json.loads(json.dumps(ch11_domains.run_domains([0], lambda line: None, plan=plan)))
    assert set(rows["seeds"][0]["20"]) == {*ch11_domains.WAYS, "chosen", "strengths"}
    for way in ch11_domains.WAYS:
        assert set(rows["seeds"][0]["5"][way]) == set(ch11_domains.DOMAINS)
    part = {str(k): (z.double(), y) for k, (z, y, _) in enumerate(made_up_domains())}
    for strengths, ratios, way in (((1.0,), (1e9,), "ridge, each alone"),
                                   ((1e9,), (1e-9,), "ridge, one for all")):  # fmt: skip
        found = ch11_domains.linear(
            replace(plan, strengths=strengths, ratios=ratios), part, part, part
        )
        if way == "ridge, one for all":  # as strong for the common part as the tie is hard
            one = ch11_domains.linear(replace(plan, strengths=(1.0,)), part, part, part)[way]
        else:
            one = found[way]
        assert found["ridge, mean-regularised"] == pytest.approx(one, abs=1e-4)


def test_a_single_network_sees_its_domain_alone_and_validation_chooses():
    part = {str(k): (z, y.float()) for k, (z, y, _) in enumerate(made_up_domains())}
    plan = ch11_domains.Plan(features=4, rates=(1e-4, 3e-2), steps=40, looks=2, batch=8)
    one = {"1": part["1"]}
    alone = ch11_domains.network(plan, one, one, one, 0)
    assert alone["rate"] == 3e-2 and alone["test"]["1"] > 0.3
    joint = ch11_domains.network(plan, part, part, part, 0)
    assert set(joint["test"]) == set(part)
    assert ch11_domains.explained(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])) == 0.5


# ------------------------------------------------------------------------------ names, word by word
def test_a_name_counts_if_its_words_and_its_kind_are_right():
    spans = ch11_words.entities
    assert spans(["O", "B-person", "I-person", "B-person"]) == {(1, 3, "person"), (3, 4, "person")}
    assert spans(["I-group", "I-group", "O", "B-group", "I-person"]) == {
        (0, 2, "group"), (3, 4, "group"), (4, 5, "person")
    }  # fmt: skip
    assert spans([]) == spans(["O"]) == set()
    true = [["B-person", "O", "B-location", "I-location"], ["O", "O"]]
    cut = [["B-person", "O", "O", "B-location"], ["O", "B-group"]]
    # one of three that are named is right, and one of two that there are
    assert ch11_words.f1_by_entity(cut, true) == pytest.approx(2 * (1 / 3) * (1 / 2) / (5 / 6))
    assert ch11_words.f1_by_entity(true, true) == 1.0
    assert ch11_words.f1_by_entity([["O"]], [["O"]]) == 0.0


def test_the_text_s_example_of_f1():
    """Anna is found, New York is cut to York: one of two, both ways."""
    true = [["B-person", "O", "B-location", "I-location"]]
    assert ch11_words.f1_by_entity([["B-person", "O", "O", "B-location"]], true) == 0.5


def test_a_word_has_the_mean_of_its_pieces():
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "sun", "##ny", "day", "!"]
    tokens = ch11_words.WordPiece(vocabulary)
    encoder = SentenceEncoder(8, width=4, layers=1, heads=2, hidden=8).eval()
    texts = [["sunny", "day!", "sun"], ["day"]]
    z = ch11_words.word_features(encoder, tokens, texts, 5)
    with torch.no_grad():
        h = encoder.each_word(torch.tensor([[2, 4, 5, 6, 7, 4, 3]]))[0]
        alone = encoder.each_word(torch.tensor([[2, 6, 3]]))[0]
    want = torch.stack([h[1:3].mean(0), h[3:5].mean(0), h[5]])
    torch.testing.assert_close(z[0, :3], want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(z[1, 0], alone[1], atol=1e-5, rtol=1e-5)
    assert not z[0, 3:].any() and not z[1, 1:].any()


def made_up_words():
    """Three tasks whose texts have two to five words of six features."""
    g = torch.Generator().manual_seed(0)
    found = {}
    for task in ch11_words.TASKS:
        there = torch.arange(5) < torch.randint(2, 6, (50,), generator=g)[:, None]
        z = torch.randn(50, 5, 6, generator=g) * there[..., None]
        tags = (z[..., 0] > 0).long().masked_fill(~there, -1)
        y = tags if task == "names" else z[..., 1].sum(1)
        found[task] = ch11_words.Texts(z, there, y)
    return found, ["O", "B-person"]


def test_names_and_ratings_run_in_small_and_no_text_is_on_two_sides(monkeypatch):
    monkeypatch.setattr(ch11_words, "texts_of", lambda *_: made_up_words())
    plan = ch11_words.Plan(
        labels=(8, 16), validation=10, width=4, rates=(1e-2,), steps=20, looks=2, batch=4,
        strengths=(1.0, 10.0),
    )  # fmt: skip
    rows = json.loads(json.dumps(ch11_words.run_words([0], lambda line: None, plan=plan)))
    for found in rows["seeds"][0].values():
        assert all(set(found[way]) == set(ch11_words.TASKS) for way in ch11_words.WAYS)
    assert rows["seeds"][0]["16"]["frozen, probes"]["names"] > 0.8, "one feature tells"
    study = ch11_words.Study(plan, 8, 0, *made_up_words())
    for parts in study.rows.values():
        assert [len(parts[n]) for n in ("train", "validation", "test")] == [8, 10, 24]
        assert len(torch.cat(list(parts.values())).unique()) == 42
    more = ch11_words.Study(plan, 16, 0, *made_up_words())
    assert torch.equal(more.rows["names"]["train"][:8], study.rows["names"]["train"])
    assert torch.equal(more.rows["names"]["test"], study.rows["names"]["test"])


def test_a_trunk_reads_names_from_words_and_ratings_from_their_mean():
    torch.manual_seed(0)
    trunk = ch11_words.Trunk(6, 4, {"names": 3, "films": 1}).eval()
    z, there = torch.randn(2, 5, 6), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    spoilt = z.clone()
    spoilt[0, 3:] = 9.0
    for task, shape in (("names", (2, 5, 3)), ("films", (2,))):
        out, other = trunk(task, z, there), trunk(task, spoilt, there)
        assert out.shape == shape
        torch.testing.assert_close(out[0][:3] if task == "names" else out,
                                   other[0][:3] if task == "names" else other)  # fmt: skip
    y = torch.tensor([[0, 1, 2, -1, -1], [0, 0, 0, 0, 0]])
    scores = torch.randn(2, 5, 3)
    flat = [(scores[r, w], y[r, w]) for r in range(2) for w in range(5) if y[r, w] >= 0]
    want = F.cross_entropy(torch.stack([a for a, _ in flat]), torch.stack([b for _, b in flat]))
    torch.testing.assert_close(ch11_words.task_loss("names", scores, y), want)


# ----------------------------------------------------------------------------------- two modalities
def made_up(n=60):
    """Emoji that nobody draws: coloured noise, with names of one or two words."""
    g = torch.Generator().manual_seed(0)
    category = torch.randint(4, (n,), generator=g)
    colours = torch.randn(4, 3, 1, 1, generator=g)
    x = colours[category] + 0.3 * torch.randn(n, 3, 8, 8, generator=g)
    names = [f"kind{k} no{r % 7}" for r, k in enumerate(category.tolist())]
    ids, words = ch11_fusion.word_ids(names)
    pictures = {"twitter": x, "google": 0.8 * x}
    targets = {"category": category, "group": category + 4 * (torch.arange(n) % 2)}
    return ch11_fusion.Emoji(pictures, names, ids, len(words), targets)


SMALL = ch11_fusion.Plan(
    size=8, width=8, train=30, validation=15, rates=(1e-2, 2e-2), steps=30, batch=16,
    shares=(0.0, 0.5), named=40, naming_steps=3, naming_batch=8,
)  # fmt: skip


def test_words_of_names_are_numbers_from_one_on():
    ids, words = ch11_fusion.word_ids(["a red-hot cat", "cat: red"])
    assert words == ["[PAD]", "a", "cat", "hot", "red"]
    assert ids.tolist() == [[1, 4, 3, 2], [2, 4, 0, 0]]


def test_a_network_without_names_does_not_look_at_them():
    emoji = made_up()
    rows = torch.arange(40)
    model = ch11_fusion.train_fused(SMALL, emoji, rows, "late", 0.0, 1e-2, 0, only="picture")
    first = ch11_fusion.logits(model, emoji, rows, "picture alone")
    changed = ch11_fusion.Emoji(
        emoji.pictures, emoji.names, emoji.ids.flip(0), emoji.words, emoji.targets
    )
    again = ch11_fusion.train_fused(SMALL, changed, rows, "late", 0.0, 1e-2, 0, only="picture")
    other = ch11_fusion.logits(again, changed, rows, "picture alone")
    assert all(torch.equal(first[name], other[name]) for name in first)
    scores = ch11_fusion.accuracies(first, emoji, rows)
    assert scores["category"] > 0.6, "it does learn from pictures"


def test_the_means_that_are_filled_in_are_those_of_the_tokens():
    emoji = made_up()
    model = ch11_fusion.train_fused(SMALL, emoji, torch.arange(30), "late", 0.0, 1e-2, 0)
    rows = torch.arange(30)
    ch11_fusion.fill_with_means(model, emoji, rows)
    table = model.fusion.entries["name"].table.weight
    mean = torch.stack([table[i] for i in emoji.ids[rows].flatten().tolist() if i]).mean(0)
    torch.testing.assert_close(model.fusion.missing["name"], mean)


def test_hits_count_how_many_names_are_ahead():
    alike = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.4, 0.3], [0.7, 0.8, 0.1]])
    assert ch11_fusion.hits(alike, (1, 2, 3)) == pytest.approx({"1": 1 / 3, "2": 2 / 3, "3": 1.0})
    assert ch11_fusion.hits(torch.ones(3, 3), (1, 3)) == {"1": 0.0, "3": 1.0}, "no luck by ties"


def test_the_record_of_emoji_runs_in_small(monkeypatch):
    monkeypatch.setattr(ch11_fusion, "emoji_sets", lambda size: made_up())
    encoder = SentenceEncoder(50, width=8, layers=1, heads=2, hidden=16).eval()
    monkeypatch.setattr(ch11_fusion, "minilm", lambda files: encoder)
    monkeypatch.setattr(ch11_fusion.data, "load", lambda name: type("F", (), {"vocabulary": 0}))
    monkeypatch.setattr(
        ch11_fusion, "WordPiece", lambda v: lambda names, length: torch.randint(2, 50, (60, 4))
    )
    plan = replace(SMALL, steps=3)
    results = {}
    for run in (ch11_fusion.run_emoji, ch11_fusion.run_naming):
        results |= json.loads(json.dumps(run([0], lambda line: None, plan=plan)))
    ch11_fusion.read_by_minilm.cache_clear()
    fusion, naming = results["fusion"][0], results["naming"][0]
    assert set(fusion["shares"]) == {"0.0", "0.5"} and fusion["test"] == 15
    assert set(fusion["results"]["late, dropout"]) == set(ch11_fusion.SITUATIONS)
    assert naming["count"] == {"learned": 40, "new": 20}
    assert set(naming["pixels"]["google"]) == {"learned"}


def test_without_npm_the_emoji_say_what_to_do(monkeypatch, tmp_path):
    from mtl_course.data.tiers import npm

    monkeypatch.setenv("MTL_COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)
    with pytest.raises(data.DataError, match="there is no npm here"):
        ch11_fusion.emoji_sets()


# ------------------------------------------------------------------------------------- the records
def test_one_seed_of_the_fusion_record_is_within_its_spread():
    """One network of seed 0 again: late fusion without dropout at the rate that it chose."""
    try:
        emoji = ch11_fusion.emoji_sets()
    except data.DataError as error:
        pytest.skip(f"the emoji cannot be had here, they need npm: {error}")
    record = records.load("11", "emoji")
    runs = [seed["results"]["late"]["both"]["category"] for seed in record.results["fusion"]]
    plan, first = ch11_fusion.Plan(), record.results["fusion"][0]
    order = torch.randperm(len(emoji.names), generator=torch.Generator().manual_seed(0))
    model = ch11_fusion.train_fused(
        plan, emoji, order[: plan.train], "late", 0.0, first["rates"]["late"], 0
    )
    test = order[plan.train + plan.validation :]
    again = ch11_fusion.accuracies(ch11_fusion.logits(model, emoji, test, "both"), emoji, test)
    assert abs(again["category"] - runs[0]) < max(3 * np.std(runs, ddof=1), 0.03)
