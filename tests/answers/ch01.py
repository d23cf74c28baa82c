"""Chapter 1: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "joint_gradient": [
        """
def joint_gradient(x, y, w, W_f, b_f, W_h, b_h):
    grads = [np.zeros_like(W_f), np.zeros_like(b_f), np.zeros_like(W_h), np.zeros_like(b_h)]
    n = x.shape[0]
    for i in range(n):
        f = np.tanh(W_f @ x[i] + b_f)
        for t in range(len(w)):
            p = 1 / (1 + np.exp(-(W_h[t] @ f + b_h[t])))
            r = w[t] * (p - y[i, t]) / n
            grads[2][t] += r * f
            grads[3][t] += r
            d = r * W_h[t] * (1 - f) * (1 + f)
            grads[0] += np.outer(d, x[i])
            grads[1] += d
    return tuple(grads)
""",
        """
def joint_gradient(x, y, w, W_f, b_f, W_h, b_h):
    W1, c1, W2, c2 = [torch.tensor(p, requires_grad=True) for p in (W_f, b_f, W_h, b_h)]
    logits = torch.tanh(torch.tensor(x) @ W1.T + c1) @ W2.T + c2
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.tensor(y), reduction="none")
    (loss.mean(0) @ torch.tensor(w)).backward()
    return tuple(p.grad.numpy() for p in (W1, c1, W2, c2))
""",
        """
def joint_gradient(x, y, w, W_f, b_f, W_h, b_h):
    inputs, labels, weights = map(torch.as_tensor, (x, y, w))

    def loss(p):
        logits = torch.tanh(inputs @ p[0].T + p[1]) @ p[2].T + p[3]
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, labels, reduction="none")
        return (weights * each.mean(0)).sum()

    parameters = tuple(map(torch.as_tensor, (W_f, b_f, W_h, b_h)))
    return [g.numpy() for g in torch.func.grad(loss)(parameters)]
""",
    ],
    "coupled_loss": [
        """
def coupled_loss(xs, ys, W, w, lam):
    errors = torch.stack([torch.nn.functional.mse_loss(x @ v, y) for x, y, v in zip(xs, ys, W)])
    T = len(W)
    # sum of squared distances to the mean = sum of squares - T * |mean|^2
    spread = W.square().sum() - T * W.mean(0).square().sum()
    return errors @ w + lam * spread
""",
        """
def coupled_loss(xs, ys, W, w, lam):
    common = sum(W) / len(W)
    return sum(w[t] * (xs[t] @ W[t] - ys[t]).square().sum() / len(ys[t])
               + lam * (W[t] - common) @ (W[t] - common)
               for t in range(len(W)))
""",
        """
def coupled_loss(xs, ys, W, w, lam):
    center = W.mean(dim=0, keepdim=True).detach()
    loss = torch.zeros((), dtype=W.dtype, device=W.device)
    for x, y, v, weight in zip(xs, ys, W, w.tolist()):
        r = torch.mv(x, v) - y
        loss = loss + weight * torch.dot(r, r) / r.numel()
    return loss + lam * torch.linalg.vector_norm(W - center) ** 2
""",
        """
def coupled_loss(xs, ys, W, w, lam):
    T = len(xs)
    pairs = sum(((W[s] - W[t]) ** 2).sum() for s in range(T) for t in range(s))
    fit = sum(w[t] * torch.nn.functional.mse_loss(xs[t] @ W[t], ys[t]) for t in range(T))
    return fit + lam * pairs / T
""",
    ],
    "batch_loss": [
        """
def batch_loss(x, y, rows, W_f, b_f, W_h, b_h):
    f = torch.tanh(torch.nn.functional.linear(x, W_f, b_f))
    error = torch.nn.functional.linear(f, W_h, b_h) - y
    return error[rows].square().sum() / len(rows)
""",
        """
def batch_loss(x, y, rows, W_f, b_f, W_h, b_h):
    total = 0
    for x_i, y_i in zip(x[rows], y[rows]):
        out = W_h @ torch.tanh(W_f @ x_i + b_f) + b_h
        total = total + ((out - y_i) ** 2).sum()
    return total / rows.shape[0]
""",
        """
def batch_loss(x, y, rows, W_f, b_f, W_h, b_h):
    out = torch.tanh(x[rows] @ W_f.T + b_f) @ W_h.T + b_h
    targets = y[rows].detach()
    return sum(torch.nn.functional.mse_loss(out[:, t], targets[:, t]) for t in range(y.shape[1]))
""",
    ],
    "crossing_point": [
        """
def crossing_point(sigma, tau, lam):
    if lam == math.inf:
        return (sigma / tau) ** 2
    bottom = lam * tau**2 - 2 * sigma**2
    return lam * sigma**2 / bottom if bottom > 1e-12 else math.inf
""",
        """
def crossing_point(sigma, tau, lam):
    best = sigma**2 / tau**2
    inverse = (1 - 2 * best / lam) / best
    if inverse <= 1e-12:
        return math.inf
    return 1 / inverse
""",
        """
def crossing_point(sigma, tau, lam):
    ratio = (sigma / tau) ** 2
    if math.isinf(lam):
        return ratio
    if lam <= 2 * ratio:
        return float("inf")
    low, high = 0.0, 1.0
    while (2 * high + lam) * ratio > lam * high:
        high *= 2
    for _ in range(200):
        n = (low + high) / 2
        low, high = (n, high) if (2 * n + lam) * ratio > lam * n else (low, n)
    return high
""",
    ],
    "examples_needed": [
        """
def examples_needed(error, T, sigma, tau):
    roots = np.roots([1 / T, tau**2 - error, -error * tau**2])
    return sigma**2 / float(max(roots.real))
""",
        """
def examples_needed(error, T, sigma, tau):
    def found(n):
        s = sigma**2 / n
        return s / T + (1 - 1 / T) / (1 / s + 1 / tau**2)
    low, high = 0.0, 1.0
    while found(high) > error:
        high *= 2
    for _ in range(200):
        n = (low + high) / 2
        low, high = (n, high) if found(n) > error else (low, n)
    return high
""",
        """
def examples_needed(error, T, sigma, tau):
    # in units of tau: u = error / tau^2 and n* examples
    u, ratio = error / tau**2, (sigma / tau) ** 2
    return ratio * (1 - u + math.sqrt((1 - u) ** 2 + 4 * u / T)) / (2 * u)
""",
        """
def examples_needed(error, T, sigma, tau):
    # bounds that hold: very many tasks at best, one at worst
    high = sigma**2 / error
    low = high / T / 2
    def too_few(n):
        s = sigma**2 / n
        return s / T + (1 - 1 / T) * s * tau**2 / (s + tau**2) > error
    while high > low * (1 + 1e-12):
        n = math.sqrt(low * high)
        low, high = (n, high) if too_few(n) else (low, n)
    return np.float64(high)
""",
    ],
}

EQUIVALENT = {
    "batch_loss": {
        "return ((prediction - target) ** 2).mean(0).sum()  =>  return ((target - prediction) ** 2).mean(0).sum()": (
            "squares: (a - b)^2 = (b - a)^2"
        ),
    },
    "coupled_loss": {
        "loss = lam * ((W - W.mean(0)) ** 2).sum()  =>  loss = lam * ((W.mean(0) - W) ** 2).sum()": (
            "squares: (a - b)^2 = (b - a)^2"
        ),
        "loss = loss + w[t] * ((xs[t] @ W[t] - ys[t]) ** 2).mean()  =>  loss = loss + w[t] * ((ys[t] - xs[t] @ W[t]) ** 2).mean()": (
            "squares: (a - b)^2 = (b - a)^2"
        ),
    },
}
