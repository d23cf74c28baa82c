"""Chapter 24: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "unmet": [
        """
import math
import statistics


def unmet(requirements, measured):
    def kept(kind, limit, values):
        if len(values) < 2 or not all(map(math.isfinite, values)):
            return False
        sign = 1 if kind == "at least" else -1
        error = statistics.stdev(values) / math.sqrt(len(values))
        return sign * statistics.fmean(values) - 2 * error >= sign * limit

    return [n for n, (k, v) in requirements.items() if not kept(k, v, measured.get(n, ()))]
""",
        """
import numpy as np


def unmet(requirements, measured):
    names = list(requirements)
    for name in requirements:
        x = np.array(measured[name]) if name in measured else np.array([])
        if x.size < 2 or np.isnan(x).any() or np.isinf(x).any():
            continue
        kind, limit = requirements[name]
        room = x.mean() - limit if kind == "at least" else limit - x.mean()
        if room >= 2 * x.std(ddof=1) / np.sqrt(x.size):
            names.remove(name)
    return tuple(names)
""",
    ],
    "latencies": [
        """
def latencies(arrive, work):
    waited, free = [], float("-inf")
    for came, takes in zip(arrive.tolist(), work.tolist()):
        free = max(free, came) + takes
        waited.append(free - came)
    return waited
""",
        """
def latencies(arrive, work):
    done = work.cumsum(0)
    # the worker is late by the worst stretch of work so far
    slack = (arrive - done + work).cummax(0).values
    return done + slack - arrive
""",
        """
import numpy as np


def latencies(arrive, work):
    a, w = arrive.cpu().numpy(), work.cpu().numpy()
    wait = np.zeros_like(w)
    for i in range(1, len(w)):
        wait[i] = max(0.0, wait[i - 1] + w[i - 1] - (a[i] - a[i - 1]))
    return wait + w
""",
    ],
    "drift_score": [
        """
def drift_score(reference, window, bins):
    inner = torch.linspace(0, 1, bins + 1, dtype=torch.float64).to(reference)[1:-1]
    edges = torch.quantile(reference, inner)
    shares = []
    for values in (reference, window):
        count = torch.searchsorted(edges, values, right=True).bincount(minlength=bins)
        shares.append((count + 0.5) / (len(values) + bins / 2))
    p, q = shares
    return float(((q - p) * (q.log() - p.log())).sum())
""",
        """
import numpy as np


def drift_score(reference, window, bins):
    r, w = reference.cpu().numpy(), window.cpu().numpy()
    edges = np.quantile(r, np.arange(1, bins) / bins)
    shares = []
    for v in (r, w):
        count = np.array([(np.digitize(v, edges) == k).sum() for k in range(bins)])
        shares.append((count + 0.5) / (len(v) + bins / 2))
    p, q = shares
    return np.sum(q * np.log(q / p)) + np.sum(p * np.log(p / q))
""",
        """
import math


def drift_score(reference, window, bins):
    edges = [float(reference.quantile(k / bins)) for k in range(1, bins)]

    def share(values, k):
        low = -math.inf if k == 0 else edges[k - 1]
        high = math.inf if k == bins - 1 else edges[k]
        inside = sum(1 for v in values.tolist() if low <= v < high)
        return (inside + 0.5) / (len(values) + 0.5 * bins)

    total = 0.0
    for k in range(bins):
        p, q = share(reference, k), share(window, k)
        total += (q - p) * (math.log(q) - math.log(p))
    return total
""",
    ],
    "roll_back": [
        """
def roll_back(history, reports, tolerance, most):
    def healthy(version):
        r = reports[version]
        reached = r["answered"] + r["failed"]
        share = r["failed"] / reached if reached else 0.0
        return r["difference"] <= tolerance and share <= most

    good = [version for version in history if healthy(version)]
    return good[-1] if good else "none"
""",
        """
import math


def roll_back(history, reports, tolerance, most):
    newest = "none"
    for version in history:
        r = reports[version]
        if math.isnan(r["difference"]) or r["difference"] > tolerance:
            continue
        if r["failed"] * (1 - most) > most * r["answered"]:
            continue
        newest = version
    return newest
""",
    ],
}

ONE = "of one value the standard deviation is NaN, of none the mean too: neither keeps a limit"

EQUIVALENT: dict[str, dict[str, str]] = {
    "unmet": {
        "if len(values) > 1:  =>  if True:": ONE,
        "if len(values) > 1:  =>  if len(values) >= 1:": ONE,
        "if len(values) > 1:  =>  if len(values) > -1:": ONE,
    },
    "latencies": {
        "free = torch.maximum(free, came) + takes  =>  free = torch.maximum(came, free) + takes": (
            "a maximum is symmetric"
        )
    },
}
