"""What cannot be compiled is listed at once, with modules and lines."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import nn

from distillc.codegen.operators.audit import audit
from distillc.errors import LoweringError
from distillc.frontend.trace import export_program
from tests.codegen.operators.programs import check_compiled, operators
from tests.codegen.schedule.rules.kernels import Function

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
        audit(export_program(Unsupported(), SHAPE))
    text = str(caught.value)
    assert caught.value.exit_code == 6
    assert "tanh.default, used in spectrum " in text
    assert "histc.default, used in tail.0 " in text
    assert "tail.1 " in text
    assert f'test_audit.py", line {line_of(Spectrum, "tanh")})' in text
    assert f'test_audit.py", line {line_of(Histogram, "histc")})' in text
    assert text.count("histc.default") == 1
    assert "next:  count by comparing" in text


def test_matrices_that_cannot_be_inverted_here_say_what_would_do() -> None:
    class Inverse(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.inv(x[..., :3, :3])

    with pytest.raises(LoweringError, match="linalg_inv_ex") as caught:
        audit(export_program(Inverse(), SHAPE))
    assert "compute it in `__init__`; else write out the closed form" in str(caught.value)


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


def test_grids_of_cubic_interpolation_are_read_by_lookups() -> None:
    class Sampled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            grid = x[:, :2].permute(0, 2, 3, 1)
            return nn.functional.grid_sample(x, grid, "bicubic", align_corners=False)

    found = operators(audit(export_program(Sampled(), SHAPE)))
    assert found["index_select"] == 16
    assert "grid_sampler_2d" not in found


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


def test_places_that_the_importer_says_wrongly_are_found_otherwise() -> None:
    class Unpooled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.max_unpool2d(
                *nn.functional.max_pool2d(x, 2, return_indices=True), 2
            )

    assert "max_pool2d_with_indices" not in operators(audit(export_program(Unpooled(), SHAPE)))
    plain = audit(export_program(nn.MaxPool2d(2), SHAPE))
    assert "max_pool2d_with_indices" in operators(plain)  # the importer's own is right, and faster


def test_bfloat16_is_said(caplog: pytest.LogCaptureFixture) -> None:
    check_compiled(lambda x: (x.bfloat16() * 2).float(), torch.arange(4.0))
    assert "compiled code computes in float32 there" in caplog.text


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: (x.double() * 2).sum(1).float(), False),
        (lambda x: nn.functional.interpolate(x.double(), scale_factor=2, mode="bilinear"), True),
    ],
)
def test_doubles_are_said_where_they_are_computed_in_float32(
    function: Callable[[torch.Tensor], torch.Tensor], said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    audit(export_program(Function(function), SHAPE))
    assert ("convolves and resizes in float32" in caplog.text) == said


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + torch.rand(8),
        lambda x: x + torch.randn_like(x),
        lambda x: nn.functional.gumbel_softmax(x, dim=1),
        lambda x: nn.functional.dropout(x, 0.5),
    ],
    ids=["rand", "randn_like", "gumbel_softmax", "dropout"],
)
def test_random_numbers_are_refused(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(LoweringError, match="draw random numbers") as caught:
        audit(export_program(Function(function), SHAPE))
    assert ", line " in str(caught.value)
    assert "needs `training=self.training`" in str(caught.value)


def test_layers_that_are_random_in_training_alone_pass() -> None:
    layers = nn.Sequential(nn.Dropout(0.5), nn.RReLU(), nn.Dropout2d(0.5)).eval()
    audit(export_program(layers, SHAPE))


def test_attention_of_torch_draws_nothing() -> None:
    audit(
        export_program(
            Function(lambda x: nn.functional.scaled_dot_product_attention(x, x, x)), SHAPE
        )
    )
