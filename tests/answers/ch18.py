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
