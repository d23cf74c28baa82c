"""Chapter 12: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "layer_rates": [
        """
def layer_rates(layers, rate, decay):
    last = len(layers) - 1
    return [
        dict(params=[p for p in layer.parameters() if p.requires_grad],
             lr=rate * decay ** (k - last))
        for k, layer in enumerate(layers)
    ]
""",
        """
def layer_rates(layers, rate, decay):
    groups = []
    for up in range(len(layers)):
        for p in layers[-1 - up].parameters():
            if p.requires_grad:
                groups.append({"params": p, "lr": rate / decay ** up, "name": str(up)})
    return groups
""",
    ],
    "set_stage": [
        """
def set_stage(layers, count):
    for layer in layers:
        layer.requires_grad_(True)
    for layer in layers[: len(layers) - count]:
        layer.eval()
        for p in layer.parameters():
            p.requires_grad = False
""",
        """
def set_stage(layers, count):
    for up, layer in enumerate(layers[::-1]):
        free = up < count
        for module in layer.modules():
            module.training = free
        for p in layer.parameters():
            p.requires_grad = free
""",
    ],
    "lp_then_ft": [
        """
def lp_then_ft(B, X, y, rate, steps):
    Z = X @ B.T
    v = torch.linalg.pinv(Z) @ y
    B = B.clone()
    for _ in range(steps):
        r = ((B @ X.T).T @ v - y) / len(X)
        grad_v = torch.einsum("n,kd,nd->k", r, B, X)
        B -= rate * torch.einsum("k,n,nd->kd", v, r, X)
        v = v - rate * grad_v
    return B, v
""",
        """
def lp_then_ft(B, X, y, rate, steps):
    v = torch.linalg.lstsq(X @ B.T, y[:, None])[0][:, 0]
    B, v = B.clone().requires_grad_(), v.requires_grad_()
    for _ in range(steps):
        loss = ((X @ B.T) @ v - y).square().mean() / 2
        gB, gv = torch.autograd.grad(loss, (B, v))
        B = (B - rate * gB).detach().requires_grad_()
        v = (v - rate * gv).detach().requires_grad_()
    return B.detach(), v.detach()
""",
    ],
    "fill_head": [
        """
def fill_head(new, old, known, wanted):
    row_of = {name: row for row, name in enumerate(known)}
    places = [k for k, name in enumerate(wanted) if name in row_of]
    rows = [row_of[wanted[k]] for k in places]
    with torch.no_grad():
        new.weight[places] = old.weight[rows]
        new.bias[places] = old.bias[rows]
    return new
""",
        """
def fill_head(new, old, known, wanted):
    state = {key: value.clone() for key, value in new.state_dict().items()}
    for row, name in enumerate(known):
        if name not in wanted:
            continue
        for key in state:
            state[key][wanted.index(name)] = old.state_dict()[key][row]
    new.load_state_dict(state)
    return new
""",
    ],
}

EQUIVALENT: dict[str, dict[str, str]] = {}
