"""Chapter 10: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "gru_step": [
        """
def gru_step(x, h, W, U, b, d):
    H = h.shape[1]
    first = x @ W[:2 * H].T + b[:2 * H] + h @ U[:2 * H].T + d[:2 * H]
    gates = 1 / (1 + torch.exp(-first))
    r, z = gates[:, :H], gates[:, H:]
    inner = h @ U[2 * H:].T + d[2 * H:]
    new = torch.tanh(x @ W[2 * H:].T + b[2 * H:] + r * inner)
    return new + z * (h - new)
""",
        """
def gru_step(x, h, W, U, b, d):
    rows = []
    for one, state in zip(x, h):
        a = torch.nn.functional.linear(one, W, b).view(3, -1)
        c = torch.nn.functional.linear(state, U, d).view(3, -1)
        r, z = (a[:2] + c[:2]).sigmoid()
        rows.append(torch.lerp(torch.tanh(a[2] + r * c[2]), state, z))
    return torch.stack(rows)
""",
        """
def gru_step(x, h, W, U, b, d):
    return torch.gru_cell(x, h, W, U, b, d)
""",
    ],
    "known_losses": [
        """
def known_losses(guess, y):
    losses = []
    for k in range(guess.shape[1]):
        known = torch.isfinite(y[:, k])
        if known.any():
            losses.append(torch.mean((guess[known, k] - y[known, k]) ** 2))
        else:
            losses.append(0 * guess[:, k].sum())
    return torch.stack(losses)
""",
        """
def known_losses(guess, y):
    with torch.no_grad():
        known = (y == y).to(guess.dtype)
        share = known / torch.clamp(known.sum(0, keepdim=True), min=1.0)
        truth = torch.where(known > 0, y, torch.zeros_like(y))
    return torch.einsum("bh,bh->h", share, (guess - truth) ** 2)
""",
        """
def known_losses(guess, y):
    losses = guess.new_zeros(y.shape[1])
    for k in range(y.shape[1]):
        known = ~torch.isnan(y[:, k])
        if known.sum() > 0:
            losses[k] = torch.nn.functional.mse_loss(guess[known, k], y[known, k])
    return losses
""",
    ],
    "horizon_weights": [
        """
import numpy as np


def horizon_weights(y, naive):
    error = np.nanmean((y.numpy() - naive.numpy()) ** 2, axis=0)
    return torch.from_numpy(error.min() / error / (error.min() / error).sum())
""",
        """
def horizon_weights(y, naive):
    errors = []
    for k in range(y.shape[1]):
        known = ~torch.isnan(y[:, k])
        errors.append(((y[known, k] - naive[known, k]) ** 2).mean())
    inverse = [1 / e for e in errors]
    return torch.stack([w / sum(inverse) for w in inverse])
""",
        """
def horizon_weights(y, naive):
    known = ~y.isnan()
    total = (y - naive).nan_to_num(0.0).pow(2).sum(0)
    return torch.softmax(-(total / known.sum(0)).log(), dim=0)
""",
    ],
    "dm_test": [
        """
def dm_test(first, second, horizon):
    import numpy as np
    from scipy import stats
    d = np.asarray(first) - np.asarray(second)
    N, h = d.size, horizon
    c = d - np.mean(d)
    full = np.correlate(c, c, "full")[N - 1:] / N
    weights = np.array([1.0] + [2 * (h - k) / h for k in range(1, h)])
    variance = np.sum(weights * full[:h]) / N
    t = np.mean(d) / np.sqrt(variance)
    t = t * np.sqrt((N + 1 - 2 * h + h * (h - 1) / N) / N)
    return float(t), float(2 * (1 - stats.t.cdf(abs(t), df=N - 1)))
""",
        """
def dm_test(first, second, horizon):
    from scipy import stats
    N = len(first)
    d = [float(a) - float(b) for a, b in zip(first, second)]
    mean = sum(d) / N
    total = 0.0
    for i in range(N):
        for j in range(N):
            near = max(0.0, 1 - abs(i - j) / horizon)
            total += near * (d[i] - mean) * (d[j] - mean)
    t = mean / (total / N / N) ** 0.5
    t *= ((N + 1 - 2 * horizon + horizon * (horizon - 1) / N) / N) ** 0.5
    return [t, stats.t.sf(t, N - 1) * 2 if t > 0 else stats.t.cdf(t, N - 1) * 2]
""",
    ],
    "make_parts": [
        """
def make_parts(series, cut, steps, ahead, width):
    series = numpy.array(series)
    seen = numpy.where(numpy.isnan(series), 0, numpy.arange(len(series)))
    filled = series[numpy.maximum.accumulate(seen)]
    total = numpy.concatenate([[0.0], numpy.cumsum(filled)])
    ends = numpy.arange(1, len(series) + 1)
    starts = numpy.maximum(ends - width, 0)
    smooth = (total[ends] - total[starts]) / (ends - starts)
    z = (smooth - smooth[:cut].mean()) / smooth[:cut].std()
    views = numpy.lib.stride_tricks.sliding_window_view(z, steps)
    T = len(filled)
    last = range(steps - 1, cut - ahead)
    later = range(cut, T - ahead)
    def parts(rows):
        rows = numpy.array(rows)
        return views[rows - steps + 1].copy(), filled[rows + ahead]
    x_train, y_train = parts(last)
    x_test, y_test = parts(later)
    return x_train, y_train, x_test, y_test
""",
        """
def make_parts(series, cut, steps, ahead, width):
    values = []
    for v in series:
        values.append(values[-1] if v != v else float(v))
    smooth = []
    for t in range(len(values)):
        some = values[max(0, t + 1 - width):t + 1]
        smooth.append(sum(some) / len(some))
    mean = sum(smooth[:cut]) / cut
    deviation = (sum((s - mean) ** 2 for s in smooth[:cut]) / cut) ** 0.5
    out = {"x_train": [], "y_train": [], "x_test": [], "y_test": []}
    for t in range(steps - 1, len(values) - ahead):
        part = "train" if t + ahead < cut else "test" if t >= cut else None
        if part:
            window = smooth[t - steps + 1:t + 1]
            out["x_" + part].append([(s - mean) / deviation for s in window])
            out["y_" + part].append(values[t + ahead])
    return list(out.values())
""",
    ],
}

EQUIVALENT = {
    "gru_step": {
        "r_x, z_x, n_x = (x @ W.T + b).chunk(3, dim=1)"
        "  =>  r_x, z_x, n_x = (x @ W.T + b).chunk(3, dim=-1)": "the product is a matrix",
        "r_h, z_h, n_h = (h @ U.T + d).chunk(3, dim=1)"
        "  =>  r_h, z_h, n_h = (h @ U.T + d).chunk(3, dim=-1)": "the product is a matrix",
    },
    "known_losses": {
        "truth = y.nan_to_num(0.0)  =>  truth = y.nan_to_num(1.0)": (
            "what stands there is multiplied by 0"
        ),
        "truth = y.nan_to_num(0.0)  =>  truth = y.nan_to_num(-1)": (
            "what stands there is multiplied by 0"
        ),
        "error = (guess - truth).square() * known  =>  error = (truth - guess).square() * known": (
            "a square has no sign"
        ),
    },
    "horizon_weights": {
        "weights = 1 / error  =>  weights = 2 / error": "the factor drops out of the shares",
        "weights = 1 / error  =>  weights = -1 / error": "the sign drops out of the shares",
        "error = (y - naive).square().nanmean(dim=0)"
        "  =>  error = (naive - y).square().nanmean(dim=0)": "a square has no sign",
    },
    "dm_test": {
        "apart = d - d.mean()  =>  apart = d.mean() - d": "only products of two of them are used",
        "total += 2 * (1 - k / h) * (apart[k:] @ apart[:-k]) / N"
        "  =>  total += 2 * (1 - k / h) * (apart[:-k] @ apart[k:]) / N": (
            "a dot product is symmetric"
        ),
    },
    "make_parts": {
        "for t in range(1, len(filled)):  =>  for t in range(-1, len(filled)):": (
            "row 0 is no gap, and a gap in row -1, the last, gets the value that it would get"
            " later, or that is still a gap and is then filled in its turn"
        ),
        "smooth = np.array([filled[max(0, t - width + 1):t + 1].mean()"
        " for t in range(len(filled))])  =>  smooth = np.array([filled[max(t - width + 1, 0):t + 1].mean()"
        " for t in range(len(filled))])": "max is symmetric",
    },
}
