"""Throw-away exercises on which the checker is tested. They are not part of the course."""

import textwrap
import time
from unittest import mock

import numpy as np
import torch
from torch import nn

from mtl_course.checks.exercise import REGISTRY, exercise


def _conflicting(g):
    a = torch.randn(5, generator=g)
    return a, -a + 0.5 * torch.randn(5, generator=g)


def _agreeing(g):
    a = torch.randn(5, generator=g)
    return a, a + 0.3 * torch.randn(5, generator=g)


def _tasks(g):
    n = int(torch.randint(2, 6, (), generator=g))
    return torch.rand(n, generator=g) * 3 + 0.1, torch.randn(n, generator=g)


def _table(g):
    return (torch.randn(4, 3, generator=g).double().numpy(),)


def _batch(g):
    return (torch.randn(4, 6, generator=g),)


def _network(g):
    torch.manual_seed(int(torch.randint(10**6, (), generator=g)))
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1), torch.randn(5, 3, generator=g)


with mock.patch.dict(REGISTRY, clear=True):

    @exercise(
        [_conflicting, _agreeing],
        points=3,
        hints=("Look at the dot product.", "Act only when it is negative."),
    )
    def project(g_i, g_j):
        """Project g_i onto the plane that is normal to g_j, but only if the two conflict. Both [P];
        returns [P].
        """
        ### BEGIN SOLUTION
        dot = g_i @ g_j
        if dot < 0:
            return g_i - dot / (g_j @ g_j) * g_j
        return g_i
        ### END SOLUTION

    @project.mistake("You also project when the gradients agree.")
    def _(g_i, g_j):
        return g_i - (g_i @ g_j) / (g_j @ g_j) * g_j

    @project.mistake("Divide by the squared norm of g_j, not by its norm.")
    def _(g_i, g_j):
        dot = g_i @ g_j
        return g_i - dot / g_j.norm() * g_j if dot < 0 else g_i

    @project.mistake("g_i is changed in place; the other tasks still need it.")
    def _(g_i, g_j):
        dot = g_i @ g_j
        if dot < 0:
            g_i.data -= dot / (g_j @ g_j) * g_j
        return g_i

    @project.law("the result never conflicts with g_j")
    def _(answer, g_i, g_j):
        return answer(g_i, g_j) @ g_j > -1e-4

    @exercise(_tasks, points=2, hints=("Weight each loss with exp(-s), add s, sum.",))
    def weighted(losses, log_vars):
        """Sum over tasks of exp(-s_i) L_i + s_i. Both [T]; returns a scalar."""
        ### BEGIN SOLUTION
        return (torch.exp(-log_vars) * losses + log_vars).sum()
        ### END SOLUTION

    @weighted.mistake("The regulariser is missing.")
    def _(losses, log_vars):
        return (torch.exp(-log_vars) * losses).sum()

    @weighted.mistake("log_vars is detached, so the uncertainties can never be learned.")
    def _(losses, log_vars):
        return (torch.exp(-log_vars.detach()) * losses + log_vars.detach()).sum()

    @weighted.law("does not depend on the order of the tasks")
    def _(answer, losses, log_vars):
        return torch.allclose(
            answer(losses, log_vars), answer(losses.flip(0), log_vars.flip(0)), rtol=1e-4
        )

    @exercise(_table)
    def centred(x):
        """Subtract from each column of x [N, d] its mean."""
        ### BEGIN SOLUTION
        return x - x.mean(axis=0)
        ### END SOLUTION

    @exercise(_table)
    def spread(x):
        """The largest entry of x [N, d] minus the smallest: a float."""
        ### BEGIN SOLUTION
        return float(np.max(x) - np.min(x))
        ### END SOLUTION

    @exercise(
        _batch,
        points=3,
        grad=False,
        call=lambda cls, x: [torch.zeros_like(o) for o in cls(6, 8, [1, 3]).to(x.device)(x)],
    )
    class Shared(nn.Module):
        """One trunk Linear(d_in, d_hidden) + ReLU, then one linear head a task."""

        def __init__(self, d_in, d_hidden, d_outs):
            super().__init__()
            ### BEGIN SOLUTION
            self.trunk = nn.Sequential(nn.Linear(d_in, d_hidden), nn.ReLU())
            self.heads = nn.ModuleList(nn.Linear(d_hidden, d) for d in d_outs)
            ### END SOLUTION

        def forward(self, x):
            ### BEGIN SOLUTION
            h = self.trunk(x)
            return [head(h) for head in self.heads]
            ### END SOLUTION

    @Shared.law("has as many parameters as one trunk and one head per task")
    def _(cls, x):
        return sum(p.numel() for p in cls(6, 8, [1, 3]).parameters()) == 6 * 8 + 8 + 8 * 4 + 4

    @Shared.mistake("The heads are in a plain list, so they are never trained. Use nn.ModuleList.")
    class _Plain(nn.Module):
        def __init__(self, d_in, d_hidden, d_outs):
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(d_in, d_hidden), nn.ReLU())
            self.heads = [nn.Linear(d_hidden, d) for d in d_outs]

        def forward(self, x):
            return [h(self.trunk(x)) for h in self.heads]

    @exercise(_network, grad=False, device=False)
    def one_step(model, optimizer, x):
        """Take a step down the mean square of model(x); returns the loss before it, a float."""
        ### BEGIN SOLUTION
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()
        ### END SOLUTION

    def _double_sum(a):
        """Sum of a [N], twice."""
        total = a.mean()  # the bug
        return 2 * total

    @exercise(
        lambda g: (torch.randn(int(torch.randint(2, 6, (), generator=g)), generator=g),),
        starter=_double_sum,
    )
    def mended(a):
        """Sum of a [N], twice."""
        ### BEGIN SOLUTION
        total = a.sum()
        return 2 * total
        ### END SOLUTION

    @mended.mistake("That is the mean.")
    def _(a):
        return 2 * a.mean() * 1

    SAMPLES = dict(REGISTRY)


def written(source: str, name: str | None = None, **names):
    """What a learner defines in a cell: the object called `name`, by default the last one."""
    scope = {"torch": torch, "nn": nn, "np": np, "time": time, "__name__": "__main__", **names}
    exec(compile(textwrap.dedent(source), "<ipython-input-1-cell>", "exec"), scope)
    return scope[name] if name else list(scope.values())[-1]


def row(result, name):
    return next(r for r in result.rows if r.name == name)
