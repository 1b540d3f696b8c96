"""kernel_kind: what kernels do with their pixels, and what may be computed inside them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distillc.codegen.rewrites.kernel_kinds import Kind
from tests.codegen.rewrites.graphs import kinds
from tests.codegen.schedule.rules.kernels import random

IMAGE = random(1, 7, 12, 20)
WEIGHT, DENSE = random(7, 1, 3, 3), random(7, 7, 3, 3)


def norm(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: x[:, 2:5], Kind.COPY),
        (lambda x: x.reshape(1, 7, 240), Kind.COPY),
        (lambda x: x.reshape(1, 7, 240).transpose(1, 2).contiguous(), Kind.TRANSPOSE),
        (lambda x: F.gelu(x), Kind.POINTWISE),
        (norm, Kind.POINTWISE),
        (lambda x: torch.cat([x, x * 2], 1), Kind.POINTWISE),
        (lambda x: F.conv2d(x, WEIGHT, padding=1, groups=7), Kind.DEPTHWISE),
        (lambda x: F.conv2d(x, WEIGHT, padding=1, stride=2, groups=7), Kind.DEPTHWISE),
        (lambda x: F.conv2d(x, DENSE, padding=1), Kind.OTHER),
        (nn.Conv2d(7, 5, 1), Kind.PRODUCT),
        (lambda x: x.mean((2, 3), keepdim=True), Kind.OTHER),
        (lambda x: x.sum(), Kind.OTHER),
        (lambda x: F.interpolate(x, scale_factor=2), Kind.OTHER),
        (lambda x: x[:, torch.tensor([2, 0, 1])], Kind.OTHER),
    ],
)
def test_kind(function, kind) -> None:
    assert kinds(function, IMAGE)[-1].kind is kind


def test_gram() -> None:
    assert kinds(torch.matmul, random(1, 8, 240), random(1, 240, 8))[-1].kind is Kind.GRAM


def test_pixels_of_the_output() -> None:
    assert kinds(norm, IMAGE)[0].pixels == 240
    strided = kinds(lambda x: F.conv2d(x, WEIGHT, padding=1, stride=2, groups=7), IMAGE)[0]
    assert strided.pixels == 60


def test_what_may_be_computed_inside() -> None:
    concat = kinds(lambda x: torch.cat([x, x * 2], 1), IMAGE)[-1]
    assert concat.apart == {0, 1}
    residual = nn.Conv2d(7, 7, 1, bias=False)
    (product,) = kinds(lambda x, y: residual(x) + y, IMAGE, IMAGE)
    assert len(product.factors) == 2  # image and weight
    assert len(product.apart) == 3  # all but the image: weight, residual and output


def test_copies_that_keep_axes_whole() -> None:
    assert kinds(lambda x: x.reshape(1, 7, 240), IMAGE)[0].plain
    assert not kinds(lambda x: x[:, 2:5], IMAGE)[0].plain


@pytest.mark.parametrize(
    ("function", "simple"),
    [
        (lambda x: F.gelu(x), True),
        (lambda x: x.softmax(-1), True),
        (lambda x: x.transpose(1, 2).contiguous(), True),
        (lambda x: F.conv2d(x, DENSE, padding=1), False),
        (lambda x: torch.cat([x, x * 2], 1), False),
        (lambda x: x[:, torch.tensor([2, 0, 1])] * 2, False),
        (lambda x: x.to(torch.int32) + 1, False),
    ],
)
def test_simple(function, simple) -> None:
    assert all(each.simple for each in kinds(function, IMAGE)) is simple


def test_matrix_products_are_no_sums_of_rows() -> None:
    assert [each.product for each in kinds(nn.Conv2d(7, 5, 1), IMAGE)] == [True]
    (rows,) = kinds(lambda x: x.sum(-1), IMAGE)
    assert (rows.rows, rows.product) == (True, False)
    assert not kinds(torch.matmul, random(1, 8, 240), random(1, 240, 8))[-1].rows
