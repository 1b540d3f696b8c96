"""The manifest of a bundle: what it must say, and reading one that may come from anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from distillc.data.tasks import parse_task
from distillc.errors import UsageError, VerificationError, reason
from distillc.runtime import app
from distillc.runtime.devices import get_device
from distillc.runtime.precision import get_precision
from distillc.runtime.strict_json import read_object

FORMAT = 3
"""Version of the bundle's layout; others are refused."""

MANIFEST = "manifest.json"
LIBRARY = "model.so"
HEADER = "distillc.h"
PARTS = (
    LIBRARY,
    HEADER,
    "hybrid.pt2",
    "weights.safetensors",
    "model.onnx",
    "reference.safetensors",
)
"""What every bundle has, besides the program that the manifest calls `bench`.

A report and a plot may come on top, for a phone also the library that the manifest calls `android`.
"""
REPORT, PLOT, WEIGHTS = "report.html", "front.png", "model.weights"

AGAIN = "convert again: `distillc convert` goes on from its work directory"

MOST_NUMBERS = 1 << 31
"""Numbers of an input or output: what a library can address."""


def weights_of(library: Path) -> Path:
    """Return where a library's weights are if they are in a file of their own."""
    return library.with_suffix(".weights")


def _file_name(name: str) -> str:
    if name in (".", "..") or any(letter in name for letter in '/\\"') or not name.isprintable():
        raise ValueError("not a plain file name")
    return name


def _device(name: str) -> str:
    get_device(name)
    return name


def _precision(name: str) -> str:
    return get_precision(name).name


def _task(text: str) -> str:
    parse_task(text)
    return text


Extent = Annotated[int, Field(strict=True, ge=1, le=1 << 16)]
One = Annotated[int, Field(strict=True, ge=1, le=1)]
Size = Annotated[tuple[Extent, Extent], Field(strict=False)]
Shape = Annotated[tuple[One, Extent, Extent, Extent], Field(strict=False)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
FileName = Annotated[
    str, StringConstraints(min_length=1, max_length=255), AfterValidator(_file_name)
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\z")]


class _Checked(BaseModel):
    """Exact types, finite numbers; entries that only people read are taken as they are."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)


class RecordedFigures(_Checked):
    """Mean PSNR in dB, mean SSIM, and means of other packages' metrics."""

    psnr: float
    ssim: float
    further: dict[str, float] = {}


class RecordedQuality(_Checked):
    """What `distillc.runtime.quality.Quality` says; without a teacher there are no losses."""

    hybrid: RecordedFigures
    teacher: RecordedFigures | None = None
    images: int = Field(ge=1)
    drop_db: float | None = None
    interval_db: Annotated[tuple[float, float], Field(strict=False)] | None = None
    worst_db: float | None = None
    worst_image: str | None = None


class Metrics(_Checked):
    """Figures of a conversion."""

    quality: RecordedQuality | None = None
    verification: dict[str, Any] | None = None


class Source(_Checked):
    """The checkpoint that a bundle was made from; nothing of it for a bundle of a module.

    Attributes:
        path: Its file's name.
        sha256: Of the file.
        arch_args: Arguments of the user's own class; None where the class is not the user's.
        output: The image in what the class returns, where the user said which it is.
        inputs: Constants of further inputs; of tensors their shape, dtype and SHA-256.
        weights_key: Which weights of the file were taken, where the user said so.
        specialise: Name of the picture that choices were fixed for.
        specialised: What was fixed.
    """

    path: Annotated[str, StringConstraints(max_length=1000)] = ""
    sha256: Sha256 | None = None
    arch_args: dict[str, Any] | None = None
    output: Annotated[str, StringConstraints(max_length=1000)] | None = None
    inputs: dict[str, Any] | None = None
    weights_key: Annotated[str, StringConstraints(max_length=1000)] | None = None
    specialise: Annotated[str, StringConstraints(max_length=1000)] | None = None
    specialised: list[str] = Field(default_factory=list)


class Manifest(_Checked):
    """What code reads of a manifest, by type.

    Attributes:
        format: The form of bundles, `FORMAT`.
        verified: Whether the bundle passed `verify_bundle`.
        name: The network's.
        target: What it was compiled for; a plug-in's target may be unknown here.
        devices: What runs it; the first verified it.
        precision: What it computes in.
        bench: The file of the program.
        android: The file of the library for Android.
        files: File -> SHA-256 of it, as 64 hex digits.
        size: (H, W) of the input in pixels.
        scale: Size of the output / size of the input.
        input_shape: (1, C, H, W) of one float32 image.
        output_shape: (1, C', H * scale, W * scale).
        planned_bytes: Memory of one model between its weights and its images.
        source: The checkpoint.
        task: How the clean images were degraded.
        decisions: Block -> `keep` or the surrogate's label.
        metrics: Figures of the conversion.
        versions: Package -> version of it that made the bundle.
    """

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    verified: bool
    name: Text
    target: Text
    devices: Annotated[list[Annotated[Text, AfterValidator(_device)]], Field(min_length=1)]
    precision: Annotated[str, AfterValidator(_precision)] = "fp32"
    bench: FileName
    android: FileName | None = None
    files: dict[FileName, Sha256]
    size: Size
    scale: Extent
    input_shape: Shape
    output_shape: Shape
    planned_bytes: Annotated[int, Field(ge=0)] = 0
    source: Source = Source()
    task: Annotated[str, AfterValidator(_task)] | None = None
    decisions: dict[str, str] = {}
    metrics: Metrics = Metrics()
    versions: dict[str, str] = {}

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Manifest:
        needed = [*PARTS, self.bench, *filter(None, [self.android])]
        if missing := [name for name in needed if name not in self.files]:
            raise ValueError(f"files has no hash of {', '.join(missing)}")
        if MANIFEST in self.files:
            raise ValueError(f"files lists {MANIFEST} itself")
        grown = (self.size[0] * self.scale, self.size[1] * self.scale)
        if self.input_shape[2:] != self.size or self.output_shape[2:] != grown:
            raise ValueError(
                f"size {self.size}, scale {self.scale}, input_shape {self.input_shape} and "
                f"output_shape {self.output_shape} contradict each other"
            )
        if max(math.prod(self.input_shape), math.prod(self.output_shape)) > MOST_NUMBERS:
            raise ValueError(f"an image of more than {MOST_NUMBERS} numbers")
        return self


def check_manifest(entries: Mapping[str, Any], where: Path) -> Manifest:
    """Return the entries by type.

    Args:
        entries: JSON values.
        where: The file, for messages.

    Raises:
        VerificationError: They are not what a manifest says; the message names the first.
    """
    form = entries.get("format")
    if type(form) is int and 0 < form < 1000 and form != FORMAT:
        raise VerificationError(
            f"the bundle has format {form}, this distillc reads {FORMAT}",
            where=str(where.parent),
            hint="upgrade distillc" if form > FORMAT else AGAIN,
        )
    try:
        return Manifest.model_validate(dict(entries))
    except ValidationError as error:
        found = []
        for problem in error.errors(include_url=False, include_input=False)[:3]:
            place = ".".join(str(each)[:40] for each in problem["loc"])
            what = problem["msg"].removeprefix("Value error, ")
            found.append(f"{place}: {what}" if place else what)
        raise _damaged(where, "; ".join(found)) from error
    except UsageError as error:  # of a name that nothing here has
        raise _damaged(where, error.what) from error


def read_manifest(path: Path) -> dict[str, Any]:
    """Return what a manifest says, after `check_manifest`.

    Raises:
        VerificationError: It cannot be read, is not JSON, or says what no manifest says.
    """
    try:
        entries = read_object(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, reason(error)) from error
    check_manifest(entries, path)
    return entries


def our_files(folder: Path) -> frozenset[str] | None:
    """Return what distillc wrote into a bundle's folder, of any format; None of other folders.

    Other programs' manifests have neither our format nor hashes of files. A manifest that lists
    more than bundles have took in what somebody put beside it, as those of earlier versions did.
    """
    try:
        entries = read_object(folder / MANIFEST)
    except (OSError, ValueError):
        return None
    form, files = entries.get("format"), entries.get("files")
    if type(form) is not int or form < 1 or not isinstance(files, dict) or LIBRARY not in files:
        return None
    try:
        _Listed.model_validate({"files": files})
    except ValidationError:
        return None
    known = [
        *PARTS,
        *app.FILES,
        REPORT,
        PLOT,
        WEIGHTS,
        entries.get("bench"),
        entries.get("android"),
    ]
    return frozenset(name for name in files if name in known) | {MANIFEST}


class _Listed(_Checked):
    files: dict[FileName, Sha256]


def _damaged(where: Path, why: str) -> VerificationError:
    return VerificationError(
        f"the bundle's manifest is damaged: {why[:300]}", where=str(where), hint=AGAIN
    )
