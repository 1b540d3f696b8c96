"""How well a hybrid restores images beside its teacher: the mean, the worst, how sure that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from scipy.special import stdtrit
from torch import Tensor

from distillc.data.figures import Metric, further_metrics, measure
from distillc.data.metrics import finite_psnr, ssim
from distillc.data.windows import Windows
from distillc.frontend.programs import read_program
from distillc.runtime.bundle import Bundle

CONFIDENCE = 0.95

EDGE = 256
"""Edge of the windows that a conversion measures, pixels, where the network takes it."""

Run = Callable[[Tensor], Tensor]
"""A network: (1, C, H, W) -> (1, C', H * scale, W * scale)."""


@dataclass(frozen=True)
class Figures:
    """Means over the images, against the clean ones.

    Attributes:
        psnr: Peak signal-to-noise ratio, dB.
        ssim: Structural similarity, in [-1, 1].
        further: Metric of another package -> its figure.
    """

    psnr: float
    ssim: float
    further: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Quality:
    """A hybrid, and its teacher where there is one, on images.

    What a hybrid loses on an image is the teacher's PSNR less its own.

    Attributes:
        images: Number of images.
        origin: Whose they are.
        window: (H, W) of what is measured, up to four of each image, pixels of the input.
        ran: What computed the hybrid's output.
        hybrid: The hybrid's figures.
        teacher: The teacher's; None, like all that follows, without a teacher.
        drop_db: What the hybrid loses, mean over the images.
        interval_db: Where that mean would lie over many more such images, with a probability of
            `CONFIDENCE`: Student's t over the images. None of one image.
        worst_db: What it loses on the image where it loses most.
        worst_image: That image's name.
    """

    images: int
    origin: str
    window: tuple[int, int]
    ran: str
    hybrid: Figures
    teacher: Figures | None = None
    drop_db: float | None = None
    interval_db: tuple[float, float] | None = None
    worst_db: float | None = None
    worst_image: str | None = None


def measure_quality(
    hybrid: Run, teacher: Run | None, images: Iterable[Windows], origin: str, ran: str = "torch"
) -> Quality:
    """Measure a hybrid and its teacher on images.

    An image's PSNR is that of all its windows taken together.

    Args:
        hybrid: The hybrid.
        teacher: Its teacher; None where there is none.
        images: At least one.
        origin: Whose images they are.
        ran: What computes the hybrid's output.
    """
    further = further_metrics()
    names: list[str] = []
    mine: list[Figures] = []
    its: list[Figures] = []
    for image in images:
        names.append(image.name)
        window = image.pairs[0][0].shape[2:]
        mine.append(_figures(hybrid, image, further))
        if teacher:
            its.append(_figures(teacher, image, further))
    alone = Quality(len(names), origin, (window[0], window[1]), ran, _mean(mine))
    if not teacher:
        return alone
    losses = [before.psnr - after.psnr for before, after in zip(its, mine, strict=True)]
    worst = max(losses)
    return replace(
        alone,
        teacher=_mean(its),
        drop_db=statistics.fmean(losses),
        interval_db=confidence_interval(losses),
        worst_db=worst,
        worst_image=names[losses.index(worst)],
    )


def measure_bundle(
    bundle: Bundle,
    teacher: Run | None,
    images: Iterable[Windows],
    origin: str,
    device: str | None = None,
) -> Quality:
    """Measure a bundle and its teacher on images.

    Here the compiled library computes; elsewhere, where it would take hours, its program for torch
    does, from which it may differ by what `verify_bundle` allows.

    Args:
        bundle: A verified bundle.
        teacher: See `distillc.runtime.teacher`; None where there is none.
        images: At least one, in windows of the bundle's size.
        origin: Whose images they are.
        device: Where the bundle runs; by default the target's own device.

    Raises:
        DataError: An image cannot be decoded.
        DeviceError: Running fails.
    """
    if (device or bundle.default_device()) == "host":
        return measure_quality(
            lambda x: torch.from_numpy(bundle.run(x.contiguous().numpy(), "host")),
            teacher,
            images,
            origin,
            "the compiled library",
        )
    program = read_program(bundle.path / "hybrid.pt2")
    return measure_quality(program.module(), teacher, images, origin)


def confidence_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return where the mean lies with a probability of `CONFIDENCE`; None of one value.

    Student's t: few images make it wide, as they should; a bootstrap's would be too narrow.
    """
    if len(values) < 2:
        return None
    factor = float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2))
    reach = factor * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - reach, mean + reach


@torch.no_grad()
def _figures(network: Run, image: Windows, further: Sequence[Metric]) -> Figures:
    # Torch's CPU convolutions are several times as fast with channels innermost.
    last = torch.channels_last
    outputs = [network(degraded.to(memory_format=last)) for degraded, _ in image.pairs]
    cleans = [clean for _, clean in image.pairs]
    pairs = list(zip(outputs, cleans, strict=True))
    return Figures(
        # Equal images have no finite PSNR, and two of these no difference.
        finite_psnr(torch.cat(outputs), torch.cat(cleans)),
        statistics.fmean(ssim(y, clean) for y, clean in pairs),
        {each.name: statistics.fmean(measure(each, *pair) for pair in pairs) for each in further},
    )


def _mean(rows: Sequence[Figures]) -> Figures:
    return Figures(
        statistics.fmean(each.psnr for each in rows),
        statistics.fmean(each.ssim for each in rows),
        {name: statistics.fmean(each.further[name] for each in rows) for name in rows[0].further},
    )
