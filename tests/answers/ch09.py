"""Chapter 9: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "product_loss": [
        """
def product_loss(a, b, seen, liked):
    total = 0
    for x, y, s, l in zip(a, b, seen, liked):
        p = -torch.log1p(torch.exp(-x.abs())) + torch.clamp(x, max=0)
        q = -torch.log1p(torch.exp(-y.abs())) + torch.clamp(y, max=0)
        no_p, no_q = p - x, q - y  # log(1 - sigmoid) = log sigmoid - logit
        total = total - (p if s == 1 else no_p)
        if s == 1 and l == 1:
            total = total - (p + q)
        else:
            total = total - torch.logsumexp(torch.stack([no_p, p + no_q]), 0)
    return total / len(a)
""",
        """
import torch.nn.functional as F


def product_loss(a, b, seen, liked):
    both = torch.where(seen == 1, liked, torch.zeros_like(liked))
    log_p = -F.softplus(-a) - F.softplus(-b)
    log_not = torch.stack([-a, -b, -a - b]).logsumexp(0) + log_p
    second = torch.where(both == 1, log_p, log_not)
    return (F.softplus(a) - seen * a).mean() - second.mean()
""",
    ],
    "balance_penalty": [
        """
def balance_penalty(logits):
    B, E = logits.shape
    total = 0
    for e in range(E):
        best = sum(int(row.argmax()) == e for row in logits)
        total = total + best / B * torch.softmax(logits, -1)[:, e].mean()
    return E * total
""",
        """
import torch.nn.functional as F


def balance_penalty(logits):
    p = F.softmax(logits, dim=1)
    hard = F.one_hot(p.detach().max(1)[1], p.shape[1]).to(p)
    return p.shape[1] * torch.dot(hard.mean(0), p.mean(0))
""",
    ],
    "calibration_gap": [
        """
import numpy as np


def calibration_gap(chances, labels, bins):
    p, y = chances.numpy(), labels.numpy()
    said, _ = np.histogram(p, bins, (0, 1), weights=p)
    true, _ = np.histogram(p, bins, (0, 1), weights=y)
    return np.abs(said - true).sum() / len(p)
""",
        """
def calibration_gap(chances, labels, bins):
    total = 0
    for k in range(bins):
        here = (chances >= k / bins) & ((chances < (k + 1) / bins) | (k == bins - 1))
        if here.any():
            gap = chances[here].mean() - labels[here].float().mean()
            total += here.sum() * gap.abs()
    return total / len(chances)
""",
        """
import numpy as np


def calibration_gap(chances, labels, bins):
    p, y = (v.detach().cpu().numpy() for v in (chances, labels))
    place = np.minimum((p * bins).astype(int), bins - 1)
    said = np.bincount(place, weights=p, minlength=bins)
    true = np.bincount(place, weights=y, minlength=bins)
    return float(np.abs(said - true).sum() / len(p))
""",
        """
def calibration_gap(chances, labels, bins):
    total = 0.0
    for k in range(bins):
        low, high = k / bins, (k + 1) / bins
        rows = [(float(c), float(y)) for c, y in zip(chances, labels)
                if (low < c < high) or (c == 0 and k == 0)
                or (c == 1 and k == bins - 1)]
        if rows:
            gap = sum(c for c, _ in rows) - sum(y for _, y in rows)
            total += abs(gap)
    return total / len(chances)
""",
    ],
    "partial_cross_entropy": [
        """
import torch.nn.functional as F


def partial_cross_entropy(logits, labels, weights):
    losses = []
    for t in sorted(logits):
        known = (labels[t] != -1).to(logits[t])
        y = labels[t].clamp(min=0)
        each = F.softplus(logits[t]) - y * logits[t]
        mean = (each * known).sum() / known.sum().clamp(min=1)
        losses.append(weights[t] * mean)
    return torch.stack(losses).sum()
""",
        """
import torch.nn.functional as F


def partial_cross_entropy(logits, labels, weights):
    total = 0.0
    for t, z in logits.items():
        known = labels[t] >= 0
        if known.any():
            y = labels[t][known].double()
            total += weights[t] * F.binary_cross_entropy_with_logits(z[known], y)
    return total
""",
    ],
    "film_features": [
        """
def film_features(film, liked, time, train):
    out = torch.full((len(film), 2), 0.5)
    counts, sums = {}, {}
    for row in time.argsort().tolist():
        f = int(film[row])
        out[row, 0] = counts.get(f, 0)
        if f in counts:
            out[row, 1] = sums[f] / counts[f]
        if train[row]:
            counts[f] = counts.get(f, 0) + 1
            sums[f] = sums.get(f, 0.0) + float(liked[row])
    return out
""",
        """
import numpy as np


def film_features(film, liked, time, train):
    f, y, t, use = (v.numpy() for v in (film, liked, time, train))
    known = (f[:, None] == f) & (t[None] < t[:, None]) & use[None]
    count = known.sum(1)
    total = (known * y).sum(1)
    mean = np.where(count > 0, total / np.maximum(count, 1), 0.5)
    return torch.from_numpy(np.stack([count.astype(float), mean], 1))
""",
        """
def film_features(film, liked, time, train):
    history, out = {}, [None] * len(film)
    for row in time.argsort().tolist():
        past = history.setdefault(int(film[row]), [])
        mean = sum(past) / len(past) if past else 0.5
        out[row] = [float(len(past)), mean]
        if train[row]:
            past.append(float(liked[row]))
    return torch.tensor(out, dtype=liked.dtype)
""",
    ],
}

LAST_AXIS = "the last axis of a matrix is axis 1"

EQUIVALENT: dict[str, dict[str, str]] = {
    "product_loss": {
        "log_not = torch.logaddexp(F.logsigmoid(-a), rest)  =>  log_not = torch.logaddexp(rest, F.logsigmoid(-a))": (
            "a sum commutes"
        )
    },
    "balance_penalty": {
        "chances = logits.softmax(1)  =>  chances = logits.softmax(-1)": LAST_AXIS,
        "shares = torch.bincount(logits.argmax(1), minlength=E) / B  =>  shares = torch.bincount(logits.argmax(-1), minlength=E) / B": (
            LAST_AXIS
        ),
    },
    "calibration_gap": {
        "gap = (chances[here] - labels[here]).mean()  =>  gap = (labels[here] - chances[here]).mean()": (
            "its absolute value is taken"
        )
    },
    "partial_cross_entropy": {
        "total = total + weights[name] * each / max(int(known.sum()), 1)  =>  total = total + weights[name] * each / max(1, int(known.sum()))": (
            "the larger of two numbers is the same in either order"
        ),
        "total = total + weights[name] * each / max(int(known.sum()), 1)  =>  total = total + weights[name] * each / max(known.sum(), 1)": (
            "a count as a tensor divides as the number does"
        ),
    },
    "film_features": {
        "features[row, 1] = liked[known].mean()  =>  features[row, -1] = liked[known].mean()": (
            "the last of two columns is column 1"
        )
    },
}
