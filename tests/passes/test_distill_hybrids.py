from __future__ import annotations

import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from distillc.data.images import open_data
from distillc.data.metrics import mean_psnr
from distillc.frontend.structure import module_digest
from distillc.passes.distill_blocks import DistillBlocks
from distillc.passes.distill_hybrids import DistillHybrids, Hybrid
from distillc.passes.students import Students

from .toy import toy_network, weights


def test_hybrids_lose_less_and_the_input_stays() -> None:
    net = DistillBlocks(steps=10, batch=2, patch=16)(toy_network())
    teacher, before = module_digest(net.module), [each.clone() for each in weights(net)]
    result = DistillHybrids(steps=80, batch=4, patch=16, lr=1e-2)(net)
    pairs = open_data(None, "denoise:sigma=25").held_out(4, 32)
    for label in ("toy", "toy@attention"):
        decisions = dict.fromkeys(("blocks.0", "blocks.1"), label)
        trained, alone = result.hybrid(decisions), net.hybrid(decisions)
        assert mean_psnr(trained, pairs) > mean_psnr(alone, pairs)
    assert module_digest(net.module) == module_digest(result.module) == teacher
    assert all(torch.equal(*pair) for pair in zip(weights(net), before, strict=True))
    for found in result.candidates.values():
        assert [each.label for each in found] == ["toy", "toy@attention"]
        assert all(each.fidelity is not None and not each.module.training for each in found)


def test_only_the_students_of_a_hybrid_get_gradients() -> None:
    net = toy_network()
    students = Students.of(net)
    students.train("cpu")
    hybrid = Hybrid(net.module, students)
    first, second = list(students)[:2]
    hybrid([first], torch.rand(1, 3, 16, 16)).sum().backward()
    assert all(each.grad is not None for each in first.module.parameters())
    assert all(each.grad is None for each in second.module.parameters())
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(hybrid([], images), net.module(images))


@given(st.integers())
def test_a_draw_replaces_at_least_one_block_and_none_twice(seed: int) -> None:
    chosen = Hybrid(toy_network().module, Students.of(toy_network())).draw(random.Random(seed))
    blocks = [each.surrogate.block for each in chosen]
    assert blocks
    assert len(set(blocks)) == len(blocks)
