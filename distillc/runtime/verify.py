"""Does a bundle compute what its network computes, and are the pictures as good?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

import distillc.surrogates.axial_scan
import distillc.surrogates.selective_scan  # noqa: F401 - registers another
from distillc.data.images import RestorationData
from distillc.data.metrics import TOLERANCE, finite_psnr, largest_error, ssim
from distillc.data.windows import Pair
from distillc.errors import DeviceError, StorageError, VerificationError, reason
from distillc.frontend.onnx_graph.runtime import OnnxRuntime
from distillc.frontend.programs import read_program
from distillc.quiet import quiet_libraries
from distillc.runtime.bundle import Bundle
from distillc.runtime.devices import get_device
from distillc.runtime.precision import get_precision
from distillc.workdir import read_tensors

ORIGINAL = "the ONNX file in ONNX Runtime"
"""What bundles of ONNX files are compared with when they are made."""


@dataclass(frozen=True)
class Verification:
    """What was compared.

    Attributes:
        device: Where the compiled network ran.
        images: Real images compared, besides the stored reference.
        max_error: Largest difference from torch, over all of them (see `TOLERANCE`).
        psnr_to_torch: Smallest PSNR between compiled and torch output, dB (999 when equal).
        onnx_error: The same of the ONNX file in ONNX Runtime.
        psnr: Mean PSNR of the compiled output against the clean images, dB; None without images.
        ssim: The same for SSIM.
        precision: What the compiled library computes in.
        psnr_cost: Mean PSNR of torch's output against the clean images, less that of the compiled
            output, dB; None without images.
        against: What all were compared with: torch, or the ONNX file that a network came from.
    """

    device: str
    images: int
    max_error: float
    psnr_to_torch: float
    onnx_error: float
    psnr: float | None
    ssim: float | None
    precision: str = "fp32"
    psnr_cost: float | None = None
    against: str = "torch"


def verification_images(
    data: RestorationData, size: tuple[int, int], scale: int, count: int
) -> list[Pair]:
    """Return `count` pairs of a bundle's size (H, W) and scale, cut from held-out images.

    Raises:
        UsageError: The count is below 1.
        DataError: An image cannot be decoded.
    """
    height, width = size
    pairs = data.held_out(count, max(size))
    return [
        (degraded[..., :height, :width], clean[..., : height * scale, : width * scale])
        for degraded, clean in pairs
    ]


@quiet_libraries()
def verify_bundle(
    bundle: Bundle,
    pairs: Sequence[Pair] = (),
    device: str | None = None,
    original: nn.Module | None = None,
) -> Verification:
    """Run the compiled network and compare it with torch, on the stored reference and on images.

    A bundle that passes is marked as verified in its manifest; one that fails loses the mark.

    Args:
        bundle: An open bundle.
        pairs: (degraded, clean) images of the bundle's size.
        device: Where to run; by default the target's own device.
        original: The ONNX file that the network came from, in ONNX Runtime: the program for torch
            and all else are then compared with what it computes.

    Raises:
        VerificationError: A difference is above `TOLERANCE`, a shape or a weight is another, a
            value is not finite, or a file cannot be used; the message has the figures.
        DeviceError: The device is incomplete, or running fails.
    """
    name = device or bundle.default_device()
    get_device(name).ready()  # what the machine lacks says nothing of the bundle
    try:
        result = _compare(bundle, pairs, name, original)
        metrics = {**bundle.manifest.get("metrics", {}), "verification": asdict(result)}
        bundle.manifest = bundle.annotate({"verified": True, "metrics": metrics}).manifest
    except (VerificationError, DeviceError):
        with suppress(StorageError):  # what failed is more important
            bundle.unmark()
        raise
    return result


def _compare(
    bundle: Bundle, pairs: Sequence[Pair], device: str, original: nn.Module | None
) -> Verification:
    against = "torch" if original is None else ORIGINAL
    with _blame(bundle, "reference.safetensors"):
        reference = read_tensors(bundle.path / "reference.safetensors")
        cases = [(reference["input"], reference["output"])]
        _check_shapes(bundle, *cases[0])
    outputs: dict[str, list[Tensor]] = {}
    with torch.no_grad(), _blame(bundle, "hybrid.pt2"):
        program = read_program(bundle.path / "hybrid.pt2")
        module = program.module()
        if original is None:
            outputs["exported program"] = [module(reference["input"])]
            cases += [(degraded, module(degraded)) for degraded, _ in pairs]
        else:
            outputs["stored reference"] = [reference["output"]]
            inputs = [reference["input"], *(degraded for degraded, _ in pairs)]
            outputs["exported program"] = [module(x) for x in inputs]
            cases = [(x, original(x)) for x in inputs]
    with _blame(bundle, "model.onnx"):
        exported = OnnxRuntime(bundle.path / "model.onnx")
        outputs["ONNX file"] = [exported(x) for x, _ in cases]
    with _blame(bundle, "model.so"):
        compiled = _each_once(
            lambda x: torch.from_numpy(bundle.run(x.numpy(), device)), [x for x, _ in cases]
        )
        outputs["compiled library"] = compiled
    errors = {
        # The program's own outputs are what the others are compared with on images.
        what: max(
            _difference(bundle, what, y, wanted, against)
            for y, (_, wanted) in zip(given, cases, strict=False)
        )
        for what, given in outputs.items()
    }
    precision = get_precision(bundle.facts.precision)
    for what, error in errors.items():
        allowed = precision.max_error if what == "compiled library" else TOLERANCE
        if error > allowed:
            raise _failure(
                bundle,
                f"the {what} differs from {against} by {error:.2e}, allowed is {allowed:.0e}",
            )
    between = min(finite_psnr(y, wanted) for y, (_, wanted) in zip(compiled, cases, strict=True))
    if between < precision.min_psnr:
        raise _failure(
            bundle,
            f"the compiled library has {between:.1f} dB against {against}, {precision.name} "
            f"needs {precision.min_psnr:.0f}",
        )
    _check_weights(bundle, program.state_dict)
    pictures = [(y, clean) for y, (_, clean) in zip(compiled[1:], pairs, strict=True)]
    losses = [
        finite_psnr(wanted, clean) - finite_psnr(y, clean)
        for (y, clean), (_, wanted) in zip(pictures, cases[1:], strict=True)
    ]
    return Verification(
        device=device,
        images=len(pairs),
        max_error=errors["compiled library"],
        psnr_to_torch=between,
        onnx_error=errors["ONNX file"],
        psnr=statistics.fmean(finite_psnr(*each) for each in pictures) if pictures else None,
        ssim=statistics.fmean(ssim(*each) for each in pictures) if pictures else None,
        precision=precision.name,
        psnr_cost=statistics.fmean(losses) if losses else None,
        against=against,
    )


def _each_once(run: Callable[[Tensor], Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Run every input, equal ones once: the stored reference may be one of the images."""
    outputs: list[Tensor] = []
    for index, x in enumerate(inputs):
        same = next((earlier for earlier in range(index) if torch.equal(inputs[earlier], x)), None)
        outputs.append(run(x) if same is None else outputs[same])
    return outputs


def _check_shapes(bundle: Bundle, x: Tensor, y: Tensor) -> None:
    """Check that the stored reference is of the shapes that the manifest says."""
    facts = bundle.facts
    found, said = (tuple(x.shape), tuple(y.shape)), (facts.input_shape, facts.output_shape)
    if found != said:
        shapes = " -> ".join(map(str, found)), " -> ".join(map(str, said))
        raise _failure(bundle, "reference.safetensors has {}, the manifest says {}".format(*shapes))


@contextmanager
def _blame(bundle: Bundle, name: str) -> Iterator[None]:
    """Turn whatever a file of the bundle causes into a `VerificationError` that names it."""
    try:
        yield
    except (VerificationError, DeviceError):
        raise
    except Exception as error:
        raise _failure(bundle, f"{name} cannot be used: {reason(error, longest=300)}") from error


def _difference(bundle: Bundle, what: str, y: Tensor, wanted: Tensor, against: str) -> float:
    """Return how far two outputs, which must be comparable, are apart."""
    if y.shape != wanted.shape:
        shapes = f"{tuple(y.shape)}, {against} {tuple(wanted.shape)}"
        raise _failure(bundle, f"the {what} returns {shapes}")
    difference = largest_error(y, wanted)
    if not math.isfinite(difference):
        raise _failure(bundle, f"the {what} or {against} returns values that are not finite")
    return difference


def _check_weights(bundle: Bundle, wanted: Mapping[str, Tensor]) -> None:
    """Compare weights.safetensors with the exported program's weights, bit by bit."""
    with _blame(bundle, "weights.safetensors"):
        weights = read_tensors(bundle.path / "weights.safetensors")
    other = sorted(weights.keys() ^ wanted.keys()) or [
        name
        for name, tensor in wanted.items()
        if weights[name].dtype != tensor.dtype or not torch.equal(weights[name], tensor)
    ]
    if other:
        some = ", ".join(other[:3]) + (", ..." if len(other) > 3 else "")
        raise _failure(bundle, f"weights.safetensors is not what hybrid.pt2 computes with: {some}")


def _failure(bundle: Bundle, what: str) -> VerificationError:
    return VerificationError(
        what,
        where=str(bundle.path),
        hint="the bundle must not be shipped; `distillc explain-failure` with its hybrid.pt2 finds "
        "the module that is wrong",
    )
