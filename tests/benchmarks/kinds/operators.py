"""Networks with operators that compilers often lack."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.benchmarks.kinds.kind import kind
from tests.benchmarks.kinds.parts import WIDTH, Restorer


@kind("adaptive max pooling", found="")
class AdaptiveMax(Restorer):
    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_max_pool2d(x, (5, 7))
        return x + F.interpolate(pooled, x.shape[2:], mode="bilinear")


@kind("places to sample that are learned", found="")
class LearnedUpsampling(Restorer):
    """Offsets by a convolution, moved features twice as large, made small again."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Conv2d(WIDTH, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        moved = F.pixel_shuffle(self.offset(y).tanh() / 8, 2).permute(0, 2, 3, 1)
        still = F.affine_grid(torch.eye(2, 3)[None], [1, 1, *moved.shape[1:3]], align_corners=False)
        large = F.grid_sample(y, still + moved, padding_mode="border", align_corners=False)
        return x + self.tail(F.avg_pool2d(large, 2))


@kind("kernels that are learned for every pixel", found="")
class ReassembledFeatures(Restorer):
    """Neighbours weighed by a softmax of its own at each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(WIDTH, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        near = F.unfold(y, 3, padding=1).unflatten(1, (WIDTH, 9))
        shares = self.weigh(y).softmax(1).flatten(2).unsqueeze(1)
        return x + self.tail((near * shares).sum(2).view_as(y))


@kind("pooling with places", found="")
class PooledWithPlaces(Restorer):
    def forward(self, x: Tensor) -> Tensor:
        y, places = F.max_pool2d(self.head(x), 2, return_indices=True)
        return x + self.tail(F.max_unpool2d(y.relu(), places, 2))


@kind("values joined at places", found="")
class JoinedValues(Restorer):
    """Means of the pixels of each cluster, the nearest of learned centres."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(1, 4, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        rows = y.flatten(2).transpose(1, 2)
        own = torch.cdist(rows, self.centres).argmin(-1, keepdim=True).expand_as(rows)
        means = rows.new_zeros(1, 4, WIDTH).scatter_reduce(1, own, rows, "mean", include_self=False)
        return x + self.tail(means.gather(1, own).transpose(1, 2).view_as(y))


@kind("frequencies that are written over", found="")
class Spectrum(Restorer):
    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        spectrum = torch.fft.rfft2(y, norm="ortho")
        spectrum[..., 8:, 4:] *= 0.5
        size, turn = spectrum.abs(), spectrum.angle()
        back = torch.fft.irfft2(torch.polar(size**1.1, turn), s=y.shape[-2:], norm="ortho")
        return x + self.tail(torch.nan_to_num(back))
