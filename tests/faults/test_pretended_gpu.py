"""Code that only a GPU reaches, on a GPU that is pretended: training loops, balanced gradients,
meta-steps, episodes, changes of images and checkpoints, each at tiny size.

Each row is a call that gets tensors and says what comes out. Put on the GPU whole, it runs, and
what it gives is there; with one of its tensors left on the CPU, it must fail.
"""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import data, meta, multitask, streams, training
from mtl_course.checks import values
from mtl_course.checks.devices import PretendedGPU, _moved
from mtl_course.multitask import balancing

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real one")
CPU_GENERATOR = torch.Generator


class Generator(CPU_GENERATOR):
    """A generator that may say that it is on the GPU."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls, "cpu")
        made.place = torch.device(device)
        return made

    @property
    def device(self):
        return torch.device("cuda", 0) if self.place.type == "cuda" else torch.device("cpu")


class Device(PretendedGPU):
    """The pretended GPU, which also knows where a generator is."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        generator = (kwargs or {}).get("generator")
        if isinstance(generator, Generator):
            given = values.tensors([list(args)])
            goal = torch.device((kwargs or {}).get("device") or "cpu").type
            if given and getattr(func, "__name__", "") in ("multinomial", "normal_", "uniform_"):
                goal = self.place(given[0]) or goal
            if goal != generator.device.type:
                raise RuntimeError(
                    f"Expected a '{goal}' device type for generator"
                    f" but found '{generator.device.type}'"
                )
        return super().__torch_function__(func, types, args, kwargs)


@pytest.fixture
def device(monkeypatch):
    """The pretended GPU, and what a process without one lacks."""
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: torch.zeros(16, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_: None)
    return Device()


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


X, Y = draw(12, 4), draw(12, 1)
KINDS = torch.arange(12) % 3
IMAGES = draw(12, 1, 8, 8)


def loop(model, x, y, x_new, y_new, path=None):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    options = {"epochs": 2, "batch": 5, "progress": False, "checkpoint": path}
    training.fit(model, (x, y), (x_new, y_new), F.mse_loss, optimizer, **options)
    return list(model.parameters())


def loop_with_augmentation(model, x, y):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    change = data.compose(data.flip, data.crop(1), data.cutout(2))
    options = {"epochs": 2, "batch": 5, "progress": False, "augment": change}
    training.fit(model, (x, y), (x, y), F.mse_loss, optimizer, **options)
    return list(model.parameters())


def tasks_loop(combine, model, x, size, kind):
    table = data.Table(x, {"size": size, "kind": kind})
    tasks = {"size": training.regression("size"), "kind": training.classification("kind")}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    options = {"epochs": 2, "batch": 5, "progress": False}
    multitask.fit_tasks(model, tasks, table, table, optimizer, combine, **options)
    return list(model.parameters())


def two_heads():
    heads = {"size": nn.Linear(4, 1), "kind": nn.Linear(4, 3)}
    return multitask.HardSharing(nn.Linear(4, 4), heads)


def evaluated(model, x, y):
    training.evaluate(model, (x, y), F.mse_loss)
    return training.predict(model, x)


def ewc(model, x):
    # Its labels go through vmap, where the pretended GPU cannot follow.
    return list(streams.fisher_diagonal(model, x, KINDS).values())


# name -> (the tensors and modules it gets, the call)
ROWS = {
    "fit": (lambda: (nn.Linear(4, 1), X, Y, X[:6].clone(), Y[:6].clone()), loop),
    "fit with augmentation": (
        lambda: (nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), IMAGES, Y),
        loop_with_augmentation,
    ),
    "fit_tasks": (lambda: (two_heads(), X, Y, KINDS), partial(tasks_loop, None)),
    **{
        f"fit_tasks, {name}": (
            lambda: (two_heads(), X, Y, KINDS),
            partial(tasks_loop, method),
        )
        for name, method in balancing.METHODS.items()
    },
    "evaluate, predict": (lambda: (nn.Linear(4, 1), X, Y), evaluated),
    "distance_logits": (lambda: (X, X[:3].clone()), meta.distance_logits),
    "prototypes": (
        lambda: (X[None], KINDS[None]),
        lambda z, y: meta.prototypes(z, y, 3),
    ),
    "accuracy": (lambda: (draw(12, 3), KINDS), training.accuracy),
    "r2": (lambda: (X, X + 1), training.r2),
    "fisher_diagonal": (lambda: (nn.Linear(4, 3), X), ewc),
    "normal_equations": (lambda: (X, Y[:, 0]), multitask.normal_equations),
    "related_ridge": (
        lambda: (torch.eye(3).expand(2, 3, 3).clone(), draw(2, 3), torch.eye(2)),
        multitask.related_ridge,
    ),
    "laplacian": (lambda: (draw(3, 3).abs(),), multitask.laplacian),
    "closeness": (lambda: (X,), multitask.closeness),
}


def on(device, arguments, stay=None):
    """The arguments on the GPU, all but one of their tensors, which is known to be on the CPU."""
    tensors = [i for i, a in enumerate(arguments) if isinstance(a, torch.Tensor)]
    moved = []
    for i, argument in enumerate(arguments):
        if stay is not None and i == tensors[stay]:
            moved.append(argument.clone())
            device._mark(moved[-1], "cpu")
        else:
            moved += _moved([argument], device.take)
    return moved


@pytest.mark.parametrize("name", ROWS)
def test_on_the_gpu_it_runs_and_stays_there(name, device):
    make, call = ROWS[name]
    arguments = on(device, make())
    with device:
        result = call(*arguments)
    given = [t for t in values.tensors([result]) if t.ndim]
    assert all(device.place(t) != "cpu" for t in given), [device.place(t) for t in given]


SEVERAL = [
    (name, stay)
    for name, (make, _) in ROWS.items()
    for stay in range(sum(isinstance(a, torch.Tensor) for a in make()))
    if len(make()) > 1
]


@pytest.mark.parametrize("name, stay", SEVERAL)
def test_with_one_tensor_left_on_the_cpu_it_fails(name, stay, device):
    make, call = ROWS[name]
    arguments = on(device, make(), stay)
    with device, pytest.raises((RuntimeError, ValueError, TypeError)):
        call(*arguments)


def test_a_checkpoint_of_the_gpu_goes_on_there(device, tmp_path):
    make, call = ROWS["fit"]
    for _ in range(2):
        arguments = on(device, make())
        with device:
            parameters = call(*arguments, tmp_path / "run.pt")
        assert all(device.place(p) == "cuda" for p in parameters)
