"""What every conversion reads and checks before it begins, and how it tunes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from distillc.checks import check_file, check_name, check_writable, temporary_folder
from distillc.codegen.tuning.time_modules import Meter
from distillc.codegen.tuning.tuner import TuningResult
from distillc.data.figures import further_metrics
from distillc.data.images import RestorationData, open_data
from distillc.data.tasks import PICTURES, check_scale, tasks_for
from distillc.errors import CheckpointError, UsageError
from distillc.frontend.load import load
from distillc.network import Network
from distillc.options import BundleOptions, ConversionOptions
from distillc.pipeline import Context
from distillc.runtime.devices import get_device
from distillc.runtime.place import check_place
from distillc.tuning import tune

log = logging.getLogger(__name__)


def accept(source: str | Path, options: BundleOptions) -> Path:
    """Check files and folders before the network in `source` is read.

    Args:
        source: The checkpoint.
        options: What is asked.

    Returns:
        The folder that the bundle will have.

    Raises:
        UsageError: A name that no file can have, a bundle around the work folder, or a metric that
            cannot be used.
        CheckpointError: The source is not a file.
        StorageError: A bundle cannot be written there (see `check_place`), nor can a folder.
    """
    check_file(Path(source), CheckpointError)
    place = options.bundle_folder(source)
    check_name(place)
    check_place(place, options.overwrite)
    for folder in options.folders:
        if (whole := place.resolve()) in (folder.resolve(), *folder.resolve().parents):
            raise UsageError(
                f"the bundle's folder would hold {folder}, which is written to as well",
                where=str(whole),
                hint="choose another folder with --out",
            )
        check_writable(folder / "stage")
    temporary_folder()
    further_metrics()
    return place


def find_meter(options: ConversionOptions) -> Meter:
    """Return where a conversion measures.

    Raises:
        DeviceError: It cannot be reached.
    """
    chosen = get_device(options.measure_on)
    chosen.ready()
    return Meter(options.measure_on, options.chosen_target if chosen.programs else "host")


def read(source: str | Path, options: BundleOptions) -> Network:
    """Load what is converted, as the options say; see `distillc.load`."""
    return load(
        source,
        arch=options.arch,
        arch_args=options.arch_args,
        output=options.output,
        inputs=options.inputs,
        weights_key=options.weights_key,
        specialise=options.specialise,
        trust_pickle=options.trust_pickle,
        sandbox=options.sandbox,
        size=options.size,
    )


def fit(net: Network, options: BundleOptions) -> Network:
    """Bring a network to the size that is asked for.

    Args:
        net: The network that was read.
        options: What is asked.

    Raises:
        TraceError: The network cannot take the size.
        DeviceError: What will verify the bundle is not complete.
    """
    net = net.at(net.fitting(options.size))
    get_device(options.chosen_target.devices[0]).ready()
    return net


def images_of(net: Network, options: BundleOptions, data: Path | None = None) -> RestorationData:
    """Return the images that a network is distilled or verified on.

    Where the network takes or returns more than pictures, a task of pictures gives way to one that
    makes what it takes, with a warning.

    Args:
        net: The network.
        options: What is asked.
        data: Folder of images or pairs; scikit-image's photographs by default.

    Raises:
        UsageError: The task is for another scale, or for other channels.
        DataError: There are no images.
    """
    task = options.chosen_task
    try:
        check_scale(task, net.scale, *net.channels)
        return open_data(data, task, *net.channels)
    except UsageError:
        fitting = tasks_for(net.scale, *net.channels)
        if task.planes or not fitting or PICTURES.issuperset(net.channels):
            raise
    log.warning(
        "%s takes %d channels and returns %d: the task is %s, for %s makes pictures",
        net.name,
        *net.channels,
        fitting[0],
        task,
    )
    return open_data(data, fitting[0], *net.channels)


def images_or_none(net: Network, options: BundleOptions) -> RestorationData | None:
    """Return photographs as the network takes them; None where no task makes such images.

    Raises:
        UsageError: Another task would make them.
    """
    if tasks_for(net.scale, *net.channels):
        return images_of(net, options)
    log.warning(
        "no task makes images for a network that takes %d channels and returns %d: it is verified "
        "on random numbers only",
        *net.channels,
    )
    return None


def tune_apart(
    networks: Sequence[Network],
    options: BundleOptions,
    ctx: Context,
    device: str | None = None,
) -> TuningResult:
    """Search the kernels of networks for as long as was asked; a second run adds to the records.

    They stay in the work directory: the user's own change the costs that a search compared.

    Args:
        networks: All of one size, the one that they are tuned at.
        options: What is asked.
        ctx: Where the records are kept, and progress is shown.
        device: Device that candidates run on; see `distillc.tune`.
    """
    assert ctx.work is not None
    target = options.chosen_target
    with ctx.work.stage("tune", {"target": target.name, "cpu": target.cpu}) as stage:
        return tune(
            networks,
            target,
            [networks[0].size],
            options.tune_minutes,
            precision=options.precision,
            device=device,
            records=stage.path("records.jsonl"),
            progress=ctx.progress,
        )
