from __future__ import annotations

import os
import sys
import types
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distillc.errors import LoweringError, UsageError
from distillc.surrogates import native, scan_kernel, scan_reference
from distillc.surrogates.selective_scan import selective_scan


def plain_loop(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> Tensor:
    """The recurrence as the paper writes it, one position after the other."""
    batch, channels, length = u.shape
    states = A.shape[1]
    groups = B.shape[1] if B.dim() == 4 else 1
    wide = (batch, groups, channels // groups, states, length)
    B, C = (
        each.reshape(batch, groups, 1, states, length)
        .expand(wide)
        .reshape(batch, -1, states, length)
        for each in (B, C)
    )
    dt = delta if delta_bias is None else delta + delta_bias[:, None]
    dt = F.softplus(dt) if delta_softplus else dt
    h = torch.zeros(batch, channels, states, dtype=u.dtype)
    outputs: list[Tensor] = [h] * length
    for t in range(length - 1, -1, -1) if reverse else range(length):
        step = dt[:, :, t, None]
        h = torch.exp(step * A) * h + step * B[..., t] * u[:, :, t, None]
        outputs[t] = (h * C[..., t]).sum(-1)
    y = torch.stack(outputs, -1)
    y = y if D is None else y + D[:, None] * u
    return y if z is None else y * F.silu(z)


def operands(
    batch: int, channels: int, length: int, states: int, groups: int | None, seed: int
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    weights = (batch, states, length) if groups is None else (batch, groups, states, length)
    return [
        normal(batch, channels, length),
        normal(batch, channels, length),
        -torch.rand(channels, states, generator=generator) * 3 - 0.01,
        normal(*weights),
        normal(*weights),
        normal(channels),
        normal(batch, channels, length),
        normal(channels),
    ]


def agree(actual: Tensor | None, wanted: Tensor | None, tolerance: float = 2e-5) -> None:
    assert actual is not None
    assert wanted is not None
    scale = max(1.0, wanted.abs().max().item())
    assert (actual - wanted).abs().max().item() <= tolerance * scale


shapes = st.tuples(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 150), st.sampled_from([1, 2, 4, 16])
)


@settings(max_examples=25, deadline=None)
@given(
    shapes,
    st.sampled_from([None, 1, 2]),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.integers(0, 1000),
)
def test_values_and_gradients_equal_the_plain_loop(
    shape: tuple[int, int, int, int], groups: int | None, flags: list[bool], seed: int
) -> None:
    batch, channels, length, states = shape
    channels *= groups or 1
    has_skip, has_gate, has_bias, softplus, reverse = flags
    values: list[Tensor | None] = list(operands(batch, channels, length, states, groups, seed))
    if not softplus:
        assert values[1] is not None
        values[1] = values[1].abs()  # step sizes are positive; a growing state would overflow
    for index, given_ in ((5, has_skip), (6, has_gate), (7, has_bias)):
        if not given_ or (index == 7 and not softplus):
            values[index] = None
    ours = [None if each is None else each.clone().requires_grad_() for each in values]
    exact = [None if each is None else each.double().requires_grad_() for each in values]
    y = selective_scan(*ours, softplus, reverse)
    wanted = plain_loop(*exact, softplus, reverse)  # type: ignore[arg-type]
    agree(y, wanted)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
    y.backward(grad)
    wanted.backward(grad.double())
    for own, other in zip(ours, exact, strict=True):
        if own is not None and other is not None:
            agree(own.grad, other.grad, 1e-4)


def test_reverse_is_a_flip_of_everything() -> None:
    u, delta, A, B, C, D, z, bias = operands(1, 3, 40, 2, None, 0)
    flipped = selective_scan(*(each.flip(-1) for each in (u, delta)), A, B.flip(-1), C.flip(-1),
                             D, z.flip(-1), bias, True, False)  # fmt: skip
    backward = selective_scan(u, delta, A, B, C, D, z, bias, True, True)
    assert torch.equal(backward, flipped.flip(-1))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_operator_keeps_torchs_contract(reverse: bool) -> None:
    values = [each.requires_grad_() for each in operands(2, 4, 70, 2, 2, 0)]
    torch.library.opcheck(torch.ops.distillc.selective_scan, (*values, True, reverse))


def test_the_kernel_equals_plain_torch() -> None:
    u, delta, A, B, C, D, _, bias = operands(4, 6, 130, 3, None, 1)
    packed = (
        *(each.transpose(1, 2).contiguous() for each in (u, delta)),
        A.T.contiguous()[None],
        *(each.transpose(1, 2).contiguous() for each in (B, C)),
        D[None],
        bias[None],
    )
    for reverse in (False, True):
        agree(
            scan_kernel.forward(*packed, True, reverse),
            scan_reference.forward(*packed, True, reverse),
        )
        grad = torch.randn(packed[0].shape, generator=torch.Generator().manual_seed(2))
        ours = scan_kernel.backward(*packed, True, reverse, grad)
        wanted = scan_reference.backward(*packed, True, reverse, grad)
        for own, other in zip(ours, wanted, strict=True):
            agree(own, other, 1e-4)


def gradients(values: list[Tensor | None], softplus: bool = True) -> list[Tensor | None]:
    own = [None if each is None else each.clone().requires_grad_() for each in values]
    selective_scan(*own, softplus, False).square().sum().backward()
    return [None if each is None else each.grad for each in own]


def test_training_without_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device that has none; more positions than a chunk."""
    values: list[Tensor | None] = list(operands(2, 6, 150, 3, 2, 7))
    wanted = gradients(values)
    monkeypatch.setattr("distillc.surrogates.selective_scan._kernel", lambda u: scan_reference)
    for own, other in zip(gradients(values), wanted, strict=True):
        agree(own, other, 1e-4)


def test_the_reference_gradient_equals_autograds() -> None:
    u, delta, A, B, C, D, _, bias = (each.double() for each in operands(4, 6, 130, 3, None, 3))
    leaves = [
        *(each.transpose(1, 2).contiguous() for each in (u, delta)),
        A.T.contiguous()[None],
        *(each.transpose(1, 2).contiguous() for each in (B, C)),
        D[None],
    ]
    for reverse in (False, True):
        tensors = [each.requires_grad_() for each in leaves]
        y = scan_reference.forward(*tensors, bias[None], True, reverse)
        grad = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
        wanted = torch.autograd.grad(y, tensors, grad)
        with torch.no_grad():
            ours = scan_reference.backward(*tensors, bias[None], True, reverse, grad)
        torch.testing.assert_close(ours[0], y)
        for own, other in zip(ours[1:], wanted, strict=True):
            own = own if own.shape == other.shape else own.sum(0, keepdim=True)
            torch.testing.assert_close(own, other)


def test_tiny_steps_have_a_gradient() -> None:
    """1 - exp(-dt) is 0 in float32 where the step is 1e-9."""
    u, delta, A, B, C, *_ = operands(1, 3, 20, 2, None, 0)
    values: list[Tensor | None] = [u, delta - 20, A, B, C, None, None, torch.zeros(3)]
    exact = [None if each is None else each.double().requires_grad_() for each in values]
    plain_loop(*exact, True, False).square().sum().backward()  # type: ignore[arg-type]
    assert exact[1] is not None
    own = gradients(values)[1]
    assert own is not None
    torch.testing.assert_close(own, exact[1].grad, rtol=1e-4, atol=0, check_dtype=False)


@pytest.mark.parametrize(
    ("index", "change", "said"),
    [
        (0, lambda x: x[0], r"u must be \(B, D, L\)"),
        (1, lambda x: x[..., :1], r"delta must be \(2, 4, 30\), not \(2, 4, 1\)"),
        (1, lambda x: x[:1], "delta must be"),
        (2, lambda x: x[:2], "A must be"),
        (3, lambda x: x[:, :, :1], "B must be"),
        (4, lambda x: x[..., :7], "C must be"),
        (5, lambda x: x[:1], "D must be"),
        (6, lambda x: x[:, :1], "z must be"),
        (7, lambda x: x[:3], "delta_bias must be"),
        (0, Tensor.double, "u must be torch.float32 on cpu, not torch.float64"),
        (1, Tensor.half, "delta must be torch.float32"),
        (3, lambda x: x.to("meta"), "B must be torch.float32 on cpu, not torch.float32 on meta"),
    ],
)
@pytest.mark.parametrize("groups", [None, 2])
def test_operands_that_do_not_fit(index: int, change: Any, said: str, groups: int | None) -> None:
    values = operands(2, 4, 30, 3, groups, 0)
    values[index] = change(values[index])
    with pytest.raises(UsageError, match=said):
        selective_scan(*values, True, False)


def test_groups_that_do_not_divide_the_channels() -> None:
    values = operands(1, 4, 30, 3, 3, 0)
    with pytest.raises(UsageError, match="4 channels do not divide into 3 groups"):
        selective_scan(*values, True, False)


def test_without_a_compiler_it_is_slow_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise LoweringError("cannot be compiled")

    values = operands(1, 4, 30, 3, None, 0)
    wanted = selective_scan(*values, True, False)
    monkeypatch.setattr(native, "library", fail)
    native.has_kernels.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"plain torch.*\n?.*cannot be compiled") as warned:
            slow = [selective_scan(*values, True, False) for _ in range(2)]
    finally:
        native.has_kernels.cache_clear()
    assert len(warned) == 1
    for each in slow:
        agree(each, wanted)


def test_a_full_image_needs_no_tensor_of_all_states() -> None:
    """16 states of 65536 positions would be 16 times the input; the output is all that grows."""
    u, delta, A, B, C, *_ = operands(1, 4, 65536, 16, None, 0)
    with torch.profiler.profile(profile_memory=True) as profile:
        selective_scan(u, delta, A, B, C, None, None, None, True, False)
    largest = max(
        (each.self_cpu_memory_usage for each in profile.events() if each.cpu_memory_usage > 0),
        default=0,
    )
    assert largest <= 8 * u.numel() * u.element_size()


def test_macs_are_counted() -> None:
    from distillc.frontend.cost import count_cost

    class Scan(torch.nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            A = -torch.ones(4, 2, device=u.device)
            B = torch.ones(1, 2, u.shape[-1], device=u.device)
            return selective_scan(u, u, A, B, B, None, None, None, True, False)

    assert count_cost(Scan(), (1, 4, 100)).macs == 3 * 4 * 2 * 100


def test_values_equal_mamba_ssm() -> None:
    """mamba-ssm imports its CUDA kernels first; without them its reference is still there."""
    spec = PathFinder.find_spec("mamba_ssm")  # others may have been told to stand in for it
    if spec is None and "CI" not in os.environ:
        pytest.skip("mamba-ssm is not installed: `make setup` does that")
    assert spec is not None, "mamba-ssm is not installed"
    assert spec.origin is not None
    package = types.ModuleType("mamba_ssm")
    package.__path__ = [str(Path(spec.origin).parent)]
    layer_norm = types.ModuleType("mamba_ssm.ops.triton.layer_norm")
    layer_norm._layer_norm_fwd = None  # type: ignore[attr-defined]
    fakes = {
        "selective_scan_cuda": types.ModuleType("selective_scan_cuda"),
        "mamba_ssm": package,
        "mamba_ssm.ops.triton.layer_norm": layer_norm,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, module in fakes.items():
            patch.setitem(sys.modules, name, module)
        from mamba_ssm.ops.selective_scan_interface import selective_scan_ref

        u, delta, A, B, C, D, z, bias = operands(2, 4, 90, 3, None, 5)
        wanted = selective_scan_ref(u, delta, A, B, C, D, z, bias, True)
    torch.testing.assert_close(
        selective_scan(u, delta, A, B, C, D, z, bias, True, False), wanted, rtol=6e-4, atol=2e-3
    )
