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
from numpy.typing import ArrayLike
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
NETWORKS = ("a network each", "one network", "random groups", "by own weights", "the kinds")


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
        hidden: units of a network's trunk, one comparison for each number.
        steps: of a network's training, whole sets at a time.
        rates: Adam's, of which validation images choose.
        rich, poor: training images of clients with unequal numbers.
        tie, ridge: strengths lam and mu of a pair of them.
    """

    images: tuple[int, ...] = (10, 20, 40, 80)
    validation: int = 20
    components: int = 40
    test: int = 100
    alone: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    ties: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0, 10000.0)
    networks: tuple[int, ...] = (40,)
    hidden: tuple[int, ...] = (1, 2, 4, 16, 64)
    steps: int = 400
    rates: tuple[float, ...] = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
    rich: int = 160
    poor: int = 20
    tie: float = 30.0
    ridge: float = 3.0


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
def right(c: Clients, W: Tensor, tasks: ArrayLike) -> Tensor:
    """Share of right answers on the test images, in per cent, of weights [..., d] whose clients are
    `tasks` [...].
    """
    x, y = c.test
    return 100 * ((W @ x.T) * y[torch.as_tensor(tasks)] > 0).double().mean(-1)


def accuracy(c: Clients, W: Tensor) -> float:
    """`right` for one row of W [T, d] per client, mean over clients."""
    return float(right(c, W, np.arange(CLIENTS)).mean())


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


def shuffled(groups: grouping.Groups, seed: int) -> grouping.Groups:
    """Random groups of the same sizes."""
    order = np.random.RandomState(seed).permutation(CLIENTS)
    return [[int(order[i]) for i in group] for group in groups]


def kinds() -> grouping.Groups:
    """The true groups, which no method knows."""
    return [np.flatnonzero(kind == KIND).tolist() for kind in range(len(QUESTIONS))]


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
    groups["random groups"] = shuffled(groups["by own weights"], seed)
    groups["the kinds"] = kinds()
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


# --------------------------------------------------------------------- two directions of one pair
RICH = np.arange(CLIENTS) % 4 < 2  # clients with many images: two of each kind


def unequal(seed: int, plan: Plan) -> dict[str, np.ndarray]:
    """Who helps whom, where half of the clients have many training images and half have few.

    Every two clients are tied by equation 3, with fixed strengths.

    Returns:
        Matrices [T, T], row the client that receives, column the one that gives, with nan on the
        diagonal. "gain": by how many points of accuracy on the test images the receiver is above
        being alone. "cosine": of the weights that both learned alone. "lookahead": what a step for
        the giver does to the receiver's loss, at zero weights. "giver's weights": share of the
        receiver's training images that the giver's own weights answer rightly, in per cent.
    """
    c = clients(seed, plan.rich, plan)
    sizes = torch.tensor(np.where(RICH, plan.rich, plan.poor))
    real = (torch.arange(plan.rich) < sizes[:, None]).double()  # [T, n]
    a, b = normal_equations(c.x * real[..., None], c.y * real)
    eye, tie = torch.eye(2, dtype=torch.float64), torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    own = related_ridge(a, b, plan.ridge * torch.eye(CLIENTS, dtype=torch.float64))
    alone = right(c, own, np.arange(CLIENTS))

    pairs = np.array(np.triu_indices(CLIENTS, 1)).T  # [66, 2]
    W = related_ridge(a[pairs], b[pairs], plan.tie * tie.double() + plan.ridge * eye)
    gains = right(c, W, pairs) - alone[pairs]
    gain = torch.zeros(CLIENTS, CLIENTS, dtype=torch.float64)
    gain[pairs[:, 0], pairs[:, 1]], gain[pairs[:, 1], pairs[:, 0]] = gains.T

    def losses(shared):
        return ((c.x @ shared[0] - c.y) ** 2 * real).sum(1) / sizes

    zero = torch.zeros(c.x.shape[-1], dtype=torch.float64)
    answered = torch.einsum("ind,jd->ijn", c.x, own) * c.y[:, None] > 0
    found = {
        "gain": gain,
        "cosine": affinity.cosines(own[:, :-1] @ own[:, :-1].T),
        "lookahead": affinity.lookahead(losses, [zero], 0.01).T,
        "giver's weights": 100 * (answered * real[:, None]).sum(-1) / sizes[:, None],
    }
    return {k: v.clone().fill_diagonal_(float("nan")).numpy() for k, v in found.items()}


# ------------------------------------------------------------------------- networks, a head each
def network(
    c: Clients, groups: grouping.Groups, seed: int, hidden: int, plan: Plan
) -> tuple[float, int]:
    """Test accuracy of one network per group with a head per client, and the rate chosen.

    Groups share no parameter, and neither do rates: one sum of losses trains all of them at once,
    each as if alone.
    """
    x, y = c.x[..., :-1].float(), (c.y > 0).float()
    vx, vy = (part.float() for part in c.validation)
    tx, ty = (part.float() for part in c.test)
    net, rates = torch.tensor(labelled(groups)), torch.tensor(plan.rates)
    draw = torch.Generator().manual_seed(seed)
    trunk = torch.randn(len(groups), x.shape[-1], hidden, generator=draw)
    start = (
        trunk * (2 / x.shape[-1]) ** 0.5,
        torch.zeros(len(groups), 1, hidden),
        torch.zeros(CLIENTS, hidden, 1),
        torch.zeros(CLIENTS, 1, 1),
    )
    # [rates, ...]: one copy of the networks for each rate
    parameters = [p.expand(len(rates), *p.shape).clone().requires_grad_() for p in start]
    means = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]

    def logits(x):  # [T, n, d] -> [rates, T, n]
        trunk, bias, heads, level = parameters
        return (torch.relu(x @ trunk[:, net] + bias[:, net]) @ heads + level)[..., 0]

    least, score = torch.full_like(rates, torch.inf), torch.zeros_like(rates)
    for step in range(plan.steps + 1):
        if step and step % 20 == 0:  # at the start all answers are 0, neither yes nor no
            with torch.no_grad():
                loss = F.softplus(-logits(vx[..., :-1]) * vy).mean((1, 2))
                answers = logits(tx[:, :-1].expand(CLIENTS, -1, -1)) * ty > 0
                score = torch.where(loss < least, 100 * answers.float().mean((1, 2)), score)
                least = torch.minimum(loss, least)
        # A sum over rates and clients: no client's step depends on how many others there are.
        each = F.binary_cross_entropy_with_logits(
            logits(x), y.expand(len(rates), -1, -1), reduction="none"
        )
        gradients = torch.autograd.grad(each.mean(2).sum(), parameters)
        adam(parameters, gradients, means, rates, step + 1)
    chosen = int(least.argmin())
    return float(score[chosen]), chosen


@torch.no_grad()
def adam(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    means: Sequence[tuple[Tensor, Tensor]],
    rates: Tensor,
    step: int,
) -> None:
    """A step of Adam in place, with torch's settings and one rate for each entry of the first
    dimension (chapter 3, equations 3 and 4).
    """
    for p, g, (m, s) in zip(parameters, gradients, means, strict=True):
        m.lerp_(g, 0.1)
        s.lerp_(g * g, 0.001)
        rate = rates.reshape(-1, *[1] * (p.dim() - 1)) / (1 - 0.9**step)
        p -= rate * m / ((s / (1 - 0.999**step)).sqrt() + 1e-8)


def networks(seed: int, n: int, groups: grouping.Groups, hidden: int, plan: Plan) -> dict:
    """One draw and one width: accuracy of a network for each client, one for all, and one for each
    group, by own weights, at random, and by the true kinds.
    """
    c = clients(seed, n, plan)
    parts = {
        "a network each": [[t] for t in range(CLIENTS)],
        "one network": [list(range(CLIENTS))],
        "random groups": shuffled(groups, seed),
        "by own weights": groups,
        "the kinds": kinds(),
    }
    runs = {name: network(c, parts[name], seed, hidden, plan) for name in NETWORKS}
    return {
        "accuracy": {name: round(score, 3) for name, (score, _) in runs.items()},
        "choice": {name: rate for name, (_, rate) in runs.items()},
    }


def run(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """Images per client -> "linear" and, where it is asked for, "networks": by width. Lists with
    one entry per seed. Plain JSON.
    """
    plan = plan or Plan()
    results = {}
    for n in plan.images:
        linear = [kept(f"clients, {n} images, seed {s}", compare, s, n, plan) for s in seeds]
        results[str(n)] = {"linear": linear}
        report(f"{n} images: " + _means(linear, WAYS))
        if n not in plan.networks:
            continue
        results[str(n)]["networks"] = nets = {}
        for hidden in plan.hidden:
            nets[str(hidden)] = [
                kept(f"networks of {hidden}, seed {s}", networks, s, n, row["groups"], hidden, plan)
                for s, row in zip(seeds, linear, strict=True)
            ]
            report(f"  networks of {hidden}: " + _means(nets[str(hidden)], NETWORKS))
    return results


def _means(rows: Sequence[dict], names: Sequence[str]) -> str:
    """Mean accuracies in words."""
    return ", ".join(f"{w} {np.mean([row['accuracy'][w] for row in rows]):.1f}" for w in names)
