"""What the pass returns: blocks, their costs, and the same when it runs again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

import distillc
from distillc.errors import PreconditionError
from distillc.passes.find_attention import FindAttention
from distillc.pipeline import dump_text
from tests.passes.find_attention.modules import find


def test_restormer(tiny_restormer: nn.Module, golden: Callable[[str, str], None]) -> None:
    net = find(tiny_restormer, (1, 3, 64, 64))
    golden("find_attention_tiny_restormer.txt", dump_text(net))
    assert [block.name for block in net.blocks][:2] == ["encoder_level1.0", "encoder_level2.0"]
    assert net.blocks[0].attention == "encoder_level1.0.attn"


def test_one_block_counted_by_hand(tiny_restormer: nn.Module) -> None:
    block = find(tiny_restormer, (1, 3, 64, 64)).block("encoder_level1.0")
    channels, hidden, pixels = 8, int(8 * 2.66), 64 * 64
    norms, temperature = 4 * channels, 1
    attention = 3 * channels**2 + 27 * channels + channels**2
    feed_forward = 2 * channels * hidden + 18 * hidden + hidden * channels
    assert block.cost.params == norms + temperature + attention + feed_forward
    products = 2 * channels**2  # q k and its product with v, one head
    assert block.cost.macs == (attention + products + feed_forward) * pixels
    assert block.attention_cost.macs == (attention + products) * pixels


def test_nothing_changes_the_second_time(tiny_restormer: nn.Module) -> None:
    net = find(tiny_restormer)
    again = FindAttention()(net)
    assert again.blocks == net.blocks
    assert again.log[-1].modified is False


def test_it_needs_a_graph(tiny_checkpoint: object) -> None:
    with pytest.raises(PreconditionError, match="run Trace first"):
        FindAttention()(distillc.load(str(tiny_checkpoint)))
