from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from distillc.errors import PassError
from distillc.frontend.structure import module_digest
from distillc.network import Surrogate
from distillc.passes.distill_blocks import DistillBlocks
from distillc.passes.distill_hybrids import DistillHybrids
from distillc.pipeline import Context
from distillc.stages import WorkDir
from distillc.surrogates.specs import build_surrogate

from .toy import COST, Recorder, same_candidates, toy_network, weights

DISTILL = DistillBlocks(steps=12, batch=2, patch=16, lr=1e-2)


def test_trains_every_candidate_and_leaves_its_input_alone() -> None:
    net = toy_network()
    teacher = module_digest(net.module)
    untrained = [tensor.clone() for tensor in weights(net)]
    result = DistillBlocks(steps=60, batch=4, patch=16, lr=2e-2)(net)
    for candidates in result.candidates.values():
        assert [each.label for each in candidates] == ["toy", "toy@attention"]
        for each in candidates:
            assert each.fidelity is not None
            assert each.fidelity < 0.7
            assert not each.module.training
            assert all(tensor.is_contiguous() for tensor in each.module.state_dict().values())
    # The attention is a convolution, which its surrogate can become: it ends nearer.
    assert all(each[1].fidelity < each[0].fidelity for each in result.candidates.values())
    assert module_digest(net.module) == teacher
    assert all(torch.equal(*pair) for pair in zip(weights(net), untrained, strict=True))
    assert all(each.fidelity is None for each in net.candidates["blocks.0"])
    assert result.log[-1].name == "distill_blocks"
    assert re.match(r"blocks\.0: toy 0\.\d{3}, toy@attention 0\.\d{3}", result.log[-1].notes[0])


def test_fidelity_of_an_untrained_candidate_is_one() -> None:
    result = DistillBlocks(steps=0, batch=2, patch=16)(toy_network())
    for candidates in result.candidates.values():
        assert [each.fidelity for each in candidates] == [pytest.approx(1), pytest.approx(1)]


@pytest.mark.parametrize("alone", [True, False])
def test_what_leaves_its_block_out_has_nothing_to_learn(alone: bool) -> None:
    net = toy_network()
    skip = {
        name: (Surrogate(name, "skip", "block", build_surrogate("skip", 6), COST),)
        for name in net.candidates
    }
    others = {} if alone else net.candidates
    net = net.with_(candidates={name: skip[name] + others.get(name, ()) for name in skip})
    result = DISTILL(net)
    for pass_ in (DISTILL, DistillHybrids(steps=3, batch=1, patch=16)):
        result = pass_(result)
        for name, (left_out, *_) in result.candidates.items():
            assert left_out.fidelity == pytest.approx(1.0)
            x = torch.rand(1, 6, 8, 8)
            assert torch.equal(result.hybrid({name: "skip"}).get_submodule(name)(x), x)


def test_a_network_of_equal_weights_and_another_option_is_distilled_anew(tmp_path: Path) -> None:
    """What was learnt from one network is not taken for what another one teaches."""
    ctx = Context(WorkDir(tmp_path))
    net = toy_network()
    first = DISTILL(net, ctx)
    (net.module.get_submodule("head")).padding_mode = "reflect"  # no weight tells it
    second = DISTILL(net, ctx)
    assert len(list(tmp_path.glob("distill-*"))) == 2
    assert not same_candidates(first, second)


def test_only_candidates_that_are_new_are_trained(tmp_path: Path) -> None:
    net, ctx = toy_network(), Recorder(WorkDir(tmp_path))
    firsts = {name: found[:1] for name, found in net.candidates.items()}
    DISTILL(net.with_(candidates=firsts), ctx)
    assert any(" toy loss" in line for _, line in ctx.lines)
    ctx.lines.clear()
    both = DISTILL(net, ctx)
    assert ctx.lines
    assert all("toy@attention" in line for _, line in ctx.lines)
    assert same_candidates(both, DISTILL(net))
    seconds = {name: found[1:] for name, found in net.candidates.items()}
    ctx.lines.clear()
    alone = DISTILL(net.with_(candidates=seconds), ctx)
    assert ctx.lines == []
    for name, found in alone.candidates.items():
        assert found[0].fidelity == both.candidates[name][1].fidelity


def test_progress_names_block_loss_and_time_left() -> None:
    ctx = Recorder()
    DISTILL(toy_network(), ctx)
    assert [done for done, _ in ctx.lines] == list(range(1, 13))
    assert re.fullmatch(
        r"block blocks\.[01](\.attn)? toy(@attention)? loss \d\.\d{3} \d+:\d\d left",
        ctx.lines[5][1],
    )


def test_what_it_ensures() -> None:
    with pytest.raises(PassError, match="not distilled"):
        DISTILL.ensures(toy_network())
