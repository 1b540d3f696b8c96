"""Rule 2: blocks that return further activations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distillc.errors import PassError
from distillc.frontend.calls import record_calls
from distillc.network import Network
from distillc.passes.apply_replacements import ApplyReplacements
from distillc.passes.students import Students
from distillc.passes.synthesize_surrogates import SynthesizeSurrogates
from tests.benchmarks.kinds.finding_more import Grouped, Progressive, Reciprocal, Stereo, Unused
from tests.passes.find_attention.modules import find


def replaced(net: Network, label: str) -> nn.Module:
    net = SynthesizeSurrogates([label])(net)
    return ApplyReplacements(dict.fromkeys(net.candidates, label))(net).hybrid()


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (Unused, ["body.0"]),
        (Progressive, ["body.1", "body.2"]),
        (Grouped, ["body.0"]),
        (Reciprocal, ["body.0", "body.1"]),
        (Stereo, ["body.0", "body.1"]),
    ],
)
def test_hybrids_run_at_other_sizes(module: type[nn.Module], names: list[str]) -> None:
    net = find(module())
    assert [block.name for block in net.blocks] == names
    hybrid = replaced(net, "conv")
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(hybrid(image), net.module(image))
    if module is not Progressive:  # its maps are of one size
        assert hybrid(torch.rand(1, 3, 64, 48)).shape == (1, 3, 64, 48)


def test_the_attention_itself_may_return_its_map() -> None:
    net = find(Unused())
    assert net.blocks[0].attention == "body.0.attention"
    hybrid = replaced(net, "conv@attention")
    assert hybrid(torch.rand(1, 3, 64, 48)).shape == (1, 3, 64, 48)


def test_a_map_that_others_use_and_nobody_gives_is_named() -> None:
    (note,) = [each for each in find(Progressive()).log[-1].notes if "outside" in each]
    assert "body.0" in note
    assert "also returns (1, 2, 1024, 1024), which others use" in note


def test_what_is_returned_beside_is_learnt() -> None:
    net = SynthesizeSurrogates(["conv"])(find(Reciprocal()))
    students = Students.of(net)
    students.train("cpu")
    calls = record_calls(net.module, students.paths, torch.rand(1, 3, 32, 32))
    first, _ = students
    assert sorted(calls[first.path].beside) == [1, 2, 3]
    # The block's change, 12 + 4 channels of both attentions, and their mix.
    assert first.target(calls).numel() == 32 * 32 * (16 + 16 + 16)
    first.loss(calls).backward()
    for layer in first.module.beside.children():  # type: ignore[union-attr]
        assert layer.weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]


class OnlyMaps(nn.Module):
    """A network whose one block gives its map to the tail."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)
        self.block = MapGiver()

    def forward(self, x: Tensor) -> Tensor:
        y, weights = self.block(self.head(x))
        return self.tail((y.flatten(2) @ weights).reshape(y.shape))


class MapGiver(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = x.flatten(2)
        weights = (rows.mT @ rows.relu()).softmax(-1)
        return x + (rows @ weights.mT).reshape(x.shape), weights


def test_a_map_that_the_network_uses_is_refused_with_a_remedy() -> None:
    with pytest.raises(PassError, match=r"also returns \(1, 1024, 1024\)") as caught:
        find(OnlyMaps())
    assert "wrap" in str(caught.value.hint)
    assert "--no-distill" in str(caught.value.hint)
