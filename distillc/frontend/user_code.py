"""Networks whose Python is the user's own."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillc.frontend.cpu_attention import lacks_kernel
from distillc.frontend.mamba_package import stand_in


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Within it, modules of a folder are found first, as `python -m` does; afterwards last.

    Where mamba_ssm cannot run, we stand in for what networks import of it.

    A network may import its neighbours as late as when it runs.
    """
    stand_in()
    place = str(folder.resolve())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)
        if place not in sys.path:
            sys.path.append(place)


def import_class(arch: str) -> Any:
    """Return a class by `package.module:Class` or `file.py:Class`.

    Modules are looked for in the current folder first, a file's neighbours beside it.

    Raises:
        ValueError: One of the two names is missing.
        Exception: Whatever the code raises as it is imported.
    """
    source, _, name = arch.rpartition(":")
    if not source or not name:
        raise ValueError("there is no module and class on both sides of a colon")
    if not source.endswith(".py"):
        with importing_from(Path()):
            return getattr(importlib.import_module(source), name)
    path = Path(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # of a name that ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with importing_from(path.parent):
        sys.modules[path.stem] = module  # dataclasses and pickles look their module up
        spec.loader.exec_module(module)
    return getattr(module, name)


def weights_part(module: nn.Module, names: Collection[str]) -> tuple[nn.Module, str]:
    """Return the part of a network whose tensors a file names, and the prefix that it lacks.

    A wrapper that holds nothing but the network names it all with a prefix, which the file lacks.
    Where no part has any of the names it is the network itself.
    """
    part, prefix = module, ""
    while (tensors := part.state_dict().keys()).isdisjoint(names):
        children = list(part.named_children())
        if len(children) != 1 or len(children[0][1].state_dict()) != len(tensors):
            return module, ""
        name, part = children[0]
        prefix += f"{name}."
    return part, prefix


def advice(error: Exception, arch: str = "") -> str | None:
    """Say what to do about an error in the user's code; None where nobody knows.

    Args:
        error: What an import, a constructor or a forward raised.
        arch: What was imported, `package.module:Class`; that it is not found is about its name.
    """
    if isinstance(error, ImportError) and error.name:
        package = error.name.partition(".")[0]
        if package == arch.partition(":")[0].partition(".")[0]:
            return None
        owners = metadata.packages_distributions().get(package)
        if not owners and "site-packages" in (user_line(error) or ""):
            return (
                f"an installed package wants {package}: install it if it is another package; if it "
                "is CUDA code that was not built here, change the network to do without it"
            )
        if not owners:
            return (
                f"`pip install {_PROJECTS.get(package, package.replace('_', '-'))}`, or put the "
                "code beside the network's if it is your own; where it needs CUDA, change the "
                "network to do without it"
            )
        return (
            f"the installed {owners[0]} {metadata.version(owners[0])} does not have it: change the "
            "import, or install the version that the network was written for"
        )
    said = str(error)
    if lacks_kernel(error):
        return "add SDPBackend.MATH, which runs on CPUs, to the sdpa_kernel(...) around that line"
    if isinstance(error, torch.linalg.LinAlgError):
        return (
            "matrices of the image are not compiled: write out the closed form of small ones (2x2, "
            "3x3), or a few steps of an iteration such as Newton's"
        )
    if "has no attribute" in said and "'torch" in said:
        return (
            f"torch {torch.__version__} does not have it: change that line to what replaced it, "
            "or install the version that the network was written for"
        )
    if "'module' object is not callable" in said:
        return (
            "that line calls a module; if it is torch.fft(...) of torch 1.7, torch.fft.fftn of a "
            "complex tensor is its successor"
        )
    if re.search("cuda|nvidia", said, re.IGNORECASE):
        return (
            "that line wants CUDA: leave out .cuda() and device='cuda', or take the device of a "
            "tensor at hand, device=x.device"
        )
    return None


_PROJECTS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Packages whose project has another name."""


def user_line(error: Exception) -> str | None:
    """Return `file:line in function` of the deepest frame that is not torch's own."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', str(error))
    traceback = error.__traceback__
    while traceback:
        code = traceback.tb_frame.f_code
        frames.append((code.co_filename, str(traceback.tb_lineno), code.co_name))
        traceback = traceback.tb_next
    own = [frame for frame in frames if "/torch/" not in frame[0] and "distillc" not in frame[0]]
    return "{}:{} in {}".format(*own[-1]) if own else None
