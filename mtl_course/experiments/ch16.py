"""Chapter 16: which of several sources helps a target most, and which score knows it beforehand.

Eight sources are fine-tuned on five targets with few labels. MNIST's digits and the letters of the
Latin script are three sources each: with their labels, without any, and with labels of another
question. Before that, every source is scored on the very labels that it is then tuned on.

`prepare` makes the sources of one seed, `compare` scores and tries them on one target, `angles`
turns the views of the sources without labels too far. Needs no Jupyter.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import stack_module_state
from torch.nn import functional as F

from .. import data, transfer
from ..networks.trunks import Classifier, cnn
from ..records.pieces import kept
from ..runtime import device as fastest
from .ch02 import frame, train_runs
from .common import right_answers, seeded

SCRATCH = "none"
SOURCES = (
    "MNIST digits",
    "MNIST, no labels",
    "MNIST, amount of ink",
    "UCI, other writers",
    "Latin letters",
    "Latin, no labels",
    "Latin, which font",
    "Cyrillic letters",
)
UNLABELLED = ("MNIST, no labels", "Latin, no labels")
TARGETS = ("UCI digits", "MNIST", "Greek", "Armenian", "Georgian")
SCORES = ("probe, held out", "probe, left out", "H-score", "LogME", "NCE", "LEEP")
TURNED = (("b", "q"), ("d", "p"), ("a", "\u0250"), ("t", "\u0287"), ("M", "W"))  # by half a turn
FACES = 12  # of the glyphs
COPIES = 3  # pictures of a glyph that is a target, each a little moved


@dataclass(frozen=True)
class Plan:
    """Sizes and settings, the same for every source and target.

    Args:
        size: pixels a side.
        channels: of the convolutions.
        features: what the trunk gives.
        images: of each source.
        source_steps: of SGD with momentum 0.9, for each source.
        source_batch: images per step, for a source with labels.
        source_rate: its rate.
        pairs: images per step of a source without labels; each is seen in two views.
        view_rate: its rate.
        temperature: of NT-Xent.
        shots: labels per class of a target.
        rates: that every start may try on a target.
        stops: numbers of steps that validation chooses among.
        batch: images per step on the target.
        angles: how far views are turned at most, in degrees, in `angles`.
    """

    size: int = 12
    channels: tuple[int, ...] = (16, 32)
    features: int = 64
    images: int = 2500
    source_steps: int = 400
    source_batch: int = 64
    source_rate: float = 0.05
    pairs: int = 128
    view_rate: float = 0.03
    temperature: float = 0.5
    shots: tuple[int, ...] = (1, 3, 5)
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    stops: tuple[int, ...] = (50, 100, 200)
    batch: int = 32
    angles: tuple[float, ...] = (0, 20, 60, 120, 180)


PLANS = {
    "cpu": Plan(),
    "gpu": Plan(size=28, channels=(32, 64), features=256, source_steps=2000, shots=(1, 3, 5, 10)),
}


# ------------------------------------------------------------------------------------------ images
def moved(
    x: Tensor,
    generator: torch.Generator,
    angle: float = 20.0,
    zoom: float = 0.2,
    shift: float = 0.1,
) -> Tensor:
    """Each image turned, zoomed and shifted at random; what comes in from outside is background.

    Args:
        x: [B, 1, H, H].
        generator: of the draws, on the CPU.
        angle: largest angle in degrees, either way.
        zoom: largest change of size, as a share.
        shift: largest shift, as a share of the side.
    """

    def draw(most):
        return (2 * torch.rand(len(x), generator=generator) - 1).to(x.device) * most

    turn, size = torch.deg2rad(draw(angle)), 1 + draw(zoom)
    cos, sin = turn.cos() / size, turn.sin() / size
    rows = torch.stack([cos, -sin, 2 * draw(shift), sin, cos, 2 * draw(shift)], dim=1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(x.shape), align_corners=False)
    background = x.amin()
    return F.grid_sample(x - background, grid, align_corners=False) + background


def view(x: Tensor, generator: torch.Generator, angle: float = 20.0) -> Tensor:
    """A random view of each image: moved, with another contrast, and with some noise."""
    y = moved(x, generator, angle)
    contrast = 0.7 + 0.6 * torch.rand(len(x), 1, 1, 1, generator=generator)
    noise = 0.15 * torch.randn(x.shape, generator=generator)
    return y * contrast.to(x.device) + noise.to(x.device)


def glyphs(script: str, copies: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The characters of a script in twelve faces, each drawn `copies` times, a little moved.

    Returns:
        Images [N, 1, size, size] with mean 0 and variance 1, characters [N] from 0 on, faces [N].
    """
    ds = data.load("glyphs")
    ours = ds["scripts"][ds["y"]] == list(ds["script_names"]).index(script)
    rows = np.flatnonzero(ours).repeat(copies)
    x = torch.as_tensor(np.array(ds["x"][rows])).float()[:, None]
    x = moved(x, torch.Generator().manual_seed(0), angle=15, zoom=0.15, shift=0.06)
    x = F.adaptive_avg_pool2d(x, size)
    _, y = np.unique(ds["y"][rows], return_inverse=True)
    return (x - x.mean()) / x.std(), torch.as_tensor(y), torch.as_tensor(np.array(ds["font"][rows]))


def mnist_halves(size: int) -> list[tuple[Tensor, Tensor]]:
    """Images and labels of two halves of 2,500: one for sources, one to be a target."""
    ds = data.load("mnist_5k")
    x, y = frame(ds["x"], size), torch.as_tensor(np.array(ds["y"]))
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return [(x[rows], y[rows]) for rows in order.chunk(2)]


def ink(x: Tensor, levels: int = 10) -> Tensor:
    """Which tenth of the set an image's amount of ink falls in, [N]."""
    return x.flatten(1).sum(dim=1).argsort().argsort() * levels // len(x)


def source_sets(
    plan: Plan, names: Sequence[str] = SOURCES
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Source -> images and labels; None for labels where there are none."""
    (mnist, digits), _ = mnist_halves(plan.size)
    other = data.load("optdigits")
    new = np.flatnonzero(other["in_digits"] == 0)  # 30 writers of whom the set digits has nothing
    latin, letters, fonts = glyphs("Latin", 2, plan.size)
    cyrillic, signs, _ = glyphs("Cyrillic", 5, plan.size)
    sets = {
        "MNIST digits": (mnist, digits),
        "MNIST, no labels": (mnist, None),
        "MNIST, amount of ink": (mnist, ink(mnist)),
        "UCI, other writers": (
            frame(other["x"][new], plan.size),
            torch.as_tensor(np.array(other["y"][new])),
        ),
        "Latin letters": (latin, letters),
        "Latin, no labels": (latin, None),
        "Latin, which font": (latin, fonts),
        "Cyrillic letters": (cyrillic, signs),
    }
    chosen = {}
    for name in names:
        x, y = sets[name]
        g = torch.Generator().manual_seed(0)  # the same images for all labellings of a set
        rows = torch.randperm(len(x), generator=g)[: plan.images]
        chosen[name] = (x[rows], None if y is None else y[rows])
    return chosen


@dataclass(frozen=True)
class Target:
    """A target.

    Args:
        x: images [N, 1, H, H].
        y: classes [N], from 0 on.
        faces: the face of each glyph [N]; None for digits, which have none.
    """

    x: Tensor
    y: Tensor
    faces: Tensor | None = None

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.y.max()) + 1

    def parts(self, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows to draw training images from, to validate and to test; the split is drawn by seed.

        Glyphs are split by their faces (5, 3 and 4 of 12), so that no face is on two sides; of the
        digits 200 are for validation and 800 for the test.
        """
        g = torch.Generator().manual_seed(seed)
        if self.faces is None:
            order = torch.randperm(len(self.y), generator=g)
            return order[1000:], order[:200], order[200:1000]
        order = torch.randperm(FACES, generator=g)
        return tuple(
            torch.isin(self.faces.cpu(), some).nonzero().flatten()
            for some in order.split([5, 3, 4])
        )

    def few(self, shots: int, seed: int) -> Tensor:
        """Rows of `shots` training images per class; larger draws contain the smaller ones."""
        pool, _, _ = self.parts(seed)
        return pool[torch.as_tensor(data.per_class(self.y.cpu()[pool].numpy(), shots, seed))]


def target_sets(plan: Plan, names: Sequence[str] = TARGETS) -> dict[str, Target]:
    """The targets by name."""
    made = {}
    for name in names:
        if name == "UCI digits":
            ds = data.load("digits")
            made[name] = Target(frame(ds["x"], plan.size), torch.as_tensor(np.array(ds["y"])))
        elif name == "MNIST":
            made[name] = Target(*mnist_halves(plan.size)[1])
        else:
            made[name] = Target(*glyphs(name, COPIES, plan.size))
    return made


# ----------------------------------------------------------------------------------- making sources
def network(plan: Plan, classes: int) -> Classifier:
    """A freshly drawn network."""
    trunk = cnn(plan.size, plan.channels, plan.features)
    return Classifier(trunk, plan.features, classes)


def train_source(plan: Plan, x: Tensor, y: Tensor, seed: int) -> Classifier:
    """A source with labels: cross-entropy, SGD with momentum."""
    model = seeded(lambda: network(plan, int(y.max()) + 1), seed).to(x.device)
    optimizer = torch.optim.SGD(model.parameters(), plan.source_rate, momentum=0.9)
    order = torch.Generator().manual_seed(seed)
    for _ in range(plan.source_steps):
        rows = torch.randint(len(y), (plan.source_batch,), generator=order)
        loss = F.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def projection(features: int) -> nn.Sequential:
    """What stands upon the trunk while views are compared, and is thrown away afterwards."""
    return nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, 32))


def train_views(
    plan: Plan,
    x: Tensor,
    seed: int,
    change: Callable[[Tensor, torch.Generator], Tensor] = view,
) -> Classifier:
    """A source without labels: find the other view of the same image (SimCLR).

    What is returned has the trunk, and a head of which nothing was learned.
    """
    model = seeded(lambda: network(plan, 10), seed).to(x.device)
    project = seeded(lambda: projection(plan.features), seed).to(x.device)
    parameters = [*model.trunk.parameters(), *project.parameters()]
    optimizer = torch.optim.SGD(parameters, plan.view_rate, momentum=0.9)
    g = torch.Generator().manual_seed(seed)
    for _ in range(plan.source_steps):
        images = x[torch.randint(len(x), (plan.pairs,), generator=g)]
        both = torch.cat([change(images, g), change(images, g)])
        a, b = project(model.trunk(both)).chunk(2)
        loss = transfer.nt_xent(a, b, plan.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def prepare(
    plan: Plan, seed: int, names: Sequence[str] = SOURCES
) -> tuple[dict[str, Classifier], dict[str, float]]:
    """The sources of one seed, and the CPU seconds that each took. "none" is an untrained network.

    Its seed is apart from those of the sources.
    """
    device = fastest()
    models = {SCRATCH: seeded(lambda: network(plan, 10), 1000 + seed).to(device)}
    seconds = {}
    for name, (x, y) in source_sets(plan, names).items():
        start = time.process_time()
        if y is None:
            models[name] = train_views(plan, x.to(device), seed)
        else:
            models[name] = train_source(plan, x.to(device), y.to(device), seed)
        seconds[name] = time.process_time() - start
    return models, seconds


# ------------------------------------------------------------------------------- scoring and trying
def held_out_probe(
    features: Tensor, labels: Tensor, new: Tensor, truth: Tensor, strength: float | None = None
) -> tuple[float, Tensor]:
    """A linear probe as in chapter 2: fitted on some examples, judged on others.

    It is ridge regression to one-hot labels on standardised features, as `transfer.probe_score`.

    Returns:
        The accuracy on the new examples, and its answers.
    """
    features, new = features.double().cpu(), new.double().cpu()
    labels, truth = labels.cpu(), truth.cpu()
    mean, spread = features.mean(dim=0), features.std(dim=0)
    spread = torch.where(spread > 1e-6, spread, torch.inf)
    a, b = (torch.cat([(f - mean) / spread, f.new_ones(len(f), 1)], 1) for f in (features, new))
    strength = features.shape[1] if strength is None else strength
    hot = F.one_hot(labels).double()
    weights = a.T @ torch.linalg.solve(a @ a.T + strength * torch.eye(len(a)).double(), hot)
    answers = (b @ weights).argmax(dim=1)
    return float((answers == truth).double().mean()), answers


@torch.no_grad()
def score(
    model: Classifier, target: Target, rows: Tensor, validation: Tensor, headed: bool = True
) -> dict[str, float]:
    """Every score of a source for a target, before anything is trained.

    Args:
        model: the source.
        target: the target.
        rows: its labelled images, of which all scores know.
        validation: images that the held-out probe is judged on, as the rates are later.
        headed: whether the source's head has learned something. NCE and LEEP need that.
    """
    x, y = target.x[rows], target.y[rows]
    features = model.trunk(x)
    fresh = model.trunk(target.x[validation])
    values = {
        "probe, held out": held_out_probe(features, y, fresh, target.y[validation])[0],
        "probe, left out": transfer.probe_score(features, y),
        "H-score": transfer.h_score(features, y),
        "LogME": transfer.logme(features, y),
    }
    if headed:
        said = model.head(features).double().softmax(dim=1)
        values |= {"NCE": transfer.nce(said.argmax(dim=1), y), "LEEP": transfer.leep(said, y)}
    return values


def try_all(
    plan: Plan, models: Mapping[str, Classifier], target: Target, shots: int, seed: int
) -> dict[str, dict]:
    """Fine-tune every start on the target, with every rate, all side by side.

    Every start gets the same new head. Rate and number of steps are those with the best validation
    accuracy, for each start by itself.

    Returns:
        Start -> "test" and "validation" accuracy, "rate", "steps".
    """
    _, validation, test = target.parts(seed)
    head = seeded(lambda: nn.Linear(plan.features, target.classes), 2000 + seed)
    starts = [copy.deepcopy(model) for model in models.values()]
    for start in starts:
        start.head = copy.deepcopy(head).to(target.x.device)
    params, _ = stack_module_state(starts)
    count = len(plan.rates)
    rate = torch.tensor(plan.rates, device=target.x.device).repeat(len(starts))
    rows = target.few(shots, seed).to(target.x.device)
    ends = train_runs(
        starts[0],
        {name: p.detach().repeat_interleave(count, dim=0) for name, p in params.items()},
        target.x,
        target.y,
        rows=rows.expand(len(rate), -1),
        rate=rate,
        stops=plan.stops,
        batch=plan.batch,
        seed=seed,
    )

    def accuracies(rows):
        """[stops, starts * rates]."""
        x, y = target.x[rows], target.y[rows]
        return torch.stack([right_answers(starts[0], end, x, y).float().mean(1) for end in ends])

    on_validation, on_test = accuracies(validation), accuracies(test)
    results = {}
    for k, name in enumerate(models):
        mine = slice(k * count, (k + 1) * count)
        stop, which = divmod(int(on_validation[:, mine].argmax()), count)
        results[name] = {
            "test": float(on_test[stop, mine][which]),
            "validation": float(on_validation[stop, mine][which]),
            "rate": plan.rates[which],
            "steps": plan.stops[stop],
        }
    return results


def compare(
    plan: Plan, models: Mapping[str, Classifier], target: Target, shots: int, seed: int
) -> dict[str, dict]:
    """Start -> what `try_all` gives, and "scores" as `score` has them before."""
    rows, (_, validation, _) = target.few(shots, seed), target.parts(seed)
    scores = {
        name: score(model, target, rows, validation, name not in (*UNLABELLED, SCRATCH))
        for name, model in models.items()
    }
    tried = try_all(plan, models, target, shots, seed)
    return {name: row | {"scores": scores[name]} for name, row in tried.items()}


def one_seed(plan: Plan, seed: int, names: Sequence[str] = TARGETS) -> dict:
    """Everything of one seed: "seconds" of the sources, and shots -> target -> `compare`."""
    models, seconds = prepare(plan, seed)
    device, results = fastest(), {}
    sets = target_sets(plan, names)
    for shots in plan.shots:
        results[str(shots)] = {
            name: compare(
                plan, models, Target(t.x.to(device), t.y.to(device), t.faces), shots, seed
            )
            for name, t in sets.items()
        }
    return {"seconds": seconds, "results": results}


# ------------------------------------------------------------------------ views that destroy labels
def pair_accuracy(
    features: Tensor, y: Tensor, rows: Tensor, test: Tensor, pairs: Sequence[tuple[int, int]]
) -> list[float]:
    """Accuracy of a two-class probe for each pair of classes, on a trunk that stays as it is.

    Args:
        features: [N, d].
        y: classes [N].
        rows: the labelled examples.
        test: the examples that are judged.
        pairs: of classes.
    """
    values = []
    for a, b in pairs:
        old, new = (some[(y[some] == a) | (y[some] == b)] for some in (rows, test))
        truth = (y[new] == b).long()
        values.append(held_out_probe(features[old], (y[old] == b).long(), features[new], truth)[0])
    return values


def turned_pairs(alphabet: Sequence[str]) -> list[tuple[int, int]]:
    """Letters that are each other after half a turn, as numbers in this alphabet."""
    return [(alphabet.index(a), alphabet.index(b)) for a, b in TURNED]


def other_pairs(classes: int, without: Sequence[tuple[int, int]], count: int = 60):
    """As many other pairs of classes, always the same ones; all, where there are fewer."""
    all_pairs = [(a, b) for a in range(classes) for b in range(a + 1, classes)]
    rest = [pair for pair in all_pairs if pair not in {tuple(sorted(p)) for p in without}]
    order = np.random.default_rng(0).permutation(len(rest))[:count]
    return [rest[k] for k in order]


def angles(plan: Plan, seed: int, shots: int = 5) -> dict[str, dict[str, float]]:
    """Sources without labels whose views are turned by more and more, and what they cannot tell.

    Returns:
        Angle (as text) -> mean accuracies of two-class probes: "turned letters" and "other
        letters" on a source from Latin letters, "6 and 9" and "other digits" on one from MNIST.
    """
    x, y, fonts = glyphs("Latin", COPIES, plan.size)
    ds = data.load("glyphs")
    latin = [str(c) for c in ds["names"][ds["scripts"] == list(ds["script_names"]).index("Latin")]]
    digits = target_sets(plan, ["MNIST"])["MNIST"]
    sets = [
        (Target(x, y, fonts), x, turned_pairs(latin), "turned letters", "other letters"),
        (digits, mnist_halves(plan.size)[0][0], [(6, 9)], "6 and 9", "other digits"),
    ]
    results = {str(angle): {} for angle in plan.angles}
    for target, images, special, name, rest in sets:
        rows, (_, _, test) = target.few(shots, seed), target.parts(seed)
        others = other_pairs(target.classes, special)
        for angle in plan.angles:
            model = train_views(plan, images, seed, partial(view, angle=angle))
            with torch.no_grad():
                features = model.trunk(target.x)
            for key, pairs in ((name, special), (rest, others)):
                values = pair_accuracy(features, target.y, rows, test, pairs)
                results[str(angle)][key] = float(np.mean(values))
    return results


def run_longer(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """Beyond the edges of the search: more steps and rates, with the most labels. As `run`."""
    plan = plan or PLANS["cpu"]
    wide = replace(
        plan,
        shots=(max(plan.shots),),
        stops=(*plan.stops, 2 * max(plan.stops), 4 * max(plan.stops)),
        rates=(*plan.rates, 0.3),
    )
    results = {"seeds": []}
    for seed in seeds:
        results["seeds"].append(kept(f"longer, seed {seed}", one_seed, wide, seed))
        gains = gain_matrix(results["seeds"][-1:], str(max(plan.shots)))
        report(f"seed {seed}: gain of {100 * np.mean(gains):+.1f} points on average")
    return results


# ------------------------------------------------------------------------------------------ records
def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """The whole experiment, as plain JSON: what `one_seed` and `angles` give, seed by seed.

    Returns:
        "seeds": a list of what `one_seed` gives; "angles": a list of what `angles` gives.
    """
    plan = plan or PLANS[profile]
    results = {"sources": list(SOURCES), "targets": list(TARGETS), "seeds": [], "angles": []}
    for seed in seeds:
        results["seeds"].append(kept(f"{profile}, seed {seed}", one_seed, plan, seed))
        gains = gain_matrix(results["seeds"][-1:], str(max(plan.shots)))
        report(f"seed {seed}: gain of {100 * np.mean(gains):+.1f} points on average")
        results["angles"].append(kept(f"{profile}, angles, seed {seed}", angles, plan, seed))
        shown = {
            angle: f"{row['turned letters']:.2f}" for angle, row in results["angles"][-1].items()
        }
        report(f"seed {seed}: turned letters by angle {shown}")
    return results


def gain_matrix(
    seeds: Sequence[Mapping], shots: str, which: str = "test", sources: Sequence[str] = SOURCES
) -> np.ndarray:
    """Accuracy of every source minus that from scratch: [seeds, sources, targets].

    Sources and targets are in the order of SOURCES and TARGETS, whatever order a record has.
    """
    rows = []
    for seed in seeds:
        tried = _in_order(seed["results"][shots])
        rows.append([[t[s][which] - t[SCRATCH][which] for t in tried] for s in sources])
    return np.array(rows)


def score_matrix(
    seeds: Sequence[Mapping], shots: str, name: str, sources: Sequence[str] = SOURCES
) -> np.ndarray:
    """A score of every source for every target: [seeds, sources, targets]; NaN for none."""
    rows = []
    for seed in seeds:
        tried = _in_order(seed["results"][shots])
        rows.append([[t[s]["scores"].get(name, np.nan) for t in tried] for s in sources])
    return np.array(rows, dtype=float)


def _in_order(by_target: Mapping[str, dict]) -> list[dict]:
    return [by_target[name] for name in TARGETS if name in by_target]


RECORDS = {"longer": run_longer}
