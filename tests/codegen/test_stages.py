"""The list of stages, what each leaves behind, and where code generation ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from distillc.codegen.build.library import build_library
from distillc.codegen.dumps import Dumps, Stopped
from distillc.codegen.stages import NAMES, REASONS, compile_kernels
from distillc.frontend.trace import export_program
from distillc.targets.base import get_target

HOST = get_target("host")
SHAPE = (1, 3, 16, 16)


def dumped(module: nn.Module, folder: Path, precision: str = "fp32") -> list[str]:
    """Build a module with dumps, and return the files that are not of one kernel."""
    program = export_program(module, SHAPE)
    build_library(program, HOST, folder / "x.so", precision=precision, dumps=Dumps(folder / "d"))
    return sorted(each.name for each in (folder / "d").iterdir() if each.is_file())


def test_the_stages_and_the_reasons_for_their_places(golden: Callable[[str, str], None]) -> None:
    golden("stages.txt", "".join(f"{name}: {why}\n" for name, why in REASONS.items()))


def test_every_stage_of_a_restormer_can_be_read(
    tiny_restormer: nn.Module, tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    golden("stage_files.txt", "\n".join([*dumped(tiny_restormer, tmp_path), ""]))
    folder = tmp_path / "d"
    assert "aten.convolution.default" in (folder / "10_prepare.txt").read_text()
    imported = (folder / "11_import.py").read_text()
    assert "R.split" in imported
    assert "R.split" not in (folder / "14_slice_splits.py").read_text()
    kernels = {each.name: each.read_text() for each in (folder / "kernels").iterdir()}
    plan = (folder / "plan.txt").read_text()
    assert plan.startswith("arena ")
    for name, text in kernels.items():
        copies = "# rule schedule_elementwise" in text  # and perhaps whole runs, which none calls
        assert f" {name.removesuffix('.py')}(" in plan or copies
        assert text.startswith("# workload ")
        assert "@T.prim_func" in text
    products = [text for text in kernels.values() if "# rule schedule_contraction" in text]
    assert products
    assert any("\n# run = 1, of " in text for text in products)


def test_half_precision_is_a_stage_of_its_own(tmp_path: Path) -> None:
    conv = nn.Conv2d(3, 8, 3, padding=1)
    half = "25_half_precision.py"
    assert half not in dumped(conv, tmp_path / "single")
    assert half in dumped(conv, tmp_path / "half", "fp16")
    assert "float16" in (tmp_path / "half" / "d" / half).read_text()


@pytest.mark.parametrize("stage", [NAMES[0], "fold_layouts", NAMES[-1]])
def test_it_stops_and_prints_where_it_is_told_to(stage: str, tmp_path: Path) -> None:
    printed: list[str] = []
    program = export_program(nn.Conv2d(3, 3, 1), SHAPE)
    dumps = Dumps(tmp_path, print_after=stage, stop_after=stage, emit=printed.append)
    with torch.no_grad(), pytest.raises(Stopped, match=stage):
        compile_kernels(program, HOST, {}, dumps=dumps)
    assert len(printed) == 1
    files = sorted(tmp_path.glob("*_*"))
    assert files[-1].stem.endswith(f"_{stage}")
    assert files[-1].read_text() == printed[0]
