"""Chapter 18: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "nearest_prototype": [
        """
def nearest_prototype(z, y, query, ways):
    member = (y[:, None] == torch.arange(ways, device=y.device)).to(z)
    centres = (member / member.sum(0)).T @ z
    return (2 * query @ centres.T - (centres * centres).sum(1)).softmax(1)
""",
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
            scores.append(-((q - mine.sum(0) / len(mine)) ** 2).sum())
        scores = torch.stack(scores)
        shares = torch.exp(scores - scores.max())
        rows.append(shares / shares.sum())
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
    "few_shot_lead": [
        """
import numpy as np

def few_shot_lead(new, old, tasks, known, limit):
    trained_on = set(known.tolist())
    fresh = [e for e, task in enumerate(tasks.tolist()) if not trained_on & set(task)]
    def reached(table):
        means = [rows.mean() for rows in table["validation"].numpy()]
        return table["test"].numpy()[int(np.argmax(means))][:, fresh].mean(axis=1)
    lead = reached(new) - reached(old)
    error = np.std(lead, ddof=1) / np.sqrt(len(lead))
    t = lead.mean() / error
    if abs(t) <= limit:
        return lead, error, "unclear"
    return lead, error, "ahead" if t > 0 else "behind"
""",
        """
def few_shot_lead(new, old, tasks, known, limit):
    leak = (tasks[:, :, None] == known).any(2).any(1)
    weight = (~leak).double() / (~leak).sum()
    a = max(range(len(new["test"])), key=lambda r: new["validation"][r].sum())
    b = max(range(len(old["test"])), key=lambda r: old["validation"][r].sum())
    lead = (new["test"][a] - old["test"][b]) @ weight
    n = len(lead)
    mean = sum(lead.tolist()) / n
    error = (sum((v - mean) ** 2 for v in lead.tolist()) / (n - 1) / n) ** 0.5
    verdict = "unclear"
    if mean - limit * error > 0:
        verdict = "ahead"
    elif mean + limit * error < 0:
        verdict = "behind"
    return lead, error, verdict
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
    "few_shot_lead": {
        "if lead.mean() > limit * error:  =>  if lead.mean() >= limit * error:": (
            "no lead lies on its limit"
        ),
        "return (lead, error, 'behind' if lead.mean() < -limit * error else 'unclear')  =>  return (lead, error, 'behind' if lead.mean() <= -limit * error else 'unclear')": (
            "no lead lies on its limit"
        ),
        "clean = ~torch.isin(tasks, known).any(1)  =>  clean = ~torch.isin(tasks, known).any(-1)": (
            LAST
        ),
        "reached.append(table['test'][best][:, clean].mean(1))  =>  reached.append(table['test'][best][:, clean].mean(-1))": (
            LAST
        ),
        "lead = reached[0] - reached[1]  =>  lead = reached[0] - reached[-1]": (
            "of two, the second is the last"
        ),
        "best = table['validation'].mean((1, 2)).argmax()  =>  best = table['validation'].sum((1, 2)).argmax()": (
            "all sums are the means times one number"
        ),
    },
}
