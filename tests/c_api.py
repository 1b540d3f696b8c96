"""A compiled network in this process: the functions of `native/distillc.h`, through ctypes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distillc.errors import DeviceError
from distillc.runtime.manifest import weights_of

FORMATS = {"nchw": 0, "nhwc": 1, "rgba": 2, "nchw16": 3, "nhwc16": 4, "rgba16": 5}
"""(1, C, H, W) and (H, W, C) float32, (H, W, 4) uint8; the same layouts of uint16."""


class _Image(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("format", ctypes.c_int),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("row_stride", ctypes.c_size_t),
        ("plane_stride", ctypes.c_size_t),
        ("white", ctypes.c_int32),
    )


class Info(ctypes.Structure):
    """What a network says of itself: `distillc_info`."""

    _fields_ = (
        ("api_version", ctypes.c_int32),
        ("name", ctypes.c_char_p),
        ("target", ctypes.c_char_p),
        *(
            (f"{end}_{extent}", ctypes.c_int32)
            for end in ("input", "output")
            for extent in ("width", "height", "channels")
        ),
        ("threads", ctypes.c_int32),
        ("kernels", ctypes.c_int32),
        ("weight_bytes", ctypes.c_size_t),
        ("planned_bytes", ctypes.c_size_t),
    )


class _Options(ctypes.Structure):
    _fields_ = (("threads", ctypes.c_int32), ("weights", ctypes.c_char_p))


class Library:
    """One model of a compiled network, with threads and memory of its own.

    A crash in it would be this process's: `Bundle.run` starts another for that reason.

    Args:
        path: The library.
        threads: Threads; 0 for as many as the target has fast cores.

    Attributes:
        info: What the network says of itself.

    Raises:
        DeviceError: It cannot be loaded, or makes no model.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        self._path = path
        self._model = ctypes.c_void_p()
        self.info = Info()
        try:
            self._functions = ctypes.CDLL(str(path.resolve()))
            self._functions.distillc_last_error.restype = ctypes.c_char_p
            self._functions.distillc_model_kernel.restype = ctypes.c_char_p
        except (OSError, AttributeError) as error:
            raise DeviceError("the library cannot be loaded", where=f"{path}: {error}") from error
        weights = weights_of(path)
        options = _Options(threads, os.fsencode(weights) if weights.exists() else None)
        create = self._functions.distillc_model_create
        self._check(create(ctypes.byref(options), ctypes.byref(self._model)))
        self._check(self._functions.distillc_model_info(self._model, ctypes.byref(self.info)))

    def run(
        self, x: np.ndarray[Any, Any], source: str = "nchw", sink: str = "nchw", white: int = 0
    ) -> np.ndarray[Any, Any]:
        """Run the network on an image.

        Args:
            x: As `FORMATS` says for `source`.
            source: Format of the input.
            sink: Format of the output.
            white: The number that is white in 16 bits; 0 for 65535.

        Raises:
            DeviceError: The image does not fit the network.
        """
        y = self._output(sink, self.info.output_height, self.info.output_width)
        images = (ctypes.byref(_image(x, source, white)), ctypes.byref(_image(y, sink, white)))
        self._check(self._functions.distillc_model_run(self._model, *images))
        return y

    def restore(
        self, x: np.ndarray[Any, Any], overlap: int = -1, form: str = "nchw", white: int = 0
    ) -> np.ndarray[Any, Any]:
        """Restore an image of any size.

        Args:
            x: The image, as `FORMATS` says for `form`.
            overlap: Pixels that neighbouring tiles share, -1 for the library's own choice.
            form: Format of input and output.
            white: As of `run`.

        Raises:
            DeviceError: The network does not take such an image.
        """
        scale = self.info.output_height // self.info.input_height
        given = _image(x, form, white)
        y = self._output(form, scale * given.height, scale * given.width)
        images = (ctypes.byref(given), ctypes.byref(_image(y, form, white)))
        self._check(self._functions.distillc_model_restore(self._model, *images, overlap))
        return y

    def profile(self, x: np.ndarray[Any, Any]) -> list[tuple[str, float]]:
        """Run the network on a (1, C, H, W) float32 image; return milliseconds by step."""
        times = (ctypes.c_double * self.info.kernels)()
        y = self._output("nchw", self.info.output_height, self.info.output_width)
        images = (ctypes.byref(_image(x, "nchw")), ctypes.byref(_image(y, "nchw")))
        profile = self._functions.distillc_model_profile
        self._check(profile(self._model, *images, times, self.info.kernels))
        names = [
            self._functions.distillc_model_kernel(self._model, step) for step in range(len(times))
        ]
        return [(name.decode(), ms) for name, ms in zip(names, times, strict=True)]

    def close(self) -> None:
        """Free the model."""
        self._functions.distillc_model_destroy(self._model)
        self._model = ctypes.c_void_p()

    def _output(self, form: str, height: int, width: int) -> np.ndarray[Any, Any]:
        layout = form.removesuffix("16")
        shapes: dict[str, Sequence[int]] = {
            "nchw": (1, self.info.output_channels, height, width),
            "nhwc": (height, width, self.info.output_channels),
            "rgba": (height, width, 4),
        }
        plain = np.uint8 if form == "rgba" else np.float32
        return np.empty(shapes[layout], np.uint16 if layout != form else plain)

    def _check(self, status: int) -> None:
        if status:
            reason = self._functions.distillc_last_error().decode()
            raise DeviceError(f"{reason} (status {status})", where=str(self._path))


def _image(array: np.ndarray[Any, Any], form: str, white: int = 0) -> _Image:
    """Describe an array whose pixels, or whose planes' numbers, follow each other."""
    planar = form.startswith("nchw")
    _, channels, height, width = array.shape if planar else (1, *np.roll(array.shape, 1))
    rows, planes = (array.strides[2], array.strides[1]) if planar else (array.strides[0], 0)
    mark = white if form.endswith("16") else 0
    return _Image(array.ctypes.data, FORMATS[form], width, height, channels, rows, planes, mark)
