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
