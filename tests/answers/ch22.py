"""Chapter 22: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "gram_over_ranks": [
        """
def gram_over_ranks(gradients, rows):
    n = torch.tensor(rows, dtype=torch.float64)
    J = torch.stack([g.nan_to_num() if k == 0 else g for g, k in zip(gradients, rows)])
    mean = torch.tensordot((n / n.sum()).to(J), J, 1)
    return torch.einsum("tp,sp->ts", mean, mean)
""",
        """
def gram_over_ranks(gradients, rows):
    busy = [(g, n) for g, n in zip(gradients, rows) if n > 0]
    N = sum(n for _, n in busy)
    G = 0
    for a, n in busy:
        for b, m in busy:
            G = G + (n / N) * (m / N) * a @ b.T
    return G
""",
    ],
    "rank_rows": [
        """
import numpy as np


def rank_rows(n, rank, ranks, seed):
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    return order[rank * n // ranks : (rank + 1) * n // ranks]
""",
        """
def rank_rows(n, rank, ranks, seed):
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return torch.tensor_split(order, ranks)[rank]
""",
        """
import random


def rank_rows(n, rank, ranks, seed):
    order = list(range(n))
    random.Random(seed).shuffle(order)
    mine = [row for k, row in enumerate(order) if k % ranks == rank]
    return torch.tensor(mine, dtype=torch.int64)
""",
    ],
    "mixture_shares": [
        """
import math


def mixture_shares(sizes, temperature):
    logs = torch.tensor([math.log(s) for s in sizes.values()], dtype=torch.float64)
    return dict(zip(sizes, (logs / temperature).softmax(0).tolist()))
""",
        """
def mixture_shares(sizes, temperature):
    biggest = max(sizes.values())
    p = {t: (n / biggest) ** (1.0 / temperature) for t, n in sizes.items()}
    whole = sum(p.values())
    for t in p:
        p[t] = p[t] / whole
    return p
""",
    ],
    "accumulated_gradient": [
        """
def accumulated_gradient(model, x, y, sizes):
    params = {k: p.detach().requires_grad_() for k, p in model.named_parameters()}
    grads, start = {k: torch.zeros_like(p) for k, p in params.items()}, 0
    for n in sizes:
        logits = torch.func.functional_call(model, params, (x[start : start + n],))
        loss = logits.logsumexp(1) - logits.gather(1, y[start : start + n, None])[:, 0]
        new = torch.autograd.grad(loss.sum() / len(x), list(params.values()))
        grads = {k: g + h for (k, g), h in zip(grads.items(), new)}
        start += n
    return grads
""",
        """
import torch.nn.functional as F


def accumulated_gradient(model, x, y, sizes):
    params, start, total = list(model.parameters()), 0, None
    for n in sizes:
        loss = F.cross_entropy(model(x[start : start + n]), y[start : start + n], reduction="sum")
        grads = torch.autograd.grad(loss, params)
        total = grads if total is None else [a + b for a, b in zip(total, grads)]
        start += n
    names = [name for name, _ in model.named_parameters()]
    return {name: g / len(x) for name, g in zip(names, total)}
""",
        """
def accumulated_gradient(model, x, y, sizes):
    before = [p.grad for p in model.parameters()]
    for p in model.parameters():
        p.grad = None
    for a, b in zip(torch.split(x, sizes), torch.split(y, sizes)):
        loss = torch.nn.CrossEntropyLoss()(model(a), b)
        (loss * (len(a) / len(x))).backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    for p, g in zip(model.parameters(), before):
        p.grad = g
    return grads
""",
    ],
    "choose_mixture": [
        """
def choose_mixture(validation, use, floor):
    def score(name):
        row = validation[name]
        fair = all(a >= floor for a in row.values())
        asked = sum(use.values())
        mean = sum(row[t] * use[t] / asked for t in row)
        return (1, mean) if fair else (0, min(row.values()))
    return sorted(validation, key=score)[-1]
""",
        """
import numpy as np


def choose_mixture(validation, use, floor):
    names, tasks = list(validation), list(use)
    A = np.array([[validation[m][t] for t in tasks] for m in names])
    able = (A >= floor).all(axis=1)
    if not able.any():
        return names[int(A.min(axis=1).argmax())]
    mean = A @ np.array([use[t] for t in tasks])
    return names[int(np.where(able, mean, -np.inf).argmax())]
""",
    ],
}

EQUIVALENT: dict[str, dict[str, str]] = {
    "gram_over_ranks": {
        "mean = mean + n / total * J  =>  mean = mean - n / total * J": (
            "gradients that all change their sign have the same dot products"
        ),
    },
    "accumulated_gradient": {
        "grads = torch.autograd.grad(loss, list(params.values()))  =>  grads = torch.autograd.grad(loss, params.values())": (
            "torch makes a tuple of what it is given"
        ),
    },
}
