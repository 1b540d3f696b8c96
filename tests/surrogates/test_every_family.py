"""What every registered family promises, those of other packages too."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from distillc.frontend.cost import count_cost
from distillc.network import Scope
from distillc.surrogates.family import FAMILIES
from distillc.surrogates.specs import build_surrogate, canonical_spec, parse_spec

SCOPES: tuple[Scope, ...] = ("block", "attention")
TRAINED = [
    name for name in FAMILIES.names() if any(True for _ in build_surrogate(name, 4).parameters())
]


@st.composite
def specs(draw: st.DrawFn) -> str:
    family = FAMILIES.find(draw(st.sampled_from(FAMILIES.names())))
    keys = st.lists(st.sampled_from(sorted(family.defaults)), unique=True)
    chosen = draw(keys) if family.defaults else []
    words = [f"{key}={draw(st.integers(1, family.limits[key]))}" for key in chosen]
    return family.name + (":" + ",".join(words) if words else "")


def shaken(module: nn.Module) -> nn.Module:
    """Draw every parameter anew, since a new surrogate's zeroed output hides all the others."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in module.parameters():
            each.copy_(torch.randn(each.shape, generator=generator) * 0.5)
    return module.eval()


def image(channels: int, height: int = 5, width: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, channels, height, width, generator=generator)


@given(specs())
def test_the_canonical_spec_names_the_same_surrogate(spec: str) -> None:
    canonical = canonical_spec(spec)
    assert parse_spec(canonical) == parse_spec(spec)
    assert canonical_spec(canonical) == canonical


@pytest.mark.parametrize("name", FAMILIES.names())
def test_it_says_what_it_is_and_its_defaults_are_allowed(name: str) -> None:
    family = FAMILIES.find(name)
    assert family.does
    assert all(1 <= value <= family.limits[key] for key, value in family.defaults.items())


@settings(max_examples=12, deadline=None)
@given(specs(), st.sampled_from([4, 6, 16]), st.sampled_from(SCOPES))
def test_a_new_surrogate_changes_nothing(spec: str, channels: int, scope: Scope) -> None:
    x = torch.rand(2, channels, 6, 5)
    with torch.no_grad():
        y = build_surrogate(spec, channels, scope)(x)
    assert torch.equal(y, x if scope == "block" else torch.zeros_like(x))


@pytest.mark.parametrize("name", FAMILIES.names())
@settings(max_examples=5, deadline=None)
@given(st.integers(1, 3), st.sampled_from([1, 3, 8]), st.integers(1, 9), st.integers(1, 9))
def test_every_size_keeps_its_shape_and_images_stay_apart(
    name: str, batch: int, channels: int, height: int, width: int
) -> None:
    module = shaken(build_surrogate(name, channels))
    x = torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = module(x)
        assert y.shape == x.shape
        torch.testing.assert_close(y[-1:], module(x[-1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES.names())
def test_its_cost_is_counted(name: str) -> None:
    module = build_surrogate(name, 8)
    small, large = (count_cost(module, (1, 8, edge, edge)) for edge in (8, 16))
    assert small.params == large.params == sum(each.numel() for each in module.parameters())
    assert small.macs <= large.macs <= 16 * small.macs  # attention to all pixels would be 16


@pytest.mark.parametrize("name", FAMILIES.names())
def test_autocast_keeps_the_state_in_float32(name: str) -> None:
    module, x = shaken(build_surrogate(name, 8)), image(8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    with torch.no_grad():
        wanted = module(x)
    assert y.dtype is torch.float32
    assert (y - wanted).abs().max() < 0.05 * wanted.abs().max()


@pytest.mark.parametrize("name", TRAINED)
def test_seeds_decide_the_weights(name: str) -> None:
    before = torch.random.get_rng_state()
    first, second, other = (build_surrogate(name, 8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    pairs = list(zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert all(torch.equal(*pair) for pair in pairs)
    pairs = list(zip(first.state_dict().values(), other.state_dict().values(), strict=True))
    assert not all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("name", TRAINED)
def test_it_learns_and_exports(name: str) -> None:
    module = build_surrogate(name, 4).train()
    x = torch.rand(2, 4, 6, 6)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(3):  # the first steps move only the zeroed projections, output and then C
        (module(x) - x.flip(1)).square().mean().backward()
        optimizer.step()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in module.parameters())
    program = torch.export.export(module.eval(), (x,))
    assert torch.allclose(program.module()(x), module(x), atol=1e-6)
