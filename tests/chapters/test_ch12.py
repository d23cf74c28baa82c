"""Chapter 12: right answers to its exercises; its experiment against torch's optimizers; the
full-size one at tiny size.
"""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mtl_course import data, records
from mtl_course.data.corruptions import STRENGTHS
from mtl_course.experiments import ch12, ch12_gpu, ch12_rates, ch12_worth
from mtl_course.transfer.penalties import l2_sp
from mtl_course.transfer.schedules import layer_groups

# ------------------------------------------------------------------------------------------- digits
TINY = replace(
    ch12.Digits(),
    width=5,
    depth=2,
    source_steps=3,
    steps=6,
    shots=(2,),
    rates=(0.01, 0.1),
    pulls=((0.01, 1e-2), (0.1, 1e-2)),
)


def study(**options):
    return ch12.Study(TINY, range(2), **options)


def test_a_table_of_rates_says_what_a_method_is():
    t = {m: ch12.rate_table(m, 0.1, 6, 3) for m in ch12.METHODS}
    for m in ("scratch", "full", "L2-SP"):
        assert (t[m] == 0.1).all()
    assert (t["linear probe"] == torch.tensor([0, 0, 0.1])).all()
    torch.testing.assert_close(
        t["layer-wise"], torch.tensor([0.1 / 2.6**2, 0.1 / 2.6, 0.1]).expand(6, 3)
    )
    assert (t["gradual"] > 0).sum(dim=0).tolist() == [2, 4, 6] and (t["gradual"][-1] == 0.1).all()
    assert (t["LP-FT"][:3] == torch.tensor([0, 0, ch12_rates.PROBE_RATE])).all() and (
        t["LP-FT"][3:] == 0.1
    ).all()
    with pytest.raises(ValueError, match="half"):
        ch12.rate_table("half", 0.1, 6, 3)


def test_every_method_has_the_same_number_of_trials():
    for plan in (ch12.Digits(), TINY):
        assert {len(ch12.settings(m, plan)) for m in ch12.METHODS} == {len(plan.rates)}
    assert len(ch12_gpu.Photos().pulls) == len(ch12_gpu.Photos().rates)


@pytest.mark.parametrize("method", ["full", "L2-SP", "layer-wise", "gradual", "LP-FT"])
def test_runs_trained_together_are_those_of_torchs_optimizer(method):
    found = study()
    x, y = found.all["MNIST"]
    x, rows = ch12.standard(x), torch.arange(20)[None].repeat(2, 1)
    tables = [ch12.rate_table(method, rate, 6, 3) for rate in (0.01, 0.05)]
    pulls = [0.0, 0.1] if method == "L2-SP" else [0.0, 0.0]
    trunk = {name: p for name, p in found.source.items() if name.startswith("trunk")}
    together = ch12.train_runs(
        found.model,
        found.source,
        x,
        y,
        rows,
        torch.stack(tables, dim=2),
        batch=7,
        seed=3,
        strength=torch.tensor(pulls),
        source=trunk,
    )
    for run, (table, pull) in enumerate(zip(tables, pulls, strict=True)):
        model = copy.deepcopy(found.model)
        model.load_state_dict({name: p[run] for name, p in found.source.items()})
        optimizer = torch.optim.SGD(layer_groups(model, 0.1, 1.0), momentum=0.9)
        order = torch.Generator().manual_seed(3)
        for rates in table:
            for group, rate in zip(optimizer.param_groups, rates.tolist(), strict=True):
                group["lr"] = rate
                for p in group["params"]:
                    p.requires_grad_(rate > 0)
            pick = torch.randint(20, (7,), generator=order)
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[pick]), y[pick])
            (
                loss
                + l2_sp(
                    dict(model.named_parameters()),
                    {name: p[run] for name, p in trunk.items()},
                    pull,
                )
            ).backward()
            optimizer.step()
        for name, p in model.named_parameters():
            torch.testing.assert_close(together[name][run], p.detach(), rtol=1e-4, atol=1e-6)


def test_no_source_sees_what_a_target_is_judged_on():
    found = study()
    for target in ("MNIST", "UCI"):
        pool, validation, test = (set(rows.tolist()) for rows in found.parts(target))
        assert not (pool & validation or pool & test or validation & test)
        assert {int(found.all[target][1][row]) for row in pool | validation | test} == {6, 7, 8, 9}
        if target == "MNIST":
            for digits in (6, 10):
                seen = set(found.source_rows(digits).tolist())
                assert not seen & (validation | test) and {
                    int(found.all[target][1][row]) for row in seen
                } == set(range(digits))


def test_comparison_has_a_value_per_seed_and_the_setting_that_was_best_on_validation_images():
    rows = study().compare("UCI", 2)
    assert list(rows) == list(ch12.METHODS)
    for row in rows.values():
        assert all(len(row[kind]) == 2 for kind in (*ch12.SETS, *STRENGTHS, "setting"))
        for seed in range(2):
            reached = [trial["own"][seed] for trial in row["by setting"]]
            chosen = row["by setting"][int(np.argmax(reached))]
            assert row["setting"][seed] == (chosen["rate"], chosen["strength"])
    assert json.loads(json.dumps(rows))


def test_a_probe_keeps_the_sources_trunk_and_scratch_does_not_start_from_it():
    found = study()
    lines, trained = found.runs("MNIST", 2, ["linear probe", "scratch"])
    name = "trunk.1.weight"
    assert [line[0] for line in lines] == 2 * ["linear probe"] + 2 * ["scratch"]
    assert torch.equal(trained[name][:4], found.source[name].repeat(2, 1, 1))
    assert (trained[name][4:] - found.fresh([1000, 1001])[name].repeat(2, 1, 1)).abs().max() < 0.3
    assert not torch.isclose(trained[name][4:], found.source[name].repeat(2, 1, 1)).all(dim=2).any()


def test_a_probe_on_stored_features_is_the_probe_of_the_whole_network():
    found = study()
    _, trained = found.runs("MNIST", 2, ["linear probe"])
    x, y = found.all["MNIST"]
    pool = found.parts("MNIST")[0]
    rows = torch.stack(
        [pool[torch.from_numpy(data.per_class(y[pool].numpy(), 2, seed))] for seed in found.seeds]
    )
    fresh = found.fresh([1000, 1001])
    for k, rate in enumerate(TINY.rates):
        start = {
            name: (found.source if name.startswith("trunk") else fresh)[name] for name in fresh
        }
        rates = ch12.rate_table("linear probe", rate, TINY.steps, found.count)[:, :, None].expand(
            -1, -1, 2
        )
        whole = ch12.train_runs(
            found.model,
            start,
            ch12.standard(x),
            (y - 6).clamp_min(0),
            rows,
            rates,
            batch=TINY.batch,
            seed=2,
        )
        for name, p in whole.items():
            torch.testing.assert_close(trained[name][2 * k : 2 * k + 2], p, rtol=1e-4, atol=1e-5)


def test_a_converged_probe_is_the_logistic_regression_on_the_frozen_features():
    found = study()
    assert len(ch12.settings(ch12.CONVERGED, ch12.Digits())) == len(ch12.Digits().rates)
    lines, trained = found.runs("UCI", 3, ["full", ch12.CONVERGED])
    lines = [line for line in lines if line[0] == ch12.CONVERGED]
    assert [line[2] for line in lines] == list(TINY.penalties)
    x, y = found.all["UCI"]
    pool = found.parts("UCI")[0]
    for k, strength in enumerate(TINY.penalties):
        for seed in range(2):
            one = {name: p[2 * k + seed] for name, p in trained.items()}  # the probes come first
            assert torch.equal(one["trunk.1.weight"], found.source["trunk.1.weight"][seed])
            model = copy.deepcopy(found.model)
            model.load_state_dict(one)
            rows = pool[torch.from_numpy(data.per_class(y[pool].numpy(), 3, seed))]
            with torch.no_grad():
                logits = model(ch12.standard(x[rows]))
            assert logits[:, 4:].max() == -torch.inf  # labels that the target lacks
            # the gradient of the penalised loss is zero, as scikit-learn scales it
            weight = one["head.weight"][:4].double().requires_grad_()
            bias = one["head.bias"][:4].double().requires_grad_()
            z = model.trunk(ch12.standard(x[rows])).detach().double()
            loss = torch.nn.functional.cross_entropy(
                z @ weight.T + bias, y[rows] - 6, reduction="sum"
            )
            objective = strength * loss + weight.square().sum() / 2
            for g in torch.autograd.grad(objective, [weight, bias]):
                assert g.abs().max() < 1e-2 * max(1.0, strength)


def test_a_broad_source_has_seen_every_corruption_a_narrow_one_clean_images():
    x, y = torch.rand(5, 1, 14, 14), torch.arange(5)
    views, labels = ch12.many_kinds(x, y)
    assert (
        len(views) == len(labels) == 5 * (1 + 2 * len(STRENGTHS))
        and torch.equal(views[:5], x)
        and (labels.view(-1, 5) == y).all()
    )
    assert not torch.equal(study(broad=False).source["head.weight"], study().source["head.weight"])


# -------------------------------------------------------------------------------------- photographs
class Arrays(dict):
    """What the experiment uses of a data set."""

    def __init__(self, info, **arrays):
        super().__init__(arrays)
        self.info = info


DIGITS = data.load("digits")


def digits_in_its_place(name):
    """Handwritten digits, real ones, in the arrays that the partial set would have: 12 images a
    class; the whole sets cannot be had.
    """
    if not name.endswith("_partial"):
        raise data.DataError("no network")
    classes = {"cifar10_partial": 3, "cifar100_partial": 4}[name]
    rows = np.concatenate([np.flatnonzero(DIGITS["y"] == c)[:24] for c in range(classes)])
    x = (
        (15 * DIGITS["x"][rows].astype(int))
        .astype(np.uint8)
        .repeat(4, axis=1)
        .repeat(4, axis=2)[..., None]
        .repeat(3, axis=3)
    )
    y, own = DIGITS["y"][rows], np.arange(len(rows)) % 2 == 0
    return Arrays(data.info(name), x_train=x[own], y_train=y[own], x_test=x[~own], y_test=y[~own])


def test_full_size_experiment_runs_at_tiny_size_and_names_the_partial_sets(monkeypatch):
    monkeypatch.setattr("mtl_course.data.door.load", digits_in_its_place)
    monkeypatch.setattr(ch12_gpu, "fastest", lambda: torch.device("cpu"))
    plan = ch12_gpu.Photos(
        depths=(1, 1),
        widths=(4, 6),
        source_epochs=2,
        batch=8,
        shots=(2, 500),
        held_out=40,
        epochs=2,
        updates=1,
        rates=(0.01,),
        pulls=((0.01, 1e-2),),
    )
    said = []
    results = ch12.run("gpu", [0], said.append, plan=plan)
    assert list(results) == [
        "cifar10_partial to cifar100_partial",
        "cifar100_partial to cifar10_partial",
    ]
    for pair in results.values():
        assert list(pair) == ["2", "500"] and list(pair["2"]) == list(ch12.METHODS)
        for row in (row for methods in pair.values() for row in methods.values()):
            assert all(
                0 <= value <= 1 and len(row[kind]) == 1
                for kind in ("own", "corrupted", *STRENGTHS)
                for value in row[kind]
            )
    for method, row in results["cifar10_partial to cifar100_partial"]["500"].items():
        (phases,) = row["history"]
        # LP-FT has two phases, gradual unfreezing one for each layer: here the stem, two residual
        # blocks and the head.
        assert len(phases) == {"LP-FT": 2, "gradual": 4}.get(method, 1)
        assert all(
            len(phase["train"]) == len(phase["validation"]) >= 1 and phase["best_epoch"] >= 0
            for phase in phases
        )
    assert json.loads(json.dumps(results)) and any(
        "cifar100_partial, 500 per class" in line for line in said
    )


def test_photographs_are_split_without_overlap_and_keep_the_test_images_in_range(monkeypatch):
    monkeypatch.setattr("mtl_course.data.door.load", digits_in_its_place)
    parts = ch12_gpu.photos("cifar100", torch.device("cpu"), held_out=40)
    assert [len(parts[part][1]) for part in ("train", "validation", "test")] == [44, 4, 48]
    assert (
        parts["test"][0].min() >= 0 and parts["test"][0].max() <= 1 and parts["train"][0].min() < 0
    )
    assert parts["validation"][1].bincount().tolist() == [1, 1, 1, 1]


def test_padding_is_background_so_that_no_frame_is_seen():
    x = ch12.padded(torch.zeros(2, 1, 14, 14))
    assert x.shape == (2, 1, 16, 16) and x.unique().numel() == 1


def test_a_source_with_norms_is_judged_on_images_that_it_was_not_trained_on(monkeypatch):
    seen = []
    monkeypatch.setattr(
        ch12, "fit", lambda model, train, held_out, *rest, **options: seen.extend([train, held_out])
    )
    model, held_out = ch12.norm_source(study(), 0)
    assert len(seen[0][1]) == 4000 and len(held_out[1]) == 1000 and held_out is seen[1]
    everything = torch.cat([seen[0][0], held_out[0]]).flatten(1).sum(dim=1).sort().values
    torch.testing.assert_close(
        everything, ch12.padded(study().all["MNIST"][0]).flatten(1).sum(dim=1).sort().values
    )
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.trunk)


# ------------------------------------------------------------------------------- small photographs
SMALL = ch12_worth.Worth(
    side=8,
    depths=(1, 1),
    widths=(4, 6),
    source_images=48,
    source_epochs=1,
    source_batch=8,
    classes=3,
    shots=(2, 3, 4),
    searched=(3, 4),
    held_out=2,
    batch=8,
    steps=6,
    scratch_steps=8,
    rates=(0.01, 0.1),
    penalties=(0.1, 1.0),
    mixes=(0.0, 0.5, 1.0),
)


@pytest.fixture
def small(monkeypatch):
    """The plan, with handwritten digits in the place of photographs."""
    monkeypatch.setattr("mtl_course.data.door.load", digits_in_its_place)
    ch12_worth.photos.cache_clear()
    yield SMALL
    ch12_worth.photos.cache_clear()


def test_the_worth_of_pretraining_is_measured_on_every_seed_at_the_rates_that_validated_best(small):
    found = ch12_worth.run_worth(range(2), lambda line: None, plan=small)
    assert json.loads(json.dumps(found)) == found and len(found["source"]) == 2
    searched = {shots: list(rows) for shots, rows in found["search"].items()}
    assert searched == {"3": ["scratch", *ch12_worth.TUNED], "4": ["scratch"]}
    for shots, rows in found["accuracy"].items():
        ends = {ch12.CONVERGED, ch12_worth.RANDOM}
        assert set(rows) - ends == set(found["rates"][shots])
        assert all(len(row[kind]) == 2 for row in rows.values() for kind in ("own", "corrupted"))
    assert set(found["accuracy"]["3"]) > set(ch12_worth.FEW)
    assert not set(found["accuracy"]["2"]) & set(ch12_worth.FEW)
    for shots, tried in (("2", "3"), ("3", "3"), ("4", "4")):
        trials = found["search"][tried]["scratch"]
        best = max(trials, key=lambda rate: np.mean(trials[rate]))
        assert found["rates"][shots]["scratch"] == float(best)
    assert found["rates"]["4"]["full"] == found["rates"]["3"]["full"]
    for shots in ("3", "4"):  # WiSE-FT goes from the converged probe to LP-FT
        own, rows = found["mixes"][shots]["own"], found["accuracy"][shots]
        assert [path[0] for path in own] == pytest.approx(rows[ch12.CONVERGED]["own"])
        assert [path[-1] for path in own] == pytest.approx(rows["LP-FT"]["own"])


def test_the_longer_comparison_has_more_labels_and_more_steps_for_every_method(monkeypatch):
    asked = []
    monkeypatch.setattr(ch12_worth, "run_worth", lambda *a, plan: asked.append((a, plan)) or {})
    report = print
    assert ch12.RECORDS["longer"]([3], report) == {}
    [(given, plan)] = asked
    assert given == ([3], report)
    assert plan.steps == plan.scratch_steps > 2 * ch12_worth.PLAN.scratch_steps
    assert max(plan.shots) > max(ch12_worth.PLAN.shots)
    assert set(plan.rates) > set(ch12_worth.PLAN.rates)
    same = {"shots": None, "searched": None, "rates": None, "steps": 0, "scratch_steps": 0}
    assert replace(plan, **same) == replace(ch12_worth.PLAN, **same)


def test_small_photographs_for_training_validation_and_test_do_not_meet(small):
    target = ch12_worth.Target(small, 0)
    assert len(set(target.classes.tolist())) == 3
    few, more = (target.train(shots)[0] for shots in (2, 4))
    held, test = target.validation[0], ch12_worth.centred(target.test[0])
    assert [len(x) for x in (few, more, held)] == [6, 12, 6]

    def same(a, b):
        return torch.cdist(a.flatten(1), b.flatten(1)).min(dim=1).values < 1e-5

    assert same(few, more).all()  # fewer labels are among more
    assert not same(more, held).any() and not same(more, test).any()
    assert target.train(2)[1].bincount().tolist() == [2, 2, 2]
    other = ch12_worth.Target(small, 1)
    assert not torch.equal(other.train(4)[0], more)


def test_a_layer_with_a_rate_of_zero_keeps_weights_and_statistics(small):
    model = ch12_worth.network(small, 3, 0)
    before = copy.deepcopy(model.state_dict())
    table = torch.tensor([0.0, 0.0, 0.1, 0.1]).expand(3, -1)
    x, y = ch12_worth.Target(small, 0).train(4)
    ch12_worth.tune(model, table, x, y, 8, seed=0)
    moved = {name for name, v in model.state_dict().items() if not torch.equal(v, before[name])}
    assert any("running_mean" in name for name in moved) and "head.weight" in moved
    assert all(name.startswith(("trunk.stages.1", "head")) for name in moved)


def test_the_weights_of_wise_ft_lie_between_those_of_both_ends(small):
    a, b = (ch12_worth.network(small, 3, seed) for seed in (0, 1))
    b.trunk.stem[1].running_mean += 1
    ends = [ch12_worth.mixed(a, b, share).state_dict() for share in (0.0, 0.25, 1.0)]
    for name, p in a.state_dict().items():
        q = b.state_dict()[name]
        assert torch.equal(ends[0][name], p) and torch.allclose(ends[2][name].float(), q.float())
        if p.is_floating_point():
            torch.testing.assert_close(ends[1][name], 0.75 * p + 0.25 * q)


def test_a_source_comes_back_from_its_weights(small):
    kept = ch12_worth.source_weights(small, 0)
    again = json.loads(json.dumps({name: p.tolist() for name, p in kept["weights"].items()}))
    x = torch.rand(2, 3, 8, 8)
    first, second = (ch12_worth.loaded(small, weights) for weights in (kept["weights"], again))
    assert torch.equal(first(x), second(x))


def test_rates_fall_in_a_line():
    table = ch12_worth.falling(torch.full((4, 2), 0.1))
    torch.testing.assert_close(table[:, 0], torch.tensor([0.1, 0.075, 0.05, 0.025]))


@pytest.fixture
def partial_sets(monkeypatch):
    """The sets that the record was made on, whatever else this machine has."""
    try:
        data.load("cifar100_partial")
    except data.DataError as error:
        pytest.skip(f"cifar100_partial cannot be had here: {error}")
    load = data.load
    monkeypatch.setattr(
        "mtl_course.data.door.load",
        lambda name: load(name if name.endswith("_partial") else f"{name}_partial"),
    )
    ch12_worth.photos.cache_clear()
    yield
    ch12_worth.photos.cache_clear()


def test_a_part_of_one_seed_of_the_record_is_within_its_spread(partial_sets):
    """What needs no source: from scratch, and a probe of a trunk that nothing taught."""
    record = records.load("12", "photos")
    plan, seed, shots = ch12_worth.PLAN, record.provenance["seeds"][0], 5
    rate = record.results["rates"][str(shots)][ch12_worth.SCRATCH]
    target = ch12_worth.Target(plan, seed)
    fresh = ch12_worth.network(plan, plan.classes, 1000 + seed)
    models = {
        ch12_worth.RANDOM: ch12_worth.probed(fresh, target, shots)[0],
        ch12_worth.SCRATCH: ch12_worth.tuned(ch12_worth.SCRATCH, rate, fresh, target, shots, seed),
    }
    for method, model in models.items():
        found = target.tested(model)
        for kind in ch12_worth.KINDS:
            recorded = np.array(record.results["accuracy"][str(shots)][method][kind])
            near = 3 * recorded.std(ddof=1) + 0.01
            assert abs(found[kind] - recorded[0]) < near, (method, kind)
