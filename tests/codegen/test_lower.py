"""lower: what cannot be imported is listed at once; what can becomes fused kernels."""

from __future__ import annotations

import inspect

import pytest
import torch
import tvm
from torch import nn
from tvm import relax, tirx

from distillc.codegen import lower as lower_module
from distillc.codegen.build.library import tvm_target
from distillc.codegen.lower import audit, lower
from distillc.codegen.schedule.apply_rules import SCHEDULED, schedule_module
from distillc.errors import LoweringError
from distillc.frontend.trace import export_program
from distillc.surrogates.specs import build_surrogate
from distillc.targets.base import get_target

HOST = get_target("host")
SHAPE = (1, 3, 8, 8)


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft2(x).tanh().abs()


class Histogram(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.histc(x, 4).sum()


class Unsupported(nn.Module):
    """Two operators in two modules, one of them used twice, that no importer knows."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 3, 1)
        self.spectrum = Spectrum()
        self.tail = nn.Sequential(Histogram(), Histogram())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.head(x)) + self.spectrum(x).sum()


def line_of(kind: type[nn.Module], text: str) -> int:
    lines, first = inspect.getsourcelines(kind)
    return first + next(number for number, line in enumerate(lines) if text in line)


def test_all_unsupported_operators_are_listed_with_module_and_line() -> None:
    with pytest.raises(LoweringError) as caught:
        lower(export_program(Unsupported(), SHAPE), HOST)
    text = str(caught.value)
    assert caught.value.exit_code == 6
    assert "tanh.default, used in spectrum " in text
    assert "histc.default, used in tail.0 " in text
    assert "tail.1 " in text
    assert f'test_lower.py", line {line_of(Spectrum, "tanh")})' in text
    assert f'test_lower.py", line {line_of(Histogram, "histc")})' in text
    assert text.count("histc.default") == 1
    assert "next:" in text


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (8, ""),
        (65, r"more than 64 steps cannot be compiled:\n    (lstm|gru).input, used in layer "),
    ],
)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_over_many_steps_are_refused(
    kind: type[nn.LSTM | nn.GRU], steps: int, message: str
) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(8, 8, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.layer(x.reshape(1, -1, 8))[0].reshape(x.shape)

    program = export_program(Recurrent(), (1, 1, steps, 8))
    if not message:
        audit(program)
        return
    with pytest.raises(LoweringError, match=message):
        audit(program)


def test_grids_of_cubic_interpolation_are_refused() -> None:
    class Sampled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            grid = x[:, :2].permute(0, 2, 3, 1)
            return nn.functional.grid_sample(x, grid, "bicubic", align_corners=False)

    with pytest.raises(LoweringError, match=r"grid_sampler_2d.default, used in the network"):
        audit(export_program(Sampled(), SHAPE))


def test_what_is_constant_may_be_unsupported() -> None:
    class Sorted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.arange(8).flip(0).sort().values

    audit(export_program(Sorted(), SHAPE))


def test_sizes_that_depend_on_the_image_are_listed_with_their_lines() -> None:
    class Bright(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x[x > 0].mean()

    module = nn.Sequential(nn.Conv2d(3, 3, 1), Bright())
    with pytest.raises(LoweringError, match="size on the values of the image") as caught:
        audit(export_program(module, SHAPE))
    assert f'index.Tensor, used in 1 (File "{__file__}", line ' in str(caught.value)


def test_supported_program_passes_the_audit(tiny_restormer: nn.Module) -> None:
    audit(export_program(tiny_restormer, (1, 3, 16, 16)))


def kernels(mod: tvm.IRModule) -> dict[str, tirx.PrimFunc]:
    return {n.name_hint: f for n, f in mod.functions_items() if isinstance(f, tirx.PrimFunc)}


def test_scan_arrives_scheduled_and_unfused() -> None:
    module = build_surrogate("scan2:state=2", 8)
    found = kernels(lower(export_program(module, (1, 8, 4, 8)), HOST))
    scans = [name for name in found if name.startswith("selective_scan")]
    assert len(scans) == 2  # one for each way
    for name in scans:
        assert found[name].attrs[SCHEDULED] == "selective_scan"
    others = [func for name, func in found.items() if name not in scans]
    assert all(func.attrs is None or SCHEDULED not in func.attrs for func in others)


def test_equal_scans_share_a_kernel() -> None:
    module = nn.Sequential(*(build_surrogate("scan1", 8, seed=seed) for seed in range(3)))
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


def test_sums_at_computed_places_are_refused() -> None:
    class Histogram(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten().index_put([x.flatten().long()], x.flatten(), accumulate=True)

    with pytest.raises(LoweringError, match="index_put"):
        audit(export_program(Histogram(), SHAPE))


def test_importer_failure_is_a_lowering_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("index_tensor: cannot broadcast index shapes")

    monkeypatch.setattr(lower_module, "from_exported_program", fail)
    with pytest.raises(LoweringError, match="cannot broadcast index shapes"):
        lower(export_program(nn.Conv2d(3, 3, 1), SHAPE), HOST)
