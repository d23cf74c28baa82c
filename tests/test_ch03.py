"""Chapter 3: right answers of its exercises; each variant is what it says; the experiment runs whole."""

import json
from dataclasses import astuple, replace

import numpy as np
import pytest
import torch
from exercise_tools import answer_from
from torch.nn import functional as F

from mtl_course import data, recipe
from mtl_course.checks import check
from mtl_course.exercises import ch03 as exercises
from mtl_course.experiments import ch03

RIGHT = {
    "adam_update": [
        """
def adam_update(theta, g, m, s, step, rate, b1, b2, epsilon):
    m = m + (1 - b1) * (g - m)
    s = torch.lerp(g * g, s, b2)
    c1, c2 = 1 - b1**step, 1 - b2**step
    length = rate * c2**0.5 / c1
    return theta - length * m / (s.sqrt() + epsilon * c2**0.5), m, s
""",
        """
def adam_update(theta, g, m, s, step, rate, b1, b2, epsilon):
    means = []
    for old, new, b in ((m, g, b1), (s, g.square(), b2)):
        means.append(old.mul(b).add(new, alpha=1 - b))
    top, bottom = (mean.div(1 - b**step) for mean, b in zip(means, (b1, b2)))
    return theta.addcdiv(top, bottom**0.5 + epsilon, value=-rate), *means
""",
    ],
    "clipped_descent": [
        """
def clipped_descent(w, x, y, rate, limit):
    losses = []
    for i in range(len(x)):
        error = x[i] @ w - y[i]
        losses.append(error.square().mean())
        g = 2 * error @ x[i] / error.numel()
        norm = torch.linalg.vector_norm(g)
        w = w - rate * torch.where(norm > limit, g * (limit / norm), g)
    return w, torch.stack(losses).mean()
""",
        """
def clipped_descent(w, x, y, rate, limit):
    w = w.clone()
    mean = torch.zeros((), dtype=w.dtype, device=w.device)
    for xb, yb in zip(x.unbind(), y.unbind()):
        leaf = w.detach().requires_grad_()
        loss = ((xb @ leaf - yb) ** 2).mean()
        (g,) = torch.autograd.grad(loss, leaf)
        mean += loss.detach() / x.shape[0]
        w = w - rate * limit * g / torch.clamp_min(g.norm(), limit)
    return w, mean
""",
    ],
    "saved_run": [
        """
def saved_run(model, optimizer, order, epoch):
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "order": order.get_state(),
             "rng": torch.default_generator.get_state(), "epoch": epoch}
    return deepcopy(parts)
""",
        """
def saved_run(model, optimizer, order, epoch):
    import io
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    weights, momentum = torch.load(file)
    state = dict(model=weights, optimizer=momentum, epoch=epoch)
    state["order"], state["rng"] = order.get_state(), torch.random.get_rng_state()
    return state
""",
    ],
    "unscaled_direction": [
        """
def unscaled_direction(J, scale, weights, limit):
    if not torch.isfinite(J).all():
        return torch.zeros_like(J[0], dtype=torch.float32), 0.5 * scale
    d = (J.to(torch.float32) / scale * weights[:, None]).sum(dim=0)
    if d.norm() > limit:
        d = limit * d / d.norm()
    return d, scale
""",
        """
def unscaled_direction(J, scale, weights, limit):
    rows = J.float()
    bad = (rows - rows).isnan().any()
    d = torch.einsum("t,tp->p", weights / scale, rows)
    d = d / torch.clamp_min(torch.linalg.vector_norm(d) / limit, 1.0)
    return d.masked_fill(bad, 0.0), scale * torch.where(bad, 0.5, 1.0)
""",
    ],
    "layer_floor": [
        """
def layer_floor(n, before, after, side, kernel, size, peak, bandwidth):
    pixels = n * side * side
    window = before * kernel * kernel
    compute = 2.0 * pixels * after * window / peak
    memory = size * (pixels * (before + after) + window * after) / bandwidth
    return compute if compute > memory else memory
""",
        """
def layer_floor(n, before, after, side, kernel, size, peak, bandwidth):
    shapes = [(n, before, side, side), (n, after, side, side), (after, before, kernel, kernel)]
    sizes = [a * b * c * d for a, b, c, d in shapes]
    multiplications = sizes[1] * before * kernel**2
    return float(max(multiplications / (peak / 2), sum(sizes) * size / bandwidth))
""",
    ],
}
EQUIVALENT = {
    "layer_floor": {
        "return max(operations / peak, size * numbers / bandwidth)  =>  "
        "return max(size * numbers / bandwidth, operations / peak)": "the larger of two numbers does not depend on their order",
    },
}


WAITING = {  # changed parts of a right answer that wait for the device, though they look harmless
    "torch.stack(losses)": ["torch.tensor(losses)", "w.new_tensor(losses)", "torch.as_tensor(losses, device=w.device)"],
    "torch.where(norm > limit, g * (limit / norm), g)": ["torch.stack([g, g * (limit / norm)])[(norm > limit).long()]", "g * min(limit / norm, 1)"],
}


@pytest.mark.parametrize(("part", "other"), [(part, other) for part, others in WAITING.items() for other in others])
def test_a_loop_that_still_waits_is_found_out_and_told_why(part, other, tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_COURSE_HOME", str(tmp_path))
    source = RIGHT["clipped_descent"][0]
    assert part in source
    result = check("clipped_descent", answer_from(exercises.clipped_descent, source.replace(part, other)), seed=0, rounds=1)
    assert result.state == "wrong" and ("fetched" in result.hint if "losses" in part else "decide" in result.hint)


# ---------------------------------------------------------------------------------------------------------- experiment
CPU = torch.device("cpu")
TINY = replace(ch03.CPU, batch=8, steps=1, rounds=2)
TINY_GPU = replace(
    ch03.GPU, source="mnist_5k", batch=16, steps=1, rounds=2,
    settings=recipe.Settings(widths=(4, 8, 8), epochs=1, batch=400, mirror=False, compiled=True),
)  # fmt: skip


def test_sets_are_disjoint_and_named():
    name, train, test = ch03.sets("mnist_5k")
    assert name == "mnist_5k" and len(train[1]) == 4000 and len(test[1]) == 1000
    seen = {image.tobytes() for image in train[0].numpy()}
    assert sum(image.tobytes() in seen for image in test[0].numpy()) <= 1  # a digit twice in the source would be no fault of ours


def test_a_set_that_is_only_a_part_says_so(monkeypatch):
    class Part(dict):
        info = data.info("cifar10_partial")

    def load(name):
        if name == "cifar10":
            raise data.DataError("no network")
        x = np.zeros((4, 8, 8, 3), dtype=np.uint8)
        return Part(x_train=x, y_train=np.arange(4), x_test=x, y_test=np.arange(4)) if name == "cifar10_partial" else None

    monkeypatch.setattr(data, "load", load)
    assert ch03.sets("cifar10")[0] == "cifar10_partial"
    monkeypatch.setattr(data, "load", lambda name: (_ for _ in ()).throw(data.DataError("no network")))
    with pytest.raises(data.DataError):
        ch03.sets("mnist_5k")


def test_each_variant_changes_one_thing_of_the_one_before():
    rows = [astuple(v) for v in ch03.VARIANTS.values()]
    assert [sum(row) for row in rows] == list(range(5)) and all(a <= b for p, q in zip(rows, rows[1:], strict=False) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("name", ch03.CPU.variants)
def test_a_variant_is_what_it_says_and_learns(name):
    variant = ch03.VARIANTS[name]
    trainer = ch03.Trainer(variant, replace(ch03.CPU, batch=32), tuple(t[:320] for t in ch03.sets("mnist_5k")[1]), CPU)
    assert (trainer.arithmetic.dtype is torch.bfloat16) == variant.half
    assert trainer.model[0][2].weight.is_contiguous(memory_format=torch.channels_last) == variant.last
    x, y = next(trainer.batches)
    assert x.shape == (32, 1, 28, 28) and y.shape == (32,)

    def loss():
        with torch.no_grad():
            return float(F.cross_entropy(trainer.model(trainer.x), trainer.y))

    before = loss()
    trainer.steps(60)
    assert loss() < 0.95 * before


def test_both_ways_to_bring_batches_show_every_image_once_an_epoch():
    train = tuple(t[:64] for t in ch03.sets("mnist_5k")[1])
    for resident in (False, True):
        trainer = ch03.Trainer(ch03.Variant(resident=resident), replace(ch03.CPU, batch=16), train, CPU)
        for _ in range(2):
            labels = torch.cat([next(trainer.batches)[1] for _ in range(4)])
            assert torch.equal(torch.bincount(labels, minlength=10), torch.bincount(train[1], minlength=10))


def test_agreement_sees_a_wrong_gradient(monkeypatch):
    found = ch03.agreement(TINY, CPU)
    assert found["data loader"] == 0 and found["data on the device"] < 1e-6 and 1e-4 < found["+ 16 bits"] < 0.3
    whole = ch03.Trainer.gradients
    monkeypatch.setattr(ch03.Trainer, "gradients", lambda self, x, y: whole(self, x, (y + 1) % 10 if self.arithmetic.dtype else y))
    assert ch03.agreement(TINY, CPU)["+ 16 bits"] > 0.5


def test_jobs_take_turns_after_a_round_that_does_not_count():
    order = []
    found = ch03.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, CPU)
    assert order == list("ababab") and all(len(values) == 2 for values in found.values())


def test_operations_of_a_matrix_product():
    layer = torch.nn.Linear(20, 30, bias=False)
    assert ch03.operations(layer, torch.randn(8, 20)) == 2 * 2 * 8 * 20 * 30  # forward, and the gradient of the weights


def test_underflow_is_the_arithmetic_and_not_the_weight():
    lost, saved, exact = (ch03.short_run(1e-6, kind, 0, epochs=1) for kind in ("float16", "float16, scaled", "float32"))
    assert lost["zeros"] == 1 and saved["zeros"] == exact["zeros"] == 0
    assert lost["accuracy"] < 0.3 < saved["accuracy"] and abs(saved["accuracy"] - exact["accuracy"]) < 0.1


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_whole_experiment_runs_at_a_tiny_size(profile, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    monkeypatch.setattr(ch03, "fastest", lambda: CPU)
    sets = ch03.sets
    monkeypatch.setattr(ch03, "sets", lambda source: (sets(source)[0], *(tuple(t[:400] for t in part) for part in sets(source)[1:])))
    monkeypatch.setitem(ch03.PLANS, profile, {"cpu": TINY, "gpu": TINY_GPU}[profile])
    found = ch03.run(profile, [0, 1])
    assert json.loads(json.dumps(found)) == found
    assert all(len(values) == 2 and min(values) > 0 for values in found["images a second"].values())
    assert found["images a second"].keys() == found["gradient's distance"].keys() == set(ch03.PLANS[profile].variants)
    if profile == "gpu":
        assert compiled and found["recipe"]["source"] == "mnist_5k" and found["recipe"]["images"] == 400
        assert [len(run["accuracy"]) for run in found["recipe"]["runs"]] == [1, 1]
