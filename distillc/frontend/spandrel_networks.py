"""Networks that spandrel knows by the names of their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from unittest.mock import patch

from spandrel import (
    ImageModelDescriptor,
    ModelDescriptor,
    ModelLoader,
    UnsupportedModelError,
)
from torch import Tensor, nn

from distillc.errors import CheckpointError, reason
from distillc.frontend.changes import shortened, tell
from distillc.frontend.fill import fill
from distillc.frontend.trace import SIZE
from distillc.frontend.window_index import with_indices
from distillc.network import Network


def load_spandrel(state: Mapping[str, Tensor], path: Path) -> tuple[Network, str] | None:
    """Build the network that a state dict's names belong to; None if spandrel knows none.

    Returns:
        The network and its architecture's name.

    Raises:
        CheckpointError: The weights do not fit it, or it takes more than an image.
    """
    found = _find(state, path)
    if found is None:
        completed = with_indices(state)
        found = _find(completed, path) if len(completed) > len(state) else None
        if found is None:
            return None
        added = sorted(completed.keys() - state.keys())
        tell(path, [f"not in the file, computed from the tables of biases: {shortened(added)}"])
    if not isinstance(found, ImageModelDescriptor):
        raise CheckpointError(
            f"{found.architecture.name} takes more than an image", where=str(path)
        )
    requirements = found.size_requirements
    multiple = max(1, requirements.multiple_of)
    edge = max(SIZE[0], requirements.minimum)
    edge = -(-edge // multiple) * multiple
    module: nn.Module = found.model
    # The default, a plain call, is spandrel's own.
    if found._call_fn.__module__ != ImageModelDescriptor.__module__:
        module = _Called(module, found._call_fn)
    module = module.eval()
    net = Network(
        module,
        (edge, edge),
        found.input_channels,
        scale=found.scale,
        multiple=multiple,
        square=requirements.square,
        out_channels=found.output_channels,
    )
    return net, found.architecture.name


def _find(state: Mapping[str, Tensor], path: Path) -> ModelDescriptor | None:
    """Return what spandrel makes of a state dict; None if it knows no such network."""
    try:
        return ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except UnsupportedModelError:
        return None
    except Exception as error:
        try:
            found, named = _unfilled(state)
        except Exception:
            raise CheckpointError(
                f"spandrel recognises the network but cannot load it: {reason(error)}",
                where=str(path),
                hint="name your own class with --arch package.module:Class --arch-args JSON",
            ) from error
        name = found.architecture.name
        fill(found.model, named, path, name, lambda: _unfilled(state)[0].model)
        return found


def _unfilled(state: Mapping[str, Tensor]) -> tuple[ModelDescriptor, Mapping[str, Tensor]]:
    """Return what spandrel builds, with its first numbers, and the weights as it names them.

    It loads them strictly, so a missing mask would end it; `fill` knows what may be missing.
    """
    held: list[Mapping[str, Tensor]] = []
    with patch.object(nn.Module, "load_state_dict", lambda _, named, **__: held.append(named)):
        found = ModelLoader(device="cpu").load_from_state_dict(dict(state))
    return found, held[-1]


class _Called(nn.Module):
    """A network with what spandrel does around it: a noise map, a range, the first of its results.

    Args:
        network: The network.
        call: (network, image) -> image.
    """

    def __init__(self, network: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.call = call

    def forward(self, image: Tensor) -> Tensor:
        return self.call(self.network, image)
