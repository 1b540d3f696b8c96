"""Bundles that are compiled once; tests that change one work on a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from distillc.compilation import compile as compile_bundle
from distillc.network import KEEP, Network
from distillc.runtime.bundle import Bundle
from distillc.runtime.devices.local import missing_parts
from distillc.runtime.verify import Pair, verify_bundle
from distillc.surrogates.specs import build_surrogate
from tests.passes.toy import toy_network


def toy_hybrid(seed: int = 0) -> Network:
    """A toy network whose second block a scan stands in for."""
    net = toy_network()
    (first, *_) = net.candidates["blocks.1"]
    scan = build_surrogate("mamba:state=2", 6)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        scan.project_out.weight.copy_(torch.randn(6, 6, 1, 1, generator=generator))
    surrogate = type(first)("blocks.1", "mamba:state=2", "block", scan, first.cost)
    return net.with_(
        candidates={**net.candidates, "blocks.1": (surrogate,)},
        decisions={"blocks.0": KEEP, "blocks.1": surrogate.label},
        name="toy",
    )


def pairs(count: int = 2) -> list[Pair]:
    """Noisy and clean images of the toy's size."""
    generator = torch.Generator().manual_seed(5)
    clean = torch.rand(count, 1, 3, 16, 16, generator=generator)
    noise = 0.05 * torch.randn(clean.shape, generator=generator)
    return list(zip(clean + noise, clean, strict=True))


@pytest.fixture(scope="session")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A verified bundle for this machine. Not to be changed."""
    folder = tmp_path_factory.mktemp("verified")
    bundle = compile_bundle(toy_hybrid(), "host", (16, 16), directory=folder)
    verify_bundle(bundle, pairs())
    return bundle


@pytest.fixture
def bundle(verified: Bundle, tmp_path: Path) -> Bundle:
    """A copy of the verified bundle."""
    return Bundle.open(shutil.copytree(verified.path, tmp_path / "copy"))


@pytest.fixture(scope="session")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same network for the Snapdragon, not verified."""
    if missing := missing_parts():
        pytest.skip(f"the emulator is not complete: {', '.join(missing)} missing")
    folder = tmp_path_factory.mktemp("arm")
    return compile_bundle(toy_hybrid(), "snapdragon8elite", (16, 16), directory=folder)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same architecture with other weights. Not to be changed."""
    folder = tmp_path_factory.mktemp("other")
    return compile_bundle(toy_hybrid(seed=1), "host", (16, 16), directory=folder)
