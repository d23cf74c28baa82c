"""Chapter 8: its data sets, what its experiment counts and compares, the pictures' numbers, and
both profiles at a tiny size.
"""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from data_tools import need
from torch import nn

from mtl_course import data, records
from mtl_course.data.batches import Separate
from mtl_course.experiments import (
    ch08,
    ch08_compare,
    ch08_gpu,
    ch08_large,
    ch08_partner,
    ch08_photos,
)
from mtl_course.multitask.fit import evaluate_tasks
from mtl_course.multitask.sharing import HardSharing


# --------------------------------------------------------------------------------------------- data
def test_parts_are_disjoint_balanced_and_remapped_and_the_test_does_not_change():
    y = torch.arange(600) % 10
    x = torch.arange(600.0)[:, None]  # an image that is its row number
    draws = [ch08.drawn(x, y, (6, 7, 8, 9), (20, 10, 30), seed) for seed in (0, 1)]
    for draw in draws:
        rows = [draw[part][0].squeeze(1).long() for part in ch08.PARTS]
        assert len(torch.cat(rows).unique()) == 4 * 60
        for part, n in zip(ch08.PARTS, (20, 10, 30), strict=True):
            held, labels = draw[part]
            assert torch.equal(y[held.squeeze(1).long()] - 6, labels)
            assert torch.equal(labels.bincount(), torch.full((4,), n))
    assert torch.equal(
        draws[0]["test"][0].sort(dim=0).values, draws[1]["test"][0].sort(dim=0).values
    )
    assert not torch.equal(draws[0]["train"][0], draws[1]["train"][0])


def test_label_sets_have_the_sizes_that_the_chapter_names():
    same, other = (
        ch08.label_sets(partner, 5, 0, replace(ch08.SETS, side=4)) for partner in ch08.PARTNERS
    )
    assert same.classes == {"mnist": 4, "uci": 4} and other.classes == {"mnist": 6, "uci": 4}
    for held in (same, other):
        sizes = {
            part: {name: len(y) for name, (_, y) in held.parts[part].sets.items()}
            for part in ch08.PARTS
        }
        assert sizes["train"] == {"mnist": 960, "uci": 20} and sizes["test"]["uci"] == 360
        assert held.steps(64) == 15
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            same.parts["train"].sets["uci"], other.parts["train"].sets["uci"], strict=True
        )
    )


def test_a_network_alone_sees_as_many_batches_of_as_many_rows():
    held = ch08.label_sets("other digits", 5, 0, replace(ch08.SETS, side=4))
    order = torch.Generator().manual_seed(0)
    joint = [
        {name: len(y) for name, (_, y) in b.targets.items()}
        for b in held.parts["train"].batches(64, order)
    ]
    for name in held.classes:
        alone, batch = held.only([name], 64)
        own = [len(b.x) for b in alone.parts["train"].batches(batch, order)]
        assert own == [sizes[name] for sizes in joint] and alone.steps(batch) == len(joint) == 15
        assert alone.classes == {name: held.classes[name]}
    x, _ = held.only(["uci"], 64)[0].parts["train"].sets["uci"]
    assert len(x.unique(dim=0)) == 20  # the same twenty images, again and again


def test_the_sum_is_that_of_the_two_digits_and_test_images_are_fixed():
    plan = replace(ch08.DIGITS, side=6)
    first, second = (ch08.one_image(seed, plan, pairs=(50, 20, 30)) for seed in (0, 1))
    whole = first.parts["train"].whole().targets
    assert (
        torch.equal(whole["left"][1] + whole["right"][1], whole["sum"][1])
        and first.classes["sum"] == 19
    )
    assert torch.equal(first.parts["test"].x, second.parts["test"].x) and not torch.equal(
        first.parts["train"].x, second.parts["train"].x
    )


def arrays_of_colour(n, classes):
    """Real images, of handwritten digits, in the arrays of a colour set: not CIFAR, and not called
    so.
    """
    ds = data.load("digits")
    x = np.repeat(np.asarray(ds.x).reshape(-1, 8, 8)[:n], 4, axis=1).repeat(4, axis=2)
    x = np.stack([np.clip(x * scale, 0, 255) for scale in (4, 9, 15)], axis=3).astype(np.uint8)
    y = (np.arange(n) % classes).astype(np.int64)
    return {"x_train": x, "y_train": y, "x_test": x[: n // 4], "y_test": y[: n // 4]}


def test_a_tenth_of_each_class_is_for_validation_and_pixels_are_scaled_by_the_training_part():
    arrays = arrays_of_colour(400, 4)
    # Two colours of the first pixel hold the row's number.
    arrays["x_train"][:, 0, 0, 0] = np.arange(400) % 256
    arrays["x_train"][:, 0, 0, 1] = np.arange(400) // 256
    parts = ch08_gpu.colour_parts(arrays, seed=0)
    assert {part: len(y) for part, (_, y) in parts.items()} == {
        "train": 360,
        "validation": 40,
        "test": 100,
    }
    assert torch.equal(parts["validation"][1].bincount(), torch.full((4,), 10))
    x = parts["train"][0]
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    assert x.shape[1:] == (3, 32, 32) and x.is_contiguous(memory_format=torch.channels_last)
    corner = torch.cat([parts[part][0][:, :2, 0, 0] for part in ("train", "validation")])
    assert len(corner.unique(dim=0)) == 400  # every row once
    assert len(ch08_gpu.colour_parts(arrays, seed=0, limit=12)["train"][1]) == 12
    other = ch08_gpu.colour_parts(arrays, seed=1)
    assert not torch.equal(other["validation"][0], parts["validation"][0]) and torch.equal(
        other["test"][1], parts["test"][1]
    )


# --------------------------------------------------------------------------------- what is compared
@pytest.mark.parametrize("plan", [ch08.SETS, ch08.DIGITS, ch08.CIFAR])
def test_the_wide_network_has_the_parameters_and_multiply_adds_of_two(plan):
    classes = {"a": 10, "b": 10}
    wide = ch08.cost(plan.wide, classes)
    alone = [ch08.cost(plan, {name: 10}) for name in classes]
    for k in range(2):
        assert wide[k] == pytest.approx(sum(c[k] for c in alone), rel=0.05)
        # A second head is little.
        assert ch08.cost(plan, classes)[k] == pytest.approx(alone[0][k], rel=0.15)


def test_the_rate_is_chosen_on_validation_data_of_the_first_two_seeds(monkeypatch):
    plan = replace(ch08.SETS, rates=(0.1, 0.2, 0.4))
    held = ch08.label_sets("same digits", 5, 0, replace(plan, side=4))
    asked = []

    def fake(held, plan, rate, seed, batch):
        asked.append((seed, rate))
        good = {
            (0, 0.1): 0.9,
            (1, 0.1): 0.1,
            (0, 0.2): 0.6,
            (1, 0.2): 0.6,
            (0, 0.4): 0.1,
            (1, 0.4): 0.9,
        }
        return (seed, rate), good.get((seed, rate), 0.0), {"uci": [0.5]}

    monkeypatch.setattr(ch08_compare, "train", fake)
    monkeypatch.setattr(ch08_compare, "accuracy", lambda model, held: {"uci": model[1] + model[0]})
    row, models = ch08.tuned(dict.fromkeys((0, 1, 2), held), ["uci"], plan)
    assert row["rate"] == 0.2 and row["accuracy"]["uci"] == [0.2, 1.2, 2.2]
    assert asked[:6] == [(seed, rate) for seed in (0, 1) for rate in plan.rates] and asked[6:] == [
        (2, 0.2)
    ]
    assert models == {seed: (seed, 0.2) for seed in (0, 1, 2)}


def test_gains_are_delta_m():
    rows = {
        "alone": {"accuracy": {"a": [0.5, 0.8], "b": [0.8, 0.5]}},
        "joint": {"accuracy": {"a": [0.6, 0.8], "b": [0.8, 0.4]}},
    }
    np.testing.assert_allclose(ch08.gains(rows), [10.0, -10.0])


# ------------------------------------------------------------------------------------- the pictures
class Known(nn.Module):
    """A trunk whose features are the image's first two pixels, and the second head's only the
    first.
    """

    def forward(self, x):
        return x.flatten(1)[:, :2]


def test_names_are_carried_where_the_class_means_lie_alike():
    y = torch.arange(40) % 4
    corners = torch.tensor([[0.0, 0.0], [0.0, 5.0], [5.0, 0.0], [5.0, 5.0]])

    def sets(shift, order):
        x = torch.zeros(40, 1, 2, 2)
        x[:, 0, 0, :] = corners[torch.tensor(order)[y]] + shift
        return x, y

    def held(order):
        return ch08.Data(
            {
                "train": Separate({"mnist": sets(0.0, [0, 1, 2, 3])}),
                "test": Separate({"uci": sets(7.0, order)}),
            },
            {"mnist": 4, "uci": 4},
        )

    model = HardSharing(Known(), {})
    # A shift of the whole set does not count.
    assert ch08.names_carried(model, held([0, 1, 2, 3])) == 1.0
    assert ch08.names_carried(model, held([1, 0, 2, 3])) == 0.5


def test_gaze_is_the_gradient_of_the_true_logit():
    heads = {name: nn.Linear(2, 2, bias=False) for name in ("left", "right")}
    with torch.no_grad():
        heads["left"].weight.copy_(torch.tensor([[3.0, 1.0], [0.0, 1.0]]))
        heads["right"].weight.copy_(torch.tensor([[0.0, -2.0], [0.0, 0.0]]))
    x, labels = (
        torch.randn(4, 1, 2, 2),
        {"left": torch.tensor([0, 0, 1, 1]), "right": torch.tensor([0, 0, 0, 0])},
    )
    found = ch08.gaze(HardSharing(Known(), heads), x, labels)
    torch.testing.assert_close(found["left"], torch.tensor([[1.5, 1.0], [0.0, 0.0]]) / 2.5)
    torch.testing.assert_close(found["right"], torch.tensor([[0.0, 1.0], [0.0, 0.0]]))


def test_upper_left_halves_the_square():
    assert ch08.upper_left(torch.ones(5, 5)) == pytest.approx(0.5)
    corner = torch.zeros(4, 4)
    corner[0, 0] = corner[1, 1] = 2.0
    assert ch08.upper_left(corner) == 1.0 and ch08.upper_left(corner.flip(0, 1)) == 0.0


# --------------------------------------------------------------------------------------- two passes
def test_two_passes_take_the_same_examples_and_own_statistics_leave_no_trace():
    plan = replace(ch08.SETS, side=8, widths=(2, 4), epochs=1, batch=120)
    held = ch08.label_sets("same digits", 5, 0, plan)
    model = ch08.in_two_passes(held, plan, 0.1, 0)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    assert before["trunk.stem.1.num_batches_tracked"] == 2 * held.steps(120)
    found = ch08.own_statistics(model, held)
    assert (
        found.keys() == held.classes.keys()
        and all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
        and not model.training
    )
    x, y = held.parts["test"].sets["uci"]
    model.train()
    assert found["uci"] == pytest.approx(float((model(x)["uci"].argmax(1) == y).float().mean()))


def test_one_pass_and_two_passes_agree_where_there_is_no_batch_norm(monkeypatch):
    """The two loops differ in nothing but what BatchNorm sees."""
    plan = replace(ch08.SETS, side=4, epochs=1, batch=120)
    held = ch08.label_sets("same digits", 5, 0, plan)

    def plain(plan, classes, seed):
        torch.manual_seed(seed)
        trunk = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh())
        return HardSharing(trunk, {name: nn.Linear(6, n) for name, n in classes.items()})

    for module in (ch08, ch08_compare):
        monkeypatch.setattr(module, "network", plain)
    one, two = ch08.train(held, plan, 0.1, 0)[0], ch08.in_two_passes(held, plan, 0.1, 0)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------ both profiles
@pytest.mark.slow
def test_the_cpu_profile_runs_at_a_tiny_size():
    tiny, lines = {"widths": (2, 4), "epochs": 1, "rates": (0.1,), "side": 8}, []
    plan = {
        "label sets": replace(ch08.SETS, batch=120, **tiny),
        "one image": replace(ch08.DIGITS, batch=248, **tiny),
    }
    assert plan.keys() == ch08.PLANS["cpu"].keys()
    found = ch08.run("cpu", [0, 1, 2], lines.append, plan=plan)
    assert len(lines) == 4 + 1 + 3
    assert list(found["label sets"]) == [
        f"{few} labels, {partner}" for few in (5, 50) for partner in ch08.PARTNERS
    ]
    for case, rows in found["label sets"].items():
        assert rows.keys() == {"alone", "joint"} | (
            {"joint, wide"} if case.startswith("5 ") else set()
        )
        assert all(
            len(row["accuracy"]["uci"]) == 3 and len(row["history"]["uci"]) == 3
            for row in rows.values()
        )
        assert len(ch08.gains(rows)) == 3
    uci = [
        found["label sets"][f"5 labels, {partner}"]["alone"]["accuracy"]["uci"]
        for partner in ch08.PARTNERS
    ]
    assert uci[0] == uci[1]  # trained once
    assert found["names carried"].keys() == {
        "untrained",
        "MNIST alone",
        "joint, same digits",
        "joint, other digits",
    }
    assert found["two passes"].keys() == {"one batch", "two passes", "two passes, own statistics"}
    assert found["one image"]["three tasks"]["joint"]["accuracy"].keys() == {"left", "right", "sum"}
    assert len(found["gaze, upper left"]["left"]) == 3


TINY_CIFAR = replace(
    ch08.CIFAR, widths=(2, 4, 4), depths=(1, 1, 1), epochs=1, rates=(0.1, 0.2), batch=16, limit=96
)


def test_the_full_size_code_runs_on_tiny_arrays(monkeypatch):
    """The path of the gpu profile, augmentation and schedule included, on a few real images that
    are not CIFAR.
    """
    sets = {
        name: ch08_gpu.colour_parts(arrays_of_colour(n, c), 0)
        for name, n, c in (("few", 120, 4), ("many", 240, 12))
    }
    held = ch08.Data(
        {part: Separate({name: s[part] for name, s in sets.items()}) for part in ch08.PARTS},
        {"few": 4, "many": 12},
    )
    monkeypatch.setattr(
        ch08_gpu,
        "cifar_pair",
        lambda seed, plan, device: (held, {"few": "digits", "many": "digits"}),
    )
    monkeypatch.setattr(ch08, "fastest", lambda: torch.device("cpu"))
    assert ch08.PLANS["gpu"].keys() == {"CIFAR"}
    found = ch08.run("gpu", [0, 1, 2], plan={"CIFAR": TINY_CIFAR})
    rows = found["label sets"]["CIFAR-10 and CIFAR-100"]
    assert found["sets"] == {"few": "digits", "many": "digits"} and rows.keys() == {
        "alone",
        "joint",
        "joint, wide",
    }
    assert all(len(rows[m]["accuracy"]["many"]) == 3 for m in rows)


def test_without_a_network_the_partial_sets_take_their_place_under_their_own_names(monkeypatch):
    asked, arrays = [], arrays_of_colour(60, 6)

    class Found(dict):
        info = None

    def load(name):
        asked.append(name)
        if name == "cifar100":
            raise data.DataError("no network")
        found = Found(arrays)
        found.info = SimpleNamespace(name=name)
        return found

    monkeypatch.setattr("mtl_course.data.door.load", load)
    held, names = ch08_gpu.cifar_pair(0, TINY_CIFAR)
    assert asked == ["cifar10", "cifar100", "cifar100_partial"] and names == {
        "cifar10": "cifar10",
        "cifar100": "cifar100_partial",
    }
    assert held.classes == {"cifar10": 10, "cifar100": 100} and set(held.parts) == set(ch08.PARTS)


@pytest.mark.slow
def test_the_gpu_profile_runs_on_the_partial_sets(data_root, monkeypatch):
    need("cifar10_partial", "cifar100_partial")
    whole = data.load
    monkeypatch.setattr(
        "mtl_course.data.door.load",
        lambda name: whole(name if name.endswith("_partial") else f"{name}_partial"),
    )
    monkeypatch.setattr(ch08, "fastest", lambda: torch.device("cpu"))
    found = ch08.run("gpu", [0, 1, 2], plan={"CIFAR": replace(TINY_CIFAR, rates=(0.1,))})
    assert found["sets"] == {"cifar10": "cifar10_partial", "cifar100": "cifar100_partial"}
    assert len(found["label sets"]["CIFAR-10 and CIFAR-100"]["joint"]["accuracy"]["cifar100"]) == 3


def test_further_seeds_take_the_rates_of_the_record():
    tiny = replace(ch08.SETS, widths=(2, 4), epochs=1, batch=120, side=8)
    lines = []
    found = ch08.run_further([90, 91], lines.append, plan=tiny)
    recorded = records.load("08", "cpu").results["label sets"]
    assert len(lines) == 2 and found["uci"].keys() == ch08.PARTNERS.keys()
    for partner, methods in found["uci"].items():
        rows = recorded[f"5 labels, {partner}"]
        assert found["rates"][partner] == {method: row["rate"] for method, row in rows.items()}
        assert list(methods) == ["alone", "joint", "joint, wide"]
        assert all(len(values) == 2 for values in methods.values())
    # the network alone does not depend on the partner
    alone = [methods["alone"] for methods in found["uci"].values()]
    assert alone[0] == alone[1]
    with pytest.raises(ValueError, match=r"chosen on the seeds \[9\]"):
        ch08.run_further([9, 10])


def test_a_rival_spends_no_more_than_the_joint_network():
    tiny = replace(ch08.SETS, widths=(2, 4), epochs=5, side=8)
    held = ch08.label_sets("same digits", 5, 0, tiny)
    batch = next(held.parts["train"].batches(64, torch.Generator().manual_seed(0)))
    steps = tiny.epochs * held.steps(64)
    joint = ch08.cost(tiny, held.classes)[1] * len(batch.x) * steps
    plans = ch08.rivals(tiny)
    found = ch08.run_rivals([0, 1, 2], print, plan=replace(tiny, epochs=1))
    assert found.keys() == plans.keys()
    assert plans["alone, all the compute"].epochs == 21  # 5 times 4.2
    for name, row in found.items():
        assert len(row["accuracy"]) == 3 and row["rate"] in ch08.WIDER_GRID
        assert max(row["validation"], key=lambda r, v=row["validation"]: np.mean(v[r])) == str(
            row["rate"]
        )
        assert row["compute"] == ch08.cost(plans[name], {"uci": 4})[1] * 20 * 15 * (
            4 if "all" in name else 1
        )
    for name, plan in plans.items():
        compute = ch08.cost(plan, {"uci": 4})[1] * 20 * 15 * plan.epochs
        assert compute <= joint, name


# ---------------------------------------------------------------------------------------- photos
TINY_PHOTOS = ch08_photos.Photos(
    widths=(2, 4, 4),
    steps=8,
    batch=8,
    rates=(0.05, 0.1),
    labels=(2,),
    headline=3,
    classes=4,
    partner=5,
    held_out=(2, 3),
)


@pytest.fixture
def no_photos(monkeypatch):
    """Coloured noise under the names of both sets: 15 photos per class, told apart by pixels."""
    g = torch.Generator().manual_seed(0)
    sets = {
        name: (torch.randn(15 * c, 3, 16, 16, generator=g), torch.arange(15 * c) % c, f"{name}, no")
        for name, c in (("cifar100", 100), ("cifar10", 10))
    }
    for module in (ch08_photos, ch08_partner):
        monkeypatch.setattr(module, "photos", sets.__getitem__)
    ch08_partner.source.cache_clear()
    return sets


def test_a_photo_is_halved_by_the_means_of_four_pixels():
    x = np.random.RandomState(0).randint(0, 256, (2, 4, 6, 3)).astype(np.uint8)
    small = ch08_photos.halved(x)
    assert small.shape == (2, 3, 2, 3)
    assert float(small[1, 2, 1, 0]) == pytest.approx(x[1, 2:4, 0:2, 2].mean() / 64 - 2)


def test_photos_are_dealt_apart_and_the_test_does_not_change():
    y = np.arange(600) % 10
    first, second = (ch08_photos.dealt(y, [7, 2], 20, (10, 30), seed) for seed in (0, 1))
    for rows in (first, second):
        every = np.concatenate(list(rows.values()))
        assert len(set(every)) == len(every) == 2 * 60
        for part, n in zip(ch08.PARTS, (20, 10, 30), strict=True):
            assert y[rows[part]].tolist() == [7] * n + [2] * n
    assert (first["test"] == second["test"]).all()
    assert set(first["train"]) != set(second["train"])
    # fewer labels are some of the same labels
    assert set(ch08_photos.dealt(y, [7, 2], 5, (10, 30), 0)["train"]) < set(first["train"])


def test_a_draw_numbers_its_own_classes(no_photos):
    first, second = (ch08_photos.draw(seed, 3, TINY_PHOTOS) for seed in (0, 1))
    assert first.classes == {"few": 4, "many": 10}
    x, y = first.parts["train"].sets["few"]
    assert y.tolist() == [c for c in range(4) for _ in range(3)]
    pixels, labels, _ = no_photos["cifar100"]
    theirs = [int(labels[(pixels == photo).flatten(1).all(1)]) for photo in x]
    assert theirs[::3] == np.random.RandomState(0).permutation(100)[:4].tolist()
    assert theirs == [theirs[3 * (k // 3)] for k in range(12)]
    assert not torch.equal(x, second.parts["train"].sets["few"][0])
    assert len(first.parts["train"].sets["many"][1]) == 50


def test_a_network_alone_meets_the_photos_of_the_joint_one(no_photos, monkeypatch):
    met = {}
    for tasks in (("few",), ("few", "many")):
        seen = met[tasks] = []
        monkeypatch.setattr(
            ch08_photos, "compose", lambda *_, seen=seen: lambda x, g: seen.append(x) or x
        )
        held = ch08_photos.draw(0, 3, TINY_PHOTOS)
        model = ch08_photos.learned(held, tasks, TINY_PHOTOS.plan("alone"), 9, 0.1, 0)
        assert set(model.heads) == set(tasks) and not model.training
    alone, joint = met.values()
    assert len(alone) == len(joint) == 9
    for one, both in zip(alone, joint, strict=True):
        assert torch.equal(one, both[: len(one)]) and len(both) == 2 * len(one)


def test_the_plain_loop_is_that_of_the_headline(monkeypatch):
    """The chapter's loop, from its cell, with the same data: the same weights."""
    path = Path(__file__).parents[2] / "notebooks" / "08_cnn_multitask.ipynb"
    cells = ["".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"]]
    (cell,) = [c for c in cells if "def train_jointly(" in c]
    room = {"torch": torch, "nn": nn, "ch08": ch08}
    exec(cell[: cell.index("\nnet = ")], room)
    monkeypatch.setattr(ch08_photos, "compose", lambda *_: lambda x, g: x)
    held = ch08.label_sets("same digits", 5, 0)
    ours = room["train_jointly"](held, 6, 0.1, 3)
    theirs = ch08_photos.learned(held, ("mnist", "uci"), ch08.SETS, 6, 0.1, 3)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_experiment_on_photos_runs_at_a_tiny_size(no_photos):
    lines = []
    found = ch08_photos.run([0, 1, 2], lines.append, sizes=TINY_PHOTOS)
    assert found["sets"] == {"few": "cifar100, no", "many": "cifar10, no"}
    assert found["photos"]["few"] == {"train": 12, "validation": 8, "test": 12}
    assert list(found["accuracy"]) == list(ch08_photos.HEADLINE) and len(lines) == 6
    for method, parts in found["accuracy"].items():
        tasks = ch08_photos.METHODS[method][0]
        assert set(parts) == {"validation", "test"} and list(parts["test"]) == list(tasks)
        assert all(len(values) == 3 for values in parts["test"].values())
        assert found["rates"][method] in TINY_PHOTOS.rates
        trials = found["trials"][method]
        assert max(trials, key=lambda r, t=trials: np.mean(t[r])) == str(found["rates"][method])
    price = {method: row["compute"] for method, row in found["cost"].items()}
    assert price["alone, all the compute"] == 2 * price["alone"]
    assert price["alone, all the compute"] <= price["joint"] < 1.1 * price["alone"] * 2
    others = ch08_photos.run_budgets(
        [0, 1, 2], lines.append, sizes=TINY_PHOTOS, rates=found["rates"]
    )
    assert list(others["accuracy"]) == ["2"] and "joint" in others["accuracy"]["2"]
    wide = ch08_photos.run_wide([0, 1, 2], lines.append, sizes=TINY_PHOTOS, rates=found["rates"])
    assert list(wide["accuracy"]) == ["alone, wide", "joint, wide", "partner alone"]
    assert wide["cost"]["joint, wide"]["parameters"] > 1.5 * found["cost"]["joint"]["parameters"]
    fresh = ch08_photos.run_fresh([5, 1], lines.append, sizes=TINY_PHOTOS, rates=found["rates"])
    for method, parts in fresh["accuracy"].items():  # a seed gives what it gave in the headline
        assert parts["test"]["few"][1] == found["accuracy"][method]["test"]["few"][1]
    rate = found["rates"]["alone"]
    assert fresh["beyond"]["alone"].keys() == {"1.0"} and rate < 1
    for method, tried in fresh["beyond"].items():
        first = [ch08_photos.trial(method, 3, 1.0, seed, TINY_PHOTOS) for seed in (0, 1)]
        assert tried["1.0"] == [row["validation"]["few"] for row in first]


def test_fresh_draws_are_none_of_the_headlines():
    with pytest.raises(ValueError, match=r"holds the seeds \[4\]; take others"):
        ch08_photos.run_fresh([4, 5])


# ---------------------------------------------------------- photos: 20 classes beside 80 others
TINY_PARTNER = ch08_partner.Sizes(
    widths=(2, 4, 4),
    steps=16,
    few=4,
    many=12,
    alone=8,
    labels=3,
    partner=5,
    held_out=(2, 3),
    rates=(0.05, 0.1),
)


def test_a_draw_splits_the_hundred_classes(no_photos):
    sets = ch08_partner.draw(0, TINY_PARTNER)
    pixels, labels, _ = no_photos["cifar100"]
    theirs = {}
    for task, n in (("few", 3), ("many", 5)):
        x, y = sets[task]["train"]
        assert torch.equal(y, torch.arange(len(y)) // n)
        found = [int(labels[(pixels == photo).flatten(1).all(1)]) for photo in x]
        assert found == [found[n * (k // n)] for k in range(len(x))]
        theirs[task] = set(found)
    assert len(theirs["few"]) == 20 and len(theirs["many"]) == 80
    assert not theirs["few"] & theirs["many"]
    parts = torch.cat([x for x, _ in sets["few"].values()]).flatten(1)
    assert len(parts.unique(dim=0)) == len(parts) == 20 * (3 + 2 + 3)


def test_the_partners_experiment_runs_at_a_tiny_size(no_photos):
    lines = []
    found = ch08_partner.run([0, 1, 2], lines.append, sizes=TINY_PARTNER)
    assert found["set"] == "cifar100, no"
    assert found["photos"]["few"] == {"train": 60, "validation": 40, "test": 60}
    assert found["photos"]["many"]["train"] == 400
    assert len(lines) == len(found["trials"]) + 3 == 6
    assert found["accuracy"].keys() == TINY_PARTNER.shares.keys()
    for method, parts in found["accuracy"].items():
        assert {part: len(values) for part, values in parts.items()} == {"validation": 3, "test": 3}
        trials = found["trials"].get(method) or found["trials"]["alone, all the compute"]
        trials = {float(rate): np.mean(v) for rate, v in trials.items()}
        rate = found["rates"][method]
        assert trials[rate] == max(trials.values())
        low, high = TINY_PARTNER.bounds  # open at its edges
        assert min(trials) < rate < max(trials) or rate < 3 * low or rate > high / 3
        again = ch08_partner.trial(method, rate, 1, TINY_PARTNER)
        assert again == {part: values[1] for part, values in parts.items()}


def test_a_grid_is_widened_while_its_edge_is_best(monkeypatch):
    asked = []

    def fake(method, rate, seed, sizes):
        asked.append(rate)
        return {"validation": -abs(np.log(rate / best))}

    monkeypatch.setattr(ch08_partner, "_done", fake)
    for best, grid in (
        (0.1, [0.03, 0.1, 0.3]),
        (0.01, [0.003, 0.01, 0.03, 0.1, 0.3]),
        (0.001, [0.003, 0.01, 0.03, 0.1, 0.3]),
        (0.3, [0.03, 0.1, 0.3, 0.9]),
    ):
        asked.clear()
        rate, reached = ch08_partner.chosen("joint", [5, 6], ch08_partner.Sizes())
        assert list(reached) == grid and sorted(asked) == sorted(2 * grid)
        assert rate == max(best, 0.003)


@pytest.mark.parametrize("sizes", [TINY_PARTNER, replace(TINY_PARTNER, few=8, many=8)])
def test_the_price_of_each_method_is_what_its_training_passes(no_photos, monkeypatch, sizes):
    """Photos that go through a trunk in training, counted on their way."""
    met = []
    monkeypatch.setattr(ch08_partner, "compose", lambda *_: lambda x, g: met.append(len(x)) or x)
    # two rounds of the target's 60 photos end in a batch of 4: none does here
    sizes = replace(sizes, labels=4, partner=6)
    each = ch08_compare.cost(sizes.plan, {"few": 20, "many": 80})[1]
    for method, price in ch08_partner.priced(sizes).items():
        met.clear()
        ch08_partner.trial(method, 0.1, 3, sizes)
        assert sum(met) * each == price, method


def test_the_fine_tuned_network_starts_from_its_source(no_photos):
    sets, plan = ch08_partner.draw(0, TINY_PARTNER), TINY_PARTNER.plan
    state = ch08_partner.source(0, TINY_PARTNER)
    start = {name: t.clone() for name, t in state.items()}
    still = ch08_partner.learned(sets, {"few": 8}, plan, 8, 1e-12, 0, state)
    for name, t in still.trunk.named_parameters():
        torch.testing.assert_close(t, start[name])
    assert all(torch.equal(t, start[name]) for name, t in state.items())


def test_equal_batches_of_both_sets_make_the_loop_of_the_other_photographs(monkeypatch):
    """With one order and no augmentation, the networks of both experiments are the same."""
    held = ch08.label_sets("same digits", 5, 0)
    sets = {"uci": {"train": held.parts["train"].sets["uci"]}}
    plan, one = ch08.SETS, Separate({"uci": sets["uci"]["train"]})
    only = ch08.Data({"train": one}, {"uci": 4})
    for module in (ch08_photos, ch08_partner):
        monkeypatch.setattr(module, "compose", lambda *_: lambda x, g: x)
    ours = ch08_partner.learned(sets, {"uci": 20}, plan, 6, 0.1, 3)
    theirs = ch08_photos.learned(only, ("uci",), replace(plan, batch=20), 6, 0.1, 3)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_pages_have_labels_that_fit_their_ink():
    x, y = ch08_large.pages(6, 3)
    assert x.shape == (6, 1, 224, 224) and y["kind"].shape == (6, 224, 224)
    assert set(y["count"].tolist()) <= {0, 1, 2} and set(y["kind"].unique().tolist()) <= {0, 1, 2}
    ink = y["kind"] > 0
    assert (y["distance"][ink] == 0).all() and (y["distance"][~ink] >= 0.01).all()
    for page in range(6):  # digits stay in quarters of their own
        quarters = [ink[page, a : a + 112, b : b + 112].any() for a in (0, 112) for b in (0, 112)]
        assert sum(map(int, quarters)) == y["count"][page] + 1
    assert x[ink[:, None]].mean() > x[~ink[:, None]].mean() + 1
    test = [ch08_large.pages(4, seed, "test")[0] for seed in (0, 0, 1)]
    assert torch.equal(test[0], test[1]) and not torch.equal(test[0], test[2])


# --------------------------------------------------------------------------------------- the record
def test_one_seed_of_the_record_is_within_its_spread():
    record = records.load("08", "cpu")
    case = record.results["label sets"]["5 labels, same digits"]
    held = ch08.label_sets("same digits", 5, 2)
    for method, names in (("alone", ["uci"]), ("joint", ["mnist", "uci"])):
        own, batch = held.only(names, ch08.SETS.batch)
        rate = case[method]["rate"]
        model, _, _ = ch08.train(
            own, ch08.SETS, rate["uci"] if isinstance(rate, dict) else rate, 2, batch
        )
        found = evaluate_tasks(model, ch08_compare.tasks_of(own), own.parts["test"])[1]
        for name in names:
            recorded = np.array(case[method]["accuracy"][name])
            assert abs(found[name] - recorded[2]) < 3 * recorded.std(ddof=1) + 0.01, (method, name)


@pytest.mark.slow
def test_one_further_seed_is_within_its_spread():
    record = records.load("08", "further")
    found = ch08.further(record.results["rates"], ch08.SETS, record.provenance["seeds"][0])
    for partner, methods in record.results["uci"].items():
        for method, values in methods.items():
            spread = np.std(values, ddof=1)
            assert abs(found[partner][method] - values[0]) < 3 * spread + 0.01, (partner, method)


def test_the_rivals_of_the_record_had_the_networks_of_the_other_records_among_them():
    """The same 20 draws; the network alone at the rate that both searches chose."""
    ours = records.load("08", "rivals")
    older = [records.load("08", part) for part in ("cpu", "further")]
    first, further = (record.provenance["seeds"] for record in older)
    assert ours.provenance["seeds"] == [*first, *further]
    first = older[0].results["label sets"]["5 labels, same digits"]["alone"]
    assert ours.results["alone"]["rate"] == first["rate"]["uci"]
    theirs = first["accuracy"]["uci"] + older[1].results["uci"]["same digits"]["alone"]
    assert abs(np.mean(ours.results["alone"]["accuracy"]) - np.mean(theirs)) < 0.01


@pytest.mark.slow
def test_a_training_on_photos_is_the_records(data_root):
    need("cifar10_partial", "cifar100_partial")
    results = records.load("08", "photos").results
    recorded = np.array(results["accuracy"]["alone"]["test"]["few"])
    found = ch08_photos.trial("alone", 20, results["rates"]["alone"], 0, ch08_photos.Photos())
    assert abs(found["test"]["few"] - recorded[0]) < 3 * recorded.std(ddof=1) + 1


@pytest.mark.slow
def test_a_training_beside_the_partner_is_the_records(data_root):
    need("cifar10_partial", "cifar100_partial")
    record = records.load("08", "partner")
    recorded = np.array(record.results["accuracy"]["joint"]["test"])
    rate, seed = record.results["rates"]["joint"], record.provenance["seeds"][0]
    found = ch08_partner.trial("joint", rate, seed, ch08_partner.Sizes())
    assert abs(found["test"] - recorded[0]) < 3 * recorded.std(ddof=1) + 1
