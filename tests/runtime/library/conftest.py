"""A library of a small network, for all tests of its C functions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from distillc.codegen.build.library import build_library
from distillc.frontend.trace import export_program
from distillc.targets.base import get_target
from tests.c_api import Library
from tests.runtime.library.calls import SHAPE


@pytest.fixture(scope="package")
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 3, padding=1))
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="package")
def path(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("library") / "model.so"
    build_library(export_program(network, SHAPE), get_target("host"), found, name='my "net"')
    return found


@pytest.fixture
def library(path: Path) -> Iterator[Library]:
    made = Library(path, threads=2)
    yield made
    made.close()
