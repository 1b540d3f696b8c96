from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distillc.errors import UsageError
from distillc.network import Scope
from distillc.surrogates.registry import FAMILIES, build_surrogate, canonical_spec, parse_spec

SCOPES: tuple[Scope, ...] = ("block", "attention")
TRAINED = sorted(FAMILIES.keys() - {"skip"})


@st.composite
def specs(draw: st.DrawFn) -> str:
    family = FAMILIES[draw(st.sampled_from(sorted(FAMILIES)))]
    keys = (
        draw(st.lists(st.sampled_from(sorted(family.defaults)), unique=True))
        if (family.defaults)
        else []
    )
    words = [f"{key}={draw(st.integers(1, family.limits[key]))}" for key in keys]
    return family.name + (":" + ",".join(words) if words else "")


@given(specs())
def test_the_canonical_spec_names_the_same_surrogate(spec: str) -> None:
    canonical = canonical_spec(spec)
    assert parse_spec(canonical) == parse_spec(spec)
    assert canonical_spec(canonical) == canonical


def test_defaults_and_order_do_not_matter() -> None:
    assert canonical_spec("scan2:state=1") == "scan2"
    assert canonical_spec("ssd:state=4,directions=2") == "ssd:directions=2,state=4"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("mamba", "conv, skip, scan1, scan2, ss2d, ssd"),
        ("scan1:width=2", "expansion"),
        ("conv:state=1", "it has: width"),
        ("scan1:state=5", "1 to 4"),
        ("scan1:state=0", "1 to 4"),
        ("scan1:state=x", "1 to 4"),
    ],
)
def test_a_wrong_spec_names_what_is_allowed(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_spec(spec)


@settings(max_examples=12, deadline=None)
@given(specs(), st.sampled_from([4, 6, 16]), st.sampled_from(SCOPES))
def test_a_new_surrogate_changes_nothing(spec: str, channels: int, scope: Scope) -> None:
    x = torch.rand(2, channels, 6, 5)
    with torch.no_grad():
        y = build_surrogate(spec, channels, scope)(x)
    assert torch.equal(y, x if scope == "block" else torch.zeros_like(x))


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
def test_every_family_learns_and_exports(name: str) -> None:
    module = build_surrogate(name, 4).train()
    x = torch.rand(2, 4, 6, 6)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(2):  # the first step moves only the zeroed output projection
        (module(x) - x.flip(1)).square().mean().backward()
        optimizer.step()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in module.parameters())
    program = torch.export.export(module.eval(), (x,))
    assert torch.allclose(program.module()(x), module(x), atol=1e-6)
    scans = [node for node in program.graph.nodes if "selective_scan" in str(node.target)]
    assert len(scans) == {"conv": 0, "scan1": 1, "scan2": 2, "ss2d": 4, "ssd": 1}[name]
