"""Meta-training: it learns, keeps the best, goes on exactly after a kill, says what is wrong."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import meta
from mtl_course.data.episodes import EpisodeSource, sinusoids
from mtl_course.dev.notebooks import ROOT
from mtl_course.meta import few_shot
from mtl_course.meta.fit import fit_episodes
from mtl_course.meta.functional import Functional
from mtl_course.networks.trunks import mlp


class Waves:
    """MAML on sinusoids, with everything that chance and state can hide in.

    That is dropout, Meta-SGD's rates, Adam and a schedule.
    """

    def __init__(self, rate=3e-3, inner=0.01, dropout=0.1, die_at=0, width=8):
        torch.manual_seed(0)
        layers = mlp([1, width, width]), nn.Dropout(dropout), nn.Linear(width, 1)
        self.f = Functional(nn.Sequential(*layers))
        self.params = self.f.parameters()
        self.rates = meta.learned_rates(self.params, inner)
        self.all = self.params | {f"rates.{name}": r for name, r in self.rates.items()}
        self.optimizer = torch.optim.Adam(self.all.values(), lr=rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 50)
        self.held_out = sinusoids(20, 10, 10, torch.Generator().manual_seed(2))
        self.steps, self.die_at, self.drawn = 0, die_at, []

    def backward(self, generator):
        self.steps += 1
        if self.steps == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        episodes = sinusoids(4, 10, 10, generator)
        self.drawn.append(episodes.support[0][0, 0].item())
        return meta.meta_backward(self.f, self.params, episodes, F.mse_loss, 1, self.rates)

    def validate(self):
        self.f.model.eval()
        losses = meta.meta_losses(
            self.f, self.params, self.held_out, F.mse_loss, 1, self.rates, first_order=True
        )
        self.f.model.train()
        return losses.mean()

    def fit(self, steps=12, every=4, **options):
        defaults = {"validate": self.validate, "schedule": self.schedule, "progress": False}
        backward = options.pop("backward", self.backward)
        options = {"every": every, **defaults, **options}
        return fit_episodes(self.all, backward, self.optimizer, steps, **options)

    def values(self):
        return torch.cat([p.detach().flatten() for p in self.all.values()])


def test_learns_a_family_of_sinusoids_better_than_the_start():
    waves = Waves(width=40, dropout=0.0)
    at_start = waves.validate().item()
    history = waves.fit(steps=120, every=40, schedule=None)
    assert len(history.train) == len(history.validation) == 3
    assert history.train[-1] < history.train[0]
    assert waves.validate().item() == pytest.approx(min(history.validation), rel=1e-6)
    assert min(history.validation) < 0.8 * at_start


def test_prototypes_learn_real_digits_better_than_the_start():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    train, others = EpisodeSource(x, y, range(5)), EpisodeSource(x, y, range(5, 10))
    held_out = others.classification(50, 5, 1, 5, torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    model = nn.Sequential(mlp([64, 64]), nn.BatchNorm1d(64), nn.Linear(64, 32))

    def losses(episodes):
        logits = few_shot.prototype_logits(model, episodes, 5)
        return few_shot.query_losses(logits, episodes.query[1])

    def backward(generator):
        drawn = losses(train.classification(8, 5, 1, 5, generator))
        drawn.mean().backward()
        return drawn

    def validate():
        modes.append(model.training)
        model.eval()
        return losses(held_out).mean()

    modes = []
    at_start, optimizer = validate().item(), torch.optim.Adam(model.parameters(), lr=1e-3)
    options = {"validate": validate, "every": 20, "progress": False}
    history = fit_episodes(model, backward, optimizer, 60, **options)
    # In evaluation mode in each round; the loop leaves the model as the first call left it.
    assert modes == [True, False, False, False] and not model.training
    model.train()
    assert validate().item() == pytest.approx(min(history.validation))
    assert min(history.validation) < at_start


def test_running_statistics_are_put_back_with_the_parameters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    losses, seen = iter([3.0, 1.0, 2.0]), []

    def backward(generator):
        loss = model(torch.randn(8, 1, generator=generator)).square().mean()
        loss.backward()
        return loss

    def validate():
        seen.append(model[1].running_mean.clone())
        return next(losses)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fit_episodes(model, backward, optimizer, 6, validate=validate, every=2, progress=False)
    assert torch.equal(model[1].running_mean, seen[1]) and not torch.equal(seen[1], seen[2])


def test_the_best_parameters_are_put_back_and_patience_ends_the_run():
    """The validation loss is made to rise after the second round, whose parameters must be kept."""
    waves, losses, seen = Waves(), iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0]), []

    def validate():
        seen.append(waves.values())
        return next(losses)

    history = waves.fit(steps=12, every=2, patience=3, validate=validate)
    assert history.best_epoch == 2 and history.validation == [3, 1, 2, 2, 2] and waves.steps == 10
    assert torch.equal(waves.values(), seen[1]) and not torch.equal(seen[1], seen[4])


def test_without_patience_the_run_goes_to_its_end():
    losses = iter([1.0, *[2.0] * 11])
    assert len(Waves().fit(steps=12, every=1, validate=lambda: next(losses)).validation) == 12


def test_the_losses_of_a_round_are_averaged_and_every_step_is_taken():
    theta = nn.Parameter(torch.zeros(2))
    given = iter([[1.0, 3.0], [5.0, 7.0], [0.0, 0.0], [2.0, 2.0]])

    def backward(generator):
        theta.grad = torch.ones(2)
        return torch.tensor(next(given))

    optimizer = torch.optim.SGD([theta], lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 10.0**-step)
    options = {"validate": theta.sum, "every": 2, "schedule": schedule, "progress": False}
    history = fit_episodes({"theta": theta}, backward, optimizer, 4, **options)
    assert history.train == [4.0, 1.0] and history.validation == pytest.approx([-2.2, -2.222])
    torch.testing.assert_close(theta.detach(), torch.full((2,), -1.111))


def test_one_seed_one_result():
    runs = []
    for seed in (3, 3, 4):
        waves = Waves()
        history = waves.fit(seed=seed)
        runs.append((waves.drawn, history, waves.values()))
    assert runs[0][:2] == runs[1][:2] and torch.equal(runs[0][2], runs[1][2])
    assert not set(runs[0][0]) & set(runs[2][0]) and len(set(runs[0][0])) == 12


def test_progress_is_shown(capsys):
    Waves().fit(progress=True)
    shown = capsys.readouterr().out
    assert "rounds:" in shown and "/3 [" in shown  # a fast machine is done before the bar moves
    Waves().fit()
    assert not capsys.readouterr().out


# -------------------------------------------------------------------------------------- checkpoints
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
import test_fit as here
path, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
here.Waves(die_at=7).fit(checkpoint=path)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_run_goes_on_to_the_same_parameters_bit_for_bit(tmp_path):
    whole, path = Waves(), tmp_path / "run.pt"
    expected = whole.fit(checkpoint=tmp_path / "whole.pt")
    command = [
        sys.executable,
        "-c",
        SCRIPT.format(tests=str(ROOT / "tests" / "meta")),
        str(path),
        str(torch.get_num_threads()),
    ]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(torch.load(path, weights_only=True)["history"]["train"]) == 1, (
        "the rounds that were whole"
    )
    resumed = Waves()
    history = resumed.fit(checkpoint=path)
    assert resumed.steps == 8 and resumed.drawn == whole.drawn[4:]
    assert history == expected and torch.equal(resumed.values(), whole.values())


def test_more_steps_prolong_a_run(tmp_path):
    whole, path = Waves(), tmp_path / "run.pt"
    expected = whole.fit(steps=16)
    Waves().fit(steps=8, checkpoint=path)
    torch.rand(5)
    parts = Waves()
    assert parts.fit(steps=16, checkpoint=path) == expected and torch.equal(
        parts.values(), whole.values()
    )


OTHERS = {
    "seed": ({}, {"seed": 1}, "seed: 0 in the file, 1 here"),
    "every": ({}, {"every": 2}, "every: 4 in the file, 2 here"),
    "schedule": ({}, {"schedule": None}, "schedule: CosineAnnealingLR in the file, none here"),
    "network": ({"width": 16}, {}, r"0/0/weight: \(8, 1\) in the file, \(16, 1\) here"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_run_is_refused(name, tmp_path):
    made, options, words = OTHERS[name]
    refused(tmp_path / "run.pt", words, Waves(**made), **options)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_damaged_checkpoint_is_refused(share, tmp_path):
    refused(
        tmp_path / "run.pt",
        r"not a whole checkpoint \(.*\)\. Delete it to start anew, or restore it",
        Waves(),
        share,
    )


def refused(path, words, waves, share=1.0, **options):
    """The run stops with these words, and neither the file nor the parameters are touched."""
    Waves().fit(steps=4, checkpoint=path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    left, before = path.read_bytes(), waves.values()
    with pytest.raises(ValueError, match=words):
        waves.fit(checkpoint=path, **options)
    assert path.read_bytes() == left and torch.equal(waves.values(), before) and waves.steps == 0


# ------------------------------------------------------------------------------------------- faults
def best_of_first_round():
    waves = Waves()
    waves.fit(steps=4)
    return waves.values()


def test_a_training_loss_that_is_not_finite_names_its_step_and_its_rate():
    waves = Waves()

    def backward(generator):
        losses = waves.backward(generator)
        return losses * float("nan") if waves.steps == 7 else losses

    rate = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.Adam([nn.Parameter(torch.ones(1))], lr=3e-3), 50
    )
    for _ in range(6):
        rate.optimizer.step()
        rate.step()
    words = (
        f"training loss is nan at a learning rate of {rate.get_last_lr()[0]:g} in step 7. Lower the"
        " learning rate"
    )
    with pytest.raises(FloatingPointError, match=words):
        waves.fit(backward=backward)
    assert torch.equal(waves.values(), best_of_first_round())


def test_an_inner_loop_that_diverges_is_said_with_the_step_and_both_rates():
    waves = Waves(rate=1e4)
    start = waves.values()

    def backward(generator):
        return meta.meta_backward(
            waves.f, waves.params, sinusoids(4, 10, 10, generator), F.mse_loss, 1, 0.01
        )

    with pytest.raises(
        FloatingPointError,
        match=(
            r"Step \d+, learning rate 10000: The inner loop diverged in .* with a rate of 0.01 and"
            r" 1 steps"
        ),
    ):
        waves.fit(backward=backward, schedule=None)
    assert torch.equal(waves.values(), start), "no round was whole"


def test_a_validation_loss_that_is_not_finite_names_its_step():
    waves, losses = Waves(), iter([1.0, float("inf")])
    with pytest.raises(
        FloatingPointError, match=r"validation loss is inf at a learning rate of 0\.002.* in step 8"
    ):
        waves.fit(validate=lambda: next(losses))
    assert torch.equal(waves.values(), best_of_first_round())


def test_an_inner_loop_that_diverges_in_validation_is_said_with_both_rates():
    waves = Waves()

    def diverging():
        inner = F.mse_loss, 200, 100.0
        return meta.meta_losses(waves.f, waves.params, waves.held_out, *inner).mean()

    message = (
        r"Validation after step 4, learning rate .*:"
        r" The inner loop diverged .* a rate of 100 and 200 steps"
    )
    with pytest.raises(FloatingPointError, match=message):
        waves.fit(validate=diverging)


def test_an_interrupt_leaves_the_best_parameters():
    waves = Waves()

    def backward(generator):
        if waves.steps == 5:
            raise KeyboardInterrupt
        return waves.backward(generator)

    with pytest.raises(KeyboardInterrupt):
        waves.fit(backward=backward)
    assert torch.equal(waves.values(), best_of_first_round())


def test_a_full_gpu_names_the_round_and_what_to_try():
    waves = Waves()

    def backward(generator):
        if waves.steps == 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return waves.backward(generator)

    with pytest.raises(
        torch.OutOfMemoryError,
        match=r"full in round 2\. Draw fewer tasks .* has its best weights so far",
    ) as caught:
        waves.fit(backward=backward)
    assert caught.value.__context__ is None and torch.equal(waves.values(), best_of_first_round())


def test_what_the_caller_forgot_is_named():
    waves = Waves()
    with pytest.raises(ValueError, match="12 steps are no whole number of rounds of 7"):
        waves.fit(every=7)
    with pytest.raises(ValueError, match="`backward` wrote no gradient: it must call backward"):
        waves.fit(
            backward=lambda generator: meta.meta_losses(
                waves.f, waves.params, sinusoids(2, 5, 5, generator), F.mse_loss, 1, 0.01
            )
        )
    waves.optimizer = torch.optim.Adam(waves.params.values())
    with pytest.raises(ValueError, match=r"does not hold rates/0/0/bias, .*: build it after"):
        waves.fit()


def test_nothing_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: pytest.fail("CUDA was started"))
    assert Waves().fit(steps=2, every=1).best_epoch
