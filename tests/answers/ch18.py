"""Chapter 18: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "nearest_prototype": [
        """
def nearest_prototype(z, y, query, ways):
    member = torch.nn.functional.one_hot(y, ways).to(z.dtype)
    centres = member.T @ z / member.sum(0)[:, None]
    return torch.softmax(2 * query @ centres.T - (centres ** 2).sum(1), dim=1)
""",
        """
def nearest_prototype(z, y, query, ways):
    rows = []
    for q in query:
        scores = []
        for k in range(ways):
            mine = z[y == k]
            scores.append(torch.exp(-((q - mine.sum(0) / len(mine)) ** 2).sum()))
        rows.append(torch.stack(scores) / sum(scores))
    return torch.stack(rows)
""",
        """
def nearest_prototype(z, y, query, ways):
    c = torch.zeros(ways, z.shape[1], dtype=z.dtype, device=z.device).index_add(0, y, z)
    c = c / torch.bincount(y, minlength=ways)[:, None].to(z)
    d = ((query.unsqueeze(1) - c.unsqueeze(0)) ** 2).sum(2)
    return F.softmax(-d, dim=1)
""",
        """
def nearest_prototype(z, y, query, ways):
    M = (y[None] == torch.arange(ways, device=y.device)[:, None]).to(z)
    c = (M / M.sum(1, keepdim=True)) @ z
    return torch.func.vmap(lambda q: (-(q - c).square().sum(1)).softmax(0))(query)
""",
    ],
    "draw_task": [
        """
def draw_task(y, classes, ways, shots, queries, generator):
    keys = torch.rand(len(classes), generator=generator)
    rows = []
    for i in keys.argsort()[:ways].tolist():
        mine = torch.nonzero(y == classes[i])[:, 0]
        order = torch.rand(len(mine), generator=generator).argsort()
        rows.append(mine[order][: shots + queries])
    rows = torch.stack(rows)
    return rows[:, :shots], rows[:, shots:]
""",
        """
def draw_task(y, classes, ways, shots, queries, generator):
    left, support, query = list(classes), [], []
    for _ in range(ways):
        c = left.pop(int(torch.randint(len(left), (), generator=generator)))
        mine = [row for row, label in enumerate(y.tolist()) if label == c]
        picked = []
        for _ in range(shots + queries):
            picked.append(mine.pop(int(torch.randint(len(mine), (), generator=generator))))
        query.append(picked[:queries])
        support.append(picked[queries:])
    return torch.tensor(support), torch.tensor(query)
""",
        """
def draw_task(y, classes, ways, shots, queries, generator):
    w = torch.ones(len(classes))
    s, q = [], []
    for i in sorted(torch.multinomial(w, ways, generator=generator).tolist()):
        mine = [r for r in range(len(y)) if y[r] == classes[i]]
        pick = torch.multinomial(
            torch.ones(len(mine)), shots + queries, generator=generator
        ).tolist()
        s.append(sorted(mine[j] for j in pick[:shots]))
        q.append(sorted(mine[j] for j in pick[shots:]))
    return s, q
""",
        """
def draw_task(y, classes, ways, shots, queries, generator):
    import numpy as np

    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    chosen = rng.choice(classes, ways, replace=False)
    labels = y.numpy()
    s, q = [], []
    for c in chosen:
        pick = rng.permutation(np.flatnonzero(labels == c))
        s.append(pick[:shots])
        q.append(pick[shots : shots + queries])
    return np.stack(s), np.stack(q)
""",
    ],
    "support_norm": [
        """
def support_norm(support, query, weight, bias, eps):
    both = torch.cat([support, query])
    var, mean = torch.var_mean(support, dim=0, correction=0)
    out = torch.addcmul(bias, (both - mean) / torch.sqrt(var + eps), weight)
    return out[: len(support)], out[len(support):]
""",
        """
def support_norm(support, query, weight, bias, eps):
    mean = sum(support) / len(support)
    variance = sum((row - mean) ** 2 for row in support) / len(support)
    def norm(x):
        return weight * ((x - mean) * torch.rsqrt(variance + eps)) + bias
    return norm(support), norm(query)
""",
        """
def support_norm(support, query, weight, bias, eps):
    m = support.mean(dim=0)
    v = ((support - m) ** 2).mean(dim=0)
    a = weight / (v + eps) ** 0.5
    b = bias - m * a
    return a * support + b, a * query + b
""",
        """
def support_norm(support, query, weight, bias, eps):
    n = len(support)
    m = support.sum(0) / n
    v = (support * support).sum(0) / n - m * m
    f = lambda x: torch.addcmul(bias, weight, (x - m) * (v + eps).rsqrt())
    return f(support), f(query)
""",
    ],
    "direction_logits": [
        """
def direction_logits(z, weight, scale):
    return scale * torch.nn.functional.cosine_similarity(z[:, None], weight[None], dim=-1)
""",
        """
def direction_logits(z, weight, scale):
    lengths = torch.outer(z.square().sum(1).sqrt(), weight.square().sum(1).sqrt())
    return scale * torch.einsum("qd,cd->qc", z, weight) / lengths
""",
        """
def direction_logits(z, weight, scale):
    u, w = z / z.norm(dim=1, keepdim=True), weight / weight.norm(dim=1, keepdim=True)
    return scale * (1 - (u[:, None] - w[None]).square().sum(-1) / 2)
""",
        """
def direction_logits(z, weight, scale):
    return scale * F.linear(
        z / torch.linalg.norm(z, dim=1, keepdim=True),
        weight / torch.linalg.norm(weight, dim=1, keepdim=True),
    )
""",
    ],
    "two_spreads": [
        """
def two_spreads(accuracy):
    S, E = accuracy.shape
    means = accuracy.sum(1) / E
    variance = ((accuracy - means[:, None]) ** 2).sum(1) / (E - 1)
    between = ((means - means.mean()) ** 2).sum() / (S - 1)
    return means.mean(), 1.96 * (variance / E).sqrt(), between.sqrt()
""",
        """
def two_spreads(accuracy):
    half = torch.stack([1.96 * row.var().sqrt() * len(row) ** -0.5 for row in accuracy])
    means = torch.stack([row.mean() for row in accuracy])
    return means.mean(), half, torch.std(means)
""",
        """
def two_spreads(accuracy):
    import statistics

    rows = accuracy.tolist()
    half = [1.96 * statistics.stdev(r) / len(r) ** 0.5 for r in rows]
    means = [statistics.mean(r) for r in rows]
    return (
        sum(means) / len(means),
        torch.tensor(half, dtype=accuracy.dtype, device=accuracy.device),
        statistics.stdev(means),
    )
""",
        """
def two_spreads(accuracy):
    var, mean = torch.var_mean(accuracy, dim=1)
    return (
        accuracy.mean().item(),
        1.96 * torch.sqrt(var / accuracy.shape[1]),
        mean.std().item(),
    )
""",
    ],
}

LAST = "the tensor has two dimensions, so that 1 and -1 name the same"

EQUIVALENT = {
    "nearest_prototype": {"return (-away).softmax(1)  =>  return (-away).softmax(-1)": LAST},
    "direction_logits": {
        f"lengths = z.norm(dim=1)[:, None] * weight.norm(dim=1)  =>  lengths = z.norm(dim={a})[:, None] * weight.norm(dim={b})": (
            LAST
        )
        for a, b in ((1, -1), (-1, 1))
    },
    "two_spreads": {
        "episodes = accuracy.shape[1]  =>  episodes = accuracy.shape[-1]": LAST,
        "half = 1.96 * accuracy.std(1) / episodes ** 0.5  =>  half = 1.96 * accuracy.std(-1) / episodes ** 0.5": (
            LAST
        ),
        "return (accuracy.mean(), half, accuracy.mean(1).std())  =>  return (accuracy.mean(), half, accuracy.mean(-1).std())": (
            LAST
        ),
    },
}
