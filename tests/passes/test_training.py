from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from distillc.errors import UsageError
from distillc.passes import training
from distillc.passes.training import (
    Average,
    RunState,
    check_patch,
    clip_gradient,
    cosine_rate,
)
from distillc.stages import Stage

from .toy import toy_network


@given(st.floats(0, 1))
def test_rate_stays_within_its_peak(progress: float) -> None:
    assert 0 <= cosine_rate(progress, 0.1) <= 0.1


def test_rate_warms_up_and_falls() -> None:
    rates = [cosine_rate(step / 100, 1.0) for step in range(101)]
    assert rates[0] < 0.1 < rates[3]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == 0


def test_average_starts_near_and_follows() -> None:
    module = nn.Linear(2, 2)
    average = Average(module)
    nn.init.constant_(module.weight, 5.0)
    for step in range(200):
        average.update(module, step)
    assert torch.allclose(average.module.weight, module.weight, atol=0.05)
    assert average.module.weight is not module.weight
    assert not average.module.weight.requires_grad


def test_a_gradient_is_clipped_and_a_broken_one_dropped() -> None:
    module = nn.Linear(1, 1, bias=False)
    module.weight.grad = torch.tensor([[8.0]])
    clip_gradient(module, 2.0)
    assert module.weight.grad.item() == pytest.approx(2)
    module.weight.grad = torch.tensor([[float("nan")]])
    clip_gradient(module, 2.0)
    assert module.weight.grad is None


def test_state_is_saved_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(2, 2)
    parts = {"layer": layer}
    state = RunState(Stage(tmp_path))
    state.save(parts, step=1)
    assert state.load(parts) == 0
    monkeypatch.setattr(training, "SAVE_SECONDS", 0)
    state.save(parts, step=2)
    wanted = layer.weight.detach().clone()
    nn.init.zeros_(layer.weight)
    assert state.load(parts) == 2
    assert torch.equal(layer.weight, wanted)
    state.clear()
    assert state.load(parts) == 0
    nothing = RunState(Stage(None))
    nothing.save(parts, step=3)
    assert nothing.load(parts) == 0


def test_patch_must_fit() -> None:
    net = toy_network().with_(multiple=8)
    check_patch(net, 64)
    with pytest.raises(UsageError, match="multiples of 8"):
        check_patch(net, 60)
