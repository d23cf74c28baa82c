"""Chapter 13: six corruptions of digits as tasks on one source, and their experts added up.

A source network knows clean and slightly corrupted digits. Each of six tasks is to name digits
under one corruption, and has labels of its own. First: how much of what a full copy per task gains
is gained by a few weights per task on the frozen source, each method at its own best rate? Then:
what is left of it when the full copies are merged into one network? Needs no Jupyter.
"""

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from .. import data
from ..data.corruptions import STRENGTHS, corrupt
from ..networks.cost import parameters
from ..networks.trunks import Classifier, mlp
from ..records.pieces import kept
from ..runtime import device as fastest
from ..transfer import adapters, lora, merging
from ..transfer.freezing import freeze, unfreeze
from .ch13_text import run_text
from .common import seeded, stacked

TASKS = tuple(STRENGTHS)
FULL, PROBE, BITFIT = "full copy", "probe", "BitFit"
State = dict[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment, and what every method may try.

    Args:
        width: of the three hidden layers.
        source_images: clean digits that the source is trained on, as they are and under every
            corruption at severity 1.
        source_steps: of Adam.
        labels: images per task to tune on, out of `pool` that all tasks share.
        pool: how many these are.
        held_out: images for validation and for the test.
        severity: of the tasks' corruptions.
        steps: of Adam on each task.
        batch: images per step.
        rates: that every method may try.
        widths: of adapters.
        ranks: of LoRA.
        scales: the coefficients that task arithmetic may try.
        keeps: shares that TIES may keep, each with all of `ties_scales`.
        ties_scales: the coefficients that TIES may try.
    """

    width: int = 256
    source_images: int = 2000
    source_steps: int = 600
    labels: int = 1000
    pool: int = 1500
    held_out: tuple[int, int] = (500, 1000)
    severity: int = 3
    steps: int = 150
    batch: int = 32
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    widths: tuple[int, ...] = (8,)
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16)
    scales: tuple[float, ...] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.75, 1.0)
    keeps: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0)
    ties_scales: tuple[float, ...] = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)


PLANS = {"cpu": Plan(), "gpu": Plan(width=1024, source_steps=2000, steps=600)}
# The notebook's own run: a narrower network, and one rate for each method, as the search of the
# record's seeds preferred.
LIVE = Plan(width=128, labels=500)
LIVE_RATES = {FULL: 3e-3, PROBE: 3e-2, "LoRA r=4": 1e-2}


def methods(plan: Plan) -> dict[str, Callable[[Classifier], nn.Module]]:
    """Method -> what it makes of a copy of the source: which parameters want gradients.

    All but the full copy freeze the trunk; all train the head, which is the source's at first.
    """

    def frozen(change: Callable[[Classifier], object]) -> Callable[[Classifier], nn.Module]:
        def prepare(model: Classifier) -> nn.Module:
            change(model)
            unfreeze(model.head)
            return model

        return prepare

    made = {FULL: lambda model: model, PROBE: frozen(freeze)}
    made[BITFIT] = frozen(lambda model: adapters.bitfit(model, "trunk.*"))
    for width in plan.widths:
        made[f"adapters m={width}"] = frozen(
            lambda model, width=width: adapters.add_adapters(model, "trunk.*", width)
        )
    for rank in plan.ranks:
        made[f"LoRA r={rank}"] = frozen(
            lambda model, rank=rank: lora.add_lora(model, "trunk.*", rank)
        )
    return made


@cache
def digits() -> tuple[Tensor, Tensor]:
    """MNIST, 5,000 images [N, 1, 14, 14] in [0, 1], averaged over 2 x 2 pixels, and labels [N]."""
    ds = data.load("mnist_5k")
    x = torch.from_numpy(np.array(ds.x)).float()[:, None] / 255
    return F.avg_pool2d(x, 2), torch.from_numpy(np.array(ds.y))


def standard(x: Tensor) -> Tensor:
    """Pixels in [0, 1] to about mean 0 and deviation 1, by MNIST's numbers, whatever the task."""
    return (x - 0.13) / 0.28


def train_many(
    outputs: Callable[[Mapping[str, Tensor], Tensor], Tensor],
    start: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    rates: Tensor,
    steps: int,
    batch: int,
    seed: int = 0,
) -> State:
    """Train R networks side by side with Adam; the rate falls to zero over the second half.

    Args:
        outputs: (stacked parameters, inputs [R, B, ...]) -> logits [R, B, classes].
        start: name -> [R, ...], the parameters to train; what is frozen is in `outputs`.
        x: [R, n, ...], or [1, n, ...] for all of them.
        y: int64 [R, n], or [1, n].
        rates: [R].
        steps: how many.
        batch: images per step; all runs draw the same positions.
        seed: of the batches.

    Returns:
        name -> [R, ...], detached.
    """
    R, order = len(rates), torch.Generator().manual_seed(seed)
    params = {name: value.clone().requires_grad_() for name, value in start.items()}
    mean = {name: torch.zeros_like(value) for name, value in start.items()}
    square = {name: torch.zeros_like(value) for name, value in start.items()}
    for step in range(1, steps + 1):
        rows = torch.randint(x.shape[1], (batch,), generator=order)
        logits = outputs(params, x[:, rows].expand(R, *[-1] * (x.ndim - 1)))
        wanted = y[:, rows].expand(R, *[-1] * (y.ndim - 1)).flatten()
        # The gradient of the runs' losses, summed, holds each run's own.
        loss = R * F.cross_entropy(logits.flatten(0, -2), wanted)
        gradients = torch.autograd.grad(loss, list(params.values()))
        now = rates * min(1.0, 2 * (1 - (step - 1) / steps))
        with torch.no_grad():
            for (name, p), g in zip(params.items(), gradients, strict=True):
                mean[name].mul_(0.9).add_(g, alpha=0.1)
                square[name].mul_(0.999).addcmul_(g, g, value=0.001)
                size = (square[name] / (1 - 0.999**step)).sqrt_().add_(1e-8)
                rate = (now / (1 - 0.9**step)).view(-1, *[1] * (p.ndim - 1))
                p.sub_(mean[name] / size * rate)
    return {name: value.detach() for name, value in params.items()}


@dataclass
class Tuned:
    """What a method made of the source, for all rates and tasks at once.

    Args:
        model: the form of its networks, with the frozen weights.
        params: name -> [rates x tasks, ...], what was trained.
        validation: accuracies [rates, tasks].
        test: accuracies [rates, tasks].
    """

    model: nn.Module
    params: State
    validation: Tensor
    test: Tensor

    @property
    def best(self) -> int:
        """Number of the rate with the best mean validation accuracy."""
        return int(self.validation.mean(1).argmax())

    @property
    def near(self) -> int:
        """Number of the lowest rate that is within a point of the best on validation pictures.

        Networks that have moved less are easier to merge.
        """
        means = self.validation.mean(1)
        return int((means >= means.max() - 0.01).nonzero()[0])

    @property
    def count(self) -> int:
        """Parameters that are trained for each task."""
        return sum(value[0].numel() for value in self.params.values())

    def own(self, rate: int, task: int) -> State:
        """What one task has of its own at one rate."""
        place = rate * self.test.shape[1] + task
        return {name: value[place].clone() for name, value in self.params.items()}


class Study:
    """A source network and six tasks; every picture is in one part only.

    Args:
        plan: sizes.
        seed: of the split, the source, the corruptions and the batches.
        device: where to train.
    """

    def __init__(self, plan: Plan, seed: int, device: torch.device | str = "cpu"):
        self.plan, self.seed, self.device = plan, seed, device
        x, y = digits()
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        ends = np.cumsum([plan.source_images, plan.pool, *plan.held_out])
        source, pool, validation, test, _ = order.tensor_split(torch.as_tensor(ends))
        g = torch.Generator().manual_seed(seed)
        views = [corrupt(x[source], name, 1, g) for name in TASKS]
        self.seen = standard(torch.cat([x[source], *views])).to(device)
        self.seen_labels = y[source].repeat(1 + len(views)).to(device)
        self.clean = standard(x[test]).to(device), y[test].to(device)

        def under_each(rows: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
            chosen = [rows() for _ in TASKS]
            pictures = [
                corrupt(x[r], n, plan.severity, g) for n, r in zip(TASKS, chosen, strict=True)
            ]
            labels = torch.stack([y[r] for r in chosen])
            return standard(torch.stack(pictures)).to(device), labels.to(device)

        self.train = under_each(lambda: pool[torch.randperm(len(pool), generator=g)[: plan.labels]])
        self.validation = under_each(lambda: validation)
        self.test = under_each(lambda: test)
        self.network = self.fresh(seed)
        self.source = {name: p[0] for name, p in self.sources([seed]).items()}
        self.network.load_state_dict(self.source)

    def fresh(self, seed: int) -> Classifier:
        """A freshly drawn network."""
        return seeded(self._build, seed).to(self.device)

    def _build(self) -> Classifier:
        widths = [14 * 14, *[self.plan.width] * 3]
        return Classifier(nn.Sequential(nn.Flatten(), *mlp(widths)), self.plan.width, 10)

    def sources(self, seeds: Sequence[int]) -> State:
        """Source networks from several beginnings, trained on the same pictures: [S, ...] each."""
        start = {name: p.to(self.device) for name, p in stacked(self._build, seeds).items()}
        rates = torch.full((len(seeds),), 1e-3, device=self.device)
        x, y, plan = self.seen[None], self.seen_labels[None], self.plan
        return train_many(
            outputs_of(self.network), start, x, y, rates, plan.source_steps, 64, seeds[0]
        )

    # ------------------------------------------------------------------------- one model per task
    def tune(
        self,
        method: str,
        rates: Sequence[float] | None = None,
        *,
        sources: State | None = None,
        batches: int = 0,
    ) -> Tuned:
        """Tune one method on all tasks at all rates, side by side.

        Args:
            method: a key of `methods`.
            rates: to try; None tries those of the plan.
            sources: full copies only: another source for each task, name -> [tasks, ...].
            batches: number of the order of the batches.
        """
        rates = self.plan.rates if rates is None else rates
        model = copy.deepcopy(self.network)
        seeded(lambda: methods(self.plan)[method](model), self.seed)
        # An update of LoRA is drawn once for all rates and tasks, as the source is.
        start = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        many, T = len(rates), len(TASKS)
        if sources is None:
            start = {n: p.expand(many * T, *p.shape) for n, p in start.items()}
        else:
            start = {n: p.repeat(many, *[1] * (p.ndim - 1)) for n, p in sources.items()}
        x, y = (v.repeat(many, *[1] * (v.ndim - 1)) for v in self.train)
        every = torch.tensor(rates, device=self.device).repeat_interleave(T)
        seed = 1000 * batches + self.seed
        plan, outputs = self.plan, outputs_of(model)
        params = train_many(outputs, start, x, y, every, plan.steps, plan.batch, seed)
        accuracies = []
        for x, y in (self.validation, self.test):
            accuracies.append(
                torch.cat(
                    [
                        right(outputs, {n: p[i : i + T] for n, p in params.items()}, x, y)
                        for i in range(0, many * T, T)
                    ]
                ).view(many, T)
            )
        return Tuned(model, params, *accuracies)

    def joint(self) -> tuple[Tensor, Tensor]:
        """One network for all tasks, trained on the labels of all of them at every rate.

        As many pictures of each task as a full copy sees, and as many steps.

        Returns:
            Accuracies on validation and test pictures, [rates, tasks] each.
        """
        plan, many = self.plan, len(self.plan.rates)
        start = {n: p.expand(many, *p.shape) for n, p in self.source.items()}
        # One row of pictures holds one of every task: a batch has as many of each.
        x, y = (v.transpose(0, 1) for v in self.train)
        one = outputs_of(self.network)

        def outputs(params, rows):
            return one(params, rows.flatten(1, 2))

        rates = torch.tensor(plan.rates, device=self.device)
        params = train_many(
            outputs, start, x[None], y[None], rates, plan.steps, plan.batch, self.seed
        )
        found = []
        for x, y in (self.validation, self.test):
            rows = [
                right(one, params, a.expand(many, *a.shape), b.expand(many, -1))
                for a, b in zip(x, y, strict=True)
            ]
            found.append(torch.stack(rows, dim=1))
        return found[0], found[1]

    # --------------------------------------------------------------------------- one merged model
    @torch.no_grad()
    def accuracies(
        self,
        state: Mapping[str, Tensor],
        part: str = "test",
        tasks: Sequence[int] = range(len(TASKS)),
    ) -> Tensor:
        """Accuracy of one network on every task, or on some: [tasks]."""
        x, y = (values[list(tasks)] for values in getattr(self, part))
        logits = functional_call(self.network, dict(state), (x.flatten(0, 1),))
        return (logits.argmax(1).view(y.shape) == y).float().mean(1)

    def best_of(self, states: Mapping[str, State]) -> tuple[str, Tensor]:
        """The candidate that is best on the tasks' validation pictures, and its test accuracies."""
        scores = {
            name: float(self.accuracies(s, "validation").mean()) for name, s in states.items()
        }
        best = max(scores, key=scores.get)
        return best, self.accuracies(states[best])


def outputs_of(model: nn.Module) -> Callable[[Mapping[str, Tensor], Tensor], Tensor]:
    """(stacked parameters, inputs [R, B, ...]) -> logits [R, B, ...].

    What is not among the parameters is the model's own, the same for all R.
    """
    frozen = {name: p.detach() for name, p in model.named_parameters()}
    return vmap(lambda params, x: functional_call(model, {**frozen, **params}, (x,)))


@torch.no_grad()
def right(
    outputs: Callable[[Mapping[str, Tensor], Tensor], Tensor],
    params: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
) -> Tensor:
    """Accuracy of R networks, each on inputs of its own: [R]."""
    return (outputs(params, x).argmax(2) == y).float().mean(1)


def from_lora(study: Study, tuned: Tuned) -> list[State]:
    """What LoRA and the head add to the source's weights, task by task, at the best rate."""
    vectors, model = [], copy.deepcopy(tuned.model)
    for task in range(len(TASKS)):
        own = tuned.own(tuned.best, task)
        model.load_state_dict(own, strict=False)
        vector = lora.lora_delta(model)
        for name in ("head.weight", "head.bias"):
            vector[name] = own[name] - study.source[name]
        vectors.append(vector)
    return vectors


def merges(study: Study, vectors: Sequence[State], low: Sequence[State]) -> dict[str, dict]:
    """Every way to make one network of six: chosen settings, and test accuracies per task.

    Args:
        study: with the source and the pictures.
        vectors: the task vectors of full copies.
        low: those of LoRA.
    """
    plan, base = study.plan, study.source

    def arithmetic(some):
        return {f"{c}": merging.add_vectors(base, some, c) for c in plan.scales}

    tied = {}
    for keep in plan.keeps:
        vector = merging.ties(vectors, keep)
        for scale in plan.ties_scales:
            tied[f"{keep}, {scale}"] = merging.add_vectors(base, [vector], scale)
    mean = merging.add_vectors(base, vectors, 1 / len(vectors))
    candidates = {
        "average": {"1/6": mean},
        "task arithmetic": arithmetic(vectors),
        "TIES": tied,
        "task arithmetic of LoRA r=4": arithmetic(low),
    }
    rows = {}
    for name, states in candidates.items():
        setting, accuracies = study.best_of(states)
        rows[name] = {"setting": setting, "test": accuracies.tolist()}
    return rows


def by_number(study: Study, vectors: Sequence[State]) -> dict[str, list[float]]:
    """Merge every subset of 1, 2, 3 and 6 tasks: test accuracy on those that were merged.

    Returns:
        Number of tasks -> mean accuracy on them of the merged network, and of the source, over all
        subsets of that size.
    """
    rows, source = {}, study.accuracies(study.source)
    for size in (1, 2, 3, 6):
        merged, before = [], []
        for chosen in itertools.combinations(range(len(TASKS)), size):
            some = [vectors[t] for t in chosen]
            states = [merging.add_vectors(study.source, some, c) for c in (0.15, 0.25, 0.4, 0.6, 1)]
            scores = [float(study.accuracies(s, "validation", chosen).mean()) for s in states]
            best = states[int(np.argmax(scores))]
            merged.append(float(study.accuracies(best, tasks=chosen).mean()))
            before.append(float(source[list(chosen)].mean()))
        rows[str(size)] = [float(np.mean(merged)), float(np.mean(before))]
    return rows


def forgetting(study: Study, vectors: Sequence[State], keep: float = 0.95) -> dict[str, dict]:
    """Take each task away, as much as leaves the others a share `keep` of their accuracy.

    The coefficient is chosen on validation pictures; the changes are those of the test.
    """
    rows, start = {}, study.accuracies(study.source)
    first = study.accuracies(study.source, "validation")
    for t, name in enumerate(TASKS):
        others = [k for k in range(len(TASKS)) if k != t]
        chosen = 0.0
        for scale in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5):
            state = merging.add_vectors(study.source, [vectors[t]], -scale)
            left = study.accuracies(state, "validation")
            if float(left[others].mean()) >= keep * float(first[others].mean()):
                chosen = scale
        change = study.accuracies(merging.add_vectors(study.source, [vectors[t]], -chosen)) - start
        rows[name] = {
            "coefficient": chosen,
            "task": float(change[t]),
            "others": float(change[others].mean()),
        }
    return rows


def truncated(study: Study, vectors: Sequence[State], ranks: Sequence[int]) -> dict[str, float]:
    """Full copies whose change of each hidden weight is cut to a rank: mean test accuracy.

    Biases and head keep their whole change.
    """
    rows = {}
    for rank in ranks:
        found = []
        for t, vector in enumerate(vectors):
            cut = {
                n: low_rank(v, rank) if v.ndim == 2 and not n.startswith("head") else v
                for n, v in vector.items()
            }
            state = merging.add_vectors(study.source, [cut])
            found.append(float(study.accuracies(state, tasks=[t])))
        rows[str(rank)] = float(np.mean(found))
    return rows


def low_rank(matrix: Tensor, rank: int) -> Tensor:
    """The nearest matrix of this rank: the largest singular values stay."""
    U, S, V = torch.linalg.svd(matrix, full_matrices=False)
    return U[:, :rank] * S[:rank] @ V[:rank]


def soups(study: Study, tuned: Tuned) -> dict[str, list[float]]:
    """Full copies of one task at all rates: the best by validation, and their soups.

    Returns:
        Way -> test accuracy per task; "in the soup", how many the greedy one took.
    """
    rows = {"best by validation": [], "uniform soup": [], "greedy soup": [], "in the soup": []}
    for t in range(len(TASKS)):
        states = [tuned.own(i, t) for i in range(len(study.plan.rates))]

        def score(state, t=t):
            return float(study.accuracies(state, "validation", [t]))

        # The highest rates lead far away: what comes from there may not look related any more.
        soup, chosen = merging.greedy_soup(states, score, related=None)
        made = {
            "best by validation": states[int(tuned.validation[:, t].argmax())],
            "uniform soup": merging.average(states, related=None),
            "greedy soup": soup,
        }
        for way, state in made.items():
            rows[way].append(float(study.accuracies(state, tasks=[t])))
        rows["in the soup"].append(float(len(chosen)))
    return rows


def paths(
    study: Study, experts: Sequence[State], others: Sequence[State], points: int = 11
) -> list[list[float]]:
    """Test accuracy along the straight line from each expert to another one of its task.

    Returns:
        [tasks, points].
    """
    rows = []
    for t, (a, b) in enumerate(zip(experts, others, strict=True)):
        line = [merging.interpolate(a, b, s, related=None) for s in np.linspace(0, 1, points)]
        rows.append([float(study.accuracies(state, tasks=[t])) for state in line])
    return rows


def one_seed(plan: Plan, seed: int, device: torch.device | str = "cpu") -> dict:
    """The whole experiment for one seed, as plain JSON."""
    study = Study(plan, seed, device)
    T = len(TASKS)
    row = {
        "clean": float(right_once(study, *study.clean)),
        "source": study.accuracies(study.source).tolist(),
        "methods": {},
    }
    tuned = {}
    for method in methods(plan):
        made = study.tune(method)
        if method in (FULL, "LoRA r=4"):
            tuned[method] = made
        row["methods"][method] = {
            "parameters": made.count,
            "rate": plan.rates[made.best],
            "test": made.test[made.best].tolist(),
            "validation by rate": made.validation.mean(1).tolist(),
            "test by rate": made.test.mean(1).tolist(),
        }
    validation, test = study.joint()
    best = int(validation.mean(1).argmax())
    row["joint"] = {"rate": plan.rates[best], "test": test[best].tolist()}
    # -------------------------------------------------------------------- full copies, added up
    full = tuned[FULL]
    experts = [full.own(full.near, t) for t in range(T)]
    row["experts' rate"] = plan.rates[full.near]
    row["experts"] = [study.accuracies(state).tolist() for state in experts]
    vectors = [merging.task_vector(state, study.source) for state in experts]
    row["merged"] = merges(study, vectors, from_lora(study, tuned["LoRA r=4"]))
    row["by number"] = by_number(study, vectors)
    row["forgetting"] = forgetting(study, vectors)
    row["soups"] = soups(study, full)
    row["truncated"] = truncated(study, vectors, [1, 2, 4, 8, 16, 32, 64])
    # ----------------------------------------------------------------------- the same ancestor?
    rate = [plan.rates[full.near]]
    twins = study.tune(FULL, rate, batches=1)
    sources = study.sources([10_000 + T * seed + t for t in range(T)])
    far = study.tune(FULL, rate, sources=sources)
    strangers = [far.own(0, t) for t in range(T)]
    row["paths"] = {
        "one ancestor": paths(study, experts, [twins.own(0, t) for t in range(T)]),
        "different ancestors": paths(study, experts, strangers),
    }
    mean = merging.average(strangers, related=None)
    row["strangers"] = {
        "own": far.test[0].tolist(),
        "average": study.accuracies(mean).tolist(),
        "cosine": cosine(strangers),
        "cosine of relatives": cosine(experts),
    }
    return row


def right_once(study: Study, x: Tensor, y: Tensor) -> float:
    """Accuracy of the source."""
    with torch.no_grad():
        return float((study.network(x).argmax(1) == y).float().mean())


def cosine(states: Sequence[State]) -> float:
    """Mean cosine between the weight matrices of two networks, over pairs and matrices."""
    values = [
        float(F.cosine_similarity(a[n].flatten(), b[n].flatten(), dim=0))
        for a, b in itertools.combinations(states, 2)
        for n in a
        if a[n].ndim > 1
    ]
    return float(np.mean(values))


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """The whole experiment, one piece per seed. Plain JSON.

    Returns:
        "parameters" of the network, "rates" that were tried, and "seeds": what `one_seed` gives,
        seed after seed.
    """
    plan, device = plan or PLANS[profile], fastest() if profile == "gpu" else "cpu"
    rows = []
    for seed in seeds:
        row = kept(f"{plan}, seed {seed}", one_seed, plan, seed, device)
        rows.append(row)
        means = {m: np.mean(row["methods"][m]["test"]) for m in (PROBE, "LoRA r=4", FULL)}
        report(
            f"seed {seed}: source {np.mean(row['source']):.3f}, "
            + ", ".join(f"{name} {value:.3f}" for name, value in means.items())
        )
    whole = Classifier(nn.Sequential(nn.Flatten(), *mlp([196, *[plan.width] * 3])), plan.width, 10)
    return {"parameters": parameters(whole), "rates": list(plan.rates), "seeds": rows}


# Written by ``python -m mtl_course.record 13 --part text``.
RECORDS = {"text": run_text}
