"""Chapter 6: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "cosines": [
        """
def cosines(G):
    squares = G.diagonal()
    inverse = torch.zeros_like(squares)
    inverse[squares > 0] = squares[squares > 0].rsqrt()
    return inverse[:, None] * G * inverse
""",
        """
def cosines(G):
    out = G * 0
    for i in range(len(G)):
        for j in range(len(G)):
            if G[i, i] > 0 and G[j, j] > 0:
                out[i, j] = G[i, j] / G[i, i].sqrt() / G[j, j].sqrt()
    return out
""",
        """
def cosines(G):
    norms = G.diagonal().sqrt()
    return torch.nan_to_num(G / torch.outer(norms, norms), nan=0.0, posinf=0.0, neginf=0.0)
""",
        """
import numpy as np


def cosines(G):
    A = G.detach().cpu().numpy().astype("float64")
    n = np.sqrt(np.diag(A))
    n[n == 0] = 1
    return torch.as_tensor(A / n[:, None] / n[None, :]).to(G)
""",
    ],
    "mgda_pair": [
        """
def mgda_pair(G):
    a, b, c = G[0, 0], G[0, 1], G[1, 1]
    if b >= a:
        return G.new_tensor([1.0, 0.0])
    if b >= c:
        return G.new_tensor([0.0, 1.0])
    return torch.stack([c - b, a - b]) / (a + c - 2 * b)
""",
        """
def mgda_pair(G):
    vertex = float((G[1, 1] - G[1, 0]) / (G[0, 0] - G[1, 0] - G[0, 1] + G[1, 1]))
    first = min(max(vertex, 0.0), 1.0)
    return torch.tensor([first, 1.0 - first], dtype=G.dtype, device=G.device)
""",
        """
import numpy as np


def mgda_pair(G):
    scale = G.diagonal().max()
    H = (G / scale).cpu().numpy()
    t = np.clip((H[1, 1] - H[1, 0]) / (H[0, 0] + H[1, 1] - H[0, 1] - H[1, 0]), 0, 1)
    return torch.as_tensor(np.array([t, 1 - t])).to(G)
""",
        """
def mgda_pair(G):
    # the squared length of t g1 + (1 - t) g2 is a parabola in t: slope and curvature at 0
    def f(t):
        w = torch.stack([t, 1 - t])
        return w @ G @ w
    zero = torch.zeros((), dtype=G.dtype, device=G.device)
    slope = torch.func.grad(f)(zero)
    curvature = torch.func.grad(torch.func.grad(f))(zero)
    t = (-slope / curvature).clamp(0, 1)
    return torch.stack([t, 1 - t])
""",
        """
def mgda_pair(G):
    # three candidates
    half = torch.linalg.pinv(torch.ones(1, 1, dtype=G.dtype, device=G.device))[0, 0]
    t = (G[1, 1] - G[0, 1]) / (G[0, 0] - G[0, 1] - G[1, 0] + G[1, 1]) * half
    best, at = None, None
    for c in (G.new_tensor(0.0), G.new_tensor(1.0), t):
        if 0 <= c <= 1:
            w = torch.stack([c, 1 - c])
            length = w @ G @ w
            if best is None or length < best:
                best, at = length, w
    return at
""",
    ],
    "pcgrad_direction": [
        """
def pcgrad_direction(J, orders):
    projected = J.clone()
    for i in range(len(J)):
        for j in orders[i]:
            part = (projected[i] * J[j]).sum() / J[j].norm() ** 2
            projected[i] -= min(part, part * 0) * J[j]
    return projected.sum(dim=0)
""",
        """
def pcgrad_direction(J, orders):
    G = J @ J.T
    W = torch.eye(len(J), dtype=J.dtype, device=J.device)
    for i, order in enumerate(orders):
        for j in order:
            W[i, j] -= (W[i] @ G[:, j]).clamp_max(0) / G[j, j]
    return W.sum(0) @ J
""",
        """
import numpy as np


def pcgrad_direction(J, orders):
    A = J.detach().cpu().numpy().copy()
    out = np.zeros_like(A)
    for i in range(len(A)):
        g = A[i].copy()
        for j in orders[i]:
            unit = A[j] / np.linalg.norm(A[j])
            if g @ unit < 0:
                g -= (g @ unit) * unit
        out[i] = g
    return torch.from_numpy(out.sum(0)).to(J)
""",
        """
def pcgrad_direction(J, orders):
    def project(g, others):
        if not others:
            return g
        h = others[0]
        return project(g - h * torch.clamp(g @ h, max=0) / h.square().sum(), others[1:])
    projected = [project(J[i], [J[j] for j in order]) for i, order in enumerate(orders)]
    return torch.stack(projected).sum(dim=0)
""",
    ],
    "step_direction": [
        """
def step_direction(gradients, shared):
    update = gradients.sum(dim=0)
    G = torch.einsum("ip,jp->ij", gradients * shared, gradients * shared)
    update[shared] = torch.tensordot(upgrad(G), gradients[:, shared], 1)
    return update
""",
        """
def step_direction(gradients, shared):
    masked = gradients.masked_fill(~shared, 0.0)
    weights = upgrad(masked @ masked.T)
    scale = torch.ones_like(gradients)
    scale[:, shared] = weights[:, None]
    return (scale * gradients).sum(0)
""",
        """
def step_direction(gradients, shared):
    cols = [p for p in range(len(shared)) if shared[p]]
    G = gradients.new_zeros(len(gradients), len(gradients))
    for i in range(len(gradients)):
        for j in range(len(gradients)):
            for p in cols:
                G[i, j] += gradients[i, p] * gradients[j, p]
    w = upgrad(G)
    return torch.stack([
        sum(w[t] * gradients[t, p] for t in range(len(w))) if shared[p] else gradients[:, p].sum()
        for p in range(len(shared))
    ])
""",
        """
import numpy as np


def step_direction(gradients, shared):
    A, m = gradients.numpy(), shared.numpy()
    w = upgrad(torch.from_numpy(A[:, m] @ A[:, m].T)).numpy()
    weights = np.where(m[None, :], w[:, None], 1.0)
    return torch.from_numpy((weights * A).sum(0))
""",
    ],
    "nash_step": [
        """
def nash_step(G, w):
    inverse = w.reciprocal()
    gradient = torch.mv(G, w) - inverse
    hessian = G.clone()
    hessian.diagonal().add_(inverse.square())
    s = torch.linalg.inv(hessian) @ gradient
    return w - s / (1 + (gradient * s).sum() ** 0.5)
""",
        """
def nash_step(G, w):
    r = 1 - w * (G @ w)
    M = torch.eye(len(w), dtype=w.dtype, device=w.device) + w[:, None] * G * w
    y = torch.linalg.solve(M, r)
    return w + w * y / (1 + (r @ y).sqrt())
""",
        """
import numpy as np


def nash_step(G, w):
    A, x = G.detach().cpu().numpy(), w.detach().cpu().numpy()
    g = A @ x - 1 / x
    s = np.linalg.solve(A + np.diag(x**-2.0), g)
    return torch.as_tensor(x - s / (1 + np.sqrt(np.dot(g, s)))).to(w)
""",
        """
def nash_step(G, w):
    f = lambda v: v @ G @ v / 2 - v.log().sum()
    g = torch.func.grad(f)(w)
    s = torch.linalg.solve(torch.func.hessian(f)(w), g)
    return w - s / (1 + (g * s).sum().sqrt())
""",
        """
import math


def nash_step(G, w):
    v = w.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = v @ G.detach() @ v / 2 - torch.log(v).sum()
        (g,) = torch.autograd.grad(value, v, create_graph=True)
        H = torch.stack([torch.autograd.grad(gi, v, retain_graph=True)[0] for gi in g])
    g = g.detach()
    s = torch.linalg.inv(H) @ g
    return w - s / (1 + math.sqrt(float(g @ s)))
""",
    ],
}

_ZERO = "the row of a zero gradient is 0, whatever it is divided by"

EQUIVALENT = {
    "cosines": {
        "norms = torch.where(norms > 0, norms, 1.0)  =>  norms = torch.where(norms > 0, norms, 2.0)": (
            _ZERO
        ),
        "norms = torch.where(norms > 0, norms, 1.0)  =>  norms = torch.where(norms > 0, norms, -1.0)": (
            _ZERO
        ),
    },
    "pcgrad_direction": {
        "dot = copy @ J[j]  =>  dot = J[j] @ copy": "a dot product is symmetric",
        "if dot < 0:  =>  if dot <= 0:": "a dot product of 0 takes nothing away",
    },
    "nash_step": {
        "slope = G @ w - 1 / w  =>  slope = w @ G - 1 / w": "G is symmetric",
        "d = torch.sqrt(slope @ s)  =>  d = torch.sqrt(s @ slope)": "a dot product is symmetric",
    },
}
