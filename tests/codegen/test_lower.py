"""lower: a program becomes fused kernels."""

from __future__ import annotations

import pytest
import torch
import tvm
from torch import nn
from tvm import relax, tirx

from distillc.codegen import stages
from distillc.codegen.build.library import tvm_target
from distillc.codegen.kernels.builder import SCHEDULED
from distillc.codegen.schedule.apply_rules import schedule_module
from distillc.codegen.stages import lower
from distillc.errors import LoweringError
from distillc.frontend.trace import export_program
from distillc.targets.base import get_target
from tests.codegen.selective import SelectiveScan

HOST = get_target("host")
SHAPE = (1, 3, 8, 8)


def kernels(mod: tvm.IRModule) -> dict[str, tirx.PrimFunc]:
    return {n.name_hint: f for n, f in mod.functions_items() if isinstance(f, tirx.PrimFunc)}


def test_scan_arrives_scheduled_and_unfused() -> None:
    found = kernels(lower(export_program(SelectiveScan(8, 2, 2), (1, 8, 4, 8)), HOST))
    scans = [name for name in found if name.startswith("selective_scan")]
    assert len(scans) == 2  # one for each way
    for name in scans:
        assert found[name].attrs[SCHEDULED] == "selective_scan"
    others = [func for name, func in found.items() if name not in scans]
    assert all(func.attrs is None or SCHEDULED not in func.attrs for func in others)


def test_equal_scans_share_a_kernel() -> None:
    module = nn.Sequential(*(SelectiveScan(8) for _ in range(3)))
    found = kernels(lower(export_program(module, (1, 8, 4, 8)), HOST))
    assert sum(name.startswith("selective_scan") for name in found) == 1


def test_elementwise_operators_join_their_producer() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Hardswish())
    assert len(kernels(lower(export_program(module, SHAPE), HOST))) == 1


def test_sorted_tokens_go_there_and_back() -> None:
    class Grouped(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = x.flatten(2)
            values, order = tokens.sum(1).sort()
            back = torch.zeros_like(order)
            back[0, order[0]] = torch.arange(order.shape[1])
            grouped = tokens.gather(2, order[:, None].expand_as(tokens)).cumsum(2) + values
            return grouped.gather(2, back[:, None].expand_as(tokens)).view_as(x)

    x = torch.randn(1, 3, 8, 8)
    program = export_program(Grouped(), SHAPE)
    mod = schedule_module(lower(program, HOST), HOST)
    assert {"argsort", "scatter"} <= set(kernels(mod))
    vm = relax.VirtualMachine(tvm.compile(mod, tvm_target(HOST)), tvm.cpu())
    y = vm["main"](tvm.runtime.tensor(x.numpy())).numpy()
    torch.testing.assert_close(torch.from_numpy(y), Grouped()(x), rtol=1e-4, atol=1e-4)


def test_importer_failure_is_a_lowering_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("index_tensor: cannot broadcast index shapes")

    monkeypatch.setattr(stages, "to_relax", fail)
    with pytest.raises(LoweringError, match="cannot broadcast index shapes"):
        lower(export_program(nn.Conv2d(3, 3, 1), SHAPE), HOST)
