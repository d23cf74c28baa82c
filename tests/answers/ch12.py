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
        """
def layer_rates(layers, rate, decay):
    return [
        {
            "params": (p for p in layer.parameters() if p.requires_grad),
            "lr": rate * (1 / decay) ** up,
        }
        for up, layer in enumerate(layers[::-1])
    ]
""",
        """
def layer_rates(layers, rate, decay):
    groups = []
    for up, layer in enumerate(reversed(layers)):
        named = [(n, p) for n, p in layer.named_parameters() if p.requires_grad]
        groups.append({"params": named, "lr": rate / decay**up})
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
        """
def set_stage(layers, count):
    edge = len(layers) - count
    for i, layer in enumerate(layers):
        for m in layer.modules():
            if hasattr(m, "running_mean"):
                m.train(i >= edge)
        for p in layer.parameters():
            p.requires_grad = i >= edge
""",
        """
def set_stage(layers, count):
    def freeze(m, yes):
        m.training = not yes
        for p in m.parameters(recurse=False):
            p.requires_grad_(not yes)
        for c in m.children():
            freeze(c, yes)

    for i, layer in enumerate(layers):
        freeze(layer, i < len(layers) - count)
    return layers
""",
    ],
    "lp_then_ft": [
        """
def lp_then_ft(B, X, y, rate, steps):
    F = X @ B.T
    B = B.detach().clone().requires_grad_()
    v = torch.linalg.solve(F.T @ F, F.T @ y).requires_grad_()
    optimizer = torch.optim.SGD([B, v], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        ((X @ B.T @ v - y).square().mean() / 2).backward()
        optimizer.step()
    return B, v
""",
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
        """
def lp_then_ft(B, X, y, rate, steps):
    q, r = torch.linalg.qr(X @ B.T)
    v = torch.linalg.solve_triangular(r, (q.T @ y)[:, None], upper=True).squeeze(-1)
    P = {"B": B.clone(), "v": v}
    f = lambda p: 0.5 * ((X @ p["B"].T @ p["v"] - y) ** 2).mean()
    for _ in range(steps):
        g = torch.func.grad(f)(P)
        P = {k: P[k] - rate * g[k] for k in P}
    return [P["B"], P["v"]]
""",
        """
def lp_then_ft(B, X, y, rate, steps):
    v = torch.linalg.lstsq(X @ B.T, y.unsqueeze(1)).solution.squeeze(1)
    B = torch.nn.Parameter(B.clone())
    v = torch.nn.Parameter(v)
    opt = torch.optim.SGD([B, v], lr=rate)
    for _ in range(steps):
        opt.zero_grad()
        ((X @ B.T @ v - y).pow(2).sum() / (2 * len(y))).backward()
        opt.step()
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
        """
def fill_head(new, old, known, wanted):
    W, b = new.weight.detach().clone(), new.bias.detach().clone()
    for k, name in enumerate(wanted):
        if name in known:
            W[k] = old.weight[known.index(name)].detach()
            b[k] = old.bias[known.index(name)].detach()
    new.weight, new.bias = nn.Parameter(W), nn.Parameter(b)
    return new
""",
        """
def fill_head(new, old, known, wanted):
    S = torch.tensor([[float(a == b) for a in known] for b in wanted])
    has = S.sum(1)
    new.weight.data = S @ old.weight.data + (1 - has)[:, None] * new.weight.data
    new.bias.data = S @ old.bias.data + (1 - has) * new.bias.data
    return new
""",
    ],
    "network_to_ship": [
        """
import numpy as np

def network_to_ship(validation, shares, current, limit):
    today = validation[current]

    def may(row):
        for kind in shares:
            d = row[kind].numpy() - today[kind].numpy()
            if d.mean() + limit * d.std(ddof=1) / np.sqrt(d.size) < 0:
                return False
        return True

    allowed = {name for name, row in validation.items() if may(row)}

    def met(name):
        means = [validation[name][k].mean() for k in shares]
        return np.average(means, weights=list(shares.values()))

    return max(allowed, key=met), allowed
""",
        """
def network_to_ship(validation, shares, current, limit):
    allowed, best = [current], current
    means = lambda name: sum(float(validation[name][k].sum()) / len(validation[name][k]) * s
                             for k, s in shares.items())
    for name in validation:
        if name == current:
            continue
        gaps = [(validation[name][k] - validation[current][k]).tolist() for k in shares]
        fine = True
        for gap in gaps:
            n = len(gap)
            mean = sum(gap) / n
            error = (sum((g - mean) ** 2 for g in gap) / (n - 1) / n) ** 0.5
            fine = fine and mean >= -limit * error
        if fine:
            allowed.append(name)
            if means(name) > means(best):
                best = name
    return best, tuple(allowed)
""",
        """
def network_to_ship(validation, shares, current, limit):
    names, kinds = list(validation), list(shares)
    table = torch.stack([torch.stack([validation[n][k] for k in kinds]) for n in names])
    gaps = table - table[names.index(current)]
    edge = gaps.mean(-1) + limit * gaps.std(-1) / table.shape[-1] ** 0.5
    fine = (edge >= 0).all(1)
    met = table.mean(-1) @ torch.tensor([shares[k] for k in kinds]).to(table)
    best = met.masked_fill(~fine, -float("inf")).argmax()
    return names[best], [name for name, may in zip(names, fine) if may]
""",
    ],
}

EQUIVALENT = {
    "network_to_ship": {
        "mix[name] = sum((share * row[kind].mean() for kind, share in shares.items()))  =>  mix[name] = sum((share * row[kind].sum() for kind, share in shares.items()))": (
            "all kinds have as many seeds, so every sum is the mean times one number"
        ),
    },
}
