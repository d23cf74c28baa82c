"""Chapter 13: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "LowRank": [
        """
class LowRank(nn.Module):
    def __init__(self, layer, r, alpha):
        super().__init__()
        import copy
        self.base = copy.deepcopy(layer)
        for p in self.base.parameters():
            p.requires_grad = False
        W = layer.weight
        self.register_parameter("A", nn.Parameter(torch.empty(r, W.shape[1], dtype=W.dtype)))
        nn.init.kaiming_normal_(self.A, nonlinearity="linear")
        self.B = nn.Parameter(torch.zeros(W.shape[0], r, dtype=W.dtype))
        self.r, self.alpha = r, alpha

    def forward(self, x):
        W = self.base.weight + self.alpha * (self.B @ self.A) / self.r
        return nn.functional.linear(x, W, self.base.bias)

    def merged(self):
        import copy
        new = copy.deepcopy(self.base)
        with torch.no_grad():
            new.weight += self.alpha / self.r * self.B @ self.A
        return new
""",
        """
class LowRank(nn.Module):
    def __init__(self, layer, r, alpha):
        super().__init__()
        self.layers = [layer]
        layer.weight.requires_grad = False
        if layer.bias is not None:
            layer.bias.requires_grad = False
        self.down = nn.Linear(layer.in_features, r, bias=False).to(layer.weight.dtype)
        nn.init.normal_(self.down.weight, 0.0, layer.in_features ** -0.5)
        self.up = nn.Linear(r, layer.out_features, bias=False).to(layer.weight.dtype)
        nn.init.zeros_(self.up.weight)
        self.A, self.B, self.s = self.down.weight, self.up.weight, alpha / r

    def forward(self, x):
        return self.layers[0](x) + self.s * self.up(self.down(x))

    def merged(self):
        layer = self.layers[0]
        new = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
        new = new.to(layer.weight.dtype)
        state = {n: v.clone() for n, v in layer.state_dict().items()}
        state["weight"] += self.s * torch.einsum("or,ri->oi", self.B, self.A).detach()
        new.load_state_dict(state)
        return new
""",
    ],
    "biases_only": [
        """
def biases_only(model):
    import re
    model.requires_grad_(False)
    chosen = [p for n, p in model.named_parameters()
              if re.search(r"(^|_)bias(_|$)", n.rpartition(".")[2])]
    for p in chosen:
        p.requires_grad = True
    return sum(p.numel() for p in chosen)
""",
        """
def biases_only(model):
    seen = set()
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is None or id(p) in seen:
                continue
            p.requires_grad = "_bias_" in "_" + name + "_"
            if p.requires_grad:
                seen.add(id(p))
    return torch.tensor(sum(p.numel() for p in model.parameters() if p.requires_grad))
""",
    ],
    "fuse": [
        """
def fuse(adapters, weights):
    rows, columns = [], []
    for k, (A, B) in enumerate(adapters):
        for i in range(A.shape[0]):
            rows.append(weights[k] * A[i])
            columns.append(B[:, i])
    return torch.stack(rows), torch.stack(columns, dim=1)
""",
        """
def fuse(adapters, weights):
    total = 0
    for w, (A, B) in zip(weights, adapters):
        total = total + w * (B @ A)
    r = sum(A.shape[0] for A, _ in adapters)
    r = min(r, *total.shape)
    U, S, V = torch.linalg.svd(total, full_matrices=False)
    root = S[:r].sqrt()
    return root[:, None] * V[:r], U[:, :r] * root
""",
    ],
    "edit": [
        """
def edit(base, tuned, coefficients):
    rest = 1 - sum(coefficients[t] for t in tuned)
    return {
        n: rest * v + sum(coefficients[t] * tuned[t][n] for t in tuned)
        if v.dtype.is_floating_point else v.clone()
        for n, v in base.items()
    }
""",
        """
def edit(base, tuned, coefficients):
    import copy
    new = copy.deepcopy(dict(base))
    for task, c in coefficients.items():
        for n in new:
            if torch.is_floating_point(new[n]):
                new[n] += c * (tuned[task][n] - base[n])
    return new
""",
    ],
    "ties_merge": [
        """
def ties_merge(vectors, k):
    T, P = vectors.shape
    kept = torch.zeros_like(vectors)
    for t in range(T):
        for i in vectors[t].abs().argsort(descending=True)[:k]:
            kept[t, i] = vectors[t, i]
    out = torch.zeros_like(vectors[0])
    for p in range(P):
        total = kept[:, p].sum()
        same = [x for x in kept[:, p] if x * total > 0]
        if same:
            out[p] = sum(same) / len(same)
    return out
""",
        """
def ties_merge(vectors, k):
    rank = vectors.abs().argsort(dim=1, descending=True).argsort(dim=1)
    kept = torch.where(rank < k, vectors, torch.zeros_like(vectors))
    up, down = kept.clamp(min=0), kept.clamp(max=0)
    def mean(part):
        count = (part != 0).sum(0)
        return torch.where(count > 0, part.sum(0) / count.clamp(min=1), 0.0)
    total = kept.sum(0)
    return torch.where(total > 0, mean(up), torch.where(total < 0, mean(down), 0.0))
""",
    ],
}

_LAST = "a matrix has no other dimension after its first"
EQUIVALENT: dict[str, dict[str, str]] = {
    "LowRank": {
        "drawn = torch.randn(r, W.shape[1], dtype=W.dtype)"
        "  =>  drawn = torch.randn(r, W.shape[-1], dtype=W.dtype)": _LAST,
        "self.A = nn.Parameter(drawn / W.shape[1] ** 0.5)"
        "  =>  self.A = nn.Parameter(drawn / W.shape[-1] ** 0.5)": _LAST,
    },
    "fuse": {
        "B = torch.cat([w * B for w, (_, B) in zip(weights, adapters)], 1)"
        "  =>  B = torch.cat([w * B for w, (_, B) in zip(weights, adapters)], -1)": _LAST,
    },
    "ties_merge": {
        "size = vectors.abs()  =>  size = vectors.square()": "squares have the order of sizes",
        "sign = trimmed.sum(0).sign()  =>  sign = trimmed.sum(0)": "only its sign is used below",
        "sign = trimmed.sum(0).sign()  =>  sign = trimmed.mean(0).sign()": (
            "a mean has the sign of the sum"
        ),
        "least = size.topk(k, dim=1).values[:, -1:]  =>  least = size.topk(k).values[:, -1:]": (
            "topk takes the last dimension"
        ),
        "least = size.topk(k, dim=1).values[:, -1:]"
        "  =>  least = size.topk(k, dim=-1).values[:, -1:]": _LAST,
    },
}
