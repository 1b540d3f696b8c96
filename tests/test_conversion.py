"""distillc.convert at a size that the network does not take: the compiled code pads and cuts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import distillc
from distillc import conversion
from distillc.budgets import get_budget
from distillc.network import Network
from tests.benchmarks.kinds.interfaces import WindowsOfSeven

SIZE = (24, 33)


def test_windows_of_seven_are_padded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def deliver(net: Network, *args: Any, entries: dict[str, Any], **more: Any) -> None:
        given.update(entries, net=net)

    # What `compile` makes of such a size is tested with it.
    monkeypatch.setattr(conversion, "deliver", deliver)
    monkeypatch.setattr(conversion, "hybrid_latency", lambda *args: {})
    torch.save(WindowsOfSeven().state_dict(), tmp_path / "net.pth")
    budget = replace(
        get_budget("smoke"), families=("conv",), distill_steps=1, trials=1, test_images=1
    )
    distillc.convert(
        tmp_path / "net.pth",
        "host",
        SIZE,
        budget=budget,
        arch="tests.benchmarks.kinds.interfaces:WindowsOfSeven",
        work_dir=tmp_path / "work",
    )
    assert (given["net"].multiple, given["net"].size) == (7, (28, 35))
    assert given["size"] == list(SIZE)
    assert len(given["decisions"]) == 2
    assert (given["budget"]["patch"], given["budget"]["search_crop"]) == (49, 98)
