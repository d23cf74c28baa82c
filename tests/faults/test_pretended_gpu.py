"""Code that only a GPU reaches, on a GPU that is pretended: training loops, balanced gradients,
meta-steps, episodes, changes of images and checkpoints, each at tiny size.

Each row is a call that gets tensors and says what comes out. Put on the GPU whole, it runs, and
what it gives is there; with one of its tensors left on the CPU, it must fail.
"""

import copy
import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import data, experiments, meta, multitask, streams, training
from mtl_course.checks import values
from mtl_course.checks.devices import PretendedGPU, _moved
from mtl_course.data.cifar_fs import SPLIT
from mtl_course.multitask import balancing, weighting

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real one")
CPU_GENERATOR, AUTOCAST, SCALER = torch.Generator, torch.autocast, torch.amp.GradScaler


class Generator(CPU_GENERATOR):
    """A generator that may say that it is on the GPU."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls, "cpu")
        made.place = torch.device(device)
        return made

    @property
    def device(self):
        return torch.device("cuda", 0) if self.place.type == "cuda" else torch.device("cpu")


class Autocast(AUTOCAST):
    def __init__(self, device_type, *precision, **options):
        super().__init__("cpu", *precision, **options)


class Scaler(SCALER):
    def __init__(self, device="cuda", **options):
        super().__init__("cpu", **options)


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
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    # Short precisions, as the CPU has them.
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    monkeypatch.setattr(torch, "autocast", Autocast)
    monkeypatch.setattr(torch.amp, "GradScaler", Scaler)
    # What is compiled goes round the mode that the pretended GPU is.
    monkeypatch.setattr(nn.Module, "compile", lambda self, *args, **options: None)
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


def loop_in_parts(model, x, y):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    options = {"epochs": 2, "batch": 5, "progress": False, "accumulate": 2}
    training.fit(model, (x, y), (x, y), F.mse_loss, optimizer, **options)
    return list(model.parameters())


def tasks_loop(combine, model, x, size, kind, **more):
    table = data.Table(x, {"size": size, "kind": kind})
    tasks = {"size": training.regression("size"), "kind": training.classification("kind")}
    learned = list(combine.parameters()) if isinstance(combine, nn.Module) else []
    optimizer = torch.optim.SGD([*model.parameters(), *learned], lr=0.01, momentum=0.9)
    options = {"epochs": 2, "batch": 5, "progress": False, **more}
    multitask.fit_tasks(model, tasks, table, table, optimizer, combine, **options)
    return list(model.parameters())


def weighted_loop(make, model, x, size, kind, **more):
    """Neither a weighting's weights nor what it learns are moved by who calls."""
    combine = make()
    given = tasks_loop(combine, model, x, size, kind, **more)
    return [*given, *combine.parameters(), *combine.buffers()]


def two_heads():
    heads = {"size": nn.Linear(4, 1), "kind": nn.Linear(4, 3)}
    return multitask.HardSharing(nn.Linear(4, 4), heads)


def evaluated(model, x, y):
    training.evaluate(model, (x, y), F.mse_loss)
    return training.predict(model, x)


def ewc(model, x):
    # Its labels go through vmap, where the pretended GPU cannot follow.
    return list(streams.fisher_diagonal(model, x, KINDS).values())


def short_loop(precision, model, x, y):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    options = {"epochs": 2, "batch": 5, "progress": False, "precision": precision}
    training.fit(model, (x, y), (x, y), F.mse_loss, optimizer, **options)
    return [*model.parameters(), training.predict(model, x, precision=precision)]


def short_tasks_loop(precision, model, x, size, kind):
    table = data.Table(x, {"size": size, "kind": kind})
    tasks = {"size": training.regression("size"), "kind": training.classification("kind")}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    options = {"epochs": 2, "batch": 5, "progress": False, "precision": precision}
    multitask.fit_tasks(
        model, tasks, table, table, optimizer, balancing.METHODS["pcgrad"], **options
    )
    return list(model.parameters())


def balanced(approximate, model, x, size, kind):
    z = model.trunk(x)
    losses = {
        "size": lambda z: F.mse_loss(model.heads["size"](z), size),
        "kind": lambda z: F.cross_entropy(model.heads["kind"](z), kind),
    }
    multitask.balanced_backward(
        z, losses, model.trunk.parameters(), balancing.upgrad, approximate=approximate
    )
    return [p.grad for p in model.parameters()]


def meta_step(take, model, x, y, query, truth):
    """One meta-step; tasks go one by one, since vmap cannot be followed."""
    f = meta.Functional(model, at_once=1)
    params = f.parameters()
    losses = take(f, params, data.Episodes((x, y), (query, truth)))
    return [losses, *(p.grad for p in params.values())]


def with_learned_rates(f, params, episodes):
    rates = meta.learned_rates(params, 0.1)
    losses = meta.meta_backward(f, params, episodes, F.mse_loss, 1, rates)
    return torch.cat([losses, *(rate.grad.flatten() for rate in rates.values())])


def meta_loop(model, x, y, query, truth):
    f, episodes = meta.Functional(model, at_once=1), data.Episodes((x, y), (query, truth))
    params = f.parameters()
    source = data.EpisodeSource(
        x.flatten(0, 1), torch.arange(6, device=x.device) % 2, targets=y.flatten(0, 1)
    )

    def backward(generator):
        drawn = source.regression(2, shots=1, queries=2, generator=generator)
        return meta.meta_backward(f, params, drawn, F.mse_loss, 1, 0.1)

    meta.fit_episodes(
        params,
        backward,
        torch.optim.Adam(params.values(), lr=0.01),
        steps=2,
        every=1,
        validate=lambda: meta.meta_losses(f, params, episodes, F.mse_loss, 1, 0.1).mean(),
        progress=False,
    )
    return list(params.values())


def drawn_episodes(x):
    # Labels may be anywhere: what is drawn is where x is.
    source = data.EpisodeSource(x, KINDS)
    generator = torch.Generator(x.device).manual_seed(0)
    episodes = source.classification(2, ways=2, shots=1, queries=2, generator=generator)
    return [*episodes.support, *episodes.query]


def tasks_of_lines():
    """Two tasks of three examples to adapt to and three to judge."""
    x = draw(4, 3, 4)
    return nn.Linear(4, 1), x[:2].clone(), x[:2, :, :1].clone(), x[2:].clone(), x[2:, :, :1].clone()


META_STEPS = {
    "maml": lambda *a: meta.meta_backward(*a, F.mse_loss, 2, 0.1),
    "fomaml": lambda *a: meta.meta_backward(*a, F.mse_loss, 2, 0.1, first_order=True),
    "anil": lambda *a: meta.meta_backward(*a, F.mse_loss, 2, 0.1, only="bias"),
    "meta-sgd": with_learned_rates,
    "reptile": lambda *a: meta.reptile_backward(*a, F.mse_loss, 2, 0.1),
}


WEIGHTINGS = {
    multitask.Fixed: ([1, 0.5],),
    multitask.Uncertainty: ([True, False],),
    multitask.GeometricMean: (),
    multitask.RandomWeights: (),
    multitask.DWA: (),
    multitask.SmoothChebyshev: ([0.5, 0.5], [0.0, 0.0]),
    multitask.GradNorm: (2,),
    multitask.FAMO: (2,),
}


def test_every_weighting_with_tensors_of_its_own_is_tried():
    there = {kind for kind in vars(weighting).values() if isinstance(kind, type)}
    kinds = {kind for kind in there if issubclass(kind, multitask.Weighting)}
    without = {multitask.Weighting, multitask.EqualWeights, multitask.Penalised}
    assert kinds == without | {*WEIGHTINGS}


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
    **{
        f"fit, {dtype}": (
            lambda: (nn.Linear(4, 1), X, Y),
            partial(short_loop, dtype),
        )
        for dtype in (torch.bfloat16, torch.float16)
    },
    **{
        f"fit_tasks, {dtype}": (
            lambda: (two_heads(), X, Y, KINDS),
            partial(short_tasks_loop, dtype),
        )
        for dtype in (torch.bfloat16, torch.float16)
    },
    **{
        f"fit_tasks, {kind.__name__}": (
            lambda: (two_heads(), X, Y, KINDS),
            partial(weighted_loop, partial(kind, *arguments)),
        )
        for kind, arguments in WEIGHTINGS.items()
    },
    **{
        f"fit_tasks in parts, {name}": (
            lambda: (two_heads(), X, Y, KINDS),
            partial(weighted_loop, combine, accumulate=2),
        )
        for name, combine in {
            "uncertainty": lambda: weighting.Uncertainty([True, False]),
            "geometric mean": weighting.GeometricMean,
        }.items()
    },
    "fit_tasks in parts, balanced": (
        lambda: (two_heads(), X, Y, KINDS),
        partial(tasks_loop, balancing.METHODS["upgrad"], accumulate=2),
    ),
    "fit in parts": (lambda: (nn.Linear(4, 1), X, Y), loop_in_parts),
    "balanced_backward": (lambda: (two_heads(), X, Y, KINDS), partial(balanced, False)),
    "balanced_backward at the features": (
        lambda: (two_heads(), X, Y, KINDS),
        partial(balanced, True),
    ),
    **{name: (tasks_of_lines, partial(meta_step, take)) for name, take in META_STEPS.items()},
    "fit_episodes": (tasks_of_lines, meta_loop),
    "EpisodeSource": (lambda: (X,), drawn_episodes),
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


def test_a_copy_of_a_module_is_where_the_module_is(device):
    (model,) = on(device, [nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))])
    with device:
        copied = copy.deepcopy(model)
    assert {device.place(t) for t in [*copied.parameters(), *copied.buffers()]} == {"cuda"}


# The experiments of chapters with the plan of the full size, made tiny: chapter -> the plan.
CHAPTERS = {
    "ch01": lambda chapter: replace(
        chapter.PLANS["gpu"], sizes=(2, 4), extras=(), hours=(25,), widths=(4,)
    ),
    "ch02": lambda chapter: replace(
        chapter.GPU,
        source=("mnist_5k",),
        targets=("digits",),
        size=8,
        channels=(4, 4),
        features=8,
        source_steps=4,
        source_batch=16,
        shots=(1, 2),
        kind_shots=1,
        kinds=("ink",),
        stops=(1, 2),
        held_out=(50, 50),
    ),
    "ch03": lambda chapter: replace(
        chapter.GPU,
        batch=8,
        steps=1,
        rounds=1,
        settings=replace(chapter.GPU.settings, widths=(4, 4, 4), epochs=1, batch=32),
    ),
    "ch04": lambda chapter: replace(
        chapter.PLANS["gpu"],
        people=200,
        rivers=100,
        validation=100,
        test=300,
        parameters=4000,
        epochs=2,
        rates=(5e-3,),
        digits=100,
        angles=100,
    ),
    "ch05": lambda chapter: chapter.Plan(
        train=300, validation=200, test=500, width=8, epochs=2, trials=1
    ),
    "ch06": lambda chapter: replace(
        chapter.GPU,
        source="mnist_5k",
        digits=(20, 10, 10),
        pairs=(60, 40, 40),
        size=12,
        channels=(2, 4),
        features=8,
        epochs=1,
        batch=30,
        rates=(1e-3, 2e-3, 5e-3),
        ratios=(0.5, 1.0, 2.0),
        radii=(0.2, 0.5, 0.8),
    ),
    "ch07": lambda chapter: chapter.Plan(
        (2,),
        replace(
            chapter.ch07_rivers.GPU, hours=60, width=2, steps=2, every=1, batch=30, rates=(5e-3,)
        ),
    ),
    "ch08": lambda chapter: {
        "CIFAR": replace(
            chapter.CIFAR, depths=(1,), widths=(4,), epochs=1, batch=32, limit=64, rates=(0.01,)
        )
    },
    "ch12": lambda chapter: replace(
        chapter.PLANS["gpu"],
        pairs=(("cifar10", "cifar100"),),
        depths=(1,),
        widths=(4,),
        source_epochs=1,
        batch=64,
        shots=(1,),
        held_out=2,
        epochs=1,
        updates=2,
        rates=(0.01,),
        pulls=((0.01, 1e-3),),
    ),
    "ch13": lambda chapter: chapter.Plan(
        width=8,
        source_images=40,
        source_steps=2,
        labels=20,
        pool=30,
        held_out=(20, 20),
        steps=2,
        batch=8,
        rates=(1e-3, 1e-2),
        widths=(2,),
        ranks=(1, 4),
        scales=(0.1, 0.5),
        keeps=(0.5,),
        ties_scales=(0.2,),
    ),
    "ch09": lambda chapter: replace(
        chapter.PLANS["gpu"],
        sizes=(100,),
        width=4,
        steps=2,
        every=1,
        batch=32,
        alone=((0.01, 0.1),),
        joint=((0.1, 0.1),),
        shrink=(3,),
        popular=(0.1,),
        mixed=(1,),
        pairs=32,
        whole_steps=2,
        whole_rates=(0.01,),
    ),
    "ch11": lambda chapter: replace(
        chapter.PLANS["gpu"],
        pieces=1500,
        length=30,
        width=8,
        layers=1,
        labels=(20,),
        validation=20,
        test=40,
        pretrain_steps=20,
        pretrain_batch=4,
        rates=(1e-2,),
        steps=20,
        looks=1,
        batch=4,
    ),
    "ch15": lambda chapter: replace(
        chapter.tiny(chapter.PLANS["cpu"]),
        channels=(2, 2),
        features=4,
        steps=2,
        rates=(0.005,),
        strengths=tuple((m, some[:1]) for m, some in chapter.PLANS["cpu"].strengths),
    ),
    "ch16": lambda chapter: replace(
        chapter.PLANS["gpu"],
        size=8,
        channels=(4, 4),
        features=8,
        images=60,
        source_steps=2,
        source_batch=8,
        pairs=8,
        shots=(1,),
        rates=(0.01,),
        stops=(1,),
        batch=4,
        angles=(20,),
    ),
    "ch17": lambda chapter: replace(
        chapter.PLANS["gpu"],
        updates={"sinusoids": 2, "schools": 2},
        tasks=2,
        shots=3,
        queries=3,
        width=4,
        judged=3,
        pool=4,
        outer=(1e-3,),
    ),
    "ch18": lambda chapter: replace(
        chapter.GPU,
        sets=("cifar_fs",),
        settings={"cifar_fs": ((5, 1),)},
        elsewhere={},
        width=4,
        queries=1,
        steps=1,
        every=1,
        images=10,
        judged=2,
        tried=1,
    ),
    "ch19": lambda chapter: (
        replace(
            chapter.GPU[0],
            sizes=(8, 4, 8),
            width=4,
            epochs=1,
            batch=16,
            buffers=(10,),
            samples=5,
            tuning=1,
            rates=(0.01,),
            ewc=((0.03, 10.0),),
            distillation=((0.01, 1.0),),
        ),
    ),
    "ch20": lambda chapter: replace(
        chapter.PLANS["gpu"],
        width=8,
        layers=1,
        steps=20,
        tasks=2,
        orders=1,
        labels=(20,),
        draws=1,
        test=20,
        trees=1,
        hidden=4,
        maml_steps=2,
        inner=(1,),
        inner_rates=(0.1,),
        line_steps=20,
        noises=(0.5,),
    ),
    "ch22": lambda chapter: replace(
        chapter.PLANS["gpu"],
        size=6,
        classes=4,
        copies=1,
        sizes=(20, 12, 8, 6, 4),
        validation=6,
        test=8,
        width=4,
        batch=4,
        stops=(5, 10),
        rates=(0.03,),
    ),
}
SEEDS = {"ch07": [0, 1]}  # for two halves of the repeats
# What no plan makes smaller.
CONSTANTS = {
    "ch20": {"TABLES": ("haberman",), "WIDE": ("ionosphere",), "LARGE": ("segment",)},
    "ch17": {"COUNTS": (0, 1, 5), "RATES": (0.01, 0.1)},
    "ch18": {"RATES": (0.01,), "ADAPT": ((1, 0.1), (2, 0.1)), "TUNE": ((1, 0.1), (2, 0.1))},
}


def few_reviews(chapter, monkeypatch):
    """The first reviews alone: to cut all of them into pieces takes half a minute."""
    read, count = chapter.reviews, 1200
    texts = [str(text) for text in data.load("reviews").text[:count]]
    words = chapter.TfidfVectorizer(min_df=2).fit_transform(texts)
    monkeypatch.setattr(chapter, "reviews", lambda length, pieces: read(length, pieces, count))
    monkeypatch.setattr(chapter, "bags", lambda pieces: words)


# And what a number does not make smaller.
SMALLER = {"ch11": few_reviews}
# Chapters that are left out, and why.
LEFT_OUT: dict[str, str] = {
    "ch10": "its networks stay on the CPU: many small ones side by side, whose data lie there",
    "ch14": "its networks stay on the CPU, whatever the profile: what it times are CPUs",
    "ch21": "its networks stay on the CPU, whatever the profile",
    "ch23": "its networks stay on the CPU: many small ones side by side, whose data lie there",
    "ch24": "its networks stay on the CPU, whatever the profile",
}


class Photos(dict):
    """In place of CIFAR, which is large: as many classes, with a few noisy images each."""

    def __init__(self, name):
        draws = np.random.RandomState(0)
        names = sorted(set().union(*SPLIT.values())) if name == "cifar100" else list("0123456789")
        super().__init__(names=np.array(names))
        self.info = SimpleNamespace(name=name)
        for half, each in (("train", 10), ("test", 2)):
            y = np.tile(np.arange(len(names)), each)
            self[f"x_{half}"] = draws.randint(0, 256, (len(y), 32, 32, 3)).astype(np.uint8)
            self[f"y_{half}"] = y


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")
@pytest.mark.parametrize("name", CHAPTERS)
def test_the_experiment_of_a_chapter_runs_on_it(name, device, monkeypatch):
    chapter = import_module(f"mtl_course.experiments.{name}")
    for module in [m for key, m in sys.modules.items() if key.startswith(chapter.__name__)]:
        if hasattr(module, "fastest"):
            monkeypatch.setattr(module, "fastest", lambda: torch.device("cuda", 0))
    for constant, few in CONSTANTS.get(name, {}).items():
        monkeypatch.setattr(chapter, constant, few)
    monkeypatch.setattr(data, "load_or_partial", Photos)
    try:
        SMALLER.get(name, lambda *_: None)(chapter, monkeypatch)
        with device:
            chapter.run(
                "gpu", SEEDS.get(name, [0]), lambda line: None, plan=CHAPTERS[name](chapter)
            )
    except data.DataError as error:
        pytest.skip(f"its data cannot be had here: {error}")
    assert "cuda" in device._places.values()


def test_every_chapter_with_an_experiment_is_tried_or_has_a_reason():
    folder = Path(experiments.__file__).parent
    chapters = {path.stem for path in folder.glob("ch[0-9][0-9].py")}
    assert chapters == {*CHAPTERS, *LEFT_OUT} and not {*CHAPTERS} & {*LEFT_OUT}
    assert all(LEFT_OUT.values())
