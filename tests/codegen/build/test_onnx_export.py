"""export_onnx: ONNX Runtime computes what torch does, and the scan is never unrolled."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distillc.codegen.build import onnx_export, onnx_linear_attention
from distillc.codegen.build.onnx_export import export_onnx
from distillc.codegen.build.onnx_scans import SCANS
from distillc.codegen.build.onnx_selective_scan import chunk_length
from distillc.errors import LoweringError, UsageError
from distillc.frontend.trace import export_program
from distillc.surrogates.axial_scan import axial_scan
from distillc.surrogates.selective_scan import selective_scan
from tests.codegen.build.test_library import Hybrid, awake
from tests.codegen.selective import SelectiveScan


def check(
    module: nn.Module, shape: tuple[int, ...], path: Path, scans: str = "standard"
) -> onnx.ModelProto:
    """Export, then compare on other numbers than the export did."""
    export_onnx(export_program(module, shape), path, scans)
    model = onnx.load(path)
    others = {node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    assert others <= (set() if scans == "standard" else {"LinearAttention"})
    assert len(model.functions) == 0
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    (y,) = session.run(["restored"], {"image": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(y, module(x).numpy(), rtol=1e-4, atol=1e-4)
    return model


def nodes(graph: onnx.GraphProto) -> int:
    """Count the nodes of a graph and of the bodies inside it."""
    inner = sum(nodes(a.g) for node in graph.node for a in node.attribute if a.HasField("g"))
    return len(graph.node) + inner


@pytest.mark.parametrize("scans", SCANS)
@pytest.mark.parametrize("spec", ["conv", "ssd", "mamba", "mamba:state=4,values=50"])
def test_every_family(spec: str, scans: str, tmp_path: Path) -> None:
    check(awake(spec, 6), (1, 6, 6, 10), tmp_path / "model.onnx", scans)


@pytest.mark.parametrize("scans", SCANS)
@pytest.mark.parametrize("options", [(1, 1, False), (4, 2, False), (3, 1, True)])
def test_selective_scans(options: tuple[int, int, bool], scans: str, tmp_path: Path) -> None:
    scanning = SelectiveScan(6, *options).eval()
    check(scanning, (1, 6, 6, 10), tmp_path / "model.onnx", scans)


@pytest.mark.parametrize("channels", [4, 8, 20])
def test_a_scan_is_one_node_a_direction(channels: int, tmp_path: Path) -> None:
    model = check(
        awake("mamba:state=2", channels), (1, channels, 6, 10), tmp_path / "model.onnx", "fused"
    )
    assert sum(node.op_type == "LinearAttention" for node in model.graph.node) == 4
    assert not any(node.op_type == "Scan" for node in model.graph.node)


def test_a_runtime_without_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onnx_linear_attention, "_TRIAL", _of_another_name())
    onnx_linear_attention.runs_here.cache_clear()
    try:
        export_onnx(
            export_program(awake("mamba", 4), (1, 4, 6, 10)), tmp_path / "model.onnx", "fused"
        )
    finally:
        onnx_linear_attention.runs_here.cache_clear()
    assert "scans leave as loops" in caplog.text
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    assert {node.domain for node in nodes} == {""}


def _of_another_name() -> str:
    """Return a trial that no ONNX Runtime knows."""
    return onnx_linear_attention._TRIAL.replace("LinearAttention", "LinearAttention0")


def test_an_unknown_form(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fused, standard"):
        export_onnx(export_program(awake("conv", 4), (1, 4, 6, 10)), tmp_path / "m.onnx", "both")


def test_restormer(tiny_restormer: nn.Module, tmp_path: Path) -> None:
    check(tiny_restormer, (1, 3, 16, 24), tmp_path / "model.onnx")


def test_the_scan_is_not_unrolled(tmp_path: Path) -> None:
    counts, scans = set(), set()
    for edge in (4, 12, 24):
        model = check(Hybrid().eval(), (1, 3, edge, edge), tmp_path / "model.onnx")
        counts.add(nodes(model.graph))
        scans.add(sum(node.op_type == "Scan" for node in model.graph.node))
    assert len(counts) == 1
    assert scans == {4 + 3 * 2}  # one for each direction along the axes, three of the others


class Scan(nn.Module):
    """The operator alone, on u = x and weights that are slices of x."""

    def __init__(
        self, channels: int, states: int, groups: int, softplus: bool, reverse: bool, extras: bool
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rates = nn.Parameter(-torch.rand(channels, states) - 0.1)
        self.skip = nn.Parameter(torch.randn(channels)) if extras else None
        self.bias = nn.Parameter(torch.rand(channels)) if extras else None
        self.extras = extras
        self.weights = nn.Conv1d(channels, groups * states, 1)
        self.groups = (groups, states) if groups > 1 else (states,)
        self.flags = softplus, reverse

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u = x.flatten(2)
        weights = self.weights(u).reshape(x.shape[0], *self.groups, u.shape[2])
        gate = u + 0.5 if self.extras else None
        y = selective_scan(
            u, u.abs(), self.rates, weights, weights + 1, self.skip, gate, self.bias, *self.flags
        )
        return y.reshape(x.shape)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 2),
    share=st.integers(1, 5),
    groups=st.integers(1, 3),
    states=st.integers(1, 4),
    length=st.sampled_from([(1, 1), (1, 7), (4, 6), (6, 10)]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_any_scan(
    tmp_path_factory: pytest.TempPathFactory,
    batch: int,
    share: int,
    groups: int,
    states: int,
    length: tuple[int, int],
    flags: tuple[bool, bool, bool],
) -> None:
    module = Scan(share * groups, states, groups, *flags).eval()
    path = tmp_path_factory.mktemp("scan") / "model.onnx"
    check(module, (batch, share * groups, *length), path)


class AxialScan(nn.Module):
    def __init__(self, directions: str, groups: int, states: int) -> None:
        super().__init__()
        self.directions, self.weights = directions, (groups, states)
        self.rates = nn.Parameter(-torch.rand(4))
        self.skip = nn.Parameter(torch.rand(8))
        self.bias = nn.Parameter(torch.rand(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        many = prod(self.weights)
        u, delta, into, out = x.split([8, 4, many, many], 1)
        into, out = (each.unflatten(1, self.weights) for each in (into, out))
        return axial_scan(u, delta, self.rates, into, out, self.skip, self.bias, self.directions)


@pytest.mark.parametrize(
    ("directions", "groups", "states"),
    [("down", 1, 1), ("right,left", 2, 3), ("down,right,up,left", 4, 2)],
)
def test_axial_scans(directions: str, groups: int, states: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = AxialScan(directions, groups, states).eval()
    check(module, (2, 12 + 2 * groups * states, 5, 7), tmp_path / "model.onnx")


@given(st.integers(1, 1 << 18))
@settings(deadline=None)
def test_chunks_divide_the_length(length: int) -> None:
    assert length % chunk_length(length) == 0


def test_chunks_keep_the_iterations_few() -> None:
    for edge in (64, 128, 256):
        length = edge * edge
        steps = chunk_length(length)
        assert 2 * steps + length // steps <= 3.1 * edge


def test_a_wrong_file_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(LoweringError, match="differs from torch"):
        export_onnx(export_program(nn.Conv2d(3, 3, 1), (1, 3, 4, 4)), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_given_example_is_what_counts(tmp_path: Path) -> None:
    x = torch.ones(1, 3, 4, 4)
    program = export_program(nn.Conv2d(3, 3, 1), (1, 3, 4, 4))
    with pytest.raises(LoweringError, match="differs from torch"):
        export_onnx(program, tmp_path / "model.onnx", example=(x, x + 9))


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.histc(x, 4).sum()


def test_operator_without_onnx_form(tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match="cannot be exported to ONNX") as caught:
        export_onnx(export_program(Spectrum(), (1, 3, 4, 4)), tmp_path / "model.onnx")
    assert "histc" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_small_numbers_stay(tmp_path: Path) -> None:
    class Ratio(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.clamp(min=0)
            return x / (x + 1e-15)

    check(Ratio(), (1, 3, 6, 10), tmp_path / "model.onnx")


def test_resizing_by_a_fraction(tmp_path: Path) -> None:
    class Resized(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.interpolate(
                x, scale_factor=1.5, mode="bilinear", align_corners=True
            )

    check(Resized(), (1, 3, 6, 10), tmp_path / "model.onnx")
