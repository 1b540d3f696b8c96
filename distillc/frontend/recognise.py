"""Networks that are known by the names of their weights: our Restormer, and spandrel's."""

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
from distillc.frontend.normalise import about_prefix, views
from distillc.frontend.restormer import Restormer, infer_config
from distillc.frontend.trace import SIZE
from distillc.frontend.window_index import with_indices
from distillc.network import Network


def recognise(state: Mapping[str, Tensor], path: Path) -> tuple[Network, str]:
    """Build the network that a state dict's names belong to, as they are or under a prefix.

    Returns:
        The network and its architecture's name.

    Raises:
        CheckpointError: None is known, or the weights do not fit it.
    """
    found: tuple[Network, str] | None
    for prefix, inner in views(state):
        if _is_restormer(inner):
            found = _load_restormer(inner, path), "Restormer"
        else:
            found = _load_spandrel(inner, path)
        if found:
            tell(path, about_prefix(state, prefix))
            return found
    raise _nothing_fits(state, path)


def _is_restormer(state: Mapping[str, Tensor]) -> bool:
    try:
        return bool(infer_config(state))
    except KeyError:
        return False


def _load_restormer(state: Mapping[str, Tensor], path: Path) -> Network:
    config = infer_config(state)
    module = Restormer(**config)
    fill(module, state, path, "Restormer", lambda: Restormer(**config))
    channels = config["inp_channels"], config["out_channels"]
    return Network(module.eval(), SIZE, channels[0], multiple=8, out_channels=channels[1])


def _load_spandrel(state: Mapping[str, Tensor], path: Path) -> tuple[Network, str] | None:
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


def _nothing_fits(state: Mapping[str, Tensor], path: Path) -> CheckpointError:
    """Say that no architecture fits, how close Restormer came, and what to do."""
    wanted = {f"{level}.0.{part}" for level in _LEVELS for part in _BLOCK} | _OUTER
    missing = sorted(wanted - state.keys())
    share = 1 - len(missing) / len(wanted)
    if share > 0.2:
        close = f"closest is Restormer ({share:.0%} of its names); missing: "
        close += ", ".join(missing[:4]) + (" ..." if len(missing) > 4 else "")
    else:
        close = "none comes close; the file's names begin " + ", ".join(sorted(state)[:3])
    return CheckpointError(
        f"no known architecture fits these weights: {close}",
        where=str(path),
        hint="name your own class with --arch package.module:Class --arch-args JSON",
    )


_LEVELS = (
    "encoder_level1",
    "encoder_level2",
    "encoder_level3",
    "latent",
    "decoder_level3",
    "decoder_level2",
    "decoder_level1",
    "refinement",
)
_BLOCK = (
    "norm1.body.weight",
    "attn.temperature",
    "attn.qkv.weight",
    "attn.qkv_dwconv.weight",
    "attn.project_out.weight",
    "norm2.body.weight",
    "ffn.project_in.weight",
    "ffn.dwconv.weight",
    "ffn.project_out.weight",
)
_OUTER = {"patch_embed.proj.weight", "output.weight"}
