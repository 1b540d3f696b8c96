"""What the libraries below say on their way, kept from the user's terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MODULES = r"(torch|torchvision|spandrel|spandrel_extra_arches|timm|onnx|onnxscript|onnx_ir|tvm)\b"
_IN_TORCH = r"(?s).*\(Triggered internally at "
"""How torch's C++ marks its warnings, which Python ascribes to whoever called it."""
_LOGGERS = ("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within it, libraries neither warn nor log below errors; what they raise is unchanged.

    Warnings of the user's own code, and all filters outside it, stay as they are. Also a decorator.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        # NNPACK, which no desktop convolution uses, writes to the terminal where a CPU lacks it.
        with warnings.catch_warnings(), torch.backends.nnpack.flags(enabled=False):
            warnings.filterwarnings("ignore", module=_MODULES)
            warnings.filterwarnings("ignore", message=_IN_TORCH)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
