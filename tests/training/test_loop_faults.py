"""What a run does when something breaks: a full GPU, a killed process, a checkpoint that does not
fit, losses that are not finite.
"""

import copy
import errno
import os
import signal
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import multitask, training
from mtl_course.data.augment import compose, crop, flip
from mtl_course.data.batches import Table
from mtl_course.dev.notebooks import ROOT
from mtl_course.multitask import balancing
from mtl_course.multitask.sharing import HardSharing
from mtl_course.multitask.weighting import FAMO, GeometricMean, Weighting
from mtl_course.networks.trunks import Classifier, cnn, mlp
from mtl_course.training import checkpoint
from mtl_course.training.history import History
from mtl_course.training.tasks import classification, regression

TASKS = {"size": regression("size"), "kind": classification("kind")}


def table(n=64, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g)
    return Table(x, {"size": x[:, :1] + x[:, 1:2], "kind": (x[:, 2] > 0).long()})


def network(trunk=None):
    torch.manual_seed(0)
    return HardSharing(trunk or mlp([4, 8]), {"size": nn.Linear(8, 1), "kind": nn.Linear(8, 2)})


def fit_one(model, **options):
    data = table().x, table().targets["kind"]
    settings = {"epochs": 6, "batch": 32, "progress": False, **options}
    return training.fit(
        model, data, data, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.05), **settings
    )


def fit_two(model, combine=None, **options):
    settings = {"epochs": 6, "batch": 32, "progress": False, **options}
    return multitask.fit_tasks(
        model,
        TASKS,
        table(),
        table(),
        torch.optim.SGD(model.parameters(), lr=0.05),
        combine,
        **settings,
    )


RUNS = {
    "fit": (fit_one, lambda trunk=None: nn.Sequential(trunk or mlp([4, 8]), nn.Linear(8, 2))),
    "fit_tasks": (fit_two, network),
    "balanced": (lambda model, **options: fit_two(model, balancing.upgrad, **options), network),
}
EVERY = pytest.mark.parametrize("kind", RUNS)


def weights(model):
    return {
        name: copy.deepcopy(value)
        for name, value in model.state_dict().items()
        if isinstance(value, torch.Tensor)
    }


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[name]) for name, v in a.items())


class Full(nn.Module):
    """A trunk for whose `at`-th training batch the memory does not suffice."""

    def __init__(self, at):
        super().__init__()
        self.layers, self.at, self.batches, self.held = mlp([4, 8]), at, 0, None

    def forward(self, x):
        self.batches += self.training
        if self.training and self.batches == self.at:
            activations = torch.zeros(1000)
            self.held = weakref.ref(activations)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.layers(x)


# ------------------------------------------------------------------------------------ out of memory
@EVERY
def test_a_full_gpu_names_the_epoch_and_the_batch_to_try(kind):
    run, make = RUNS[kind]
    with pytest.raises(
        torch.OutOfMemoryError,
        match=r"full in epoch 3, with batch=32\. Try batch=16, .* or precision=torch.bfloat16",
    ):
        run(make(Full(6)))
    with pytest.raises(
        torch.OutOfMemoryError,
        match=r"epoch 1, with batch=64\. Try batch=32, with a learning rate to match\. The model",
    ):
        run(make(Full(1)), batch=64, precision=torch.bfloat16)
    with pytest.raises(
        torch.OutOfMemoryError, match=r"epoch 1, with batch=1\. Not even one example fits"
    ):
        run(make(Full(1)), batch=1)


@EVERY
def test_a_full_gpu_leaves_the_best_weights_and_the_checkpoint(kind, tmp_path):
    run, make = RUNS[kind]
    two_epochs, broken = make(Full(0)), make(Full(6))
    broken.load_state_dict(two_epochs.state_dict())
    start = weights(two_epochs)
    run(two_epochs, epochs=2, checkpoint=tmp_path / "two.pt")
    with pytest.raises(torch.OutOfMemoryError):
        run(broken, checkpoint=tmp_path / "broken.pt")
    assert same(weights(broken), weights(two_epochs)) and not same(weights(broken), start)
    resumed, whole = make(Full(0)), make(Full(0))
    for model, name in ((resumed, "broken.pt"), (whole, "whole.pt")):
        model.load_state_dict(start)
        run(model, checkpoint=tmp_path / name)
    assert same(weights(resumed), weights(whole))


@EVERY
def test_the_error_of_a_full_gpu_holds_none_of_its_memory(kind):
    """A notebook keeps the last traceback; through it, it would keep the activations, and the next
    try would fail too.
    """
    run, make = RUNS[kind]
    trunk = Full(2)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        run(make(trunk))
    assert caught.value.__context__ is None and trunk.held() is None


def test_a_full_gpu_keeps_no_gradients():
    """Half of a backward pass may be done when the memory ends."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    optimizer.register_step_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError, match="epoch 1"):
        multitask.fit_tasks(model, TASKS, table(), table(), optimizer, progress=False)
    assert all(p.grad is None for p in model.parameters())


def test_validation_makes_do_with_the_memory_there_is():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.failed = nn.Linear(4, 2), 0

        def forward(self, x):
            if not self.training and len(x) > 20:
                self.failed += 1
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return self.layer(x)

    torch.manual_seed(0)
    limited = Half()
    free = copy.deepcopy(limited.layer)
    found, expected = fit_one(limited), fit_one(free)
    assert (
        limited.failed
        and found.validation == pytest.approx(expected.validation)
        and same(weights(limited.layer), weights(free))
    )


def test_nothing_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: pytest.fail("CUDA was started"))
    for run, make in RUNS.values():
        for precision in (None, torch.bfloat16, torch.float16):
            assert (
                run(
                    make(), epochs=1, precision=precision, augment=lambda x, generator: x
                ).best_epoch
                == 1
            )


# ----------------------------------------------------------------------- losses that are not finite
class Broken(nn.Module):
    """A trunk whose `at`-th training batch gives NaN."""

    def __init__(self, at):
        super().__init__()
        self.layers, self.at, self.batches = mlp([4, 8]), at, 0

    def forward(self, x):
        self.batches += self.training
        return self.layers(x) * (float("nan") if self.training and self.batches == self.at else 1.0)


@EVERY
def test_a_loss_that_becomes_nan_leaves_the_best_weights_and_a_checkpoint_to_go_on_from(
    kind, tmp_path
):
    run, make = RUNS[kind]
    sound, broken = make(Broken(0)), make(Broken(5))
    broken.load_state_dict(sound.state_dict())
    start = weights(sound)
    run(sound, epochs=2)
    words = {
        "fit": "training loss is nan at a learning rate of 0.05 in epoch 3, step 1",
        "fit_tasks": "training loss of 'size', 'kind' is not finite .* 0.05 in epoch 3, step 1",
        "balanced": "Epoch 3, step 1, learning rate 0.05: .* 'size', 'kind' is not finite",
    }
    with pytest.raises(FloatingPointError, match=words[kind]):
        run(broken, checkpoint=tmp_path / "run.pt")
    assert same(weights(broken), weights(sound))
    resumed, whole = make(Broken(0)), make(Broken(0))
    resumed.load_state_dict(start), whole.load_state_dict(start)
    assert run(resumed, checkpoint=tmp_path / "run.pt") == run(whole) and same(
        weights(resumed), weights(whole)
    )


def test_a_weighting_that_fails_at_the_end_of_an_epoch_is_found_in_validation():
    class Late(Weighting):
        def forward(self, losses):
            return losses.sum() * float("nan")

    model = network()
    start = weights(model)
    with pytest.raises(
        FloatingPointError, match=r"validation loss is nan at a learning rate of 0\.05 in epoch 1"
    ):
        fit_two(model, Late(), batch=64)
    assert same(weights(model), start)


# FAMO looks at the losses once more after each step, so the network's second batch is its first.
@pytest.mark.parametrize(
    "combine, step", [(GeometricMean(), 2), (FAMO(2), 1)], ids=["geometric mean", "famo"]
)
def test_a_weighting_that_refuses_a_loss_itself_ends_the_run_as_any_divergence_does(combine, step):
    message = rf"Epoch 1, step {step}, learning rate .*: The loss of task 'size', 'kind' is not"
    with pytest.raises(FloatingPointError, match=message):
        fit_two(network(Broken(2)), combine)


# --------------------------------------------------------------------------------- killed processes
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
import test_loop_faults as here
how, path, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
if how == "saving":
    here.die_while_saving(4)
here.long_run(path, die_at=13 if how == "step" else 0)
"""


def long_run(path, die_at=0, epochs=6):
    """Everything that chance and state can hide in: dropout, batch norm, momentum, augmentation, a
    schedule, a gradient scaler.
    """
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(48, 1, 8, 8, generator=g), torch.randint(3, (48,), generator=g)
    torch.manual_seed(0)
    model = Classifier(nn.Sequential(cnn(8, [4, 8], 16, norm=True), nn.Dropout(0.3)), 16, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=epochs * 3)
    steps = 0

    def die(*_):
        nonlocal steps
        steps += 1
        if steps == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    optimizer.register_step_pre_hook(die)
    history = training.fit(
        model,
        (x[:36], y[:36]),
        (x[36:], y[36:]),
        F.cross_entropy,
        optimizer,
        epochs=epochs,
        batch=12,
        patience=epochs,
        augment=compose(flip, crop(1)),
        schedule=schedule,
        precision=torch.float16,
        seed=4,
        progress=False,
        checkpoint=path,
    )
    return model, history


def die_while_saving(epoch):
    """The process is killed when half of the checkpoint of this epoch is on the disk."""
    real, saved = torch.save, 0

    def half(content, file):
        nonlocal saved
        saved += 1
        if saved < epoch:
            return real(content, file)
        real(content, file)
        on_disk = file.file  # below the wrapper that remembers why a write failed
        on_disk.truncate(on_disk.tell() // 2)
        on_disk.flush()
        os.fsync(on_disk.fileno())
        return os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_killed_in_an_epoch_or_while_saving_goes_on_to_the_same_weights(tmp_path):
    whole, expected = long_run(tmp_path / "whole.pt")
    for how in ("step", "saving"):
        path = tmp_path / f"{how}.pt"
        command = [
            sys.executable,
            "-c",
            SCRIPT.format(tests=str(ROOT / "tests" / "training")),
            how,
            str(path),
            str(torch.get_num_threads()),
        ]
        killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        saved = torch.load(path, weights_only=True)["history"]["train"]
        assert len(saved) == (4 if how == "step" else 3), "the epochs that were whole"
        assert (tmp_path / f"{how}.pt.part").exists() == (how == "saving")
        resumed, history = long_run(path)
        assert history == expected and same(weights(resumed), weights(whole))
        assert not (tmp_path / f"{how}.pt.part").exists()


SCHEDULES = {
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=100),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=12),
    "steps": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 5, 9]),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + k)),
    "warm-up": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [
            torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=4),
            torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        ],
        [4],
    ),
}


@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("combine", [None, balancing.upgrad], ids=["sum", "upgrad"])
def test_tasks_with_every_option_resume_to_the_same_weights(name, precision, combine, tmp_path):
    def run(epochs, path):
        torch.manual_seed(0)
        model = network(nn.Sequential(mlp([4, 8]), nn.Dropout(0.2)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        noise = lambda x, generator: x + torch.randn(x.shape, generator=generator)  # noqa: E731
        options = {
            "augment": noise,
            "schedule": SCHEDULES[name](optimizer),
            "precision": precision,
            "checkpoint": path,
            "progress": False,
        }
        history = multitask.fit_tasks(
            model,
            TASKS,
            table(),
            table(seed=1),
            optimizer,
            combine,
            epochs=epochs,
            patience=9,
            **options,
        )
        return history, weights(model), optimizer.param_groups[0]["lr"]

    history, expected, rate = run(6, tmp_path / "whole.pt")
    run(3, tmp_path / "parts.pt")
    torch.rand(5)
    again, found, rate_again = run(6, tmp_path / "parts.pt")
    assert again == history and same(found, expected) and rate_again == rate


def test_the_random_numbers_of_a_gpu_are_kept_and_put_back(tmp_path, monkeypatch):
    state = {"cuda:1": torch.arange(16, dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: state[str(device)].clone())
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda new, device: state.update({str(device): new})
    )
    model = nn.Linear(2, 1)
    run = checkpoint.TrainingState(model, History(), {}, {}, {}, torch.device("cuda", 1))
    checkpoint.save(tmp_path / "run.pt", run, model.state_dict(), 1.0)
    state["cuda:1"] = torch.zeros(16, dtype=torch.uint8)
    checkpoint.resume(tmp_path / "run.pt", run)
    assert state["cuda:1"].tolist() == list(range(16))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_run_on_a_gpu_resumes_to_the_same_weights(tmp_path):
    def run(epochs, path):
        torch.manual_seed(0)
        model = network(nn.Sequential(mlp([4, 8]), nn.Dropout(0.5))).cuda()
        data = Table(table().x.cuda(), {name: y.cuda() for name, y in table().targets.items()})
        noise = lambda x, generator: x + torch.randn(x.shape, generator=generator, device=x.device)  # noqa: E731
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        multitask.fit_tasks(
            model,
            TASKS,
            data,
            data,
            optimizer,
            epochs=epochs,
            augment=noise,
            checkpoint=path,
            progress=False,
        )
        return weights(model)

    expected = run(4, tmp_path / "whole.pt")
    run(2, tmp_path / "parts.pt")
    torch.rand(5, device="cuda")
    assert same(run(4, tmp_path / "parts.pt"), expected)


# ---------------------------------------------------------------------- checkpoints that do not fit
def trained(tmp_path):
    path = tmp_path / "run.pt"
    fit_two(network(), epochs=2, checkpoint=path)
    return path


OTHERS = {
    "seed": ({"seed": 1}, "seed: 0 in the file, 1 here"),
    "batch": ({"batch": 16}, "batch: 32 in the file, 16 here"),
    "precision": (
        {"precision": torch.bfloat16},
        "precision: None in the file, torch.bfloat16 here",
    ),
    "augmentation": ({"augment": lambda x, generator: x}, "another kind of run"),
    "method": ({"combine": balancing.mgda}, "combine: EqualWeights in the file, mgda here"),
    "weighting": (
        {"combine": GeometricMean()},
        "combine: EqualWeights in the file, GeometricMean here",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_settings_than_those_of_the_checkpoint_are_named(name, tmp_path):
    changed, words = OTHERS[name]
    refused(trained(tmp_path), words, **changed)


def refused(path, words, model=None, **options):
    """The run stops with these words, and neither the file nor the model is touched."""
    left, model = path.read_bytes(), model or network()
    before = weights(model)
    with pytest.raises(ValueError, match=words):
        fit_two(model, checkpoint=path, **options)
    assert (
        path.read_bytes() == left
        and same(weights(model), before)
        and len(list(path.parent.iterdir())) == 1
    )


def test_another_architecture_is_named_by_what_differs(tmp_path):
    path = trained(tmp_path)
    wider = HardSharing(mlp([4, 16]), {"size": nn.Linear(16, 1), "kind": nn.Linear(16, 2)})
    refused(
        path,
        r"trunk.0.weight: \(8, 4\) in the file, \(16, 4\) here; .* \.\.\.\)\. Name another file, or"
        r" delete it",
        wider,
    )

    class Remembers(nn.Linear):
        def get_extra_state(self):
            return {"calls": 1}

        def set_extra_state(self, state):
            pass

    refused(
        path,
        "trunk.0._extra_state: none in the file, dict here",
        network(nn.Sequential(Remembers(4, 8), nn.ReLU())),
    )
    deeper = network(mlp([4, 8, 8]))
    refused(path, r"trunk.2.weight: none in the file, \(8, 8\) here", deeper)


def test_another_optimizer_is_refused_and_the_model_is_as_it_was(tmp_path):
    path = trained(tmp_path)
    left, model = path.read_bytes(), network()
    before = weights(model)
    groups = [{"params": part.parameters()} for part in (model.trunk, model.heads)]
    adam, two_groups = torch.optim.Adam(model.parameters()), torch.optim.SGD(groups, lr=0.05)
    for optimizer, words in [
        (adam, "optimizer: SGD in the file, Adam here"),
        (two_groups, "another kind of run .*parameter group"),
    ]:
        with pytest.raises(ValueError, match=words):
            multitask.fit_tasks(
                model, TASKS, table(), table(), optimizer, checkpoint=path, progress=False
            )
        assert path.read_bytes() == left and same(weights(model), before)


def test_a_checkpoint_of_another_device_is_refused(tmp_path):
    path = trained(tmp_path)
    content = torch.load(path, weights_only=True)
    content["settings"]["device"] = "cuda"
    torch.save(content, path)
    refused(path, "device: cuda in the file, cpu here")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(share, tmp_path):
    path = trained(tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(path, r"not a whole checkpoint \(.*\)\. Delete it to start anew, or restore it")


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    path = trained(tmp_path)
    for content in (
        network().state_dict(),
        [1, 2],
        {"model": 3},
        torch.load(path, weights_only=True) | {"history": None},
    ):
        torch.save(content, path)
        refused(path, "not a whole checkpoint")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    path = trained(tmp_path)
    torch.save(torch.load(path, weights_only=True) | {"history": Trap()}, path)
    refused(path, "not a whole checkpoint")


@pytest.mark.parametrize("place", ["torch.save", "os.fsync"])
def test_a_full_disk_keeps_the_old_checkpoint(place, tmp_path, monkeypatch):
    path = trained(tmp_path)
    left, model = path.read_bytes(), network()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        with pytest.raises(OSError, match="No space left"):
            fit_two(model, checkpoint=path)
    assert path.read_bytes() == left and list(tmp_path.iterdir()) == [path]
    whole = network()
    fit_two(whole), fit_two(model, checkpoint=path)
    assert same(weights(model), weights(whole))
