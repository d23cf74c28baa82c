"""Tasks whose inputs are of different kinds, below one trunk."""

import pytest
import torch
from torch import nn

from mtl_course.data import Unequal
from mtl_course.multitask import Network, Parallel, fit_tasks
from mtl_course.networks.entries import Entries
from mtl_course.networks.transformer import Transformer
from mtl_course.networks.trunks import cnn, mlp
from mtl_course.training import classification


def test_each_task_enters_by_its_own_door():
    entries = {"a": nn.Linear(2, 3), "b": nn.Linear(4, 3)}
    pattern = Entries(entries, nn.Tanh())
    x = {"a": torch.randn(5, 2), "b": torch.randn(1, 4)}
    features = pattern(x)
    assert all(torch.equal(features[t], entries[t](x[t]).tanh()) for t in x)
    features["a"].sum().backward()
    assert entries["b"].weight.grad is None
    with pytest.raises(ValueError, match=r"Task 'b' has an entrance but no inputs; .* for a"):
        pattern({"a": x["a"]})


def test_pictures_and_texts_train_together_and_a_checkpoint_goes_on(tmp_path):
    generator = torch.Generator().manual_seed(0)
    kinds, ids = torch.arange(60) % 2, torch.randint(1, 9, (25, 6), generator=generator)
    pictures = torch.randn(60, 1, 8, 8, generator=generator) + kinds[:, None, None, None]
    data = Unequal({"picture": (pictures, kinds), "text": (ids, (ids == 4).any(1).long())})

    def run(epochs, checkpoint=None):
        torch.manual_seed(0)
        entries = {
            "picture": cnn(8, (4,), 8),
            "text": Transformer(nn.Embedding(9, 8), width=8, layers=1),
        }
        heads = Parallel({"picture": nn.Linear(8, 2), "text": nn.Linear(8, 2)})
        model = Network(Entries(entries, mlp([8, 8])), heads)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        tasks = {name: classification(name) for name in heads}
        return fit_tasks(
            model, tasks, data, data, optimizer,
            epochs=epochs, patience=99, progress=False, checkpoint=checkpoint,
        )  # fmt: skip

    whole = run(12)
    run(5, tmp_path / "run.pt")
    resumed = run(12, tmp_path / "run.pt")
    assert resumed.validation == whole.validation and min(whole.best.values()) > 0.8
