"""Chapter 19: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "ewc_penalty": [
        """
def ewc_penalty(params, anchor, fisher, strength):
    terms = [0.5 * strength * torch.sum(f * torch.square(params[k] - anchor[k]))
             for k, f in fisher.items()]
    return torch.stack(terms).sum()
""",
        """
def ewc_penalty(params, anchor, fisher, strength):
    flat = lambda d: torch.cat([d[k].flatten() for k in anchor])
    gap = flat(params) - flat(anchor)
    return (strength * flat(fisher) * gap) @ gap / 2
""",
        """
def ewc_penalty(params, anchor, fisher, strength):
    total = torch.zeros((), device=next(iter(params.values())).device)
    for n, p in params.items():
        if n in anchor:
            total = total + (fisher[n] * (p - anchor[n].detach()).pow(2)).sum()
    return 0.5 * strength * total
""",
        """
def ewc_penalty(params, anchor, fisher, strength):
    with torch.no_grad():
        fixed = {
            n: (a.clone(), f.clone())
            for n, a, f in ((n, anchor[n], fisher[n]) for n in anchor)
        }
    return (
        strength
        / 2
        * sum((f * (params[n] - a) ** 2).sum() for n, (a, f) in fixed.items())
    )
""",
    ],
    "keep_some": [
        """
def keep_some(draws, size):
    kept = [None] * size
    for t, slot in enumerate(draws):
        if t < size:
            kept[t] = t
        elif slot < size:
            kept[slot] = t
    return kept
""",
        """
def keep_some(draws, size):
    def holder(slot):
        later = [t for t in range(size, len(draws)) if draws[t] == slot]
        return max(later, default=slot)
    return [holder(slot) for slot in range(size)]
""",
        """
def keep_some(draws, size):
    kept = list(range(size))
    for t, d in zip(range(size, len(draws)), draws[size:]):
        try:
            kept[d] = t
        except IndexError:
            pass
    return kept
""",
        """
def keep_some(draws, size):
    import numpy as np

    kept = np.arange(size)
    for t in range(size, len(draws)):
        if draws[t] < size:
            kept[draws[t]] = t
    return kept.tolist()
""",
    ],
    "stream_scores": [
        """
def stream_scores(A, b):
    T = len(A)
    average = sum(A[T - 1, j] for j in range(T)) / T
    best = [max(A[i, j] for i in range(T - 1)) for j in range(T - 1)]
    forgetting = sum(best[j] - A[T - 1, j] for j in range(T - 1)) / (T - 1)
    backward = sum(A[T - 1, j] - A[j, j] for j in range(T - 1)) / (T - 1)
    forward = sum(A[j - 1, j] - b[j] for j in range(1, T)) / (T - 1)
    return average, forgetting, backward, forward
""",
        """
def stream_scores(A, b):
    last, new = A[-1], torch.diag(A)
    before = torch.diag(A[:-1, 1:])
    best, _ = torch.max(A[:-1], dim=0)
    forgetting = best[:-1].mean() - last[:-1].mean()
    backward = last[:-1].mean() - new[:-1].mean()
    return last.mean(), forgetting, backward, before.mean() - b[1:].mean()
""",
        """
def stream_scores(A, b):
    import numpy as np

    A, b = A.numpy(), b.numpy()
    T = len(A)
    f = np.mean([A[: T - 1, j].max() - A[T - 1, j] for j in range(T - 1)])
    bwt = np.mean([A[T - 1, j] - A[j, j] for j in range(T - 1)])
    fwt = np.mean([A[j - 1, j] - b[j] for j in range(1, T)])
    return A[T - 1].mean(), f, bwt, fwt
""",
        """
def stream_scores(A, b):
    T = len(A)
    i = torch.arange(1, T)
    return (
        A[-1].mean().item(),
        (A[:-1].amax(0) - A[-1])[:-1].mean().item(),
        (A[-1] - A.diag())[: T - 1].mean().item(),
        (A[i - 1, i] - b[i]).mean().item(),
    )
""",
    ],
    "lwf_steps": [
        """
def lwf_steps(model, x, y, old_classes, steps, rate):
    before = (model(x).detach()[:, :old_classes] / 2).log_softmax(1)
    for _ in range(steps):
        z = model(x)
        after = (z[:, :old_classes] / 2).log_softmax(1)
        held = nn.functional.kl_div(after, before, reduction="batchmean", log_target=True)
        loss = nn.functional.cross_entropy(z, y) + 4 * held
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients):
                p -= rate * g
    return model
""",
        """
def lwf_steps(model, x, y, old_classes, steps, rate):
    old = copy.deepcopy(model).requires_grad_(False)
    for _ in range(steps):
        logits = model(x)
        target = F.softmax(old(x)[:, :old_classes] / 2, dim=1)
        output = F.log_softmax(logits[:, :old_classes] / 2, dim=1)
        held = F.kl_div(output, target, reduction="batchmean")
        loss = F.cross_entropy(logits, y) + 4 * held
        grads = torch.autograd.grad(loss, tuple(model.parameters()))
        for p, g in zip(model.parameters(), grads):
            p.data = p.data - rate * g
    return model
""",
        """
def lwf_steps(model, x, y, old_classes, steps, rate):
    target = (model(x).detach()[:, :old_classes] / 2).softmax(dim=1)
    for _ in range(steps):
        out = model(x)
        loss = F.cross_entropy(out, y) + 4 * F.cross_entropy(out[:, :old_classes] / 2, target)
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data.sub_(p.grad, alpha=rate)
    return model
""",
        """
def lwf_steps(model, x, y, old_classes, steps, rate):
    frozen = {n: p.detach().clone() for n, p in model.named_parameters()}
    for _ in range(steps):
        target = (
            torch.func.functional_call(model, frozen, (x,))[:, :old_classes]
            .div(2)
            .softmax(-1)
        )
        z = model(x)
        soft = -(target * (z[:, :old_classes] / 2).log_softmax(1)).sum() / len(x)
        loss = nn.CrossEntropyLoss()(z, y) + 4 * soft
        g = torch.autograd.grad(loss, [*model.parameters()])
        with torch.no_grad():
            for p, d in zip(model.parameters(), g):
                p.sub_(rate * d)
    return model
""",
        """
def lwf_steps(model, x, y, old_classes, steps, rate):
    old = copy.deepcopy(model)
    old.eval()
    for p in old.parameters():
        p.requires_grad = False
    names = [n for n, _ in model.named_parameters()]
    for _ in range(steps):
        target = torch.softmax(old(x)[:, :old_classes] / 2, dim=1)

        def loss(params):
            z = torch.func.functional_call(model, params, (x,))
            return (
                F.cross_entropy(z, y)
                - 4
                * (target * torch.log_softmax(z[:, :old_classes] / 2, 1)).sum(1).mean()
            )

        g = torch.func.grad(loss)(dict(model.named_parameters()))
        for n, p in model.named_parameters():
            p.data -= rate * g[n]
    return model
""",
    ],
    "fair_gaps": [
        """
def fair_gaps(rows, name):
    from statistics import mean, stdev

    def fair(row):
        both = rows[name]["accuracy"].keys() & row["accuracy"].keys()
        return (row is not rows[name] and len(both) >= 2
                and row["scenario"] == rows[name]["scenario"]
                and not row["kept"] < rows[name]["kept"])

    out = {}
    for rival in filter(lambda n: fair(rows[n]), rows):
        a, b = rows[name]["accuracy"], rows[rival]["accuracy"]
        d = [a[o] - b[o] for o in sorted(a.keys() & b.keys())]
        out[rival] = [mean(d), stdev(d) / len(d) ** 0.5]
    return out
""",
        """
def fair_gaps(rows, name):
    orders = sorted({o for row in rows.values() for o in row["accuracy"]})
    table = {n: np.array([row["accuracy"].get(o, np.nan) for o in orders])
             for n, row in rows.items()}
    mine, found = rows[name], {}
    for n, row in rows.items():
        d = table[name] - table[n]
        d = d[~np.isnan(d)]
        if (n == name or row["scenario"] != mine["scenario"]
                or row["kept"] < mine["kept"] or d.size < 2):
            continue
        found[n] = (d.mean(), np.sqrt(d.var(ddof=1) / d.size))
    return found
""",
        """
def fair_gaps(rows, name):
    found = {}
    mine = rows[name]
    for n, row in rows.items():
        if n == name:
            continue
        orders = [o for o in row["accuracy"] if o in mine["accuracy"]]
        if len(orders) < 2 or row["kept"] < mine["kept"]:
            continue
        if row["scenario"] == mine["scenario"]:
            d = torch.tensor([mine["accuracy"][o] - row["accuracy"][o]
                              for o in orders], dtype=torch.float64)
            found[n] = d.mean(), d.std() / len(d) ** 0.5
    return found
""",
        """
def fair_gaps(rows, name):
    others = {k: dict(v) for k, v in rows.items()}
    mine = others.pop(name)
    a, found = mine["accuracy"], {}
    while others:
        rival, row = others.popitem()
        if row["scenario"] != mine["scenario"] or mine["kept"] > row["kept"]:
            continue
        n, total, squares = 0, 0.0, 0.0
        for order, accuracy in row["accuracy"].items():
            if order in a:
                gap = a[order] - accuracy
                n, total, squares = n + 1, total + gap, squares + gap**2
        if n > 1:
            variance = max(0.0, squares - total**2 / n) / (n - 1)
            found[rival] = np.array(total / n), math.sqrt(variance / n)
    return found
""",
    ],
    "rls_step": [
        """
def rls_step(w, P, x, y, forgetting):
    A = forgetting * np.linalg.inv(P) + np.outer(x, x)
    return w + np.linalg.solve(A, x) * (y - x @ w), np.linalg.inv(A)
""",
        """
def rls_step(w, P, x, y, forgetting):
    wide = P / forgetting
    scale = 1 + x.dot(wide).dot(x)
    new = wide - (wide @ np.outer(x, x) @ wide) / scale
    return w - new @ x * (w.dot(x) - y), new
""",
        """
def rls_step(w, P, x, y, forgetting):
    k = P.dot(x) / (forgetting + x.dot(P).dot(x))
    I = np.eye(len(w))
    return w + k * (y - w.dot(x)), (I - np.outer(k, x)) @ P / forgetting
""",
        """
def rls_step(w, P, x, y, forgetting):
    w, P = w.copy(), P.copy()
    Px = P @ x
    s = forgetting + float(x @ Px)
    w += Px * ((y - w @ x) / s)
    P -= np.outer(Px, Px) / s
    P /= forgetting
    return w, P
""",
    ],
}

LAST_AXIS = "the last axis of a matrix is axis 1"

SYMMETRIC = "P is symmetric, and so are the products with it"

EQUIVALENT: dict[str, dict[str, str]] = {
    "ewc_penalty": {
        "gap = params[name] - anchor[name]  =>  gap = anchor[name] - params[name]": (
            "the gap is squared"
        )
    },
    "lwf_steps": {
        "grads = torch.autograd.grad(loss, list(model.parameters()))  =>  grads = torch.autograd.grad(loss, model.parameters())": (
            "it takes any iterable"
        ),
        "held = (logits[:, :old_classes] / 2).log_softmax(dim=1)  =>  held = (logits[:, :old_classes] / 2).log_softmax(dim=-1)": (
            LAST_AXIS
        ),
        "target = (model(x)[:, :old_classes] / 2).softmax(dim=1).detach()  =>  target = (model(x)[:, :old_classes] / 2).softmax(dim=-1).detach()": (
            LAST_AXIS
        ),
        "loss = loss - 4 * (target * held).sum(dim=1).mean()  =>  loss = loss - 4 * (target * held).sum(dim=-1).mean()": (
            LAST_AXIS
        ),
    },
    "rls_step": {
        "Px = P @ x  =>  Px = x @ P": SYMMETRIC,
        "gain = Px / (forgetting + x @ Px)  =>  gain = Px / (forgetting + Px @ x)": (
            "a dot product commutes"
        ),
        "P = (P - np.outer(gain, Px)) / forgetting  =>  P = (P - np.outer(Px, gain)) / forgetting": (
            "the gain is a multiple of P x"
        ),
        "w = w + gain * (y - w @ x)  =>  w = w + gain * (y - x @ w)": "a dot product commutes",
    },
}
