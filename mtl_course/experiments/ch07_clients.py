"""Chapter 7, clients: twelve tasks of three kinds, which nobody has told apart.

Each client has a few images of digits of its own and asks one of three questions about them. Groups
see training images only, strengths and rates are chosen on validation images, the test images are
the same for all. Needs no Jupyter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn import functional as F

from .. import data
from ..data.splits import per_class
from ..multitask import affinity, grouping
from ..multitask.linear import normal_equations, related_ridge
from ..multitask.task_graph import laplacian
from ..records.pieces import kept

QUESTIONS = {
    "odd?": (1, 3, 5, 7, 9),
    "at least 5?": (5, 6, 7, 8, 9),
    "a closed loop?": (0, 6, 8, 9),
}
CLIENTS = 12
KIND = np.repeat(np.arange(3), CLIENTS // 3)
WAYS = (
    "alone",
    "all to all",
    "random groups",
    "by inputs",
    "by gradients",
    "by own weights",
    "the kinds",
)
NETWORKS = ("one network", "by own weights", "a network each")


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment.

    Args:
        images: training images per client, one comparison for each number.
        validation: validation images per client.
        components: principal components that an image is described by.
        test: test images per digit.
        alone: strengths of a client's own ridge, and mu of tied clients.
        ties: strengths lam of the ties.
        networks: training images per client at which networks are compared, too.
        hidden: units of a network's trunk.
        steps: of a network's training, whole sets at a time.
        rates: Adam's, of which validation images choose.
    """

    images: tuple[int, ...] = (10, 20, 40, 80)
    validation: int = 20
    components: int = 40
    test: int = 100
    alone: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    ties: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0, 10000.0)
    networks: tuple[int, ...] = (40,)
    hidden: int = 64
    steps: int = 400
    rates: tuple[float, ...] = (0.0001, 0.0003, 0.001, 0.003, 0.01)


@dataclass(frozen=True)
class Clients:
    """What the clients of one draw have.

    Args:
        x: training images [T, n, d], the last input being 1.
        y: their answers [T, n], 1 for yes and -1 for no.
        validation: images [T, m, d] and answers [T, m].
        test: images [p, d], the same for all clients, and answers [T, p].
        digits: of the training images, [T, n].
    """

    x: Tensor
    y: Tensor
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    digits: np.ndarray


@lru_cache(maxsize=1)
def described(components: int, held_back: int) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """All images by principal components of those that may train, with a 1 behind: inputs
    [5000, d], digits, rows of the pool, rows of the test (`held_back` per digit).
    """
    images = data.load("mnist_5k")
    pixels = torch.tensor(images.x).reshape(len(images.x), -1).double() / 255
    digits = np.array(images.y)
    test = per_class(digits, held_back, 0)
    pool = np.setdiff1d(np.arange(len(digits)), test)
    centred = pixels - pixels[pool].mean(0)
    axes = torch.linalg.svd(centred[pool], full_matrices=False).Vh[:components]
    inputs = centred @ axes.T
    inputs = inputs / inputs[pool].std(0).max()
    return torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1), digits, pool, test


def clients(seed: int, n: int, plan: Plan) -> Clients:
    """Twelve clients with n training images each; no image belongs to two of them."""
    inputs, digits, pool, test = described(plan.components, plan.test)
    answers = torch.tensor(np.stack([np.isin(digits, q) for q in QUESTIONS.values()]))[KIND]
    answers = 2 * answers.double() - 1  # [T, 5000]
    size = n + plan.validation
    order = np.random.RandomState(seed).permutation(pool)[: CLIENTS * size]
    rows = torch.tensor(order.reshape(CLIENTS, size))
    x, y = inputs[rows], answers.gather(1, rows)
    return Clients(
        x[:, :n],
        y[:, :n],
        (x[:, n:], y[:, n:]),
        (inputs[test], answers[:, test]),
        digits[rows[:, :n]],
    )


# ----------------------------------------------------------------------------- who belongs together
def similarities(c: Clients, own: Tensor) -> dict[str, Tensor]:
    """How alike any two clients are, [T, T] each: by inputs, gradients at zero, own weights."""

    def alike(v):
        G = v @ v.T
        return affinity.cosines(G).clamp(min=1e-6)

    _, b = normal_equations(c.x, c.y)
    return {
        "by inputs": affinity.closeness(c.x[:, :, :-1].mean(1)).exp(),
        "by gradients": alike(b[:, :-1]),
        "by own weights": alike(own[:, :-1]),
    }


def ties(groups: grouping.Groups) -> Tensor:
    """The graph [T, T] that ties the members of each group to each other, by one over its size."""
    S = torch.zeros(CLIENTS, CLIENTS, dtype=torch.float64)
    for group in groups:
        for i in group:
            S[i, group] = 1 / len(group)
    return S.fill_diagonal_(0)


def labelled(groups: grouping.Groups) -> np.ndarray:
    """The number of each client's group, [T]."""
    label = np.zeros(CLIENTS, dtype=int)
    for k, group in enumerate(groups):
        label[group] = k
    return label


# ---------------------------------------------------------------------------------- linear clients
def accuracy(c: Clients, W: Tensor) -> float:
    """Share of right answers on the test images, mean over clients, in per cent."""
    x, y = c.test
    return 100 * float(((x @ W.T).T * y > 0).double().mean())


def fit(c: Clients, penalties: Sequence[Tensor]) -> tuple[Tensor, int]:
    """Equation 3 for each K, [T, T]; the weights [T, d] with the least validation error, and which
    they are.
    """
    a, b = normal_equations(c.x, c.y)
    x, y = c.validation
    trials = [related_ridge(a, b, K) for K in penalties]
    errors = [float(((torch.einsum("tpd,td->tp", x, W) - y) ** 2).mean()) for W in trials]
    best = int(np.argmin(errors))
    return trials[best], best


def tied(c: Clients, groups: grouping.Groups, plan: Plan) -> tuple[Tensor, int]:
    """Weights of clients that are tied within groups; lam and mu chosen on validation images."""
    Q, eye = laplacian(ties(groups)), torch.eye(CLIENTS, dtype=torch.float64)
    return fit(c, [lam * Q + mu * eye for lam in plan.ties for mu in plan.alone[::2]])


def compare(seed: int, n: int, plan: Plan) -> dict:
    """One draw: accuracy of every way to share, how well each measure finds the three kinds
    (adjusted Rand index: 1 is all, 0 is chance), and the groups by own weights.
    """
    c = clients(seed, n, plan)
    eye = torch.eye(CLIENTS, dtype=torch.float64)
    own, chosen = fit(c, [mu * eye for mu in plan.alone])
    groups = {"all to all": [list(range(CLIENTS))]}
    for name, S in similarities(c, own).items():
        groups[name] = grouping.spectral_groups(S, len(QUESTIONS))
    order = np.random.RandomState(seed).permutation(CLIENTS)
    groups["random groups"] = [[int(order[i]) for i in g] for g in groups["by own weights"]]
    groups["the kinds"] = [np.flatnonzero(kind == KIND).tolist() for kind in range(len(QUESTIONS))]
    weights = {name: tied(c, parts, plan) for name, parts in groups.items()}
    weights["alone"] = own, chosen
    return {
        "accuracy": {way: round(accuracy(c, weights[way][0]), 3) for way in WAYS},
        "choice": {way: weights[way][1] for way in WAYS},
        "rand": {
            name: round(float(adjusted_rand_score(KIND, labelled(groups[name]))), 4)
            for name in ("by inputs", "by gradients", "by own weights")
        },
        "groups": groups["by own weights"],
    }


# ------------------------------------------------------------------------- networks, a head each
def network(c: Clients, groups: grouping.Groups, seed: int, plan: Plan) -> tuple[float, int]:
    """Test accuracy of one network per group with a head per client, and the rate chosen.

    Groups share no parameter, so one sum of losses and one Adam train them all, each as if alone.
    """
    x, y = c.x[..., :-1].float(), (c.y > 0).float()
    net = torch.tensor(labelled(groups))
    runs = []
    for rate in plan.rates:
        draw = torch.Generator().manual_seed(seed)
        trunk = torch.randn(len(groups), x.shape[-1], plan.hidden, generator=draw)
        trunk = (trunk * (2 / x.shape[-1]) ** 0.5).requires_grad_()
        bias = torch.zeros(len(groups), 1, plan.hidden, requires_grad=True)
        heads = torch.zeros(CLIENTS, plan.hidden + 1, requires_grad=True)

        def logits(x, trunk=trunk, bias=bias, heads=heads):
            features = torch.relu(x @ trunk[net] + bias[net])
            return torch.einsum("tph,th->tp", features, heads[:, :-1]) + heads[:, -1:]

        optimizer = torch.optim.Adam([trunk, bias, heads], rate)
        best = (np.inf, 0.0)
        for step in range(plan.steps + 1):
            if step % 20 == 0:
                with torch.no_grad():
                    vx, vy = (part.float() for part in c.validation)
                    loss = float(F.soft_margin_loss(logits(vx[..., :-1]), vy))
                    tx, ty = (part.float() for part in c.test)
                    right = logits(tx[:, :-1].expand(CLIENTS, -1, -1)) * ty > 0
                    best = min(best, (loss, 100 * float(right.float().mean())))
            optimizer.zero_grad()
            # A sum over clients: no client's step depends on how many others there are.
            F.binary_cross_entropy_with_logits(logits(x), y, reduction="none").mean(
                1
            ).sum().backward()
            optimizer.step()
        runs.append(best)
    chosen = min(range(len(runs)), key=lambda k: runs[k][0])
    return runs[chosen][1], chosen


def networks(seed: int, n: int, groups: grouping.Groups, plan: Plan) -> dict:
    """One draw: accuracy of one network for all, one per group by own weights, one per client."""
    c = clients(seed, n, plan)
    parts = ([list(range(CLIENTS))], groups, [[t] for t in range(CLIENTS)])
    runs = {name: network(c, g, seed, plan) for name, g in zip(NETWORKS, parts, strict=True)}
    return {
        "accuracy": {name: round(score, 3) for name, (score, _) in runs.items()},
        "choice": {name: rate for name, (_, rate) in runs.items()},
    }


def run(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """Images per client -> "linear" and, where it is asked for, "networks": one entry per seed.

    Plain JSON; about a minute on one thread for ten seeds.
    """
    plan = plan or Plan()
    results = {}
    for n in plan.images:
        linear, nets = [], []
        for seed in seeds:
            linear.append(kept(f"clients, {n} images, seed {seed}", compare, seed, n, plan))
            if n in plan.networks:
                groups = linear[-1]["groups"]
                nets.append(kept(f"networks, {n}, seed {seed}", networks, seed, n, groups, plan))
        results[str(n)] = {"linear": linear} | ({"networks": nets} if nets else {})
        means = {w: np.mean([row["accuracy"][w] for row in linear]) for w in WAYS}
        report(f"{n} images: " + ", ".join(f"{way} {mean:.1f}" for way, mean in means.items()))
        if nets:
            means = {w: np.mean([row["accuracy"][w] for row in nets]) for w in NETWORKS}
            report("  networks: " + ", ".join(f"{w} {mean:.1f}" for w, mean in means.items()))
    return results
