"""Networks whose Python a tracer stumbles over."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.transforms import functional as pictures

from tests.benchmarks.kinds.kind import kind
from tests.benchmarks.kinds.parts import WIDTH, ChannelBlock, Restorer


class OneBlock(Restorer):
    """A network of one block, and of further parts after it."""

    def __init__(self, *more: nn.Module) -> None:
        super().__init__(ChannelBlock(), *more)


class Checkpointed(ChannelBlock):
    """A block that is checkpointed, in its reentrant form or the other."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(super().forward, x, use_reentrant=self.reentrant)
        return y


@kind("gradient checkpointing left on", found="2 channel Checkpointed")
class Checkpointing(Restorer):
    def __init__(self) -> None:
        super().__init__(Checkpointed(True), Checkpointed(False))


@kind("normalisation by torchvision", found="1 channel ChannelBlock")
class Normalised(OneBlock):
    def forward(self, x: Tensor) -> Tensor:
        mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        return super().forward(pictures.normalize(x, mean, deviation))


@kind("checks of values", found="1 channel ChannelBlock")
class Checked(OneBlock):
    def forward(self, x: Tensor) -> Tensor:
        assert x.min() >= 0 and x.max() <= 1, "a range of [0, 1] is wanted"  # noqa: PT018
        y = super().forward(x)
        if torch.isnan(y).any() or torch.equal(y, torch.zeros_like(y)):
            raise ValueError("the network gives nothing")
        return y


@kind("weights that choose branches", found="1 channel ChannelBlock")
class Flagged(OneBlock):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("started", torch.tensor(True))
        self.share = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        if not self.started:
            raise RuntimeError("not initialised")
        edge = int(x.shape[-1] * self.share.sigmoid())
        inner = x[..., :edge, :edge]
        return super().forward(x + F.interpolate(inner, x.shape[-2:], mode="bilinear"))


@kind("a mask made on the first call", found="1 channel ChannelBlock")
class Lazy(OneBlock):
    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "mask") or self.mask.shape[-1] != x.shape[-1]:
            fading = torch.linspace(0, 1, x.shape[-1])
            self.register_buffer("mask", fading, persistent=False)
        return super().forward(x * self.mask)


class Centres(nn.Module):
    """Adds the nearest of some centres to every token, and moves the centres, as in training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centres", torch.randn(4, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        near = F.one_hot((tokens @ self.centres.T).argmax(-1), 4).float()
        moved = near.transpose(1, 2) @ tokens / (near.sum(1).unsqueeze(-1) + 1)
        self.centres.data.mul_(0.9).add_(moved.mean(0), alpha=0.1)
        return x + (near @ self.centres).transpose(1, 2).reshape(x.shape)


@kind("running state", found="1 channel ChannelBlock")
class Running(OneBlock):
    def __init__(self) -> None:
        super().__init__(Centres())


class Experts(nn.Module):
    """Weighs the two best of four convolutions, which it takes from a list."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, 4)
        self.experts = nn.ModuleList(
            nn.Conv2d(WIDTH, WIDTH, 2 * i + 1, padding=i) for i in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        gates, top_k = self.gate(x.mean((2, 3))).softmax(-1).topk(2, dim=-1)
        chosen = [self.experts[i] for i in top_k.squeeze(0)]
        return x + sum(gates[0, n] * expert(x) for n, expert in enumerate(chosen))


@kind("mixture of experts", found="1 channel ChannelBlock")
class Mixture(OneBlock):
    def __init__(self) -> None:
        super().__init__(Experts())


class Spectrum(nn.Module):
    """Splits a spectrum at a frequency that depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Conv2d(WIDTH, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        mask = torch.zeros_like(x)
        threshold = self.rate(F.adaptive_avg_pool2d(x, 1)).sigmoid()
        for i in range(len(x)):
            h = (height // 2 * threshold[i, 0, :, :]).int()
            w = (width // 2 * threshold[i, 1, :, :]).int()
            mask[i, :, height // 2 - h : height // 2 + h, width // 2 - w : width // 2 + w] = 1
        spectrum = torch.fft.fftshift(torch.fft.fft2(x, norm="forward"))
        low = torch.fft.ifft2(torch.fft.ifftshift(spectrum * mask), norm="forward").real
        return x + low


@kind("a crop by a learned threshold", found="1 channel ChannelBlock")
class Cropped(OneBlock):
    def __init__(self) -> None:
        super().__init__(Spectrum())


class BestTokens(ChannelBlock):
    """Doubles half of the tokens, the best, before the block."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        best = self.score(tokens).topk(tokens.shape[1] // 2, dim=1).indices.expand(-1, -1, WIDTH)
        tokens = tokens.scatter(1, best, 2 * tokens.gather(1, best))
        return super().forward(tokens.transpose(1, 2).reshape(x.shape))


@kind("the best tokens, a fixed ratio", found="1 channel BestTokens")
class FixedRatio(Restorer):
    def __init__(self) -> None:
        super().__init__(BestTokens())


@kind("tokens above a threshold", found="", refused="keep a fixed ratio of tokens")
class Threshold(OneBlock):
    """As many tokens attend to each other as the image says: no static form computes the same."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)[0]
        count = int((tokens.mean(-1) > 0.5).sum())
        return super().forward(x) + tokens[:count].softmax(0).sum()


@kind("a branch on the image", found="", refused="choose by torch.where(condition, a, b)")
class Branch(OneBlock):
    """Either branch is right for some images, and neither for all."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.mean() > 0.5 else x * 2


@kind("numpy inside", found="", refused="compute it with torch")
class Numpy(OneBlock):
    """What numpy computes is not in any graph."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - float(x.numpy().mean()))
