"""Transfer: each function against a closed form, autograd, finite differences, or a count by hand."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mtl_course import transfer
from mtl_course.networks.trunks import Classifier, cnn, mlp


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Classifier(nn.Sequential(cnn(8, (4, 8), 16, norm=True), nn.Dropout(0.5)), 16, 10)


def images(n=12):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


# ----------------------------------------------------------------------------------------- networks
def test_cnn_halves_the_image_and_has_the_parameters_that_it_says():
    trunk = cnn(16, (4, 8), 5, in_channels=3)
    assert trunk(torch.randn(2, 3, 16, 16)).shape == (2, 5)
    assert (
        sum(p.numel() for p in trunk.parameters())
        == (3 * 9 + 1) * 4 + (4 * 9 + 1) * 8 + (8 * 16 + 1) * 5
    )
    with pytest.raises(ValueError, match="12 pixels cannot be halved 3 times"):
        cnn(12, (4, 4, 4), 5)


# ----------------------------------------------------------------------------------------- freezing
def test_frozen_means_frozen(model):
    before = copy.deepcopy(model.trunk.state_dict())
    assert transfer.freeze(model.trunk) is model.trunk
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=0.1)
    head = model.head.weight.detach().clone()
    for _ in range(3):
        model.train()
        model(images()).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(before[k], v) for k, v in model.trunk.state_dict().items())
    assert not torch.equal(head, model.head.weight)


def test_a_frozen_trunk_ignores_the_batch_and_drops_nothing(model):
    transfer.freeze(model.trunk)
    model.train()
    x = images()
    assert torch.allclose(model.trunk(x)[:1], model.trunk(x[:1]), atol=1e-6)


def test_without_freeze_the_statistics_do_move(model):
    """The trap that `freeze` is for: no gradient, and yet the trunk changes."""
    model.trunk.requires_grad_(False)
    before = model.trunk.state_dict()["0.1.running_mean"].clone()
    model.train()(images())
    assert not torch.equal(before, model.trunk.state_dict()["0.1.running_mean"])


def test_freezing_survives_copies_and_is_done_once(model):
    transfer.freeze(transfer.freeze(model.trunk))
    assert len(model.trunk._forward_pre_hooks) == 1
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        before = copy.deepcopy(other.trunk.state_dict())
        other.train()(images())
        assert all(torch.equal(before[k], v) for k, v in other.trunk.state_dict().items())


# -------------------------------------------------------------------------------------------- heads
def test_replace_head_keeps_dtype_bias_and_trunk(model):
    model.double()
    model.head = nn.Linear(16, 10, bias=False, dtype=torch.float64)
    trunk = copy.deepcopy(model.trunk.state_dict())
    new = transfer.replace_head(model, 3)
    assert new is model.head and new.bias is None and new.weight.dtype == torch.float64
    assert model(images().double()).shape == (12, 3)
    assert all(
        torch.equal(trunk[k], v)
        for k, v in model.trunk.state_dict().items()
        if "running" not in k and "num" not in k
    )


def test_replace_head_by_a_dotted_name():
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 2)))
    transfer.replace_head(model, 5, name="1.1")
    assert model(torch.randn(3, 4)).shape == (3, 5)
    with pytest.raises(TypeError, match="'1' is a Sequential"):
        transfer.replace_head(model, 5, name="1")


# -------------------------------------------------------------------------------------------- L2-SP
def test_l2_sp_is_the_sum_by_hand():
    p = {"trunk": torch.tensor([1.0, 2.0]), "head": torch.tensor([[3.0]])}
    source = {"trunk": torch.tensor([0.0, 4.0])}
    assert transfer.l2_sp(p, source, 0.5, new=0.1).item() == pytest.approx(0.5 * (1 + 4) + 0.1 * 9)
    assert transfer.l2_sp(p, p, 3.0).item() == 0


def test_l2_sp_gradient_is_twice_the_distance_and_agrees_with_finite_differences():
    g = torch.Generator().manual_seed(0)
    p = {
        k: torch.randn(s, generator=g, dtype=torch.float64).requires_grad_()
        for k, s in {"a": (3, 2), "b": (4,)}.items()
    }
    source = {"a": torch.randn(3, 2, generator=g, dtype=torch.float64)}
    grads = torch.autograd.grad(transfer.l2_sp(p, source, 0.7, new=0.2), list(p.values()))
    assert torch.allclose(grads[0], 1.4 * (p["a"] - source["a"])) and torch.allclose(
        grads[1], 0.4 * p["b"]
    )
    assert torch.autograd.gradcheck(
        lambda a, b: transfer.l2_sp({"a": a, "b": b}, source, 0.7, new=0.2), tuple(p.values())
    )


def test_minimising_with_l2_sp_gives_the_closed_form_of_ridge_towards_the_source():
    g = torch.Generator().manual_seed(0)
    X, y, source = (
        torch.randn(20, 3, generator=g).double(),
        torch.randn(20, generator=g).double(),
        torch.randn(3, generator=g).double(),
    )
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=200,
        tolerance_grad=1e-12,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = ((X @ theta - y) ** 2).mean() + transfer.l2_sp({"t": theta}, {"t": source}, 0.3)
        loss.backward()
        return loss

    optimizer.step(closure)
    want = torch.linalg.solve(X.T @ X / 20 + 0.3 * torch.eye(3), X.T @ y / 20 + 0.3 * source)
    assert torch.allclose(theta.detach(), want, atol=1e-6)


def test_l2_sp_says_what_does_not_fit():
    with pytest.raises(ValueError, match="head has shape .2,. but .3,. in the source"):
        transfer.l2_sp({"head": torch.zeros(2)}, {"head": torch.zeros(3)}, 1.0)
    with pytest.raises(ValueError, match="The source has old"):
        transfer.l2_sp({"new": torch.zeros(2)}, {"old": torch.zeros(2)}, 1.0)


# -------------------------------------------------------------------------------------- checkpoints
def test_load_source_takes_the_trunk_with_its_statistics_and_reports(model):
    other = Classifier(copy.deepcopy(model.trunk), 16, 3)
    for p in model.parameters():
        nn.init.normal_(p)
    model.train()(images())
    head = other.head.weight.detach().clone()
    report = transfer.load_source(other, model.state_dict())
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            model.trunk.state_dict().values(), other.trunk.state_dict().values(), strict=True
        )
    )
    assert torch.equal(head, other.head.weight)
    assert report.new == report.unused == ("head.weight", "head.bias") and len(
        report.loaded
    ) == len(model.trunk.state_dict())
    assert "new: head.weight, head.bias" in str(report)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda s: {"module." + k: v for k, v in s.items()},
            "trunk.0.0.weight is missing.*module.trunk.0.0.weight is unexpected",
        ),
        (
            lambda s: {k: v for k, v in s.items() if "running_mean" not in k},
            "trunk.0.1.running_mean is missing",
        ),
        (
            lambda s: s | {"trunk.0.0.weight": torch.zeros(2, 2)},
            r"trunk.0.0.weight has shape \(2, 2\), the model needs \(4, 1, 3, 3\)",
        ),
        (lambda s: s | {"neck.weight": torch.zeros(1)}, "neck.weight is unexpected"),
    ],
)
def test_load_source_refuses_what_does_not_fit_and_leaves_the_model_as_it_was(
    model, spoil, message
):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        transfer.load_source(model, spoil({k: v + 1 for k, v in model.state_dict().items()}))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_name_that_only_begins_like_the_head_is_no_head():
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "header": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="header.weight is missing"):
        transfer.load_source(model, {})


# --------------------------------------------------------------------------------------- label maps
def test_label_map_counts():
    p = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    M = transfer.label_map(p, torch.tensor([0, 1, 1]), classes=2)
    assert torch.allclose(M, torch.tensor([[1 / 1.5, 0.5 / 1.5], [0.0, 1.0], [0.5, 0.5]]))


def test_label_map_recovers_a_known_map():
    g = torch.Generator().manual_seed(0)
    z = torch.randint(4, (500,), generator=g)
    M = transfer.label_map(nn.functional.one_hot(z, 4).double(), z % 2, classes=2)
    assert torch.equal(M, torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]]).double())
    soft = transfer.label_map(nn.functional.one_hot(z, 4).double(), z % 2, classes=2, prior=1.0)
    assert torch.allclose(soft.sum(dim=1), torch.ones(4).double()) and 0 < soft[0, 1] < 0.05


def test_label_map_says_what_is_wrong():
    with pytest.raises(ValueError, match="2 rows of probabilities but 1 labels"):
        transfer.label_map(torch.ones(2, 2), torch.tensor([0]), 2)
    with pytest.raises(ValueError, match="0..1; they go from 0 to 5"):
        transfer.label_map(torch.ones(2, 2), torch.tensor([0, 5]), 2)


def test_mlp_trunk_under_a_classifier():
    assert Classifier(mlp([3, 4]), 4, 2)(torch.randn(5, 3)).shape == (5, 2)
