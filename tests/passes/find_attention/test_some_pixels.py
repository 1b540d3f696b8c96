"""Rule 1 where pixels attend to some of the others."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.passes.find_attention.modules import Residual, around, find


class Neighbourhood(nn.Module):
    """Every pixel attends to those around it: sums of products of elements (Ramachandran et al.,
    Stand-Alone Self-Attention, section 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, 1)
        k, v = (F.unfold(each, 3, padding=1).view(1, -1, 9, *x.shape[2:]) for each in (k, v))
        weights = ((q.unsqueeze(2) * k).sum(1, keepdim=True) * 0.3).softmax(2)
        return (weights * v).sum(2)


class CrissCross(nn.Module):
    """One softmax over a row and a column (Huang et al., CCNet, section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, 1)
        column = torch.einsum("bchw,bcgw->bhwg", q, k)
        row = torch.einsum("bchw,bchg->bhwg", q, k)
        column, row = torch.cat([column, row], -1).softmax(-1).chunk(2, -1)
        return torch.einsum("bhwg,bcgw->bchw", column, v) + torch.einsum("bhwg,bchg->bchw", row, v)


class TalkingHeads(nn.Module):
    """Heads are mixed before and after the softmax (Shazeer et al., Talking-Heads Attention)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.before = nn.Linear(2, 2)
        self.after = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.qkv(x).permute(0, 2, 3, 1).reshape(32, 32, 3, 2, -1)
        q, k, v = rows.permute(2, 0, 3, 1, 4).unbind(0)
        scores = self.before((q @ k.mT).movedim(1, -1)).movedim(-1, 1)
        mixed = self.after(scores.softmax(-1)) @ v
        return mixed.transpose(1, 2).reshape(1, 32, 32, -1).permute(0, 3, 1, 2)


class Strongest(nn.Module):
    """Each pixel of a row attends to the four that fit best."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).permute(0, 2, 3, 1).squeeze(0).chunk(3, -1)
        scores, places = (q @ k.mT).topk(4, -1)
        values = torch.gather(
            v.unsqueeze(1).expand(-1, 32, -1, -1), 2, places.unsqueeze(-1).expand(-1, -1, -1, 8)
        )
        return (scores.softmax(-1).unsqueeze(-1) * values).sum(2).permute(2, 0, 1).unsqueeze(0)


@pytest.mark.parametrize("attention", [Neighbourhood, CrissCross, TalkingHeads, Strongest])
def test_attention_to_some_pixels(attention: type[nn.Module]) -> None:
    (block,) = find(around(Residual(attention(8)))).blocks
    assert (block.name, block.attention, block.kind) == ("1", "1.inner", "window")
