"""Chapter 7: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "laplacian_penalty": [
        """
def laplacian_penalty(W, S):
    total = 0
    for i in range(len(W)):
        for j in range(i):
            total = total + (S[i, j] + S[j, i]) / 2 * ((W[i] - W[j]) ** 2).sum()
    return total
""",
        """
def laplacian_penalty(W, S):
    gaps = W.unsqueeze(0) - W.unsqueeze(1)
    return torch.einsum("ijk,ijk,ij->", gaps, gaps, S) / 2
""",
    ],
    "step_affinity": [
        """
def step_affinity(x, y, W, V, rate):
    n, T = y.shape
    Z = torch.zeros(T, T, dtype=y.dtype, device=y.device)
    def loss(t, W):
        return (x @ W.T @ V[t] - y[:, t]).square().sum() / n
    for i in range(T):
        r = x @ W.T @ V[i] - y[:, i]
        g = 2 / n * torch.outer(V[i], r @ x)
        for j in range(T):
            Z[i, j] = 1 - loss(j, W - rate * g) / loss(j, W)
    return Z
""",
        """
def step_affinity(x, y, W, V, rate):
    r = x @ W.T @ V.T - y
    before = (r ** 2).mean(0)
    rows = []
    for i in range(len(V)):
        moved = r - rate * 2 / len(x) * (x @ (x.T @ r[:, i]))[:, None] * (V @ V[i])
        rows.append((before - (moved ** 2).mean(0)) / before)
    return torch.stack(rows)
""",
    ],
    "cut": [
        """
def cut(S):
    values, vectors = torch.linalg.eigh(S.sum(1).diag() - S)
    v = vectors[:, 1]
    return torch.where(v * v[0].sign() < 0, 1, 0)
""",
        """
def cut(S):
    Q = -S.clone()
    for t in range(len(Q)):
        Q[t, t] = S[t].sum()
    v = torch.linalg.svd(Q)[0][:, -2]
    return (torch.sign(v) - torch.sign(v[0])).abs().div(2).round().to(torch.int64)
""",
    ],
    "promised_gain": [
        """
def promised_gain(gains, groups):
    promised = torch.zeros(len(gains), dtype=gains.dtype, device=gains.device)
    for group in groups:
        for i in group:
            others = [j for j in group if j != i]
            if others:
                promised[i] = gains[i, others].mean()
    return promised.mean()
""",
        """
def promised_gain(gains, groups):
    T = len(gains)
    weight = torch.zeros(T, T, dtype=gains.dtype, device=gains.device)
    for group in groups:
        for i in group:
            for j in group:
                if i != j:
                    weight[i, j] = 1 / (len(group) - 1) / T
    return (weight * gains).sum()
""",
    ],
    "hub_pull": [
        """
def hub_pull(n, hub_n, leaves, lam):
    M = torch.tensor([[n + lam, -lam], [-leaves * lam, hub_n + leaves * lam]], dtype=torch.float64)
    return float(torch.linalg.solve(M, torch.tensor([0.0, hub_n], dtype=torch.float64))[0])
""",
        """
def hub_pull(n, hub_n, leaves, lam):
    held = n * lam / (n + lam)
    hub = hub_n / (hub_n + leaves * held)
    return hub * lam / (n + lam)
""",
    ],
}

_TURNED = "side != side[0] is the same on the opposite side, and no entry of the vector is 0"

EQUIVALENT = {
    "laplacian_penalty": {
        "Q = torch.diag(S.sum(0)) - S  =>  Q = torch.diag(S.sum(1)) - S": "S is symmetric by then",
        "Q = torch.diag(S.sum(0)) - S  =>  Q = torch.diag(S.sum(-1)) - S": "S is symmetric by then",
    },
    "promised_gain": {
        "total = total + others / max(len(group) - 1, 1)  =>  total = total + others / max(1, len(group) - 1)": (
            "the order of max's arguments"
        ),
    },
    "step_affinity": {
        "return ((x @ W.T @ V.T - y) ** 2).mean(0)  =>  return ((y - x @ W.T @ V.T) ** 2).mean(0)": (
            "squares: (a - b)^2 = (b - a)^2"
        ),
    },
    "cut": {
        "side = torch.linalg.eigh(Q).eigenvectors[:, 1] > 0  =>  side = torch.linalg.eigh(Q).eigenvectors[:, 1] <= 0": (
            _TURNED
        ),
        "side = torch.linalg.eigh(Q).eigenvectors[:, 1] > 0  =>  side = torch.linalg.eigh(Q).eigenvectors[:, 1] >= 0": (
            _TURNED
        ),
        "Q = torch.diag(S.sum(0)) - S  =>  Q = torch.diag(S.sum(1)) - S": "S is symmetric",
        "Q = torch.diag(S.sum(0)) - S  =>  Q = torch.diag(S.sum(-1)) - S": "S is symmetric",
    },
}
