"""What an ONNX operator is to the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from torch import Tensor

from distillc.errors import LoweringError, reason

Attributes = Mapping[str, Any]
"""A node's attributes by name, strings decoded; `outputs` is how many the node has."""

Known = np.ndarray[Any, Any]
"""A value that is known before the image is: a constant, or what follows only from sizes."""

Function = Callable[..., Any]
"""The inputs of a node to its output, or to a tuple of them. An input left out is None."""


class Unsupported(Exception):
    """A node asks for what is not supported; the message completes "node X: ..."."""


@dataclass(frozen=True)
class Operator:
    """How a node that depends on the image is computed.

    Attributes:
        build: Attributes to the function; raises `Unsupported`.
        known: Positions of the inputs that the function takes as arrays, all of them known.
        either: Positions of those that it takes as arrays where they are known, else as tensors.
        numbers: Whether a known input of one element may come as a Python number.
    """

    build: Callable[[Attributes], Function]
    known: tuple[int, ...] = ()
    either: tuple[int, ...] = ()
    numbers: bool = False


def failure(node: onnx.NodeProto, error: Exception) -> LoweringError:
    """Return the error that says which node cannot be computed, and why."""
    name = node.name or node.output[0]
    return LoweringError(
        f"the ONNX node {name} ({node.op_type}) cannot be computed: {reason(error)}",
        hint="try another --size, or report the network",
    )


def check_supported(condition: bool, what: str) -> None:
    """Raise `Unsupported` unless the condition holds."""
    if not condition:
        raise Unsupported(what)


def integers(value: Known | None) -> list[int] | None:
    """Return an array's elements as Python integers, None for an input left out."""
    return None if value is None else [int(each) for each in value.reshape(-1)]


def plain(function: Callable[..., Tensor]) -> Operator:
    """Return an operator without attributes, whose inputs are tensors."""
    return Operator(lambda attributes: function)
