from __future__ import annotations

import torch
from torch import Tensor, nn

from distillc.frontend.calls import Bound, record_calls


class Scaled(nn.Module):
    def forward(self, x: Tensor, size: tuple[int, int], *, factor: float = 1.0) -> Tensor:
        return x * factor * size[0]


class Caller(nn.Module):
    """Calls one module with more than an activation, and changes what another returned."""

    def __init__(self) -> None:
        super().__init__()
        self.scaled, self.shift = Scaled(), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        shifted = self.shift(input=x).relu_()
        return self.scaled(shifted, (2, 5), factor=3.0)


def test_calls_hold_arguments_and_results() -> None:
    net, image = Caller(), torch.rand(1, 3, 8, 8)
    calls = record_calls(net, ["scaled", "shift", "scaled"], image)
    assert sorted(calls) == ["scaled", "shift"]
    scaled, shift = calls["scaled"], calls["shift"]
    assert torch.equal(shift.given, image)
    assert (shift.rest, shift.options) == ((), {})
    # relu_ worked in place on what the module returned: the copy is untouched.
    assert torch.equal(shift.result, net.shift(image))
    assert (scaled.rest, scaled.options) == (((2, 5),), {"factor": 3.0})
    assert torch.equal(scaled.repeat(net.scaled), scaled.result)
    assert torch.equal(scaled.repeat(net.scaled, image), image * 6)
    assert torch.equal(Bound(net.scaled, scaled)(image), image * 6)
    assert not scaled.result.requires_grad
    assert not any(module._forward_hooks for module in net.modules())


def test_a_module_that_does_not_run_is_left_out() -> None:
    net = nn.ModuleDict({"used": nn.ReLU(), "idle": nn.ReLU()})
    net.forward = lambda x: net["used"](x)  # type: ignore[assignment]
    assert list(record_calls(net, ["used", "idle"], torch.rand(1, 3, 4, 4))) == ["used"]
