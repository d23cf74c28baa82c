"""Source checkpoints: what is loaded, what is reported, what is refused."""

import copy

import pytest
import torch
from torch import nn

from mtl_course.networks.trunks import Classifier, cnn
from mtl_course.transfer.checkpoints import load_source


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Classifier(nn.Sequential(cnn(8, (4, 8), 16, norm=True), nn.Dropout(0.5)), 16, 10)


def images(n=12):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_load_source_takes_the_trunk_with_its_statistics_and_reports(model):
    other = Classifier(copy.deepcopy(model.trunk), 16, 3)
    for p in model.parameters():
        nn.init.normal_(p)
    model.train()(images())
    head = other.head.weight.detach().clone()
    report = load_source(other, model.state_dict())
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
        load_source(model, spoil({k: v + 1 for k, v in model.state_dict().items()}))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_name_that_only_begins_like_the_head_is_no_head():
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "header": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=r"header\.weight is missing"):
        load_source(model, {})
