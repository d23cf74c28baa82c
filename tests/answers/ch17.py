"""Chapter 17: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "inner_step": [
        """
def inner_step(loss, params, rate):
    slopes = torch.func.grad(loss)(params)
    return {name: params[name] - rate * slopes[name] for name in params}
""",
        """
def inner_step(loss, params, rate):
    value, new = loss(params), {}
    for name in params:
        (g,) = torch.autograd.grad(value, [params[name]], create_graph=True)
        new[name] = torch.add(params[name], g, alpha=-rate)
    return new
""",
        """
def inner_step(loss, params, rate):
    names = sorted(params)
    slopes = torch.autograd.grad(
        loss(params), [params[n] for n in names], create_graph=True
    )
    moved = dict(zip(names, slopes))
    return {n: p - rate * moved[n] for n, p in params.items()}
""",
        """
def inner_step(loss, params, rate):
    _, pull = torch.func.vjp(loss, params)
    (g,) = pull(
        torch.ones(
            (),
            dtype=next(iter(params.values())).dtype,
            device=next(iter(params.values())).device,
        )
    )
    new = {}
    for n in reversed(list(params)):
        new[n] = -rate * g[n] + params[n]
    return new
""",
    ],
    "maml_start": [
        """
def maml_start(H, C, rate):
    total, pull = torch.zeros_like(H[0]), torch.zeros_like(C[0])
    for A, c in zip(H, C):
        step = torch.eye(len(c), dtype=H.dtype, device=H.device) - rate * A
        M = step.T @ A @ step
        total, pull = total + M, pull + M @ c
    return torch.linalg.inv(total) @ pull
""",
        """
def maml_start(H, C, rate):
    M = H - 2 * rate * H @ H + rate**2 * H @ H @ H
    return torch.linalg.lstsq(M.mean(0), (M @ C[:, :, None]).mean(0)).solution[:, 0]
""",
        """
def maml_start(H, C, rate):
    def after(theta):
        total = 0
        for h, c in zip(H, C):
            t = theta - rate * h @ (theta - c)
            total = total + (t - c) @ h @ (t - c) / 2
        return total

    zero = torch.zeros_like(C[0])
    g = torch.func.grad(after)(zero)
    return -torch.linalg.solve(torch.func.hessian(after)(zero), g)
""",
        """
def maml_start(H, C, rate):
    value, vector = torch.linalg.eigh(H)
    w = value * (1 - rate * value) ** 2
    M = vector @ torch.diag_embed(w) @ vector.mT
    return torch.linalg.solve(M.mean(0), (M @ C.unsqueeze(-1)).mean(0)).squeeze(-1)
""",
    ],
    "dropped_term": [
        """
def dropped_term(slope, judge, theta, rate, reach):
    g = judge(theta - rate * slope(theta))
    total = torch.zeros_like(theta)
    for place, axis in enumerate(reach * torch.eye(len(theta)).to(theta)):
        total = total + g[place] * (slope(theta + axis) - slope(theta - axis))
    return -rate / (2 * reach) * total
""",
        """
def dropped_term(slope, judge, theta, rate, reach):
    g = judge(theta - rate * slope(theta))
    _, turned = torch.func.jvp(slope, (theta,), (g,))
    return -turned * rate
""",
        """
def dropped_term(slope, judge, theta, rate, reach):
    g = judge(theta - slope(theta) * rate)
    length = torch.linalg.vector_norm(g)
    way = g / length
    change = (slope(theta + reach * way) - slope(theta - reach * way)) / 2 / reach
    return -(rate * length) * change
""",
        """
def dropped_term(slope, judge, theta, rate, reach):
    g = judge(theta - rate * slope(theta))
    J = torch.func.jacrev(slope)(theta)
    return -rate * J @ g
""",
        """
def dropped_term(slope, judge, theta, rate, reach):
    start = theta.clone().requires_grad_()
    s = slope(start)
    g = judge((start - rate * s).detach())
    return -rate * torch.autograd.grad(s, start, g)[0]
""",
    ],
    "reptile_update": [
        """
def reptile_update(theta, tasks, rate, steps, toward):
    ends = []
    for X, y in tasks:
        own = theta.clone()
        for _ in range(steps):
            own -= rate * ((X @ own - y)[:, None] * X).mean(0)
        ends.append(own)
    return torch.lerp(theta, torch.stack(ends).mean(0), toward)
""",
        """
def reptile_update(theta, tasks, rate, steps, toward):
    new = (1 - toward) * theta
    for X, y in tasks:
        n, d = X.shape
        best = torch.linalg.pinv(X) @ y
        step = torch.eye(d, dtype=X.dtype, device=X.device) - rate / n * X.T @ X
        shrink = torch.linalg.matrix_power(step, steps)
        new = new + toward / len(tasks) * (best + shrink @ (theta - best))
    return new
""",
        """
def reptile_update(theta, tasks, rate, steps, toward):
    moves = []
    for X, y in tasks:
        own = theta.detach().clone().requires_grad_()
        opt = torch.optim.SGD([own], lr=rate)
        for _ in range(steps):
            opt.zero_grad()
            ((X @ own - y).square().mean() / 2).backward()
            opt.step()
        moves.append(own.detach() - theta)
    return theta + toward * torch.stack(moves).mean(0)
""",
        """
def reptile_update(theta, tasks, rate, steps, toward):
    def loss(t, X, y):
        return 0.5 * ((X @ t - y) ** 2).mean()

    total = torch.zeros_like(theta)
    for X, y in tasks:
        t = theta
        for _ in range(steps):
            t = t - rate * torch.func.grad(loss)(t, X, y)
        total += t
    return (1 - toward) * theta + toward * total / len(tasks)
""",
    ],
    "predict_new": [
        """
def predict_new(f, params, tasks, rate, steps):
    def adapted(x, y):
        own = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
        for _ in range(steps):
            F_ = ((f(own, x) - y) ** 2).mean()
            F_.backward()
            with torch.no_grad():
                for p in own.values():
                    p -= rate * p.grad
                    p.grad = None
        return own
    return [f(adapted(x, y), query) for x, y, query in tasks]
""",
        """
def predict_new(f, params, tasks, rate, steps):
    found = []
    for x, y, query in tasks:
        own = dict(params)
        for _ in range(steps):
            slopes = torch.func.grad(lambda p: torch.nn.functional.mse_loss(f(p, x), y))(own)
            for name in own:
                own[name] = own[name] - rate * slopes[name]
        found.append(f(own, query))
    return found
""",
        """
def predict_new(f, params, tasks, rate, steps):
    out = []
    for x, y, query in tasks:
        own = {n: p.detach().clone().requires_grad_() for n, p in params.items()}
        opt = torch.optim.SGD(list(own.values()), lr=rate)
        for _ in range(steps):
            opt.zero_grad()
            F_ = (f(own, x) - y).pow(2).mean()
            F_.backward()
            opt.step()
        with torch.no_grad():
            out.append(f(own, query))
    return out
""",
        """
def predict_new(f, params, tasks, rate, steps):
    kept = {n: p.detach().clone() for n, p in params.items()}
    out = []
    for x, y, query in tasks:
        own = {n: p.clone().requires_grad_() for n, p in kept.items()}
        for _ in range(steps):
            slopes = torch.autograd.grad(
                (f(own, x) - y).square().mean(), list(own.values())
            )
            for p, g in zip(own.values(), slopes):
                p.data -= rate * g
        out.append(f(own, query).detach())
    return out
""",
    ],
}

_SEQUENCE, _EVEN = (
    "torch.autograd.grad takes any sequence of inputs",
    "the factor comes twice, so its sign does not matter",
)
EQUIVALENT = {
    "inner_step": {
        "slopes = torch.autograd.grad(loss(params), list(params.values()), create_graph=True)  =>  slopes = torch.autograd.grad(loss(params), params.values(), create_graph=True)": (
            _SEQUENCE
        ),
    },
    "maml_start": {
        "left = torch.eye(len(C[0])).to(H) - rate * H  =>  left = rate * H - torch.eye(len(C[0])).to(H)": (
            _EVEN
        ),
        "M = left @ H @ left  =>  M = left @ (left @ H)": "I - rate H commutes with H",
        "M = left @ H @ left  =>  M = H @ left @ left": "I - rate H commutes with H",
        "left = torch.eye(len(C[0])).to(H) - rate * H  =>  left = torch.eye(len(C[-1])).to(H) - rate * H": (
            "all centres have one length"
        ),
    },
    "predict_new": {
        "slopes = torch.autograd.grad(loss, list(own.values()))  =>  slopes = torch.autograd.grad(loss, own.values())": (
            _SEQUENCE
        ),
        "loss = (f(own, x) - y).square().mean()  =>  loss = (y - f(own, x)).square().mean()": (
            "the square of a difference"
        ),
    },
}
