"""Ratios whose denominator can be zero, negative or NaN: a difference in their place, or a refusal
that names the task. A better model never scores worse.
"""

import math

import numpy as np
import pytest
import torch
from fault_tools import require_every_row, that_divide
from torch import nn

from mtl_course import meta, multitask, networks, streams, training, transfer, trust
from mtl_course.data import Table
from mtl_course.multitask import DWA, FAMO, GradNorm, HardSharing, SmoothChebyshev
from mtl_course.training import Task, regression

ROOMS = ("networks", "training", "transfer", "meta", "streams", "trust")
MULTITASK = {"fit_tasks", "DWA", "SmoothChebyshev", "GradNorm", "FAMO", "lookahead"}
MULTITASK |= {"relative_gain", "CrossStitch", "TaskHistory"}
NAN, INF = float("nan"), float("inf")
A = torch.tensor([[0.5, NAN], [0.25, 0.75]])
ONE, TWO, ALIKE = torch.ones(1, 2), torch.eye(2), torch.ones(6, 2)


def weigh(weighting, *losses):
    """A weighting in a loop of one step per epoch, with these losses [T]."""
    theta = nn.Parameter(torch.ones(()))
    for values in losses:
        values = theta * torch.tensor(values)
        weighting.before_backward(values, [theta])
        weighting(values)
        weighting.after_step(values.detach())
        weighting.end_epoch(values.detach())


# Name -> calls that must be refused, and words of the refusal: the task or its place, and why.
REFUSED = {
    "delta_m": [
        (lambda base=base: training.delta_m({"t": 1.0}, {"t": base}, {"t": True}), "'t'")
        for base in (0.0, NAN, INF)
    ]
    + [
        (lambda: training.delta_m({"t": NAN}, {"t": 1.0}, {"t": True}), "'t'"),
        (lambda: training.delta_m({}, {}, {}), "no task"),
    ],
    "diebold_mariano": [
        (lambda: training.diebold_mariano([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]), "the same"),
        (lambda: training.diebold_mariano([1.0, NAN, 3.0], [2.0, 3.0, 5.0]), "Row 1"),
        (lambda: training.diebold_mariano([1.0, INF, 3.0], [2.0, 3.0, 5.0]), "Row 1"),
        (lambda: training.diebold_mariano([1.0], [2.0]), "two or more"),
    ],
    "relative_gain": [
        (lambda base=base: multitask.relative_gain([1.0, base], [1.0, 1.0]), r"\[1\]")
        for base in (0.0, -1.3, NAN)
    ],
    "lookahead": [
        (
            lambda loss=loss: multitask.lookahead(
                lambda shared: torch.stack([shared[0].exp(), shared[0] * 0 + loss]),
                [torch.zeros(())],
                0.1,
            ),
            "task 1",
        )
        for loss in (0.0, -1.3, NAN)
    ],
    "DWA": [
        (lambda: weigh(DWA(), [1.0, -1.3]), "task 1"),
        (lambda: DWA(temperature=0.0), "temperature"),
        (lambda: DWA(temperature=NAN), "temperature"),
    ],
    "GradNorm": [
        (lambda: weigh(GradNorm(2), [1.0, -1.3]), "task 1"),
        (lambda: weigh(GradNorm(2), [0.0, 1.0]), "task 0"),
        (lambda: weigh(GradNorm(2), [1.0, 1.0], [1.0, -0.1]), "task 1"),
    ],
    "FAMO": [(lambda: weigh(FAMO(2), [1.0, -1.3]), "above their minimum")],
    "SmoothChebyshev": [(lambda: SmoothChebyshev([1, 1], mu=0.0), "mu")],
    "layer_groups": [
        (
            lambda: transfer.layer_groups(networks.Classifier(networks.mlp([4, 6]), 6, 3), 1, 0),
            "dec",
        )
    ],
    "auc": [
        (lambda y=y: training.auc(torch.ones(2), y), "alike")
        for y in (torch.zeros(2), torch.ones(2))
    ],
    "precision_recall_f1": [
        (lambda: training.precision_recall_f1(torch.zeros(2), torch.ones(2)), "no precision"),
        (lambda: training.precision_recall_f1(torch.ones(2), torch.zeros(2)), "no recall"),
    ],
    "calibration_error": [
        (lambda: training.calibration_error(torch.ones(0), torch.ones(0)), "no rows"),
    ],
    "net_benefit": [
        (lambda: training.net_benefit(ONE[0], torch.tensor([0, 1]), 1.0), "between 0 and 1"),
        (lambda: training.net_benefit(torch.ones(0), torch.ones(0), 0.5), "no rows"),
    ],
    "move_base_rate": [
        (lambda: training.move_base_rate(ONE, 0.0, 0.5), "before is 0.0"),
        (lambda: training.move_base_rate(ONE, 0.5, 1.0), "now is 1.0"),
    ],
    "logistic_near": [
        (lambda y=y: transfer.logistic_near(TWO, y, 1.0), "alike") for y in (TWO[0] * 0, ONE[0])
    ],
    "prototypes": [
        (lambda: meta.prototypes(torch.ones(2, 1), torch.tensor([0, 0]), 2), "class 1"),
    ],
    "interval": [(lambda: meta.interval(torch.ones(1)), "2 tasks")],
    "distillation_loss": [
        (lambda: streams.distillation_loss(torch.ones(1, 2), torch.ones(1, 2), 0.0), "positive"),
        (lambda: streams.distillation_loss(torch.ones(0, 2), torch.ones(0, 2)), "rows"),
    ],
    "Rls": [(lambda: streams.Rls(np.zeros(1), ridge=0.0), "ridge")],
    "soft_targets": [(lambda T=T: transfer.soft_targets(TWO, T), "temper") for T in (0.0, NAN)],
    "kd_loss": [
        (lambda: transfer.kd_loss(TWO, TWO, 0.0), "temperature"),
        (lambda: transfer.kd_loss(TWO[:0], TWO[:0]), "no row"),
    ],
    "mixed_loss": [
        (lambda: transfer.mixed_loss(TWO, TWO, torch.tensor([0, 1]), 0.0), "temperature"),
    ],
    "pooled_logits": [
        (lambda: transfer.pooled_logits([TWO], 0.0), "temperature"),
        (lambda: transfer.pooled_logits([TWO, TWO], weights=[0, 0]), "sum above 0"),
    ],
    "private_mean": [
        (lambda: trust.private_mean({"w": ALIKE}, 1.0, 1.0, 0.0), "expected must be positive"),
        (lambda: trust.private_mean({"w": ALIKE}, 0.0, 1.0, 2.0), "clip and expected"),
    ],
    "renyi": [(lambda: trust.renyi(0.0), "Without noise")],
    "spent": [(lambda: trust.spent(0.0, 1, 1e-5), "Without noise")],
    "gaussian_delta": [(lambda: trust.gaussian_delta(1.0, 0.0), "Without noise")],
    "calibrated": [(lambda: trust.calibrated(TWO, TWO > 0), "nothing to compare with")],
    "integrated_gradients": [
        (lambda: trust.integrated_gradients(lambda x: x.sum(1), ALIKE, ALIKE[0], 0), "steps")
    ],
    "nce": [(lambda: transfer.nce([], []), "whole numbers")],
    "leep": [(lambda: transfer.leep(TWO[:0], []), "at least 1")],
    "ledoit_wolf": [(lambda: transfer.ledoit_wolf(ONE), "at least 2")],
    "h_score": [(lambda: transfer.h_score(ALIKE[:3], [0, 1, 1]), "same for all")],
    "evidence": [
        (lambda: transfer.evidence(TWO, [0.0, 0.0]), "Column 0"),
        (lambda: transfer.evidence(0 * TWO, [0.0, 1.0]), "all zero"),
    ],
    "probe_score": [(lambda: transfer.probe_score(TWO, [0, 0]), "only class 0")],
    "coral": [(lambda: transfer.coral(ONE, TWO), "at least 2")],
    "mmd": [
        (lambda: transfer.mmd(ONE, TWO), "at least 2"),
        (lambda: transfer.mmd(ALIKE, ALIKE), "no median"),
    ],
    "proxy_a_distance": [(lambda: transfer.proxy_a_distance(ONE, ONE), "at least 4")],
    "target_shares": [(lambda: transfer.target_shares([], [], [], 2), "at least one")],
    "nt_xent": [
        (lambda: transfer.nt_xent(TWO, TWO, 0.0), "temperature"),
        (lambda: transfer.nt_xent(ONE, ONE), "no other images"),
        (lambda: transfer.nt_xent(TWO, 0 * TWO), "Row 0 of the second view is zero"),
    ],
    "pair_loss": [
        (lambda: transfer.pair_loss(TWO, TWO, 0.0), "temperature"),
        (lambda: transfer.pair_loss(ONE, ONE), "no other pair"),
        (lambda: transfer.pair_loss(TWO, 0 * TWO), "Row 0 of the second side is zero"),
    ],
    "average": [
        (lambda: transfer.average([{"w": ONE}, {"w": ONE}], [0.0, 0.0]), "sum of 1"),
        (lambda: transfer.average([]), "no model"),
    ],
    "LoRALayer": [(lambda: transfer.LoRALayer(nn.Linear(3, 2)).add("a", r=0), "rank")],
}
# Means over tasks, which are quotients too.
SCORES = {
    "average_accuracy": [(lambda: streams.average_accuracy(A.flip(0)), "task 1")],
    "backward_transfer": [
        (lambda: streams.backward_transfer(A), "task 1"),
        (lambda: streams.backward_transfer(torch.ones(1, 1)), "two tasks"),
    ],
    "forward_transfer": [
        (lambda: streams.forward_transfer(A, torch.ones(2)), "task 1"),
        (lambda: streams.forward_transfer(torch.ones(1, 1), torch.ones(1)), "two tasks"),
        (lambda: streams.forward_transfer(torch.ones(2, 2), torch.ones(5)), "5 untrained"),
        (lambda: streams.forward_transfer(torch.ones(2, 2), torch.tensor([1, NAN])), "task 1"),
    ],
    "forgetting": [
        (lambda: streams.forgetting(A), "task 1"),
        (lambda: streams.forgetting(torch.ones(1, 1)), "two tasks"),
        (lambda: streams.forgetting(torch.ones(1, 3)), r"\[T, T\]"),
    ],
}
# Why a quotient needs no row above: tested below, or a denominator that cannot be zero.
SAFE = {
    "fit_tasks": "below",
    "r2": "below",
    "label_map": "a row without mass is uniform",
    "fit": "counts of rows; an empty set is refused (test_data)",
    "process_mean": "the number of processes",
    "fit_episodes": "counts of tasks and steps",
    "meta_backward": "counts of tasks; Episodes has one at least",
    "reptile_backward": "the same",
    "Adam": "epsilon is added",
    "flops": "counts of rows",
    "CosineHead": "the square root of its number of inputs",
    "OnlineSgd": "1 + a square",
    "CrossStitch": "max(..., 1)",
    "attention": "the square root of the width of a head",
    "ties": "counts of at least 1; no entry left gives 0",
    "calibration_curve": "counts of the bins that have rows",
    "quantize": "a channel of zeros gets the scale 1 (tests/transfer/test_compression.py)",
    "known_losses": "counts of at least 1; no known label gives 0",
    "scaled_columns": "a constant column becomes 0 (tests/meta/test_in_context.py)",
    "table_tasks": "a constant column becomes 0; counts of columns, one at least",
    "DarkReplay": "counts of at least 1: a kept example's own class competed",
}


def test_every_quotient_has_a_row():
    found = that_divide(*ROOMS) | (that_divide("multitask") & MULTITASK)
    require_every_row(found, REFUSED, SAFE)


CASES = [
    (name, *case) for table in (REFUSED, SCORES) for name, cases in table.items() for case in cases
]


@pytest.mark.parametrize("name, call, words", CASES, ids=[name for name, *_ in CASES])
def test_a_ratio_that_says_nothing_is_refused(name, call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_dwa_goes_on_where_a_loss_has_reached_zero():
    weighting = DWA()
    weigh(weighting, [1.0, 1.0], [0.0, 0.5], [0.0, 0.25])
    assert torch.isfinite(weighting.weights(torch.ones(2))).all()


@pytest.mark.parametrize("method, match", [(DWA(), "'low'"), (GradNorm(2), "'low'")])
def test_a_refusal_in_a_run_names_the_task(method, match):
    x = torch.linspace(-1, 1, 8)[:, None]
    data = Table(x, {"high": x, "low": x})
    tasks = {
        "high": regression("high"),
        "low": Task("low", lambda p, y: (p - y).square().mean() - 1.3, training.r2, True),
    }
    model = HardSharing(nn.Linear(1, 2), {"high": nn.Linear(2, 1), "low": nn.Linear(2, 1)})
    nn.init.zeros_(model.heads["low"].bias), nn.init.zeros_(model.heads["low"].weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with pytest.raises(ValueError, match=match):
        multitask.fit_tasks(model, tasks, data, data, optimizer, method, progress=False)


def test_r2_of_a_constant_target_is_nan_and_delta_m_names_the_task():
    for value in (0.0, 0.1, -1e6):
        target = torch.full((7,), value)
        assert math.isnan(training.r2(target, target))
        assert math.isnan(training.r2(target + 1, target))


@pytest.mark.parametrize("start", [-1.3, 0.0, 1e-3, 2.0])
@pytest.mark.parametrize("combine", [None, multitask.upgrad], ids=["sum", "balanced"])
def test_a_better_epoch_never_scores_worse(start, combine):
    """The loss of one task falls at every epoch, from `start` on and across zero."""

    def loss(prediction, y):
        return prediction.mean() + start

    tasks = {"nll": Task("nll", loss, lambda p, y: p.mean(), False)}
    x = torch.ones(4, 1)
    data = Table(x, {"nll": torch.zeros(4, 1)})
    model = HardSharing(nn.Linear(1, 1), {"nll": nn.Identity()})
    for p in model.parameters():
        nn.init.zeros_(p)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = multitask.fit_tasks(
        model, tasks, data, data, optimizer, combine, epochs=5, progress=False
    )
    assert history.initial["nll"] == pytest.approx(start)
    falling = history.losses["nll"]
    assert falling == sorted(falling, reverse=True) and falling[0] < start
    assert history.validation == sorted(history.validation, reverse=True)
    assert history.best_epoch == 5 and history.validation[0] < 1


def test_a_positive_loss_counts_relative_to_its_start():
    x = torch.linspace(-1, 1, 8)[:, None]
    data = Table(x, {"t": 2 * x})
    model = HardSharing(nn.Identity(), {"t": nn.Linear(1, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = multitask.fit_tasks(
        model, {"t": regression("t")}, data, data, optimizer, epochs=3, progress=False
    )
    assert history.validation == [v / history.initial["t"] for v in history.losses["t"]]


def test_an_untrained_loss_that_is_not_finite_is_said_before_the_first_step():
    x = torch.ones(4, 1)
    tasks = {
        "good": regression("good"),
        "bad": Task("bad", lambda p, y: (p - p).log().sum(), training.r2, True),
    }
    model = HardSharing(nn.Identity(), {"good": nn.Linear(1, 1), "bad": nn.Linear(1, 1)})
    data = Table(x, {"good": x, "bad": x})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(FloatingPointError, match="'bad' is not finite before the first step"):
        multitask.fit_tasks(model, tasks, data, data, optimizer, progress=False)
