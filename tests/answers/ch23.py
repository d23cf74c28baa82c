"""Chapter 23: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "noisy_mean": [
        """
import math
import torch


def noisy_mean(gradients, normal, clip, noise, expected):
    total = {name: torch.zeros_like(z) for name, z in normal.items()}
    rows = len(next(iter(gradients.values())))
    for b in range(rows):
        length = math.sqrt(sum(float((g[b] ** 2).sum()) for g in gradients.values()))
        for name, g in gradients.items():
            total[name] = total[name] + g[b] / max(1.0, length / clip)
    return {n: (total[n] + clip * noise * normal[n]) / expected for n in total}
""",
        """
import torch


def noisy_mean(gradients, normal, clip, noise, expected):
    names = sorted(gradients)
    flat = torch.cat([gradients[n].reshape(len(gradients[n]), normal[n].numel()) for n in names], 1)
    flat = flat * (clip / flat.norm(dim=1, keepdim=True)).clamp(max=1).nan_to_num(1.0)
    z = torch.cat([normal[n].flatten() for n in names])
    mean = (flat.sum(0) + noise * clip * z) / expected
    pieces = mean.split([normal[n].numel() for n in names])
    return {n: p.view_as(normal[n]) for n, p in zip(names, pieces)}
""",
        """
import torch


def noisy_mean(gradients, normal, clip, noise, expected):
    mine = {name: g.clone() for name, g in gradients.items()}
    squares = 0.0
    for g in mine.values():
        squares = squares + (g * g).flatten(1).sum(1)
    for g in mine.values():
        g.div_((squares.sqrt() / clip).clamp(min=1).reshape(-1, *[1] * (g.dim() - 1)))
    return {n: g.sum(0).add(normal[n], alpha=noise * clip).div_(expected) for n, g in mine.items()}
""",
    ],
    "promise": [
        """
import numpy as np


def promise(uses, delta):
    blocks = sorted({b for _, people, _ in uses for b in people})
    spent = np.zeros(len(blocks))
    for kind, people, rho in uses:
        if kind != "reads the model":
            spent[[blocks.index(b) for b in people]] += rho
    return spent.max() + 2 * np.sqrt(spent.max() * np.log(1 / delta))
""",
        """
import math


def promise(uses, delta):
    blocks = {b for _, people, _ in uses for b in people}
    def rho(block):
        return sum(r for k, people, r in uses if block in people and k in ("kept", "thrown away"))
    worst = max(rho(b) for b in blocks)
    return worst + 2 * (worst * -math.log(delta)) ** 0.5
""",
        """
import math
from collections import Counter


def promise(uses, delta):
    bill = Counter()
    for kind, people, rho in uses:
        bill.update({b: rho * (not kind.startswith("reads")) for b in people})
    L = math.log(1 / delta)
    return max((r ** 0.5 + L ** 0.5) ** 2 - L for r in bill.values())
""",
    ],
    "membership_score": [
        """
from torch.nn import functional as F


def membership_score(logits, labels, member):
    right = torch.where(labels == 1, logits, -logits)
    sure = (F.logsigmoid(right) - F.logsigmoid(-right)).sum(-1)
    out = (~member).to(sure)
    return sure - ((out * sure).sum(0) - out * sure) / (out.sum(0) - out)
""",
        """
import torch


def membership_score(logits, labels, member):
    R, N, T = logits.shape
    sure = torch.where(labels == 1, logits, -logits).sum(-1)
    scores = torch.zeros_like(sure)
    for r in range(R):
        for n in range(N):
            others = [sure[k, n] for k in range(R) if k != r and not member[k, n]]
            scores[r, n] = sure[r, n] - sum(others) / len(others)
    return scores
""",
        """
import torch


def membership_score(logits, labels, member):
    sure = torch.einsum("rnt,nt->rn", logits, (2 * labels - 1).to(logits))
    R = len(sure)
    weight = (~member)[None] & ~torch.eye(R, dtype=torch.bool, device=sure.device)[:, :, None]
    weight = weight.to(sure)
    return sure - torch.einsum("rkn,kn->rn", weight, sure) / weight.sum(1)
""",
        """
import torch


def membership_score(logits, labels, member):
    sure = torch.where(labels.bool(), logits, -logits).sum(2)
    rows = []
    for r in range(len(sure)):
        rest = torch.cat([sure[:r], sure[r + 1 :]])
        knew = torch.cat([member[:r], member[r + 1 :]])
        rows.append(sure[r] - rest.masked_fill(knew, float("nan")).nanmean(0))
    return torch.stack(rows)
""",
    ],
    "odds_gap": [
        """
import numpy as np


def odds_gap(said, truth, group):
    s, t, g = (v.cpu().numpy() for v in (said, truth, group))
    _, g = np.unique(g, return_inverse=True)
    yes = np.zeros((2, g.max() + 1))
    count = np.zeros_like(yes)
    np.add.at(yes, (t, g), s)
    np.add.at(count, (t, g), 1)
    return float(np.ptp(yes / count, axis=1).max())
""",
        """
def odds_gap(said, truth, group):
    names = set(group.tolist())
    worst = 0.0
    for a in names:
        for b in names:
            for label in (0, 1):
                rate = lambda g: said[(group == g) & (truth == label)].float().mean()
                worst = max(worst, float(rate(a) - rate(b)))
    return worst
""",
    ],
    "deletion": [
        """
import torch


def deletion(model, task, x, baseline, scores):
    x = x.clone()
    rows = torch.arange(len(x), device=x.device)
    with torch.no_grad():
        curve = [model(x)[:, task].mean()]
        for column in scores.argsort(dim=1, descending=True).T:
            x[rows, column] = baseline[column]
            curve.append(model(x)[:, task].mean())
    return torch.stack(curve)
""",
        """
import torch


@torch.no_grad()
def deletion(model, task, x, baseline, scores):
    B, d = x.shape
    total = torch.zeros(d + 1, dtype=x.dtype, device=x.device)
    for row, s in zip(x, scores):
        ranked = s.sort(descending=True).values
        states = [row] + [torch.where(s >= cut, baseline, row) for cut in ranked]
        total = total + model(torch.stack(states))[:, task] / B
    return total
""",
        """
import torch


def deletion(model, task, x, baseline, scores):
    curve = []
    for k in range(x.shape[1] + 1):
        gone = scores.topk(k, dim=1).indices
        left = x.scatter(1, gone, baseline.expand_as(x).gather(1, gone))
        curve.append(model(left)[:, task].mean())
    return torch.stack(curve)
""",
    ],
}

EQUIVALENT: dict[str, dict[str, str]] = {
    "noisy_mean": {
        "factor = torch.where(length > clip, clip / length, 1.0)  =>  factor = torch.where(length >= clip, clip / length, 1.0)": (
            "a row of exactly the length C has the factor 1 either way"
        ),
        "squares = [g.flatten(1).square().sum(1) for g in gradients.values()]  =>  squares = [g.flatten(1).square().sum(-1) for g in gradients.values()]": (
            "the last axis of a matrix is axis 1"
        ),
    },
    "membership_score": {
        "sure = (logits * (2 * labels - 1)).sum(2)  =>  sure = (logits / (2 * labels - 1)).sum(2)": (
            "the sign is 1 or -1, its own inverse"
        ),
    },
    "deletion": {
        "return torch.stack(curve).detach()  =>  return torch.stack(curve)": (
            "the same numbers; nothing is asked of gradients"
        ),
        "place = scores.argsort(1, descending=True).argsort(1)  =>  place = scores.argsort(1, descending=True).argsort(-1)": (
            "the last axis of a matrix is axis 1"
        ),
        "place = scores.argsort(1, descending=True).argsort(1)  =>  place = scores.argsort(-1, descending=True).argsort(1)": (
            "the last axis of a matrix is axis 1"
        ),
        "for k in range(x.shape[1] + 1):  =>  for k in range(x.shape[-1] + 1):": (
            "the last axis of a matrix is axis 1"
        ),
    },
    "odds_gap": {
        "for name in group.unique():  =>  for name in group:": (
            "a group that is asked twice gives the same rate twice"
        ),
        "ours = (group == name) & (truth == label)  =>  ours = (group == name) & (truth != label)": (
            "both labels are asked, in the other order"
        ),
    },
}
