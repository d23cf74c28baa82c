"""Does an answer follow its inputs to a GPU? On one that is pretended."""

import pytest
import torch
from sample_exercises import SAMPLES, row, written

from mtl_course.checks import check, devices, rows

pytestmark = pytest.mark.usefixtures("course")


no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: none is pretended")


@no_gpu
def test_device_row_without_a_gpu():
    mixed = check("weighted", lambda a, b: (torch.exp(-b) * a + b + torch.zeros(len(a))).sum())
    assert (
        mixed.state == "wrong" and "mixes CPU and GPU" in row(mixed, "works on any device").detail
    )
    back = check("weighted", lambda a, b: (torch.exp(-b) * a + b).sum().cpu())
    assert "CPU" in row(back, "works on any device").detail
    right = check(
        "weighted",
        lambda a, b: (torch.exp(-b) * a + b + torch.zeros(len(a), device=a.device)).sum(),
    )
    assert right.state == "solved" and row(right, "works on any device").ok
    branching = check(
        "weighted", lambda a, b: (torch.exp(-b) * a + b).sum() if a.sum() > 0 else None
    )
    assert branching.state == "solved" and row(branching, "works on any device").ok


MIXES, COMES_BACK, HOST = "mixes CPU and GPU", "a result is on the CPU", "no .numpy()"


ON_A_GPU = {
    "a + torch.zeros(len(a))": MIXES,
    "torch.eye(len(a)) @ a": MIXES,
    "nn.Linear(len(a), 2)(a)": MIXES,
    "torch.stack([a, torch.ones(len(a))])": MIXES,
    "nn.functional.cross_entropy(a[None], torch.tensor([0]))": MIXES,
    "a.cpu()": COMES_BACK,
    "a.to('cpu')": COMES_BACK,
    "torch.zeros(2)": COMES_BACK,
    "torch.tensor([x.item() for x in a])": COMES_BACK,
    "torch.tensor(a.cpu().numpy())": COMES_BACK,
    "a.numpy()": HOST,
    "a + torch.zeros(len(a), device=a.device)": "",
    "a + torch.zeros(len(a)).to(a)": "",
    "a + torch.zeros(len(a)).to(device=a.device)": "",
    "a + torch.zeros(len(a)).cuda()": "",
    "a + torch.zeros_like(b) + a.new_ones(len(a)) + torch.tensor(2.0)": "",
    "a[torch.arange(len(a))]": "",
    "nn.Linear(len(a), 2).to(a.device)(a)": "",
    "nn.Linear(len(a), 2, device=a.device)(a)": "",
    "nn.Sequential(nn.Linear(len(a), 2), nn.BatchNorm1d(2)).cuda()(torch.stack([a, b]))": "",
    "nn.Dropout().cuda()(a)": "",
    "torch.func.vmap(torch.add)(a, b)": "",
    "torch.autograd.grad((a.requires_grad_() * b).sum(), a)[0]": "",
    "a * 2 if a.is_cuda and a.device.type == 'cuda' and a.sum() > 0 else torch.zeros(1)": "",
    "torch.linalg.solve(torch.outer(a, a) + torch.eye(len(a), device=a.device), b)": "",
    "sum(x * y for x, y in zip(a, b))": "",
}


@no_gpu
@pytest.mark.parametrize("expression", ON_A_GPU)
def test_pretended_gpu(expression):
    case = rows.draw_cases(SAMPLES["weighted"], 0, 1)[0]
    fault = devices.problem(case, written(f"f = lambda a, b: {expression}", "f"), 3.0)
    assert fault == "" if ON_A_GPU[expression] == "" else ON_A_GPU[expression] in fault


@no_gpu
def test_the_pretended_gpu_is_off_afterwards_even_if_it_was_not_left(monkeypatch):
    """As where the time is up just when it is left, or taken off for a moment."""
    case = rows.draw_cases(SAMPLES["weighted"], 0, 1)[0]
    stack = torch.overrides._get_current_function_mode_stack
    monkeypatch.setattr(devices.PretendedGPU, "__exit__", lambda *_: None)
    devices.problem(case, lambda a, b: a.sum(), 3.0)
    assert stack() == []
    taken_off = lambda *_: [torch.overrides._pop_mode() for _ in range(2)]  # noqa: E731
    with torch.device("meta"):
        notebooks = stack()
        monkeypatch.setattr(devices.PretendedGPU, "__exit__", taken_off)
        devices.problem(case, lambda a, b: a.sum(), 3.0)
        assert stack() == notebooks != []


@no_gpu
def test_pretended_gpu_in_place_and_optimizer():
    def fills(a, b):
        out = torch.empty_like(a)
        for i in range(len(a)):
            out[i] = a[i] * b[i]
        return out

    def trains(a, b):
        w = torch.zeros(len(a), device=a.device, requires_grad=True)
        optimizer = torch.optim.Adam([w])
        (w - a).square().sum().backward()
        optimizer.step()
        return w

    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports for seconds, the first time
    case = rows.draw_cases(SAMPLES["weighted"], 0, 1)[0]
    assert devices.problem(case, fills, 3.0) == devices.problem(case, trains, 10.0) == ""
