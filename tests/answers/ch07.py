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
        """
def laplacian_penalty(W, S):
    total = W.sum() * 0
    for i in range(len(W)):
        for j in range(i):
            a = (float(S[i, j]) + float(S[j, i])) / 2
            total = total + a * (W[i] - W[j]).pow(2).sum()
    return total
""",
        """
def laplacian_penalty(W, S):
    i, j = torch.triu_indices(len(W), len(W), offset=1)
    return ((S[i, j] + S[j, i]) / 2 * (W[i] - W[j]).square().sum(-1)).sum()
""",
        """
def laplacian_penalty(W, S):
    gap = torch.func.vmap(
        torch.func.vmap(lambda a, b: ((a - b) ** 2).sum(), (None, 0)), (0, None)
    )
    return (S * gap(W, W)).sum() * 0.5
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
        """
def step_affinity(x, y, W, V, rate):
    def loss(U, t):
        return torch.nn.functional.mse_loss(x @ U.T @ V[t], y[:, t])
    Z = torch.empty(len(V), len(V), dtype=x.dtype, device=x.device)
    for i in range(len(V)):
        U = W.detach().clone().requires_grad_()
        loss(U, i).backward()
        with torch.no_grad():
            moved = U - rate * U.grad
            for j in range(len(V)):
                Z[i, j] = 1 - loss(moved, j) / loss(W, j)
    return Z
""",
        """
import numpy as np


def step_affinity(x, y, W, V, rate):
    X, Y, A, B = (a.detach().cpu().numpy() for a in (x, y, W, V))
    E = X @ A.T @ B.T - Y
    before = (E**2).mean(0)
    Z = np.empty((len(B), len(B)), dtype=X.dtype)
    for i in range(len(B)):
        step = rate * 2 / len(X) * np.outer(B[i], E[:, i] @ X)
        after = ((X @ (A - step).T @ B.T - Y) ** 2).mean(0)
        Z[i] = (before - after) / before
    return torch.as_tensor(Z).to(x)
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
        """
import numpy as np


def cut(S):
    values, vectors = np.linalg.eigh((torch.diag(S.sum(1)) - S).detach().cpu().numpy())
    v = vectors[:, 1]
    return torch.as_tensor((v * v[0] < 0).astype("int64"), device=S.device)
""",
        """
def cut(S):
    L = torch.diag(S.sum(dim=1)) - S
    values, vectors = torch.linalg.eig(L)
    order = values.real.argsort()
    v = vectors[:, order[1]].real
    groups = [0 if torch.sign(x) == torch.sign(v[0]) else 1 for x in v]
    return torch.tensor(groups, device=S.device)
""",
        """
def cut(S):
    L = S.sum(1).diag() - S
    lifted = L + 4 * L.diagonal().max() * torch.ones_like(S)
    v = torch.linalg.eigh(lifted)[1][:, 0]
    return (v.sign() != v[0].sign()).long()
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
        """
import numpy as np


def promised_gain(gains, groups):
    A = gains.detach().cpu().numpy()
    promised = np.zeros(len(A))
    for group in groups:
        for i in group:
            others = [A[i, j] for j in group if j != i]
            promised[i] = np.mean(others) if others else 0.0
    return torch.tensor(promised.mean(), dtype=gains.dtype, device=gains.device)
""",
        """
def promised_gain(gains, groups):
    total = 0 * gains.sum()
    for group in groups:
        for i in group:
            others = [j for j in group if j != i]
            if others:
                total = total + gains[others, i].mean()
    return total / len(gains)
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
        """
import numpy as np


def hub_pull(n, hub_n, leaves, lam):
    A = np.zeros((leaves + 1, leaves + 1))
    b = np.zeros(leaves + 1)
    A[0, 0] = hub_n + lam * leaves
    b[0] = hub_n
    for k in range(1, leaves + 1):
        A[k, k] = n + lam
        A[0, k] = A[k, 0] = -lam
    return np.linalg.solve(A, b)[1]
""",
        """
def hub_pull(n, hub_n, leaves, lam):
    from fractions import Fraction
    n, h, k, l = (Fraction(v) for v in (n, hub_n, leaves, lam))
    return float(l * h / (h * (n + l) + k * l * n))
""",
        """
def hub_pull(n, hub_n, leaves, lam):
    def squares(z):
        leaf, hub = z
        ties = lam * leaves * (leaf - hub) ** 2
        return leaves * n * leaf**2 + hub_n * (hub - 1) ** 2 + ties
    zero = torch.zeros(2, dtype=torch.float64)
    H, g = torch.func.hessian(squares)(zero), torch.func.grad(squares)(zero)
    return torch.linalg.solve(H, -g)[0].item()
""",
        """
def hub_pull(n, hub_n, leaves, lam):
    from scipy.optimize import minimize

    def cost(z):
        leaf, hub = z
        squares = leaves * n * leaf**2 + hub_n * (hub - 1) ** 2 + lam * leaves * (leaf - hub) ** 2
        return squares / (n + hub_n + lam * leaves)

    return minimize(cost, [0.5, 0.5], tol=1e-14).x[0]
""",
        """
def hub_pull(n, hub_n, leaves, lam):
    return hub_n / (hub_n * (n / lam + 1) + leaves * n)
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
