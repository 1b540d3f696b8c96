"""Attention of all kinds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fuzz.draw import Draw, Layer, described, heads_of, operator

TOKENS = 100
"""Longest sequence of attention among all pixels."""


def tokens_of(x: Tensor) -> Tensor:
    """(1, C, ...) to (1, N, C), shortened."""
    return x.flatten(2).transpose(1, 2)[:, :TOKENS]


@operator("attention")
def channel(draw: Draw, x: Tensor) -> Layer:
    """Restormer's MDTA."""
    channels = x.shape[1]
    heads = draw.divisor(channels)
    act = draw.one("softmax", "softmax", "relu", "sigmoid")

    def run(x: Tensor, w: Tensor, dw: Tensor, temperature: Tensor, out: Tensor) -> Tensor:
        size = x.shape[2:]
        y = F.conv2d(F.conv2d(x, w), dw, padding=1, groups=3 * channels)
        q, k, v = (e.reshape(1, heads, -1, size[0] * size[1]) for e in y.chunk(3, 1))
        q, k = F.normalize(q, dim=-1, eps=1e-2), F.normalize(k, dim=-1, eps=1e-2)
        scores = q @ k.transpose(-2, -1) * temperature
        scores = scores.softmax(-1) if act == "softmax" else getattr(torch, act)(scores)
        return F.conv2d((scores @ v).reshape(x.shape), out)

    return Layer(
        described("channel attention", {"heads": heads, "act": act}),
        run,
        draw.weight(3 * channels, channels, 1, 1),
        draw.weight(3 * channels, 1, 3, 3),
        draw.near_one(heads, 1, 1),
        draw.weight(channels, channels, 1, 1),
    )


@operator("attention", often=3)
def tokens(draw: Draw, x: Tensor) -> Layer:
    """Attention among all positions, in one of many forms."""
    y = tokens_of(x)
    count, channels = y.shape[1:]
    heads, width = draw.some(1, 3), draw.some(1, 6)
    way = draw.one(
        *("plain", "plain", "sdpa", "masked", "causal", "position", "cosine", "linear", "relu"),
        *("efficient", "top-k", "pooled", "sigmoid", "einsum", "talking", "additive", "baddbmm"),
    )
    keep = draw.some(1, count)

    def run(x: Tensor, w: Tensor, out: Tensor, bias: Tensor, table: Tensor) -> Tensor:
        y = tokens_of(x)
        q, k, v = (heads_of(each, heads) for each in F.linear(y, w, bias).chunk(3, -1))
        if way in ("sdpa", "causal"):
            a = F.scaled_dot_product_attention(q, k, v, is_causal=way == "causal")
        elif way == "masked":
            mask = torch.ones(count, count, dtype=torch.bool).tril(count // 2)
            a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        elif way == "linear":
            q, k = F.elu(q) + 1, F.elu(k) + 1
            total = q @ k.sum(2, keepdim=True).transpose(2, 3)
            a = q @ (k.transpose(2, 3) @ v) / (total + 1e-2)
        elif way == "relu":
            k = k.relu()
            a = q.relu() @ (k.transpose(2, 3) @ F.pad(v, (0, 1), value=1.0))
            a = a[..., :-1] / (a[..., -1:] + 0.1)
        elif way == "efficient":
            a = q.softmax(-1) @ (k.softmax(-2).transpose(-2, -1) @ v)
        elif way == "pooled":
            k, v = (F.avg_pool1d(e.flatten(0, 1).mT, 2, 2, ceil_mode=True).mT for e in (k, v))
            k, v = k.unflatten(0, (1, heads)), v.unflatten(0, (1, heads))
            a = (q @ k.mT / width**0.5).softmax(-1) @ v
        elif way == "einsum":
            scores = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
            a = torch.einsum("bhij,bhjd->bhid", scores, v)
        elif way == "additive":
            a = torch.sigmoid(q) * (k.softmax(2) * v).sum(2, keepdim=True)
        elif way == "baddbmm":
            shape = (heads, count, count)
            bias = table[: count * 2].sum().expand(shape)
            q, k, v = (each.reshape(heads, count, width) for each in (q, k, v))
            scores = torch.baddbmm(bias, q, k.mT, beta=0.5, alpha=width**-0.5).softmax(-1)
            a = torch.bmm(scores, v)[None]
        else:
            if way == "cosine":
                q, k = F.normalize(q, dim=-1, eps=1e-2), F.normalize(k, dim=-1, eps=1e-2)
            scores = q @ k.mT * width**-0.5
            if way == "position":
                places = torch.arange(count)
                scores = scores + table[places[:, None] - places + count]
            if way == "talking":
                scores = torch.einsum("bhij,hg->bgij", scores, table[:heads, None] + 1 / heads)
            if way == "top-k":
                least = scores.topk(keep, -1).values[..., -1:]
                scores = scores.masked_fill(scores < least, float("-inf"))
            a = (torch.sigmoid(scores) if way == "sigmoid" else scores.softmax(-1)) @ v
        return F.linear(a.transpose(1, 2).flatten(2), out)

    return Layer(
        described("attention", {"way": way, "heads": heads, "width": width, "tokens": count}),
        run,
        draw.weight(3 * heads * width, channels),
        draw.weight(channels, heads * width),
        draw.weight(3 * heads * width),
        draw.normal(2 * count + 3, scale=0.3),
    )


@operator("attention", often=2)
def window(draw: Draw, x: Tensor) -> Layer:
    """Window attention: shifted, masked, with a position bias; rectangles, stripes, grids."""
    channels, heads, width = x.shape[1], draw.some(1, 2), draw.some(1, 4)
    h, w = draw.one((2, 2), (4, 4), (3, 2), (8, 8), (2, 5), (1, 4))
    shifted, grid, padding = draw.chance(0.5), draw.chance(0.2), draw.one("reflect", "constant")
    down, right = -x.shape[2] % h, -x.shape[3] % w
    if down >= x.shape[2] or right >= x.shape[3]:
        padding = "constant"
    rows, columns = (x.shape[2] + down) // h, (x.shape[3] + right) // w

    def regions() -> Tensor:
        """Number the regions that a shift brings into one window, as Swin does."""
        image = torch.zeros(rows * h, columns * w)
        number = 0
        for vertical in (slice(0, -h), slice(-h, -(h // 2) or None), slice(-(h // 2), None)):
            for horizontal in (slice(0, -w), slice(-w, -(w // 2) or None), slice(-(w // 2), None)):
                image[vertical, horizontal] = number
                number += 1
        return image

    def split(y: Tensor) -> Tensor:
        """(1, C, H, W) to (windows, h * w, C)."""
        sizes = (1, -1, h, rows, w, columns) if grid else (1, -1, rows, h, columns, w)
        order = (0, 3, 5, 2, 4, 1) if grid else (0, 2, 4, 3, 5, 1)
        return y.reshape(sizes).permute(order).reshape(rows * columns, h * w, -1)

    def run(x: Tensor, qkv: Tensor, out: Tensor, table: Tensor) -> Tensor:
        y = F.pad(x, (0, right, 0, down), padding)
        if shifted:
            y = torch.roll(y, (-(h // 2), -(w // 2)), (2, 3))
        y = split(y)
        q, k, v = F.linear(y, qkv).reshape(-1, h * w, 3, heads, width).permute(2, 0, 3, 1, 4)
        ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        ys, xs = ys.flatten(), xs.flatten()
        index = (ys[:, None] - ys + h - 1) * (2 * w - 1) + (xs[:, None] - xs + w - 1)
        bias = table[index.view(-1)].view(h * w, h * w, heads).permute(2, 0, 1)
        scores = (q * width**-0.5) @ k.transpose(-2, -1) + bias[None]
        if shifted:
            number = split(regions()[None, None])[..., 0]
            apart = number[:, None, :] - number[:, :, None]
            mask = torch.zeros_like(apart).masked_fill(apart != 0, -100.0).to(x.dtype)
            scores = scores + mask[:, None]
        a = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, h * w, heads * width)
        a = F.linear(a, out)
        sizes = (1, rows, columns, h, w, -1)
        order = (0, 5, 3, 1, 4, 2) if grid else (0, 5, 1, 3, 2, 4)
        y = a.reshape(sizes).permute(order).reshape(1, channels, rows * h, columns * w)
        if shifted:
            y = torch.roll(y, (h // 2, w // 2), (2, 3))
        return y[:, :, : x.shape[2], : x.shape[3]] + x

    given = {"window": (h, w), "heads": heads, "width": width, "shifted": shifted, "grid": grid}
    return Layer(
        described("window attention", given),
        run,
        draw.weight(3 * heads * width, channels),
        draw.weight(channels, heads * width),
        draw.normal((2 * h - 1) * (2 * w - 1), heads, scale=0.3),
    )


@operator("attention")
def axial(draw: Draw, x: Tensor) -> Layer:
    """Attention along rows or columns."""
    channels, width, columns = x.shape[1], draw.some(1, 5), draw.chance(0.5)

    def run(x: Tensor, q: Tensor, k: Tensor) -> Tensor:
        y = x.permute(0, 3, 2, 1) if columns else x.permute(0, 2, 3, 1)
        scores = F.linear(y, q) @ F.linear(y, k).transpose(-1, -2)
        a = (scores / width**0.5).softmax(-1) @ y
        return a.permute(0, 3, 2, 1) if columns else a.permute(0, 3, 1, 2)

    return Layer(
        described("axial attention", {"columns": columns, "width": width}),
        run,
        draw.weight(width, channels),
        draw.weight(width, channels),
    )


@operator("attention")
def learned_queries(draw: Draw, x: Tensor) -> Layer:
    """Cross attention from queries that are weights."""
    channels, queries = tokens_of(x).shape[2], draw.some(1, 5)

    def run(x: Tensor, q: Tensor, w: Tensor) -> Tensor:
        y = tokens_of(x)
        scores = (q @ F.linear(y, w).transpose(1, 2)).softmax(-1)
        return scores @ y

    return Layer(
        described("learned queries", {"queries": queries}),
        run,
        draw.weight(queries, channels),
        draw.weight(channels, channels),
    )


@operator("attention")
def module(draw: Draw, x: Tensor) -> Layer:
    """`F.multi_head_attention_forward`, as nn.MultiheadAttention calls it."""
    channels = tokens_of(x).shape[2]
    heads = draw.divisor(channels)

    def run(x: Tensor, w: Tensor, bias: Tensor, out: Tensor, out_bias: Tensor) -> Tensor:
        y = tokens_of(x).transpose(0, 1)
        a, _ = F.multi_head_attention_forward(
            *(y, y, y, channels, heads, w, bias, None, None, False, 0.0, out, out_bias),
            training=False,
            need_weights=False,
        )
        return a.transpose(0, 1)

    return Layer(
        described("MultiheadAttention", {"heads": heads}),
        run,
        draw.weight(3 * channels, channels),
        draw.weight(3 * channels),
        draw.weight(channels, channels),
        draw.weight(channels),
    )
