"""A small stream of tasks, and a network for it, that several test modules share."""

from functools import partial

import torch

from mtl_course.networks.trunks import Classifier, mlp
from mtl_course.streams.stream import class_stream


def clusters(n=30, classes=6, seed=0):
    """Six Gaussian clouds in four dimensions: inputs [n * classes, 4] and labels."""
    g = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(classes, 4, generator=torch.Generator().manual_seed(99))
    y = torch.arange(classes).repeat(n)
    return centres[y] + 0.3 * torch.randn(len(y), 4, generator=g), y


def stream(task_known=True, order=(3, 1, 5, 0, 2, 4), classes_per_task=2):
    return class_stream(clusters(), clusters(n=10, seed=1), order, classes_per_task, task_known)


def network(seed=0, classes=6):
    torch.manual_seed(seed)
    return Classifier(mlp([4, 16]), 16, classes)


SGD = partial(torch.optim.SGD, lr=0.1)
