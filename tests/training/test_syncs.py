"""Every way to wait for the device is counted, and what does not wait is not."""

import numpy as np
import pytest
import torch

from mtl_course.training import SyncCounter

x = torch.tensor([1.0, -2.0, 3.0])
WAITS = {
    "item": lambda: x[0].item(),
    "__float__": lambda: float(x.sum()),
    "__int__": lambda: int(x[0]),
    "__index__": lambda: [1, 2, 3][torch.tensor(1)],
    "__bool__": lambda: 1 if x.norm() > 1 else 0,
    "__contains__": lambda: 3 in x,
    "__format__": lambda: f"{x[0]:.3f}",
    "__repr__": lambda: repr(x),
    "__array__": lambda: np.asarray(x),
    "numpy": lambda: x.numpy(),
    "tolist": lambda: x.tolist(),
    "cpu": lambda: x.cpu(),
    "to": lambda: x.to("cpu"),
    "__getitem__": lambda: x[x > 0],
    "tensor": lambda: torch.tensor([x[0], x[1]]),
    "as_tensor": lambda: torch.as_tensor([[x[0], 1.0]]),
    "asarray": lambda: torch.asarray([x[0]]),
    "new_tensor": lambda: x.new_tensor((x[0], 2.0)),
    "nonzero": lambda: x.nonzero(),
    "where": lambda: torch.where(x > 0),
    "unique": lambda: x.unique(),
    "allclose": lambda: torch.allclose(x, x),
    "equal": lambda: torch.equal(x, x),
}


@pytest.mark.parametrize("name", WAITS)
def test_counted(name):
    with SyncCounter() as waits:
        WAITS[name]()
    assert waits == {name: 1}


@pytest.mark.parametrize(
    "index", [torch.tensor(1), torch.tensor(True), (slice(None, torch.tensor(2)),)]
)
def test_an_index_that_is_one_number_on_the_device_is_fetched(index):
    with SyncCounter() as waits:
        x[index]
    assert waits == {"__getitem__": 1}


def test_what_stays_on_the_device_is_not_counted():
    layer = torch.nn.Linear(3, 1)
    with SyncCounter() as waits:
        loss = (
            torch.where(x > 0, x, 2 * x).sum()
            + layer(x).square().mean()
            + x[1:].sum()
            + x[torch.tensor([0, 2])].sum()
            + x.to(torch.float64).sum()
        )
        loss.backward()
        torch.optim.Adam(
            layer.parameters(), lr=0.1
        ).step()  # it reads its number of steps, which is on the host
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        assert (
            len(torch.tensor([1.0, 2.0])) == 2
            and torch.as_tensor(x) is x
            and len(x.new_tensor([1])) == 1
        )
        assert len(x) == 3 and x.shape == (3,) and x.device.type == "cpu"
    assert not waits


def test_counting_ends_with_the_block():
    with SyncCounter() as waits:
        float(x[0])
    float(x[0])
    assert waits == {"__float__": 1}
