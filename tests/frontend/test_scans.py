"""Scans of other people's code become our operator, if they compute the same."""

from __future__ import annotations

import functools
import logging
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillc.errors import TraceError
from distillc.frontend.graph import operator
from distillc.frontend.scans import adopt_scans, scan
from distillc.frontend.trace import export_program, trace
from distillc.surrogates.selective_scan import selective_scan


def by_loop(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Any:
    """The recurrence as papers write it, over (B, D, L)."""
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    state, outputs = u.new_zeros(*u.shape[:2], A.shape[1]), []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        state = torch.exp(step * A) * state + step * B[:, None, :, t] * u[:, :, t, None]
        outputs.append((state * C[:, None, :, t]).sum(-1))
    y = torch.stack(outputs, 2)
    y = y if D is None else y + D[:, None] * u
    y = y if z is None else y * F.silu(z)
    return (y, state) if return_last_state else y


def with_last_channels(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    y: Tensor = by_loop(x.mT, dt.mT, A, B.mT, C.mT, D).mT
    return y


def on_cuda(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None
) -> Tensor:
    raise RuntimeError("u must be a CUDA tensor")


def of_two_steps(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Not a scan: the step sizes are doubled."""
    y: Tensor = by_loop(u, 2 * delta, A, B, C, D)
    return y


@pytest.fixture
def file() -> Iterator[types.ModuleType]:
    """A Python file that classes of a network come from."""
    module = types.ModuleType("somebodys_mamba")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def network(file: types.ModuleType, function: Callable[..., Any], kept: str, last: bool) -> Any:
    """Return a network that scans its pixels by a function, which it keeps in some place."""
    function = types.FunctionType(
        function.__code__, {**globals()}, function.__name__, function.__defaults__
    )
    file.scan = function  # type: ignore[attr-defined]

    class Scans(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.Conv2d(3, 3 + 3 + 2 + 2, 1)
            self.rates = nn.Parameter(-torch.rand(3, 2))
            self.skip = nn.Parameter(torch.rand(3))
            self.own: Any = functools.partial(function) if kept == "partial" else function

        def forward(self, image: Tensor) -> Tensor:
            parts = self.parts(image).flatten(2).split([3, 3, 2, 2], 1)
            u, delta, B, C = (each.mT for each in parts) if last else parts
            used = file.scan if kept == "file" else self.own  # type: ignore[attr-defined]
            y = used(u, delta.sigmoid(), self.rates, B, C, self.skip)
            return image + (y.mT if last else y).reshape(image.shape)

    Scans.__module__ = file.__name__
    return Scans().eval()


def scans_in(module: nn.Module) -> int:
    program = export_program(module, (1, 3, 6, 4))
    return sum("selective_scan" in operator(node) for node in program.graph.nodes)


@pytest.mark.parametrize("kept", ["file", "instance", "partial"])
@pytest.mark.parametrize(("function", "last"), [(by_loop, False), (with_last_channels, True)])
def test_a_loop_becomes_one_operator(
    file: types.ModuleType,
    function: Callable[..., Any],
    last: bool,
    kept: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = network(file, function, kept, last)
    image = torch.rand(1, 3, 6, 4)
    with torch.no_grad():
        expected = net(image)
    assert scans_in(net) == 0
    with caplog.at_level(logging.WARNING):
        adopt_scans(net)
        adopt_scans(net)
    assert caplog.text.count("is a selective scan: distillc's operator") == 1
    assert scans_in(net) == 1
    with torch.no_grad():
        torch.testing.assert_close(net(image), expected, atol=1e-5, rtol=1e-5)


def test_a_method_becomes_one_operator(file: types.ModuleType) -> None:
    class Minimal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.Conv2d(3, 10, 1)
            self.rates = nn.Parameter(-torch.rand(3, 2))

        def selective_scan(
            self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
        ) -> Tensor:
            return with_last_channels(u, delta, A, B, C, D)

        def forward(self, image: Tensor) -> Tensor:
            u, delta, B, C = self.parts(image).flatten(2).mT.split([3, 3, 2, 2], 2)
            y = self.selective_scan(u, F.softplus(delta), self.rates, B, C, torch.ones(3))
            return image + y.mT.reshape(image.shape)

    Minimal.__module__ = file.__name__
    net, image = Minimal().eval(), torch.rand(1, 3, 6, 4)
    with torch.no_grad():
        expected = net(image)
        adopt_scans(net)
        torch.testing.assert_close(net(image), expected, atol=1e-5, rtol=1e-5)
    assert scans_in(net) == 1


def test_what_computes_something_else_stays(
    file: types.ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    net = network(file, of_two_steps, "file", False)
    with caplog.at_level(logging.WARNING):
        adopt_scans(net)
    assert not caplog.text
    assert scans_in(net) == 0


def test_what_runs_on_cuda_only_is_taken_by_its_name(file: types.ModuleType) -> None:
    unknown = network(file, on_cuda, "file", False)
    adopt_scans(unknown)
    with pytest.raises(RuntimeError, match="CUDA"):
        unknown(torch.rand(1, 3, 6, 4))
    net = network(file, on_cuda, "file", False)
    file.scan.__name__ = "selective_scan_fn"  # type: ignore[attr-defined]
    traced = trace(net, torch.rand(1, 3, 16, 16))
    assert scans_in(traced.module) == 1


def test_what_is_asked_for_its_state_runs_as_it_was(file: types.ModuleType) -> None:
    net = network(file, by_loop, "file", False)
    adopt_scans(net)
    given = [torch.rand(1, 3, 5), torch.rand(1, 3, 5), -torch.rand(3, 2)]
    given += [torch.rand(1, 2, 5), torch.rand(1, 2, 5)]
    y, state = file.scan(*given, return_last_state=True)  # type: ignore[attr-defined]
    torch.testing.assert_close(state, by_loop(*given, return_last_state=True)[1])
    torch.testing.assert_close(y, selective_scan(*given))


def test_weights_of_all_positions_and_other_types() -> None:
    u, delta, A = torch.rand(2, 4, 5).half(), torch.rand(2, 4, 5), -torch.rand(4, 3)
    B, C = torch.rand(4, 3), torch.rand(2, 3, 5)
    y = scan(u, delta, A, B, C[:, None].repeat(1, 4, 1, 1))
    assert y.dtype == torch.float16
    for each in range(4):
        one = [u.float()[:, [each]], delta[:, [each]], A[[each]], B[each, :, None].expand(2, 3, 5)]
        torch.testing.assert_close(y[:, [each]].float(), by_loop(*one, C), atol=1e-3, rtol=1e-3)


def test_complex_states_and_last_states_are_refused() -> None:
    u = torch.rand(1, 2, 5)
    weights = torch.rand(1, 3, 5)
    with pytest.raises(TraceError, match="complex"):
        scan(u, u, torch.rand(2, 3, dtype=torch.complex64), weights, weights)
    with pytest.raises(TraceError, match="last state"):
        scan(u, u, -torch.rand(2, 3), weights, weights, return_last_state=True)
