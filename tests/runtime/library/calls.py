"""What tests of a library share: its image, torch's answer, calls with wrong arguments."""

from __future__ import annotations

import ctypes

import numpy as np
import torch
from torch import nn

from tests.c_api import Library, _image

SHAPE = (1, 3, 16, 24)
OK, BAD_ARGUMENT, BUSY, BAD_WEIGHTS = 0, 1, 4, 5


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE, dtype=np.float32)


def by_torch(network: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(x)).numpy()


def call(library: Library, **changes: object) -> tuple[int, str]:
    """Run with an input that is changed; return status and message."""
    x, y = image(), image()
    given, result = _image(x, "nchw"), _image(y, "nchw")
    for name, value in changes.items():
        setattr(given, name, value)
    functions = library._functions
    status = functions.distillc_model_run(library._model, ctypes.byref(given), ctypes.byref(result))
    return status, functions.distillc_last_error().decode()
