"""Chapter 16: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "leep_score": [
        """
def leep_score(theta, labels):
    joint = torch.zeros(int(labels.max()) + 1, theta.shape[1], dtype=theta.dtype)
    joint = joint.index_add(0, labels, theta)
    table = (joint / joint.sum(0)).nan_to_num()
    return (table[labels] * theta).sum(1).log().mean().item()
""",
        """
import math


def leep_score(theta, labels):
    N, Z = theta.shape
    joint = {}
    for row, y in zip(theta.tolist(), labels.tolist()):
        for z in range(Z):
            joint[y, z] = joint.get((y, z), 0.0) + row[z] / N
    seen = [sum(p for (y, k), p in joint.items() if k == z) for z in range(Z)]
    total = 0.0
    for row, y in zip(theta.tolist(), labels.tolist()):
        total += math.log(sum(joint[y, z] / seen[z] * row[z] for z in range(Z) if seen[z]))
    return total / N
""",
        """
import numpy as np


def leep_score(theta, labels):
    t = theta.detach().cpu().numpy().astype("float64")
    _, y = np.unique(labels.cpu().numpy(), return_inverse=True)
    joint = np.stack([t[y == c].sum(axis=0) for c in range(y.max() + 1)])
    marginal = joint.sum(axis=0)
    given = np.divide(joint, marginal, out=np.zeros_like(joint), where=marginal > 0)
    return np.log(np.einsum("nz,nz->n", given[y], t)).mean()
""",
        """
def leep_score(theta, labels):
    weights = theta / theta.sum(0).clamp_min(1e-300)
    same = (labels[:, None] == labels).to(theta)
    return (theta @ (weights.T @ same)).diagonal().log().mean()
""",
    ],
    "log_evidence": [
        """
import numpy as np
from scipy.stats import multivariate_normal


def log_evidence(features, y, alpha, beta):
    F = features.numpy()
    C = np.eye(len(F)) / beta + F @ F.T / alpha
    return multivariate_normal.logpdf(y.numpy(), np.zeros(len(F)), C)
""",
        """
def log_evidence(features, y, alpha, beta):
    # weights integrated out by completing the square
    N, d = features.shape
    A = alpha * torch.eye(d, dtype=y.dtype, device=y.device) + beta * features.T @ features
    m = beta * torch.linalg.solve(A, features.T @ y)
    rest = y - features @ m
    return (
        d / 2 * math.log(alpha)
        + N / 2 * math.log(beta)
        - beta / 2 * rest @ rest
        - alpha / 2 * m @ m
        - torch.logdet(A) / 2
        - N / 2 * math.log(2 * math.pi)
    )
""",
        """
import numpy as np


def log_evidence(features, y, alpha, beta):
    F, t = (v.detach().cpu().numpy() for v in (features, y))
    L = np.linalg.cholesky(np.eye(len(t)) / beta + F @ F.T / alpha)
    e = np.linalg.solve(L, t)
    return float(-np.log(np.diag(L)).sum() - e @ e / 2 - len(t) * np.log(2 * np.pi) / 2)
""",
    ],
    "rank_interval": [
        """
def rank_interval(scores, gains, draws):
    S = len(scores)
    apart = scores.argsort(0).argsort(0) - gains.argsort(0).argsort(0)
    rho = 1 - 6 * apart.double().square().sum(0) / (S * (S * S - 1))
    means = torch.stack([rho[row].mean() for row in draws])
    ends = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype))
    return (float(rho.mean()), *ends.tolist())
""",
        """
from scipy.stats import spearmanr
import numpy as np


def rank_interval(scores, gains, draws):
    s, g = scores.cpu().numpy(), gains.cpu().numpy()
    rho = np.array([spearmanr(s[:, t], g[:, t])[0] for t in range(s.shape[1])])
    means = [rho[row].mean() for row in draws.cpu().numpy()]
    return rho.mean(), np.quantile(means, 0.025), np.quantile(means, 0.975)
""",
        """
def rank_interval(scores, gains, draws):
    S, T = scores.shape
    rho = []
    for t in range(T):
        d2 = 0
        for i in range(S):
            a = sum(bool(scores[j, t] < scores[i, t]) for j in range(S))
            b = sum(bool(gains[j, t] < gains[i, t]) for j in range(S))
            d2 += (a - b) ** 2
        rho.append(1 - 6 * d2 / (S * (S * S - 1)))
    means = sorted(sum(rho[k] for k in row) / T for row in draws.tolist())
    def at(q):
        place = q * (len(means) - 1)
        low = int(place)
        return means[low] + (place - low) * (means[min(low + 1, len(means) - 1)] - means[low])
    return [sum(rho) / T, at(0.025), at(0.975)]
""",
    ],
    "contrastive_loss": [
        """
def contrastive_loss(a, b, temperature):
    views = [v / v.norm() for v in [*a, *b]]
    B, total = len(a), 0
    for i in range(2 * B):
        logits = [views[i] @ views[k] / temperature for k in range(2 * B) if k != i]
        below = torch.stack(logits).logsumexp(0)
        total = total - views[i] @ views[(i + B) % (2 * B)] / temperature + below
    return total / (2 * B)
""",
        """
import torch.nn.functional as F


def contrastive_loss(a, b, temperature):
    p, q = F.normalize(a, dim=1, eps=0), F.normalize(b, dim=1, eps=0)
    pp, pq, qq = p @ p.T / temperature, p @ q.T / temperature, q @ q.T / temperature
    keep = ~torch.eye(len(a), dtype=torch.bool, device=a.device)
    loss = 0
    for i in range(len(a)):
        one = torch.cat([pp[i][keep[i]], pq[i]]).logsumexp(0)
        other = torch.cat([qq[i][keep[i]], pq[:, i]]).logsumexp(0)
        loss = loss + one + other - 2 * pq[i, i]
    return loss / (2 * len(a))
""",
    ],
    "pick_source": [
        """
def pick_source(scores, tried, k):
    known = {name: s for name, s in scores.items() if s == s}
    candidates = ["scratch"]
    while known and len(candidates) <= k:
        name = max(known, key=known.get)
        del known[name]
        candidates.append(name)
    validation = {name: tried[name][0] for name in candidates}
    winner = max(validation, key=validation.get)
    return winner, tried[winner][1]
""",
        """
import numpy as np


def pick_source(scores, tried, k):
    names = np.array([n for n, s in scores.items() if np.isfinite(s)])
    order = np.argsort([-scores[n] for n in names])[:k]
    best, reached = "scratch", tried["scratch"]
    for name in names[order]:
        if tried[str(name)][0] > reached[0]:
            best, reached = str(name), tried[str(name)]
    return [best, reached[1]]
""",
    ],
}

LAST_AXIS = "the last axis of a matrix is axis 1"

EQUIVALENT: dict[str, dict[str, str]] = {
    "leep_score": {
        "return guess.nan_to_num(0.0).sum(1).log().mean()  =>  return guess.nan_to_num(0.0).sum(-1).log().mean()": (
            LAST_AXIS
        )
    },
    "log_evidence": {
        "fit = y @ torch.linalg.solve(C, y)  =>  fit = torch.linalg.solve(C, y) @ y": (
            "a dot product commutes"
        ),
        "C = torch.eye(N).to(y) / beta + features @ features.T / alpha  =>  C = torch.eye(N) / beta + features @ features.T / alpha": (
            "0 and 1 are exact in float32, which the sum with a float64 matrix promotes;"
            " 1 / beta is rounded to float32, less than the tolerance"
        ),
    },
    "rank_interval": {
        "means = rho[draws].mean(1)  =>  means = rho[draws].mean(-1)": LAST_AXIS,
        "b = gains.argsort(0).argsort(0).double()  =>  b = gains.argsort(0).argsort(0)": (
            "whole numbers are converted where they meet the float64 ranks a"
        ),
    },
    "contrastive_loss": {
        "z = z / z.norm(dim=1, keepdim=True)  =>  z = z / z.norm(dim=-1, keepdim=True)": LAST_AXIS
    },
    "pick_source": {
        "return (best, tried[best][1])  =>  return (best, tried[best][-1])": (
            "an entry is a pair, whose last is its second"
        )
    },
}
