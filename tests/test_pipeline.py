from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from torch import nn

from distillc.errors import PassError, PreconditionError, UsageError
from distillc.network import KEEP, Block, Cost, Network, Surrogate
from distillc.pipeline import Context, Pass, PassResult, Pipeline, dump_text, require


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Identity()
        self.second = nn.Identity()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(image))


def toy_network() -> Network:
    def block(name: str) -> Block:
        shape = (1, 3, 8, 8)
        return Block(name, name, "channel", shape, shape, Cost(0, 0), Cost(0, 0))

    surrogate = Surrogate("first", "conv", "block", nn.Conv2d(3, 3, 1), Cost(12, 576))
    return Network(
        Toy().eval(),
        (8, 8),
        blocks=(block("first"), block("second")),
        candidates={"first": (surrogate,)},
    )


class Rename(Pass):
    def run(self, net: Network, ctx: Context) -> PassResult:
        return PassResult(net.with_(name=net.name + "!"), True, ("renamed",))


class AfterRename(Pass):
    after = (Rename,)

    def requires(self, net: Network) -> None:
        require(net.name.endswith("!"), "the network is not renamed", "Rename")

    def run(self, net: Network, ctx: Context) -> PassResult:
        return PassResult(net, False)


class Spoil(Pass):
    """Changes the numbers without deciding anything."""

    def run(self, net: Network, ctx: Context) -> PassResult:
        spoiled = Toy()
        spoiled.first = nn.Conv2d(3, 3, 1)  # type: ignore[assignment]
        return PassResult(net.with_(module=spoiled), True)


class DecideUnknown(Pass):
    def run(self, net: Network, ctx: Context) -> PassResult:
        return PassResult(net.with_(decisions={"third": KEEP}), True)


def test_passes_run_in_order_and_are_logged() -> None:
    before = toy_network()
    net = Pipeline([Rename(), AfterRename()]).run(before)
    assert net.name == "network!"
    assert before.name == "network"
    assert [(each.name, each.modified, each.notes) for each in net.log] == [
        ("rename", True, ("renamed",)),
        ("after_rename", False, ()),
    ]


def test_a_wrong_order_is_refused_when_built() -> None:
    with pytest.raises(UsageError, match="after_rename must come after rename"):
        Pipeline([AfterRename(), Rename()])


def test_a_wrong_order_is_seen_through_nesting() -> None:
    with pytest.raises(UsageError):
        Pipeline([AfterRename(), Pipeline([Rename()])])


def test_pipelines_nest() -> None:
    net = Pipeline([Pipeline([Rename()]), AfterRename()]).run(toy_network())
    assert [each.name for each in net.log] == ["rename", "after_rename"]


def test_a_missing_precondition_names_the_provider() -> None:
    with pytest.raises(PreconditionError, match="run Rename first"):
        Pipeline([AfterRename()]).run(toy_network())


def test_verify_each_catches_changed_numbers() -> None:
    Pipeline([Spoil()]).run(toy_network())
    with pytest.raises(PassError, match="changed the network's output"):
        Pipeline([Spoil()], verify_each=True).run(toy_network())


def test_verify_each_catches_what_is_no_number() -> None:
    """A comparison with NaN is false either way round."""

    class Diverge(Pass):
        def run(self, net: Network, ctx: Context) -> PassResult:
            module = Toy().eval()
            module.first = nn.Hardtanh(math.nan, math.nan)  # type: ignore[assignment]
            return PassResult(net.with_(module=module), True)

    with pytest.raises(PassError, match="changed the network's output by nan"):
        Pipeline([Diverge()], verify_each=True).run(toy_network())


def test_decisions_for_unknown_blocks_are_caught() -> None:
    with pytest.raises(PassError, match="third"):
        Pipeline([DecideUnknown()]).run(toy_network())


def test_stop_after_and_print_after() -> None:
    printed: list[str] = []
    pipeline = Pipeline(
        [Rename(), AfterRename()], stop_after="rename", print_after="rename", emit=printed.append
    )
    net = pipeline.run(toy_network())
    assert [each.name for each in net.log] == ["rename"]
    assert printed == [dump_text(net)]


def test_unknown_stop_lists_the_known() -> None:
    with pytest.raises(UsageError, match="one of: rename"):
        Pipeline([Rename()], stop_after="nothing")


def test_dumps(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    Pipeline([Rename()], dump_dir=tmp_path).run(toy_network())
    golden("pipeline_dump.txt", (tmp_path / "00_rename.txt").read_text())
    data = json.loads((tmp_path / "00_rename.json").read_text())
    assert [block["name"] for block in data["blocks"]] == ["first", "second"]
    assert data["blocks"][0]["candidates"][0]["label"] == "conv"


def test_hybrid_replaces_what_is_decided_and_nothing_else() -> None:
    net = toy_network()
    hybrid = net.hybrid({"first": "conv", "second": KEEP})
    assert isinstance(hybrid.first, nn.Conv2d)
    assert isinstance(hybrid.second, nn.Identity)
    assert isinstance(net.module.first, nn.Identity)
    assert hybrid.first is not net.candidates["first"][0].module


def test_hybrid_names_the_known_on_a_wrong_label() -> None:
    with pytest.raises(PassError, match="known surrogates: conv"):
        toy_network().hybrid({"first": "mamba"})
    with pytest.raises(PassError, match="known blocks: first, second"):
        toy_network().hybrid({"third": "conv"})


def test_healed_weights_belong_to_the_networks_own_decisions() -> None:
    net = toy_network().with_(decisions={"first": "conv"})
    healed = {name: torch.zeros_like(value) for name, value in net.hybrid().state_dict().items()}
    net = net.with_(healed=healed)
    assert net.hybrid().first.weight.abs().sum() == 0  # type: ignore[union-attr]
    assert net.hybrid({"first": "conv"}).first.weight.abs().sum() > 0  # type: ignore[union-attr]


def test_scope_attention_has_its_own_label() -> None:
    surrogate = toy_network().candidates["first"][0]
    assert surrogate.label == "conv"
    assert replace(surrogate, scope="attention").label == "conv@attention"


def test_a_task_that_needs_fewer_steps_than_thought_is_finished() -> None:
    with Progress(disable=True) as progress:
        with Context(progress=progress).progress_line("search", 12) as shown:
            shown.update(9)
        (task,) = progress.tasks
        assert task.finished
        assert (task.completed, task.total) == (9, 9)
