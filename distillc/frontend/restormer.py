"""Restormer, written from the paper (Zamir et al., arXiv 2111.09881), with the parameter names of
the public checkpoints.

Every operation works on (B, C, H, W) directly, so that a traced graph holds few reshapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPSILON = 1e-5


class Body(nn.Module):
    """A module under the name `body`, as the public checkpoints have it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class PatchEmbedding(nn.Module):
    """A convolution under the name `proj`."""

    def __init__(self, proj: nn.Module) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class LayerNormWeights(nn.Module):
    """Normalises the channels of (B, C, H, W) at each pixel.

    Without a bias the mean stays in (the public code's `BiasFree` norm).
    """

    def __init__(self, channels: int, with_bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if with_bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.bias is not None:  # the same, in a fifth of the time
            pixels = x.movedim(1, -1)
            normed = F.layer_norm(pixels, self.weight.shape, self.weight, self.bias, _EPSILON)
            return normed.movedim(-1, 1)
        mean = x.mean(1, keepdim=True)
        centred = x - mean
        variance = (centred * centred).mean(1, keepdim=True)
        scale = torch.rsqrt(variance + _EPSILON)
        if self.bias is None:
            return x * scale * self.weight[:, None, None]
        return centred * scale * self.weight[:, None, None] + self.bias[:, None, None]


class LayerNorm(Body):
    """Channel layer norm of (B, C, H, W); `with_bias` as in `LayerNormWeights`."""

    def __init__(self, channels: int, with_bias: bool = True) -> None:
        super().__init__(LayerNormWeights(channels, with_bias))


class Attention(nn.Module):
    """Multi-Dconv head transposed attention: channels attend to channels (section 3.1)."""

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(
            3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias
        )
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        heads = (batch, self.heads, channels // self.heads, height * width)
        q, k, v = self.qkv_dwconv(self.qkv(x)).split(channels, 1)
        q = F.normalize(q.reshape(heads), dim=-1)
        k = F.normalize(k.reshape(heads), dim=-1)
        weights = (q @ k.transpose(-2, -1) * self.temperature).softmax(-1)
        return self.project_out((weights @ v.reshape(heads)).reshape(x.shape))


class FeedForward(nn.Module):
    """Gated-Dconv feed-forward network (section 3.2)."""

    def __init__(self, channels: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, 1)
        return self.project_out(F.gelu(gate) * value)


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each on a normalised input with a residual (figure 2)."""

    def __init__(
        self, channels: int, heads: int, expansion: float, bias: bool, with_bias: bool
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, with_bias)
        self.attn = Attention(channels, heads, bias)
        self.norm2 = LayerNorm(channels, with_bias)
        self.ffn = FeedForward(channels, expansion, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Restormer(nn.Module):
    """The network of figure 2: (B, inp_channels, H, W) -> (B, out_channels, H, W), float32.

    H and W must be multiples of 8.

    Args:
        inp_channels: Channels of the input (3, 1 for gray, 6 for dual-pixel).
        out_channels: Channels of the output.
        dim: Channels of the first level; each deeper level doubles them.
        num_blocks: Blocks of each of the four levels.
        num_refinement_blocks: Blocks after the decoder.
        heads: Attention heads of each level.
        ffn_expansion_factor: Hidden channels of the feed-forward part over its input's.
        bias: Whether convolutions have a bias (never that of the patch embedding).
        layer_norm: `"WithBias"` or `"BiasFree"`.
        dual_pixel: Dual-pixel defocus deblurring: a skip convolution instead of the image residual.
    """

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        layer_norm: str = "WithBias",
        dual_pixel: bool = False,
    ) -> None:
        super().__init__()

        def level(channels: int, head: int, count: int) -> nn.Sequential:
            with_bias = layer_norm == "WithBias"
            make = (channels, head, ffn_expansion_factor, bias, with_bias)
            return nn.Sequential(*(TransformerBlock(*make) for _ in range(count)))

        def down(channels: int) -> nn.Module:
            convolution = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False)
            return Body(nn.Sequential(convolution, nn.PixelUnshuffle(2)))

        def up(channels: int) -> nn.Module:
            convolution = nn.Conv2d(channels, channels * 2, 3, padding=1, bias=False)
            return Body(nn.Sequential(convolution, nn.PixelShuffle(2)))

        one, two, four, eight = dim, 2 * dim, 4 * dim, 8 * dim
        self.patch_embed = PatchEmbedding(nn.Conv2d(inp_channels, one, 3, padding=1, bias=False))
        self.encoder_level1 = level(one, heads[0], num_blocks[0])
        self.down1_2 = down(one)
        self.encoder_level2 = level(two, heads[1], num_blocks[1])
        self.down2_3 = down(two)
        self.encoder_level3 = level(four, heads[2], num_blocks[2])
        self.down3_4 = down(four)
        self.latent = level(eight, heads[3], num_blocks[3])
        self.up4_3 = up(eight)
        self.reduce_chan_level3 = nn.Conv2d(eight, four, 1, bias=bias)
        self.decoder_level3 = level(four, heads[2], num_blocks[2])
        self.up3_2 = up(four)
        self.reduce_chan_level2 = nn.Conv2d(four, two, 1, bias=bias)
        self.decoder_level2 = level(two, heads[1], num_blocks[1])
        self.up2_1 = up(two)
        self.decoder_level1 = level(two, heads[0], num_blocks[0])
        self.refinement = level(two, heads[0], num_refinement_blocks)
        self.skip_conv = nn.Conv2d(one, two, 1, bias=bias) if dual_pixel else None
        self.output = nn.Conv2d(two, out_channels, 3, padding=1, bias=bias)

    def forward(self, image: Tensor) -> Tensor:
        embedded = self.patch_embed(image)
        level1 = self.encoder_level1(embedded)
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        x = self.latent(self.down3_4(level3))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(x), level3], 1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(x), level2], 1)))
        x = self.refinement(self.decoder_level1(torch.cat([self.up2_1(x), level1], 1)))
        if self.skip_conv is not None:
            return self.output(x + self.skip_conv(embedded))
        return self.output(x) + image


def infer_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read `Restormer`'s arguments off a checkpoint's shapes.

    Args:
        state: Parameters by the public checkpoints' names.

    Raises:
        KeyError: A parameter that every Restormer has is missing.
    """

    def count(prefix: str) -> int:
        return len({key.split(".")[1] for key in state if key.startswith(f"{prefix}.")})

    dim = state["patch_embed.proj.weight"].shape[0]
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    widths = {level: state[f"{level}.0.ffn.project_in.weight"].shape[0] // 2 for level in levels}
    return {
        "inp_channels": state["patch_embed.proj.weight"].shape[1],
        "out_channels": state["output.weight"].shape[0],
        "dim": dim,
        "num_blocks": tuple(count(level) for level in levels),
        "num_refinement_blocks": count("refinement"),
        "heads": tuple(state[f"{level}.0.attn.temperature"].shape[0] for level in levels),
        "ffn_expansion_factor": _expansion(
            {dim * 2**index: widths[level] for index, level in enumerate(levels)}
        ),
        "bias": "output.bias" in state,
        "layer_norm": ("WithBias" if "encoder_level1.0.norm1.body.bias" in state else "BiasFree"),
        "dual_pixel": "skip_conv.weight" in state,
    }


def _expansion(hidden: Mapping[int, int]) -> float:
    """Return a factor f with int(channels * f) == hidden for every channel count.

    Each level allows an interval [hidden / c, (hidden + 1) / c); their common middle is taken, in
    as few decimals as fit (the published 2.66 comes back as 2.66).
    """
    low = max(width / channels for channels, width in hidden.items())
    high = min((width + 1) / channels for channels, width in hidden.items())
    for digits in range(1, 8):
        factor = round((low + high) / 2, digits)
        if all(int(channels * factor) == width for channels, width in hidden.items()):
            return factor
    return (low + high) / 2
