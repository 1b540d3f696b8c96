"""Networks that are known by the names of their weights: our Restormer, and spandrel's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from distillc.errors import CheckpointError
from distillc.frontend.changes import tell
from distillc.frontend.fill import fill
from distillc.frontend.normalise import about_prefix, views
from distillc.frontend.restormer import Restormer, infer_config
from distillc.frontend.trace import SIZE
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
            # It comes with torchvision, which takes a second.
            from distillc.frontend.spandrel_networks import load_spandrel

            found = load_spandrel(inner, path)
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
