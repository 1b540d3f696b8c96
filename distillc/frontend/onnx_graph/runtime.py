"""ONNX Runtime as a torch module: what the ONNX file computes."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from distillc.errors import CheckpointError, reason


class OnnxRuntime(nn.Module):
    """An ONNX file in ONNX Runtime, (1, C, H, W) float32 -> (1, C', H', W') float32.

    Raises:
        CheckpointError: ONNX Runtime cannot load the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised too
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise CheckpointError(
                f"ONNX Runtime cannot load the network: {reason(error)}",
                where=str(path),
            ) from error

    def forward(self, image: Tensor) -> Tensor:
        (given,) = self.session.get_inputs()
        (result,) = self.session.run(None, {given.name: image.numpy()})
        return torch.from_numpy(result)
