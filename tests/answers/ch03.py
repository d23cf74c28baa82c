"""Chapter 3: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "adam_update": [
        """
def adam_update(theta, g, m, s, step, rate, b1, b2, epsilon):
    m = m + (1 - b1) * (g - m)
    s = torch.lerp(g * g, s, b2)
    c1, c2 = 1 - b1**step, 1 - b2**step
    length = rate * c2**0.5 / c1
    return theta - length * m / (s.sqrt() + epsilon * c2**0.5), m, s
""",
        """
def adam_update(theta, g, m, s, step, rate, b1, b2, epsilon):
    import numpy as np
    theta, g, m, s = (np.asarray(a) for a in (theta, g, m, s))
    m, s = b1 * m + (1 - b1) * g, b2 * s + (1 - b2) * g**2
    size = np.sqrt(s / (1 - b2**step)) + epsilon
    moved = theta - rate * m / (1 - b1**step) / size
    return torch.from_numpy(moved), torch.from_numpy(m), torch.from_numpy(s)
""",
        """
def adam_update(theta, g, m, s, step, rate, b1, b2, epsilon):
    means = []
    for old, new, b in ((m, g, b1), (s, g.square(), b2)):
        means.append(old.mul(b).add(new, alpha=1 - b))
    top, bottom = (mean.div(1 - b**step) for mean, b in zip(means, (b1, b2)))
    return theta.addcdiv(top, bottom**0.5 + epsilon, value=-rate), *means
""",
        """
def adam_update(theta, g, m, s, step, rate, b1, b2, epsilon):
    p = nn.Parameter(theta.clone())
    optimizer = torch.optim.Adam([p], lr=rate, betas=(b1, b2), eps=epsilon)
    means = {"exp_avg": m.clone(), "exp_avg_sq": s.clone()}
    optimizer.state[p] = {"step": torch.tensor(float(step - 1)), **means}
    p.grad = g.clone()
    optimizer.step()
    return p.detach(), *(optimizer.state[p][name] for name in means)
""",
    ],
    "clipped_descent": [
        """
def clipped_descent(w, x, y, rate, limit):
    losses = []
    for i in range(len(x)):
        error = x[i] @ w - y[i]
        losses.append(error.square().mean())
        g = 2 * error @ x[i] / error.numel()
        norm = torch.linalg.vector_norm(g)
        w = w - rate * torch.where(norm > limit, g * (limit / norm), g)
    return w, torch.stack(losses).mean()
""",
        """
def clipped_descent(w, x, y, rate, limit):
    w = w.clone()
    mean = torch.zeros((), dtype=w.dtype, device=w.device)
    for xb, yb in zip(x.unbind(), y.unbind()):
        leaf = w.detach().requires_grad_()
        loss = ((xb @ leaf - yb) ** 2).mean()
        (g,) = torch.autograd.grad(loss, leaf)
        mean += loss.detach() / x.shape[0]
        w = w - rate * limit * g / torch.clamp_min(g.norm(), limit)
    return w, mean
""",
        """
def clipped_descent(w, x, y, rate, limit):
    p = nn.Parameter(w.detach().clone())
    total = torch.zeros_like(w[0])
    for xb, yb in zip(x, y):
        p.grad = None
        loss = nn.functional.mse_loss(xb @ p, yb)
        loss.backward()
        nn.utils.clip_grad_norm_([p], limit)
        with torch.no_grad():
            p -= rate * p.grad
        total = total + loss.detach()
    return p.detach(), total / x.shape[0]
""",
    ],
    "saved_run": [
        """
def saved_run(model, optimizer, order, epoch):
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
             "order": order.get_state(),
             "rng": torch.default_generator.get_state(), "epoch": epoch}
    return deepcopy(parts)
""",
        """
def saved_run(model, optimizer, order, epoch):
    import io
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    weights, momentum = torch.load(file)
    state = dict(model=weights, optimizer=momentum, epoch=epoch)
    state["order"], state["rng"] = order.get_state(), torch.random.get_rng_state()
    return state
""",
        """
def saved_run(model, optimizer, order, epoch):
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    weights.update({name: b.clone() for name, b in model.named_buffers()})
    return {"epoch": int(epoch), "rng": torch.random.get_rng_state(),
            "order": order.get_state().clone(), "model": weights,
            "optimizer": deepcopy(optimizer).state_dict()}
""",
    ],
    "unscaled_direction": [
        """
def unscaled_direction(J, scale, weights, limit):
    if not torch.isfinite(J).all():
        return torch.zeros_like(J[0], dtype=torch.float32), 0.5 * scale
    d = (J.to(torch.float32) / scale * weights[:, None]).sum(dim=0)
    if d.norm() > limit:
        d = limit * d / d.norm()
    return d, scale
""",
        """
def unscaled_direction(J, scale, weights, limit):
    rows = J.float()
    bad = (rows - rows).isnan().any()
    d = torch.einsum("t,tp->p", weights / scale, rows)
    d = d / torch.clamp_min(torch.linalg.vector_norm(d) / limit, 1.0)
    return d.masked_fill(bad, 0.0), scale * torch.where(bad, 0.5, 1.0)
""",
        """
def unscaled_direction(J, scale, weights, limit):
    d = sum(J[t].float() * (float(weights[t]) / float(scale)) for t in range(len(J)))
    if not bool(torch.isfinite(d).all()):
        return torch.zeros_like(d), float(scale) / 2
    length = float(torch.sqrt((d**2).sum()))
    return (d * (limit / length) if length > limit else d), float(scale)
""",
    ],
    "choose_run": [
        """
def choose_run(accuracy, seconds, tolerance):
    import numpy as np
    a, cost = np.array(accuracy), np.array(seconds)
    a[np.isnan(a).any(axis=2)] = -1e9
    mean = a.mean(axis=2)
    columns, most = mean.argmax(axis=1), mean.max(axis=1)
    for b in np.argsort(cost):
        if most.max() - most[b] <= tolerance:
            return b, columns[b], columns[b] not in (0, mean.shape[1] - 1)
""",
        """
def choose_run(accuracy, seconds, tolerance):
    trials = []
    for b, rows in enumerate(accuracy.tolist()):
        for r, runs in enumerate(rows):
            if all(a == a for a in runs):
                trials.append((sum(runs) / len(runs), b, r))
    top = max(trials)[0]
    best = {}
    for value, b, r in sorted(trials):
        best[b] = value, r
    able = [b for b in best if best[b][0] >= top - tolerance]
    b = sorted(able, key=lambda b: float(seconds[b]))[0]
    r = best[b][1]
    return torch.tensor(b), torch.tensor(r), 1 <= r <= len(accuracy[0]) - 2
""",
        """
def choose_run(accuracy, seconds, tolerance):
    import numpy as np
    table = accuracy.float().numpy()
    mean = table.mean(-1)
    best = np.nanmax(np.where(np.isnan(mean).all(1)[:, None], -9, mean), axis=1)
    able = np.flatnonzero(best >= best.max() - np.float32(tolerance))
    b = able[np.argmin(seconds.numpy()[able])]
    r = np.nanargmax(mean[b])
    return [b, r, np.bool_(0 < r < mean.shape[1] - 1)]
""",
    ],
    "layer_floor": [
        """
def layer_floor(n, before, after, side, kernel, size, peak, bandwidth):
    products = before * kernel**2
    operations = n * after * side**2 * (products + products - 1)
    numbers = n * (before + after) * side**2 + after * products
    return max(operations / peak, numbers * size / bandwidth)
""",
        """
def layer_floor(n, before, after, side, kernel, size, peak, bandwidth):
    pixels = n * side * side
    window = before * kernel * kernel
    compute = 2.0 * pixels * after * window / peak
    memory = size * (pixels * (before + after) + window * after) / bandwidth
    return compute if compute > memory else memory
""",
        """
def layer_floor(n, before, after, side, kernel, size, peak, bandwidth):
    shapes = [(n, before, side, side), (n, after, side, side), (after, before, kernel, kernel)]
    sizes = [a * b * c * d for a, b, c, d in shapes]
    multiplications = sizes[1] * before * kernel**2
    return float(max(multiplications / (peak / 2), sum(sizes) * size / bandwidth))
""",
        """
def layer_floor(n, before, after, side, kernel, size, peak, bandwidth):
    import numpy as np
    shapes = np.array([[n, before, side, side], [n, after, side, side],
                       [after, before, kernel, kernel]], dtype=float)
    read, written, weights = shapes.prod(1)
    times = [2 * written * before * kernel**2 / peak, (read + written + weights) * size / bandwidth]
    return np.max(times)
""",
    ],
}

EQUIVALENT = {
    "choose_run": {
        "best, rate = mean.max(1)  =>  best, rate = mean.max(-1)": (
            "the means are a table [B, R]: its last dimension is 1"
        ),
    },
    "layer_floor": {
        "return max(operations / peak, size * numbers / bandwidth)  =>  return max(size * numbers / bandwidth, operations / peak)": (
            "the larger of two numbers does not depend on their order"
        ),
    },
}
