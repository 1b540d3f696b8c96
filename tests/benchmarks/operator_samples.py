"""A call of each operator that networks of others call, on an image (1, 4, 8, 8) within 0 and 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Call = Callable[[Tensor], Tensor]

SHAPE = (1, 4, 8, 8)

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "nn.Conv2d": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "nn.LeakyReLU": lambda: nn.LeakyReLU(0.2),
    "nn.BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "nn.PixelShuffle": lambda: nn.PixelShuffle(2),
    "nn.PixelUnshuffle": lambda: nn.PixelUnshuffle(2),
    "nn.AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(1),
    "nn.AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(1),
    "nn.MaxPool2d": lambda: nn.MaxPool2d(2),
    "nn.AvgPool2d": lambda: nn.AvgPool2d(2),
    "nn.ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 6, 2, 2),
    "nn.Upsample": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "nn.UpsamplingBilinear2d": lambda: nn.UpsamplingBilinear2d(scale_factor=2),
    "nn.Softmax": lambda: nn.Softmax(-1),
    "nn.LogSoftmax": lambda: nn.LogSoftmax(-1),
    "nn.InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True),
    "nn.Unfold": lambda: nn.Unfold(2, stride=2),
    "nn.Fold": lambda: nn.Sequential(nn.Unfold(2, stride=2), nn.Fold((8, 8), 2, stride=2)),
    "nn.ReplicationPad2d": lambda: nn.ReplicationPad2d(1),
    "nn.ReflectionPad2d": lambda: nn.ReflectionPad2d(1),
    "nn.ZeroPad2d": lambda: nn.ZeroPad2d(1),
    "nn.Linear": lambda: nn.Linear(8, 6),
    "nn.LayerNorm": lambda: nn.LayerNorm(8),
    "nn.GroupNorm": lambda: nn.GroupNorm(2, 4),
    "nn.PReLU": lambda: nn.PReLU(4),
    "nn.Flatten": lambda: nn.Flatten(2),
    **{
        f"nn.{each}": getattr(nn, each)
        for each in (
            *("ReLU", "ReLU6", "GELU", "Sigmoid", "SiLU", "Tanh", "Softplus", "Hardtanh", "RReLU"),
            *("ELU", "Mish", "Hardswish", "Hardsigmoid"),
        )
    },
}
"""Layers that take the image."""

TOKENS: dict[str, Callable[[], nn.Module]] = {
    "nn.Conv1d": lambda: nn.Conv1d(4, 6, 3, padding=1),
    "nn.AdaptiveAvgPool1d": lambda: nn.AdaptiveAvgPool1d(1),
    "nn.InstanceNorm1d": lambda: nn.InstanceNorm1d(4, affine=True),
    "nn.BatchNorm1d": lambda: nn.BatchNorm1d(4),
}
"""Layers that take tokens, (1, 4, 64)."""

VOLUMES: dict[str, Callable[[], nn.Module]] = {
    "nn.Conv3d": lambda: nn.Conv3d(1, 3, 3, padding=1),
    "nn.BatchNorm3d": lambda: nn.BatchNorm3d(1),
}
"""Layers that take a volume, (1, 1, 4, 8, 8)."""


def _image_of(x: Tensor) -> Tensor:
    """Two images beside each other as one matrix for each channel."""
    return x + 8 * torch.eye(8)


def _places(x: Tensor) -> Tensor:
    return (x[..., :3] * 8).long()


FUNCTIONS: dict[str, Call] = {
    "x @ y": lambda x: x @ x.mT,
    "torch.matmul": lambda x: torch.matmul(x, x.mT),
    "torch.tensordot": lambda x: torch.tensordot(x, x[0, 0], dims=([3], [0])),
    "torch.einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
    "torch.cat": lambda x: torch.cat([x, x.relu()], 1),
    "torch.stack": lambda x: torch.stack([x, x.relu()], 1),
    "torch.chunk": lambda x: torch.chunk(x, 2, 1)[1],
    "torch.split": lambda x: torch.split(x, [1, 3], 1)[1],
    "torch.unbind": lambda x: torch.unbind(x, 1)[2],
    "x.unbind": lambda x: x.unbind(1)[2],
    "x.chunk": lambda x: x.chunk(2, 1)[1],
    "x.view": lambda x: x.view(1, 4, 64),
    "x.reshape": lambda x: x.reshape(1, 4, 64),
    "torch.reshape": lambda x: torch.reshape(x, (1, 4, 64)),
    "x.permute": lambda x: x.permute(0, 2, 3, 1),
    "torch.permute": lambda x: torch.permute(x, (0, 2, 3, 1)),
    "x.transpose": lambda x: x.transpose(1, 2),
    "torch.transpose": lambda x: torch.transpose(x, 1, 2),
    "x.t": lambda x: x[0, 0].t(),
    "x.contiguous": lambda x: x.transpose(1, 2).contiguous(),
    "x.unsqueeze": lambda x: x.unsqueeze(1),
    "x.unsqueeze_": lambda x: x.clone().unsqueeze_(1),
    "torch.unsqueeze": lambda x: torch.unsqueeze(x, 1),
    "x.squeeze": lambda x: x[:, :1].squeeze(1),
    "x.squeeze_": lambda x: x[:, :1].clone().squeeze_(1),
    "torch.squeeze": lambda x: torch.squeeze(x[:, :1], 1),
    "x.flatten": lambda x: x.flatten(2),
    "torch.flatten": lambda x: torch.flatten(x, 2),
    "x.repeat": lambda x: x.repeat(1, 2, 1, 1),
    "torch.repeat_interleave": lambda x: torch.repeat_interleave(x, 2, 1),
    "x.repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "x.expand": lambda x: x.mean(1, keepdim=True).expand(1, 4, 8, 8),
    "x.expand_as": lambda x: x.mean(1, keepdim=True).expand_as(x),
    "x.clone": lambda x: x.clone(),
    "x.unfold": lambda x: x.unfold(2, 2, 2),
    "x.diag": lambda x: x[0, 0].diag(),
    "torch.roll": lambda x: torch.roll(x, (-2, 3), (2, 3)),
    "torch.flip": lambda x: torch.flip(x, (3,)),
    "x.flip": lambda x: x.flip(3),
    "torch.meshgrid": lambda x: torch.meshgrid(x[0, 0, 0], x[0, 0, 1], indexing="ij")[0],
    "torch.zeros": lambda x: torch.zeros(8) + x,
    "torch.ones": lambda x: torch.ones(8) + x,
    "torch.arange": lambda x: torch.arange(8) + x,
    "torch.linspace": lambda x: torch.linspace(0, 1, 8) + x,
    "torch.eye": lambda x: torch.eye(8) + x,
    "torch.tensor": lambda x: torch.tensor([0.5]) + x,
    "torch.FloatTensor": lambda x: torch.FloatTensor([0.5]) + x,
    "torch.full_like": lambda x: torch.full_like(x, 2.0) + x,
    "torch.zeros_like": lambda x: torch.zeros_like(x) + x,
    "torch.ones_like": lambda x: torch.ones_like(x) + x,
    "torch.full": lambda x: torch.full((8,), 2.0) + x,
    "torch.randn": lambda x: torch.randn(8) * 0 + x,
    "torch.rand": lambda x: torch.rand(8) * 0 + x,
    "torch.randn_like": lambda x: torch.randn_like(x) * 0 + x,
    "x.new_zeros": lambda x: x.new_zeros(8) + x,
    "x.new_empty": lambda x: x.new_empty(8).zero_() + x,
    "x.new_tensor": lambda x: x.new_tensor([0.5]) + x,
    "x.float": lambda x: (x > 0.5).float(),
    "x.double": lambda x: x.double(),
    "x.long": lambda x: (x * 9).long(),
    "x.int": lambda x: (x * 9).int(),
    "x.type_as": lambda x: (x > 0.5).type_as(x),
    "x.masked_fill": lambda x: x.masked_fill(x > 0.5, -100.0),
    "x.masked_fill_": lambda x: x.clone().masked_fill_(x > 0.5, -100.0),
    "torch.where": lambda x: torch.where(x > 0.5, x, 0.0),
    "torch.gather": lambda x: torch.gather(x, 3, _places(x)),
    "x.gather": lambda x: x.gather(3, _places(x)),
    "torch.scatter": lambda x: torch.scatter(x, 3, torch.arange(3).expand(1, 4, 8, 3), 2.0),
    "x.scatter": lambda x: x.scatter(3, torch.arange(3).expand(1, 4, 8, 3), x[..., 4:]),
    "x.scatter_": lambda x: x.clone().scatter_(3, torch.arange(3).expand(1, 4, 8, 3), 2.0),
    "torch.topk": lambda x: torch.topk(x, 3, -1).values,
    "x.topk": lambda x: x.topk(3, -1).values,
    "torch.sort": lambda x: torch.sort(x, -1).values,
    "x.sort": lambda x: x.sort(-1).values,
    "x.argsort": lambda x: x.argsort(-1),
    "torch.argsort": lambda x: torch.argsort(x, -1),
    "torch.argmax": lambda x: torch.argmax(x, 1),
    "torch.max": lambda x: torch.max(x, 1).values,
    "torch.min": lambda x: torch.min(x, 1).values,
    "x.max": lambda x: x.max(1).values,
    "x.min": lambda x: x.min(1).values,
    "torch.mean": lambda x: torch.mean(x, 1),
    "x.mean": lambda x: x.mean((2, 3), keepdim=True),
    "torch.sum": lambda x: torch.sum(x, 1),
    "x.sum": lambda x: x.sum(1),
    "torch.var": lambda x: torch.var(x, 1),
    "x.var": lambda x: x.var(1, keepdim=True, unbiased=False),
    "x.std": lambda x: x.std(1),
    "torch.norm": lambda x: torch.norm(x, dim=1),
    "x.norm": lambda x: x.norm(dim=1),
    "x.cumsum": lambda x: x.cumsum(1),
    "x.cumsum_": lambda x: x.clone().cumsum_(1),
    "torch.cumsum": lambda x: torch.cumsum(x, 1),
    "torch.clamp": lambda x: torch.clamp(x, 0.2, 0.6),
    "torch.clip": lambda x: torch.clip(x, 0.2, 0.6),
    "x.clamp": lambda x: x.clamp(min=0.3),
    "x.clip": lambda x: x.clip(0.2, 0.6),
    "x.clamp_": lambda x: x.clone().clamp_(0.2, 0.6),
    "x.pow": lambda x: x.pow(2),
    "torch.pow": lambda x: torch.pow(x, 1.5),
    "torch.add": lambda x: torch.add(x, x),
    "torch.mul": lambda x: torch.mul(x, x),
    "x.add": lambda x: x.add(x),
    "x.mul": lambda x: x.mul(x),
    "x.add_": lambda x: x.clone().add_(x),
    "x.mul_": lambda x: x.clone().mul_(x),
    "x.div": lambda x: x.div(2),
    "x.div_": lambda x: x.clone().div_(2),
    "torch.complex": lambda x: torch.complex(x, x).abs(),
    "torch.fft.rfft2": lambda x: torch.fft.rfft2(x).abs(),
    "torch.fft.fft2": lambda x: torch.fft.fft2(x).abs(),
    "torch.fft.rfftn": lambda x: torch.fft.rfftn(x, dim=(2, 3)).abs(),
    "torch.fft.irfft2": lambda x: torch.fft.irfft2(torch.fft.rfft2(x), s=(8, 8)),
    "torch.fft.irfftn": lambda x: torch.fft.irfftn(torch.fft.rfftn(x, dim=(2, 3)), s=(8, 8)),
    "torch.fft.ifft2": lambda x: torch.fft.ifft2(torch.fft.fft2(x)).real,
    "torch.inverse": lambda x: torch.inverse(_image_of(x)),
    "F.interpolate": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "F.upsample": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "F.grid_sample": lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False),
    "F.pad": lambda x: F.pad(x, (1, 2, 0, 1), "reflect"),
    "F.conv1d": lambda x: F.conv1d(x.flatten(2), torch.ones(3, 4, 3)),
    "F.conv2d": lambda x: F.conv2d(x, torch.ones(3, 4, 3, 3)),
    "F.conv3d": lambda x: F.conv3d(x[None], torch.ones(3, 1, 3, 3, 3)),
    "F.conv_transpose2d": lambda x: F.conv_transpose2d(x, torch.ones(4, 3, 2, 2), stride=2),
    "F.linear": lambda x: F.linear(x, torch.ones(3, 8)),
    "F.leaky_relu": lambda x: F.leaky_relu(x - 0.5, 0.1),
    "F.normalize": lambda x: F.normalize(x, dim=-1),
    "F.layer_norm": lambda x: F.layer_norm(x, (8,)),
    "F.softmax": lambda x: F.softmax(x, -1),
    "F.gumbel_softmax": lambda x: F.gumbel_softmax(x, dim=1) * 0 + x,
    "F.scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "F.avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "F.max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1),
    "F.adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1),
    "F.adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, (3, 5)),
    "F.pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "F.pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "F.unfold": lambda x: F.unfold(x, 3, padding=1),
    "F.fold": lambda x: F.fold(F.unfold(x, 2, stride=2), (8, 8), 2, stride=2),
    "F.one_hot": lambda x: F.one_hot((x * 4).long(), 5),
    "nn.Embedding": lambda x: F.embedding((x * 5).long(), torch.ones(6, 3).cumsum(0)),
    "torch.softmax": lambda x: torch.softmax(x, -1),
    "x.softmax": lambda x: x.softmax(-1),
    **{
        f"{owner}.{name}": call
        for name in (
            *("sigmoid", "sqrt", "abs", "exp", "log", "tanh", "round", "rsqrt", "expm1", "cos"),
            *("sin", "relu", "square", "floor", "atan2"),
        )
        for owner, call in (
            ("torch", lambda x, name=name: _pointwise(torch, name, x)),
            ("x", lambda x, name=name: _pointwise(Tensor, name, x)),
        )
    },
    **{
        f"F.{name}": lambda x, name=name: getattr(F, name)(x - 0.5)
        for name in ("relu", "gelu", "silu", "mish", "sigmoid", "tanh", "elu", "softplus", "relu6")
    },
}


def _pointwise(owner: Any, name: str, x: Tensor) -> Tensor:
    result: Tensor = (
        getattr(owner, name)(x, x - 0.5) if name == "atan2" else getattr(owner, name)(x)
    )
    return result


def _einops(name: str) -> Call:
    def apply(x: Tensor) -> Tensor:
        import einops

        if name == "rearrange":
            return einops.rearrange(x, "b c (h m) (w n) -> b (h w) (m n) c", m=4, n=4)
        if name == "reduce":
            return einops.reduce(x, "b c h w -> b c", "mean")
        return einops.repeat(x, "b c h w -> b (k c) h w", k=2)

    return apply


FUNCTIONS |= {f"einops.{name}": _einops(name) for name in ("rearrange", "repeat", "reduce")}
