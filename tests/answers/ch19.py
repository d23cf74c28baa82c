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
    ],
    "lwf_steps": [
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
