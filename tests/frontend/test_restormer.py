from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distillc.frontend.restormer import Restormer, infer_config

SMALL = {"num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1, "heads": (1, 2, 2, 4)}


@pytest.mark.parametrize(
    "config",
    [
        {"dim": 8},
        {"dim": 8, "inp_channels": 1, "out_channels": 1},
        {"dim": 8, "bias": True},
        {"dim": 8, "layer_norm": "BiasFree"},
        {"dim": 8, "inp_channels": 6, "dual_pixel": True},
        {"dim": 12, "ffn_expansion_factor": 2.0},
    ],
    ids=str,
)
def test_it_equals_the_original_on_the_same_weights(config: dict[str, Any]) -> None:
    pytest.importorskip("spandrel_extra_arches", reason="needs the test extra")
    original_module = importlib.import_module(
        "spandrel_extra_arches.architectures.Restormer.__arch.restormer_arch"
    )
    options = {**SMALL, **config}
    names = {"layer_norm": "LayerNorm_type", "dual_pixel": "dual_pixel_task"}
    original = original_module.Restormer(
        **{names.get(key, key): value for key, value in options.items()}
    ).eval()
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
