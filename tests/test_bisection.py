"""The bisector names the module whose compiled code is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import tvm
from torch import nn
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from distillc.bisection import bisect
from distillc.codegen import stages
from distillc.codegen.dumps import Dumps
from distillc.codegen.rewrites.walk import is_call, rewrite_functions
from distillc.errors import StorageError
from distillc.network import Network
from distillc.targets.base import Target


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project, self.gate = nn.Conv2d(4, 4, 1), nn.Sigmoid()

    def forward(self, x: torch.Tensor, scale: float) -> torch.Tensor:
        return x + scale * self.gate(self.project(x))


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList([nn.ReLU(), Block()])
        self.tail = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.blocks[0](self.head(image))
        return image + self.tail(self.blocks[1](x, 0.5))


@mutator
class _Mistake(PyExprMutator):
    """Compiles a sigmoid as a hyperbolic tangent."""

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        return relax.op.tanh(call.args[0]) if is_call(call, "relax.sigmoid") else call


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(Toy().eval(), (8, 8))


def test_a_network_that_agrees_has_no_culprit(network: Network, tmp_path: Path) -> None:
    assert bisect(network, tmp_path / "out") is None
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["module.pt2", "input.safetensors", "reproduce.py"])
def test_a_script_that_somebody_may_have_changed_stays(
    network: Network, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("weeks of work")
    with pytest.raises(StorageError, match=f"holds {name} already"):
        bisect(network, tmp_path)
    assert (tmp_path / name).read_text() == "weeks of work"


def test_the_innermost_module_is_found_and_reproduced(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuse = stages.fuse

    def fuse_wrongly(
        mod: tvm.IRModule, target: Target, precision: str, dumps: Dumps
    ) -> tvm.IRModule:
        return fuse(rewrite_functions(mod, _Mistake(mod)), target, precision, dumps)

    monkeypatch.setattr(stages, "fuse", fuse_wrongly)
    culprit = bisect(network, tmp_path / "out", dump_dir=tmp_path / "dumps")
    assert culprit
    assert (tmp_path / "dumps" / "network" / "plan.txt").exists()
    assert "sigmoid" in (tmp_path / "dumps" / culprit.path / "11_import.py").read_text()
    assert (culprit.path, culprit.kind) == ("blocks.1.gate", "Sigmoid")
    assert culprit.shape == (1, 4, 8, 8)
    assert culprit.error > 1e-2
    assert culprit.whole_error > 1e-4
    done = subprocess.run(
        [sys.executable, tmp_path / "out" / "reproduce.py"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr  # in a process without the mistake
    assert float(done.stdout.split()[-1]) < 1e-6
    assert "aten.sigmoid" in done.stdout
