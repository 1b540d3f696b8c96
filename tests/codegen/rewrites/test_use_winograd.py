"""UseWinograd: which convolutions it takes, what it takes with them, and equal numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from tvm import tirx

from distillc.codegen.kernels.builder import built_from
from distillc.codegen.rewrites.use_winograd import UseWinograd
from distillc.targets.base import get_target
from tests.codegen.rewrites.graphs import check_nothing, check_same, operators
from tests.codegen.schedule.rules.kernels import Function, lower, random

HOST = get_target("host")
IMAGE, SMALL, UNEVEN = random(1, 32, 32, 64), random(1, 32, 16, 16), random(1, 32, 32, 72)
SQUARE = nn.Conv2d(32, 32, 3, padding=1)
Images = Callable[[torch.Tensor], torch.Tensor]

TAKEN: dict[str, tuple[Images, tuple[int, int]]] = {
    "alone": (nn.Conv2d(32, 40, 3, padding=1, bias=False), (0, 0)),
    "bias": (SQUARE, (1, 0)),
    "bias, image": (lambda x: x + SQUARE(x), (1, 1)),
    "image, later bias": (lambda x: F.conv2d(x, SQUARE.weight, padding=1) + x + 1, (0, 1)),
    "activation": (lambda x: F.leaky_relu(SQUARE(x)), (1, 0)),
    "read twice": (lambda x: (lambda y: y * torch.sigmoid(y + x))(SQUARE(x)), (1, 0)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_taken(name: str) -> None:
    function, flags = TAKEN[name]
    mod = check_same(UseWinograd(HOST), function, IMAGE)
    assert not operators(mod)["nn.conv2d"]
    kernels = [each for each in mod.functions.values() if isinstance(each, tirx.PrimFunc)]
    (built,) = map(built_from, kernels)
    assert built is not None
    assert built[1][-2:] == flags


LEFT: dict[str, tuple[Images, torch.Tensor]] = {
    "few outputs": (nn.Conv2d(32, 12, 3, padding=1), IMAGE),
    "stride": (nn.Conv2d(32, 32, 3, 2, 1), IMAGE),
    "no padding": (nn.Conv2d(32, 32, 3), IMAGE),
    "dilation": (nn.Conv2d(32, 32, 3, padding=2, dilation=2), IMAGE),
    "groups": (nn.Conv2d(32, 32, 3, padding=1, groups=2), IMAGE),
    "window of one": (nn.Conv2d(32, 32, 1), IMAGE),
    "few pixels": (SQUARE, SMALL),
    "uneven": (SQUARE, UNEVEN),
    "weights that are computed": (
        lambda x: F.conv2d(x, x[0, :, :3, :3].expand(32, 32, 3, 3), padding=1),
        IMAGE,
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_left(name: str) -> None:
    function, image = LEFT[name]
    check_nothing(UseWinograd(HOST), function, image)


@pytest.mark.parametrize(("precision", "count"), [("fp32", 1), ("fp16", 0)])
def test_only_in_float32(precision: str, count: int) -> None:
    kernels = lower(Function(SQUARE), IMAGE, precision=precision).functions.values()
    built = [built_from(each) for each in kernels if isinstance(each, tirx.PrimFunc)]
    assert sum(each is not None for each in built) == count
