"""Evaluator: the hybrid's PSNR, whatever was evaluated before, and nothing is changed by it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from distillc.data import metrics
from distillc.data.images import Pair, open_data
from distillc.data.metrics import mean_psnr
from distillc.frontend.structure import module_digest
from distillc.network import KEEP, Network
from distillc.search import evaluator as module
from distillc.search.evaluator import Evaluator
from tests.passes.toy import ToyBlock, toy_network

CHOICES = (KEEP, "toy", "toy@attention")


def awake() -> Network:
    """A toy network whose surrogates compute something."""
    net = toy_network()
    torch.manual_seed(1)
    with torch.no_grad():
        for found in net.candidates.values():
            for each in found:
                for weight in each.module.parameters():
                    weight.normal_(0, 0.05)
    return net


def images() -> list[Pair]:
    return open_data(None, "denoise:sigma=25").held_out(2, 16)


def hybrids() -> Iterator[dict[str, str]]:
    for one in CHOICES:
        for two in CHOICES:
            yield {"blocks.0": one, "blocks.1": two}


def test_equals_the_hybrid_and_changes_nothing() -> None:
    net = awake()
    before = module_digest(net.module)
    evaluate, pairs = Evaluator(net, images()), images()
    for _ in range(2):  # computed, and remembered
        for decisions in hybrids():
            wanted = mean_psnr(net.hybrid(decisions), pairs)
            assert evaluate(decisions) == pytest.approx(wanted, abs=1e-4)
    assert module_digest(net.module) == before


def test_a_common_beginning_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = ToyBlock.forward

    def record(self: ToyBlock, x: torch.Tensor) -> torch.Tensor:
        calls.append(self)
        return forward(self, x)

    monkeypatch.setattr(ToyBlock, "forward", record)
    evaluate = Evaluator(awake(), images())
    evaluate({"blocks.0": KEEP, "blocks.1": KEEP})
    assert len(calls) == 4  # two blocks, two images
    evaluate({"blocks.0": KEEP, "blocks.1": "toy@attention"})
    assert len(calls) == 6
    evaluate({"blocks.0": KEEP, "blocks.1": "toy"})
    assert len(calls) == 6


def test_little_memory_costs_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = Evaluator(awake(), images())
    wanted = [evaluate(decisions) for decisions in hybrids()]
    monkeypatch.setattr(module, "CACHE_BYTES", 1)
    evaluate = Evaluator(awake(), images())
    assert [evaluate(decisions) for decisions in hybrids()] == wanted
    assert evaluate._cache.bytes <= 6 * 16 * 16 * 4


class InPlace(torch.nn.Module):
    """Works in place on what the first block returned, and calls it twice."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.head, self.blocks, self.tail = inner.head, inner.blocks, inner.tail

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.blocks[0](self.head(x))
        first *= 2
        second = self.blocks[0](first)
        second += 1
        return x + self.tail(self.blocks[1](second))


def test_shared_blocks_and_work_in_place() -> None:
    net = awake()
    net = net.with_(module=InPlace(net.module).eval())
    evaluate, pairs = Evaluator(net, images()), images()
    for _ in range(2):
        for decisions in hybrids():
            wanted = mean_psnr(net.hybrid(decisions), pairs)
            assert evaluate(decisions) == pytest.approx(wanted, abs=1e-4)


def test_recovers_from_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = Evaluator(awake(), images())
    keep = evaluate({"blocks.0": KEEP, "blocks.1": KEEP})

    def fail(*_: object) -> float:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(metrics, "psnr", fail)
        with pytest.raises(RuntimeError):
            evaluate({"blocks.0": "toy@attention", "blocks.1": "toy"})
    assert evaluate({"blocks.0": KEEP, "blocks.1": KEEP}) == keep
