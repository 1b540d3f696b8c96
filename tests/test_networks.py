"""A sample of docs/measurements/networks.md: every stage of some networks, as small as they get."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks.stages import Stages
from tests.benchmarks.zoo import build

ARCHITECTURES = "spandrel.architectures"
NETWORKS: dict[str, dict[str, Any]] = {
    "1 frequency TransformerBlock": {
        "cls": f"{ARCHITECTURES}.FFTformer.__arch.fftformer_arch:FFTformer",
        "kwargs": {"dim": 8, "num_blocks": [0, 0, 1], "num_refinement_blocks": 0},
        "input_size": 32,
    },
    "1 global TransformerEncoderLayer, 1 global TransformerDecoderLayer": {
        "cls": f"{ARCHITECTURES}.IPT.__arch.ipt:IPT",
        "kwargs": {
            "patch_size": 32,
            "patch_dim": 8,
            "n_feats": 4,
            "num_heads": 4,
            "num_layers": 1,
            "scale": [1],
        },
        "input_size": 32,
    },
}


@pytest.mark.parametrize("found", NETWORKS)
def test_every_stage(found: str) -> None:
    model = {"id": "network", "kind": "", **NETWORKS[found]}
    row = Stages(lambda: build(model)).run(until="host")
    assert "error" not in row, row
    assert row["find"] == found
    assert "FAILS" not in row.values()
    assert all(float(error) < 1e-4 for error in row["host"].split(", "))
