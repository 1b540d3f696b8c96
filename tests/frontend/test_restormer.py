from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distillc.frontend.restormer import LayerNorm, Restormer, infer_config

SMALL: dict[str, Any] = {
    "num_blocks": (1, 1, 1, 1),
    "num_refinement_blocks": 1,
    "heads": (1, 2, 2, 4),
}


def build_original(**options: Any) -> nn.Module:
    """Build the public code's network, or skip where the test extra is not installed."""
    pytest.importorskip("spandrel_extra_arches", reason="needs the test extra")
    original = importlib.import_module(
        "spandrel_extra_arches.architectures.Restormer.__arch.restormer_arch"
    )
    names = {"layer_norm": "LayerNorm_type", "dual_pixel": "dual_pixel_task"}
    return original.Restormer(
        **{names.get(key, key): value for key, value in options.items()}
    ).eval()


@pytest.mark.parametrize(
    "config",
    [
        {"dim": 8},
        {"dim": 8, "inp_channels": 1, "out_channels": 1},
        {"dim": 8, "bias": True},
        {"dim": 8, "layer_norm": "BiasFree"},
        {"dim": 8, "inp_channels": 6, "dual_pixel": True},
        {"dim": 12, "ffn_expansion_factor": 2.0},
        {"dim": 8, "inp_channels": 1, "out_channels": 1, "bias": True, "layer_norm": "BiasFree"},
    ],
    ids=str,
)
def test_it_equals_the_original_on_the_same_weights(config: dict[str, Any]) -> None:
    options = {**SMALL, **config}
    original = build_original(**options)
    with torch.no_grad():  # norms and temperatures start as ones: make them matter
        for parameter in original.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    ours = Restormer(**options).eval()
    ours.load_state_dict(original.state_dict())
    image = torch.rand(2, options.get("inp_channels", 3), 24, 40)
    with torch.no_grad():
        assert (ours(image) - original(image)).abs().max() <= 1e-5


@settings(max_examples=15, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "inp_channels": st.sampled_from([1, 3]),
            "dim": st.sampled_from([4, 6, 8]),
            "num_blocks": st.tuples(*[st.integers(1, 2)] * 4),
            "num_refinement_blocks": st.integers(1, 2),
            "heads": st.sampled_from([(1, 1, 1, 1), (1, 2, 2, 4)]),
            "ffn_expansion_factor": st.sampled_from([1.5, 2.0, 2.66]),
            "bias": st.booleans(),
            "layer_norm": st.sampled_from(["WithBias", "BiasFree"]),
            "dual_pixel": st.booleans(),
        }
    )
)
def test_the_configuration_is_read_off_the_shapes(config: dict[str, Any]) -> None:
    state = Restormer(**config, out_channels=3).state_dict()
    inferred = infer_config(state)
    rebuilt = Restormer(**inferred).state_dict()
    assert {k: v.shape for k, v in rebuilt.items()} == {k: v.shape for k, v in state.items()}
    for key in ("heads", "num_blocks", "bias", "layer_norm", "dual_pixel"):
        assert inferred[key] == config[key]


def test_the_published_expansion_comes_back() -> None:
    with torch.device("meta"):
        state = Restormer().state_dict()
    assert infer_config(state)["ffn_expansion_factor"] == 2.66


@pytest.mark.parametrize("options", [{}, {"inp_channels": 6, "dual_pixel": True}], ids=str)
def test_full_size_has_the_originals_names_and_shapes(options: dict[str, Any]) -> None:
    with torch.device("meta"):
        original, ours = build_original(**options), Restormer(**options)
    shapes = [
        {key: value.shape for key, value in each.state_dict().items()} for each in (original, ours)
    ]
    assert shapes[0] == shapes[1]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([4, 16, 36, 48]), st.floats(1.0, 4.0))
def test_any_expansion_gives_the_same_shapes_back(dim: int, expansion: float) -> None:
    with torch.device("meta"):
        state = Restormer(dim=dim, ffn_expansion_factor=expansion, **SMALL).state_dict()
        rebuilt = Restormer(**infer_config(state)).state_dict()
    assert {k: v.shape for k, v in rebuilt.items()} == {k: v.shape for k, v in state.items()}


@pytest.mark.parametrize(
    "missing",
    [
        "patch_embed.proj.weight",
        "latent.0.ffn.project_in.weight",
        "encoder_level2.0.attn.temperature",
        "output.weight",
    ],
)
def test_what_every_restormer_has_must_be_there(missing: str) -> None:
    with torch.device("meta"):
        state = Restormer(dim=8, **SMALL).state_dict()
    del state[missing]
    with pytest.raises(KeyError, match=missing):
        infer_config(state)


@pytest.mark.parametrize("size", [(8, 8), (8, 24), (40, 16)])
def test_every_multiple_of_8_goes_through(tiny_restormer: nn.Module, size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert tiny_restormer(torch.zeros(1, 3, *size)).shape == (1, 3, *size)


def test_images_of_a_batch_stay_apart(tiny_restormer: nn.Module) -> None:
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        together = tiny_restormer(images)
        alone = torch.cat([tiny_restormer(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("with_bias", [True, False])
def test_a_norm_trains_what_it_runs(with_bias: bool) -> None:
    torch.manual_seed(0)
    norm = LayerNorm(6, with_bias)
    for weight in norm.parameters():
        nn.init.normal_(weight)
    x = torch.randn(2, 6, 5, 4, requires_grad=True)
    gradients = []
    for module in (norm.train(), norm.eval()):
        y = module(x)
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        gradients.append((y, gradient))
    torch.testing.assert_close(*gradients)
