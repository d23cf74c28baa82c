"""Chapter 11: the three tasks over reviews of clothes, their losses and their scores."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

TASKS = {"stars": 1, "recommend": 1, "department": 6}  # task -> outputs of its head


def labels_of(rows: Mapping) -> dict[str, Tensor]:
    """Task -> labels [N] of the set "reviews": stars and recommend float32, department int64."""
    return {
        "stars": torch.from_numpy(np.array(rows["rating"])).float(),
        "recommend": torch.from_numpy(np.array(rows["recommend"])).float(),
        "department": torch.from_numpy(np.array(rows["department"])),
    }


def task_loss(name: str, output: Tensor, y: Tensor) -> Tensor:
    """Squared error of the stars, else a cross-entropy. output: [B, 1] or [B, classes]."""
    if name == "stars":
        return F.mse_loss(output[:, 0], y)
    if name == "recommend":
        return F.binary_cross_entropy_with_logits(output[:, 0], y)
    return F.cross_entropy(output, y)


def score(name: str, output: np.ndarray, y: np.ndarray) -> float:
    """R2 of the stars, AUC of the recommendations, accuracy of the departments."""
    if name == "stars":
        return float(1 - ((output - y) ** 2).mean() / ((y - y.mean()) ** 2).mean())
    if name == "recommend":
        return float(roc_auc_score(y, output))
    return float((output.argmax(1) == y).mean())


def class_logits(model: LogisticRegression, classes: int) -> Callable:
    """Features -> logits [N], or [N, classes]; minus infinity for a class without an example."""

    def guess(x):
        logits = model.decision_function(x)
        if classes == 1:
            return logits
        if logits.ndim == 1:  # of two classes scikit-learn gives the second one's alone
            logits = np.stack([np.zeros_like(logits), logits], axis=1)
        whole = np.full((len(logits), classes), -np.inf)
        whole[:, model.classes_] = logits
        return whole

    return guess
