"""Chapter 20: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "line_answer": [
        """
def line_answer(x, y, new, noise, spread):
    # example by example, each changes mean and covariance of the weights
    d = x.shape[1]
    C = spread**2 * torch.eye(d, dtype=x.dtype, device=x.device)
    w = torch.zeros(d, dtype=x.dtype, device=x.device)
    for row, label in zip(x, y):
        gain = C @ row / (row @ C @ row + noise**2)
        w = w + gain * (label - row @ w)
        C = C - torch.outer(gain, row @ C)
    return new @ w, torch.stack([(row @ C @ row + noise**2).sqrt() for row in new])
""",
        """
def line_answer(x, y, new, noise, spread):
    # a Gaussian process with a linear kernel
    K = spread**2 * x @ x.T
    K = K + noise**2 * torch.eye(len(x), dtype=x.dtype, device=x.device)
    across = spread**2 * new @ x.T
    mean = across @ torch.linalg.solve(K, y)
    alone = spread**2 * (new * new).sum(1)
    seen = (across * torch.linalg.solve(K, across.T).T).sum(1)
    return mean, (alone - seen + noise**2).sqrt()
""",
        """
def line_answer(x, y, new, noise, spread):
    # the covariance of the weights, given the examples
    prior = torch.eye(x.shape[1], dtype=x.dtype, device=x.device) / spread**2
    precision = x.T @ x / noise**2 + prior
    covariance = torch.linalg.inv(precision)
    w = covariance @ x.T @ y / noise**2
    variance = torch.stack([row @ covariance @ row for row in new]) + noise**2
    return [new @ w, torch.sqrt(variance)]
""",
    ],
    "episode": [
        """
def episode(x, y, new):
    n, q = x.shape[-2], new.shape[-2]
    mask = torch.zeros(n + q, n + q, dtype=torch.bool, device=x.device)
    mask[:, :n] = True
    return torch.cat((x.add(y), new), -2), mask
""",
        """
def episode(x, y, new):
    places = [a + b for a, b in zip(x.unbind(-2), y.unbind(-2))] + list(new.unbind(-2))
    n = x.shape[-2]
    mask = [[column < n for column in range(len(places))] for _ in places]
    return torch.stack(places, dim=-2), torch.tensor(mask, device=x.device)
""",
    ],
    "plane_tasks": [
        """
def plane_tasks(x, w, noise, examples):
    first = x[:, :examples]
    x = (x - first.mean(dim=1)[:, None]) / first.var(dim=1, unbiased=False).sqrt()[:, None]
    score = torch.einsum("trd,td->tr", x, w) + noise
    return x, (score > score[:, :examples].mean(dim=1)[:, None]).to(torch.int64)
""",
        """
def plane_tasks(x, w, noise, examples):
    scaled, labels = [], []
    for a, b, c in zip(x, w, noise):
        first = a[:examples]
        a = (a - first.mean(0)) / first.std(0, correction=0)
        score = a @ b + c
        scaled.append(a)
        labels.append((score > score[:examples].mean()).long())
    return torch.stack(scaled), torch.stack(labels)
""",
    ],
    "ask_in_orders": [
        """
def ask_in_orders(predict, x, y, new, columns, names):
    total = 0
    for k in range(len(columns)):
        p = predict(x[:, columns[k]], names[k][y], new[:, columns[k]])
        back = torch.empty_like(p)
        inverse = names[k].argsort()
        back[:, inverse] = p
        total = total + back
    return total / len(columns)
""",
        """
def ask_in_orders(predict, x, y, new, columns, names):
    answers = [
        torch.stack(
            [predict(x[:, c], m[y], new[:, c])[:, int(m[k])] for k in range(len(m))], dim=1
        )
        for c, m in zip(columns, names)
    ]
    return sum(answers) / len(answers)
""",
    ],
}

LAST_AXIS = "the last axis of a matrix is axis 1"

EQUIVALENT: dict[str, dict[str, str]] = {
    "line_answer": {
        "A = x.T @ x + strength * torch.eye(x.shape[1]).to(x)  =>  A = x.T @ x + strength * torch.eye(x.shape[-1]).to(x)": (
            LAST_AXIS
        )
    },
    "plane_tasks": {
        "middle = score[:, :examples].mean(1, keepdim=True)  =>  middle = score[:, :examples].mean(-1, keepdim=True)": (
            LAST_AXIS
        ),
        "score = (x @ w[:, :, None])[..., 0] + noise  =>  score = (x @ w[:, :, None])[..., -1] + noise": (
            "an axis of length 1 has one entry"
        ),
    },
}
