"""Networks with operators that compilers often lack."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tests.benchmarks.kinds.kind import kind
from tests.benchmarks.kinds.parts import Restorer


@kind("adaptive max pooling", found="")
class AdaptiveMax(Restorer):
    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_max_pool2d(x, (5, 7))
        return x + F.interpolate(pooled, x.shape[2:], mode="bilinear")
