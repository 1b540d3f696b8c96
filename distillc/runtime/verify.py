"""Does a bundle compute what torch computes, and are the pictures as good?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import distillc.surrogates.selective_scan  # noqa: F401 - registers the operator of hybrid.pt2
from distillc.data.images import open_data
from distillc.data.metrics import psnr, ssim
from distillc.errors import VerificationError
from distillc.runtime.bundle import Bundle
from distillc.workdir import read_tensors

TOLERANCE = 1e-4
"""Largest absolute difference between compiled and torch output, float32 in [0, 1]."""

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Verification:
    """What was compared.

    Attributes:
        device: Where the compiled network ran.
        images: Real images compared, besides the stored reference.
        max_error: Largest absolute difference from torch, over all of them.
        psnr_to_torch: Smallest PSNR between compiled and torch output, dB (999 when equal).
        onnx_error: Largest absolute difference of the ONNX file in ONNX Runtime.
        psnr: Mean PSNR of the compiled output against the clean images, dB; None without images.
        ssim: The same for SSIM.
    """

    device: str
    images: int
    max_error: float
    psnr_to_torch: float
    onnx_error: float
    psnr: float | None
    ssim: float | None


def restoration_quality(module: nn.Module, pairs: Sequence[Pair]) -> dict[str, float]:
    """Return mean PSNR (dB) and SSIM of a module's output on (degraded, clean) pairs."""
    with torch.no_grad():
        # Torch's CPU convolutions are several times as fast with channels innermost.
        last = torch.channels_last
        outputs = [(module(degraded.to(memory_format=last)), clean) for degraded, clean in pairs]
    return {
        "psnr": statistics.fmean(psnr(output, clean) for output, clean in outputs),
        "ssim": statistics.fmean(ssim(output, clean) for output, clean in outputs),
    }


def verification_images(bundle: Bundle, data: Path | None, count: int) -> list[Pair]:
    """Return pairs of the bundle's task and size, cut from a folder or scikit-image's photos.

    Raises:
        DataError: The folder has no usable images.
    """
    channels, height, width = bundle.manifest["input_shape"][1:]
    task = bundle.manifest.get("task", "denoise:sigma=25")
    edge = max(height, width)
    pairs = open_data(data, task, channels).held_out(count, edge)
    scale = bundle.manifest["scale"]
    return [
        (degraded[..., :height, :width], clean[..., : height * scale, : width * scale])
        for degraded, clean in pairs
    ]


def verify_bundle(
    bundle: Bundle, pairs: Sequence[Pair] = (), device: str | None = None
) -> Verification:
    """Run the compiled network and compare it with torch, on the stored reference and on images.

    A bundle that passes is marked as verified in its manifest.

    Args:
        bundle: An open bundle.
        pairs: (degraded, clean) images of the bundle's size.
        device: Where to run; by default the target's own device.

    Raises:
        VerificationError: A difference is above `TOLERANCE`; the message has the figures.
        DeviceError: The device is incomplete, or running fails.
    """
    name = device or bundle.default_device()
    reference = read_tensors(bundle.path / "reference.safetensors")
    module = torch.export.load(bundle.path / "hybrid.pt2").module()
    session = onnxruntime.InferenceSession(
        bundle.path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    (onnx_input,) = session.get_inputs()
    cases = [(reference["input"], reference["output"])]
    with torch.no_grad():
        program_error = _error(module(reference["input"]), reference["output"])
        cases += [(degraded, module(degraded)) for degraded, _ in pairs]
    compiled = [torch.from_numpy(bundle.run(x.numpy(), name)) for x, _ in cases]
    exported = [session.run(None, {onnx_input.name: x.numpy()})[0] for x, _ in cases]
    pictures = [(y, clean) for y, (_, clean) in zip(compiled[1:], pairs, strict=True)]
    result = Verification(
        device=name,
        images=len(pairs),
        max_error=max(_error(y, torch_y) for y, (_, torch_y) in zip(compiled, cases, strict=True)),
        psnr_to_torch=min(
            min(psnr(y, torch_y), 999.0) for y, (_, torch_y) in zip(compiled, cases, strict=True)
        ),
        onnx_error=max(
            _error(torch.from_numpy(np.asarray(y)), torch_y)
            for y, (_, torch_y) in zip(exported, cases, strict=True)
        ),
        psnr=statistics.fmean(psnr(*each) for each in pictures) if pictures else None,
        ssim=statistics.fmean(ssim(*each) for each in pictures) if pictures else None,
    )
    for what, error in (
        ("exported program", program_error),
        ("compiled library", result.max_error),
        ("ONNX file", result.onnx_error),
    ):
        if not error <= TOLERANCE:  # a NaN fails too
            raise VerificationError(
                f"the {what} differs from torch by {error:.2e}, allowed is {TOLERANCE:.0e}",
                where=str(bundle.path),
                hint="the bundle must not be shipped; please report the network",
            )
    metrics: dict[str, Any] = {**bundle.manifest.get("metrics", {}), "verification": asdict(result)}
    bundle.manifest = bundle.annotate({"verified": True, "metrics": metrics}).manifest
    return result


def _error(y: Tensor, reference: Tensor) -> float:
    return float((y - reference).abs().max())
