"""Chapter 15: no target label reaches training; its code is the package's; its record."""

import inspect
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mtl_course import records, transfer
from mtl_course.checks import use
from mtl_course.dev import notebooks
from mtl_course.experiments import ch15, ch15_census, ch15_digits, ch15_unseen

PLAN = ch15.Plan()
TINY = ch15.tiny(PLAN)
UNSEEN = ch15_unseen.Unseen(channels=(2, 3), features=4, steps=3)


def pair(n=40, seed=0):
    """A source and a target of a few small random pictures."""
    g = torch.Generator().manual_seed(seed)
    return tuple(
        ch15_digits.Domain(
            torch.randn(n, 1, 16, 16, generator=g) + k,
            torch.arange(n) % 10,
            torch.randn(n, 1, 16, 16, generator=g) + k,
            torch.arange(n) % 10,
        )
        for k in range(2)
    )


# --------------------------------------------------------------------------- no label of the target
def test_training_has_no_argument_for_labels_of_the_target():
    names = list(inspect.signature(ch15.train).parameters)
    assert names == ["x", "y", "x_target", "setting", "seed", "plan"]


@pytest.mark.parametrize("method", [ch15.SOURCE, ch15.AUGMENTED, *ch15.ALIGNING, ch15.BOTH])
def test_training_is_the_same_bit_for_bit_with_the_targets_labels_shuffled(method, monkeypatch):
    """Everything that `one_seed` trains, but the two networks that are said to use them."""
    source, target = pair()
    order = torch.randperm(len(target.y), generator=torch.Generator().manual_seed(1))
    calls = []

    def watched(*arguments):
        calls.append(arguments)
        return plain(*arguments)

    plain = ch15.train
    monkeypatch.setattr(ch15, "train", watched)
    chosen = {m: {"rate": 0.005, "strength": dict(TINY.strengths)[m][0]} for m in ch15.ALIGNING}
    chosen |= {m: {"rate": 0.005, "strength": 0.1} for m in (ch15.SOURCE, ch15.AUGMENTED, "AdaBN")}
    trained = []
    for there in (target, replace(target, y=target.y[order], y_test=target.y_test[order])):
        calls.clear()
        monkeypatch.setattr(ch15, "domains", lambda *_, there=there: (source, there))
        monkeypatch.setattr(ch15, "shifted", lambda domain, rare: domain)
        ch15.one_seed(replace(TINY, steps=1), chosen, 0)
        trained.append([c for c in calls if c[3].method == method])
    assert trained[0] and len(trained[0]) == len(trained[1])
    for first, second in zip(*trained, strict=True):
        assert first[1] is source.y and second[1] is source.y
        assert torch.equal(first[2], second[2]) and first[3] == second[3]
        a, b = (plain(*call) for call in (first, second))
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_the_search_never_opens_the_target(monkeypatch):
    def refuse(name):
        if name == "digits":
            raise AssertionError("the rehearsal asked for the target")
        g = torch.Generator().manual_seed(0)
        return torch.rand(2200, 1, 16, 16, generator=g), torch.arange(2200) % 10

    monkeypatch.setattr(ch15_digits, "pictures", refuse)
    lines = []
    chosen = ch15.rehearse(replace(TINY, steps=1, held_out=200), range(2), lines.append)
    assert set(chosen) == set(ch15.METHODS) and len(lines) == len(ch15.METHODS)
    for method, row in chosen.items():
        best = max(row["trials"], key=lambda trial: trial[2])
        assert (row["rate"], row["strength"]) == best[:2], method


def test_every_method_has_the_same_number_of_trials():
    assert len({len(strengths) for _, strengths in PLAN.strengths}) == 1


# --------------------------------------------------------------------- what the text says of parts
def cells_with(*starts):
    """The names that the notebook's cells define, of those that hold one of these lines."""
    space = {
        "torch": torch,
        "nn": nn,
        "F": nn.functional,
        "transfer": transfer,
        "plan": PLAN,
        "ch15_digits": ch15_digits,
        "use": use,
    }
    for cell in notebooks.read(notebooks.find(["15"])[0][1]).cells:
        if cell.cell_type == "code" and any(start in cell.source for start in starts):
            exec(cell.source, space)
    return space


def test_the_chapters_mmd_is_the_packages():
    mmd = cells_with("def mmd(")["mmd"]
    for n, m in ((7, 4), (3, 9)):
        g = torch.Generator().manual_seed(n)
        a, b = (torch.randn(k, 5, generator=g, dtype=torch.float64) for k in (n, m))
        torch.testing.assert_close(mmd(a, b + 1), transfer.mmd(a, b + 1))


def test_the_chapters_adversary_is_the_packages_with_domains_of_one_size():
    space = cells_with("def mmd(")
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 5, generator=g).requires_grad_() for _ in range(2))
    discriminator = nn.Linear(5, 1)
    ours = space["adversary"](discriminator)(a, b, 0.3)
    theirs = transfer.domain_loss(a, b, discriminator, 0.3)
    torch.testing.assert_close(ours, theirs)
    for p, q in zip(
        torch.autograd.grad(ours, (a, b, *discriminator.parameters())),
        torch.autograd.grad(theirs, (a, b, *discriminator.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(p, q)


def test_the_chapters_loop_is_the_experiments():
    space = cells_with("def mmd(", "def adapt(")
    source, target = pair(80)
    model = space["adapt"](
        source.x, source.y, target.x, lambda a, b, s: s * transfer.mmd(a, b), 10.0, steps=4
    )
    plan = replace(PLAN, steps=4)
    setting = ch15.Setting(ch15.MMD, 0.005, 10.0)
    other = ch15.train(source.x, source.y, target.x, setting, 0, plan)
    for (name, p), q in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5, msg=name)


def test_a_strength_of_zero_is_training_on_the_source_but_for_batchnorm():
    """Only the batch that BatchNorm sees differs: with one domain twice the losses agree."""
    source, _ = pair(80)
    runs = [
        ch15.train(source.x, source.y, source.x, ch15.Setting(m, 0.005, 0.0), 0, TINY)
        for m in (ch15.MMD, ch15.CORAL)
    ]
    for p, q in zip(*(model.parameters() for model in runs), strict=True):
        assert torch.equal(p, q)


# ------------------------------------------------------------------------------------- the pictures
def test_parts_of_a_domain_do_not_overlap_and_have_mean_0_and_variance_1():
    for domain in ch15_digits.domains(PLAN.source, PLAN.unlabelled, PLAN.held_out):
        both = torch.cat([domain.x, domain.x_test])
        assert abs(float(both.mean())) < 1e-4 and abs(float(both.std()) - 1) < 1e-4
    assert len(domain.x) == PLAN.unlabelled and len(domain.x_test) == 597
    rows = {tuple(x.flatten().tolist()) for x in domain.x}
    assert not any(tuple(x.flatten().tolist()) in rows for x in domain.x_test)


def test_a_rehearsal_is_made_of_two_halves_of_the_source():
    here, there = ch15_digits.rehearsal(PLAN.source, PLAN.unlabelled, PLAN.held_out)
    assert len(here.x) + len(here.x_test) == len(there.x) + len(there.x_test) == 2500
    top = [float(d.x[d.y == 1].mean(0)[0, 3] @ torch.arange(16.0)) for d in (here, there)]
    low = [float(d.x[d.y == 1].mean(0)[0, 12] @ torch.arange(16.0)) for d in (here, there)]
    assert top[0] > low[0] and top[1] < low[1], "ones lean to the right, and then to the left"


def test_a_shifted_domain_has_a_tenth_of_the_rare_digits():
    _, target = pair(400)
    few = ch15_digits.shifted(target, 0.1)
    for y in (few.y, few.y_test):
        assert int((y >= 5).sum()) == 200 and int((y < 5).sum()) == 20
    assert torch.equal(few.x, target.x[torch.isin(target.x.sum((1, 2, 3)), few.x.sum((1, 2, 3)))])


def test_resampling_gives_the_shares_that_it_is_asked_for():
    source, _ = pair(2000)
    shares = [0.0, 0.2, 0.02, *[0.78 / 7] * 7]
    x, y = ch15_digits.resampled(source.x, source.y, shares, 0)
    assert len(x) == len(y) == 2000 and not (y == 0).any()
    drawn = torch.bincount(y, minlength=10) / 2000
    torch.testing.assert_close(drawn, torch.tensor(shares), rtol=0, atol=0.03)
    place = [int((source.x == one).flatten(1).all(1).nonzero()[0]) for one in x[:5]]
    assert y[:5].tolist() == source.y[place].tolist()


def test_bending_by_nothing_changes_nothing_and_a_seed_repeats_it():
    source, _ = pair()
    g = torch.Generator
    still = ch15_digits.bent(source.x, 0.0, g().manual_seed(0))
    torch.testing.assert_close(still, source.x, rtol=0, atol=1e-4)
    a, b = (ch15_digits.bent(source.x, 1.0, g().manual_seed(0)) for _ in range(2))
    assert torch.equal(a, b) and not torch.allclose(a, source.x, atol=0.1)


def test_an_adapted_copy_leaves_the_model_alone():
    source, target = pair()
    model = ch15.train(source.x, source.y, target.x, ch15.Setting(ch15.SOURCE, 0.005, 0.0), 0, TINY)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    other = ch15_digits.adapted(model, target.x)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not torch.equal(other.trunk[1].running_mean, model.trunk[1].running_mean)


# ------------------------------------------------------------------- a domain that nobody has seen
def test_no_digit_is_in_two_kinds_or_parts():
    found = ch15_unseen.kinds(ch15_unseen.Unseen())
    assert list(found) == list(ch15_unseen.KINDS)
    assert sum(len(y) for parts in found.values() for _, y in parts.values()) == 5000
    assert [len(y) for _, y in found["clean"].values()] == [500, 150, 350]


def test_the_kind_left_out_is_not_trained_on(monkeypatch):
    found, seen = ch15_unseen.kinds(UNSEEN), []
    plain = ch15_unseen.train

    def watched(parts, *rest):
        seen.extend(x for x, _ in parts)
        return plain(parts, *rest)

    monkeypatch.setattr(ch15_unseen, "train", watched)
    row = ch15_unseen.leave_out(UNSEEN, "contrast", 0)
    allowed = [parts["train"][0] for name, parts in found.items() if name != "contrast"]
    assert seen and all(any(torch.equal(x, a) for a in allowed) for x in seen)
    assert all(0 <= row[w] <= 1 for w in ("pooled", "CORAL", "pooled + AdaBN", "pooled + TENT"))
    assert json.loads(json.dumps(row))


def test_tent_makes_answers_more_certain_and_trains_norms_alone():
    source, target = pair(200)
    plan = replace(UNSEEN, steps=20)
    model = ch15_unseen.train([(source.x, source.y)], 0.01, 0.0, 0, plan)

    def entropy(net):
        with torch.no_grad():
            p = net(target.x).softmax(1)
        return float(-(p * p.clamp_min(1e-12).log()).sum(1).mean())

    before = {name: t.clone() for name, t in model.state_dict().items()}
    adapted = ch15_digits.adapted(model, target.x)
    tented = ch15_unseen.tent(model, target.x, rate=0.05)
    assert entropy(tented) < entropy(adapted)
    moved = {n for n, p in tented.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {f"trunk.{i}.{w}" for i in (1, 4) for w in ("weight", "bias")}
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


# ------------------------------------------------------------------------------------------ a table
def test_people_do_not_meet_and_sex_is_no_input():
    x, _, male = ch15_census.table()
    assert not any((x[:, k] == male).all() for k in range(x.shape[1]))
    parts = ch15_census.people(0)
    assert [len(parts[k]) for k in ("x", "x_held", "x_target", "x_test")] == [
        4000,
        2000,
        4000,
        4000,
    ]
    assert "y_target" not in parts
    torch.testing.assert_close(parts["x"].mean(0), torch.zeros(x.shape[1]), rtol=0, atol=0.2)


def test_reweighting_is_bayes_rule():
    chances = torch.tensor([[0.6, 0.4]])
    new = ch15_census.reweighted(chances, torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(new, torch.tensor([[0.54, 0.04]]) / 0.58)


# --------------------------------------------------------------------------------------- the record
def test_the_experiment_at_tiny_size_is_plain_json_with_one_value_per_seed():
    plan = replace(TINY, steps=8, rates=(0.005,))
    results = ch15.run("cpu", range(1), lambda line: None, plan=plan)
    assert json.loads(json.dumps(results))
    assert {*ch15.METHODS, ch15.BOTH, ch15.ORACLE} < set(results["methods"])
    for row in results["methods"].values():
        assert all(len(values) == 1 for values in row.values())


def test_one_seed_of_the_record_is_within_its_spread():
    record = records.load("15", "cpu")
    rows, chosen = record.results["methods"], record.results["chosen"]
    source, target = ch15_digits.domains(PLAN.source, PLAN.unlabelled, PLAN.held_out)
    seed = record.provenance["seeds"][0]
    for method in (ch15.SOURCE, ch15.MMD):
        setting = ch15.Setting(method, chosen[method]["rate"], chosen[method]["strength"])
        model = ch15.train(source.x, source.y, target.x, setting, seed, PLAN)
        reached = ch15_digits.accuracy(model, target.x_test, target.y_test)
        spread = max(np.std(rows[method]["target"], ddof=1), 0.01)
        assert abs(reached - rows[method]["target"][0]) < 4 * spread, method


def test_baselines_set_on_source_data_at_tiny_size_are_plain_json_with_one_value_per_seed():
    results = ch15.run_on_source(range(2), lambda line: None, plan=replace(PLAN, steps=60))
    assert json.loads(json.dumps(results)) and results["rate"] in ch15.RATES_ON_SOURCE
    for row in results["methods"].values():
        assert all(len(values) == 2 for values in row.values())


def test_one_seed_of_the_baselines_set_on_source_data_is_within_its_spread():
    record = records.load("15", "source")
    rows, seed = record.results["methods"], record.provenance["seeds"][0]
    source, target = ch15_digits.domains(PLAN.source, PLAN.unlabelled, PLAN.held_out)
    setting = ch15.Setting(ch15.SOURCE, record.results["rate"], ch15.DECAY_ON_SOURCE)
    model = ch15.train(source.x, source.y, target.x, setting, seed, PLAN)
    for name, value in ch15.told(model, source, target, ch15_digits.shifted(target, 0.1)).items():
        seen = rows[ch15.SOURCE][name]
        assert abs(value - seen[0]) < 4 * max(np.std(seen, ddof=1), 0.01), name


def test_one_piece_of_the_record_of_unseen_kinds_is_within_its_spread():
    record = records.load("15", "unseen")
    row = record.results["gaussian_noise"]
    plan, seed = ch15_unseen.Unseen(), record.provenance["seeds"][0]
    found = ch15_unseen.kinds(plan)
    parts = [kind["train"] for name, kind in found.items() if name != "gaussian_noise"]
    model = ch15_unseen.train(parts, row["chosen"][0]["rate"], 0.0, seed, plan)
    reached = ch15_digits.accuracy(model, *found["gaussian_noise"]["test"])
    spread = max(np.std(row["pooled"], ddof=1), 0.02)
    assert abs(reached - row["pooled"][0]) < 4 * spread
