"""PSNR of hybrids on fixed images; what two hybrids have in common is computed once."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillc.data.metrics import mean_psnr
from distillc.data.windows import Pair
from distillc.network import KEEP, Network

CACHE_BYTES = 1 << 30


class Evaluator:
    """Measures the PSNR of hybrids.

    A block's output depends on the image and on the decisions about this block and those before
    it, so it is kept under these: a hybrid that begins like an earlier one computes no block until
    they differ. The oldest outputs are dropped when they exceed `CACHE_BYTES`.

    Args:
        net: Network with candidates.
        pairs: (degraded, clean) images, (1, C, H, W) float32.
        device: Torch device.
    """

    def __init__(self, net: Network, pairs: Sequence[Pair], device: str = "cpu") -> None:
        self._net = net
        self._device = device
        self._pairs = [(degraded.to(device), clean) for degraded, clean in pairs]
        self._module = copy.deepcopy(net.module).to(device)
        self._blocks = {block.name: self._module.get_submodule(block.name) for block in net.blocks}
        self._cache = _Cache()

    @torch.no_grad()
    def __call__(self, decisions: Mapping[str, str]) -> float:
        """Return the mean PSNR of the hybrid that these decisions describe, dB.

        It is not finite where an output is not a number.
        """
        run = _Run(self._cache)
        changed: list[tuple[nn.Module, str, nn.Module]] = []
        try:
            prefix: tuple[str, ...] = ()
            for block in self._net.blocks:
                own, label = self._blocks[block.name], decisions[block.name]
                prefix = (*prefix, label)
                module = own
                if label != KEEP:
                    surrogate = self._net.surrogate(block.name, label)
                    module = surrogate.module.to(self._device)
                    if surrogate.scope == "attention":
                        path = block.attention.removeprefix(f"{block.name}.")
                        changed.append((own, path, own.get_submodule(path)))
                        own.set_submodule(path, module)
                        module = own
                self._module.set_submodule(block.name, _Remembered(module, prefix, run))
            return mean_psnr(self._module, run.over(self._pairs), self._device)
        finally:
            for name, own in self._blocks.items():
                self._module.set_submodule(name, own)
            for own, path, module in changed:
                own.set_submodule(path, module)


class _Cache:
    """Outputs of blocks, the oldest dropped first."""

    def __init__(self) -> None:
        self._outputs: OrderedDict[object, Tensor] = OrderedDict()
        self.bytes = 0

    def get(self, key: object) -> Tensor | None:
        if key not in self._outputs:
            return None
        self._outputs.move_to_end(key)
        return self._outputs[key]

    def put(self, key: object, output: Tensor) -> None:
        self._outputs[key] = output
        self.bytes += output.nbytes
        while self.bytes > CACHE_BYTES and len(self._outputs) > 1:
            self.bytes -= self._outputs.popitem(last=False)[1].nbytes


class _Run:
    """Which image is on its way through the network, and how many block calls it has seen."""

    def __init__(self, cache: _Cache) -> None:
        self.cache = cache
        self.image = 0
        self.calls = 0

    def over(self, pairs: Sequence[Pair]) -> Iterator[Pair]:
        """Yield the pairs, each as the image that is on its way."""
        for self.image, pair in enumerate(pairs):
            self.calls = 0
            yield pair


class _Remembered(nn.Module):
    """A block that computes nothing it has computed before."""

    def __init__(self, inner: nn.Module, prefix: tuple[str, ...], run: _Run) -> None:
        super().__init__()
        self.inner, self._prefix, self._run = inner, prefix, run

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self._run.calls += 1  # a block may be called twice
        key = (self._run.image, self._run.calls, self._prefix)
        output = self._run.cache.get(key)
        if output is None:
            computed = self.inner(*args, **kwargs)
            if not isinstance(computed, Tensor):
                return computed
            output = computed.clone()
            self._run.cache.put(key, output)
        return output.clone()  # what follows may work in place
