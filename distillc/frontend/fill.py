"""Weights into a module: what has to fit, and what the module computes for itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from distillc.errors import CheckpointError
from distillc.frontend.changes import shortened, tell
from distillc.frontend.normalise import about_prefix
from distillc.frontend.weights import AVERAGED, under

MASKS = ("mask", "relative_coords_table", "relative_position_index")
"""Ends of the names of buffers that attention computes from sizes."""


def fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    path: Path,
    name: str,
    again: Callable[[], nn.Module],
) -> None:
    """Load weights into a module, and log what was left out or not found.

    1. If the names in the file have a prefix that the module's lack, it is taken off. Of several
       prefixes, that of an average is preferred.
    2. Every parameter must be there, of its shape.
    3. A buffer may be missing, or a mask have another size, if the module computes it: twice the
       same, and not the start of a statistic.
    4. A tensor that the module lacks is left out if it is not a weight: an integer, or what the
       module computes; one of the same size replaces what the module has computed.

    Args:
        module: Takes the weights; newly built.
        state: The weights.
        path: Their file, for messages.
        name: The module's, for messages.
        again: Builds the same module.

    Raises:
        CheckpointError: Something does not fit.
    """
    prefix = _prefix(module, state, path)  # rule 1
    notes = about_prefix(state, prefix)
    state = under(state, prefix)
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    shapes = sorted(key for key in wanted if key in state and state[key].shape != wanted[key].shape)
    own = _computed(module, missing, again)  # rule 3
    resized = _computed(module, [key for key in shapes if _is_mask(key)], again)
    for keys, what in ((own, "not in the file"), (resized, "of another size in the file")):
        if keys:
            notes.append(f"{what}, {name} computes it: {shortened(keys)}")
    unexpected = sorted(state.keys() - wanted.keys())
    extra = [key for key in unexpected if _is_extra(module, key, state[key])]  # rule 4
    problems = {
        "missing": [key for key in missing if key not in own],  # rule 2
        "unexpected": [key for key in unexpected if key not in extra],
        "wrong shape": [
            f"{key} is {tuple(state[key].shape)}, {name} has {tuple(wanted[key].shape)}"
            for key in shapes
            if key not in resized
        ],
    }
    if any(problems.values()):
        said = [f"{label}: {shortened(keys)}" for label, keys in problems.items() if keys]
        raise CheckpointError(
            f"the weights do not fit {name}; " + "; ".join(said),
            where=str(path),
            hint="check the architecture's arguments against the ones it was trained with",
        )
    kept = {key: state[key] for key in wanted if key in state and key not in resized}
    module.load_state_dict({**wanted, **kept})
    tell(path, notes + _take_extra(module, {key: state[key] for key in extra}, name))


def _prefix(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> str:
    """Return the prefix under which most of a module's parameters are, best none."""
    wanted = {name for name, _ in module.named_parameters()}
    found: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for at in range(len(parts)):
            if ".".join(parts[at:]) in wanted:
                found[".".join([*parts[:at], ""]) if at else ""] += 1
    most = max(found.values(), default=0)
    best = sorted(prefix for prefix, count in found.items() if count == most)
    averaged = [each for each in best if each.rstrip(".").rpartition(".")[2] in AVERAGED]
    if not best or "" in best:
        return ""
    if len(best) > 1 and len(averaged) != 1:
        raise CheckpointError(
            f"the weights are in the file several times, under the prefixes {shortened(best, 12)}",
            where=str(path),
            hint="choose one with --weights-key PREFIX (in Python: weights_key=PREFIX)",
        )
    return (averaged or best)[0]


def _is_mask(key: str) -> bool:
    return key.endswith(MASKS)


def _computed(module: nn.Module, keys: list[str], again: Callable[[], nn.Module]) -> list[str]:
    """Return which of some entries are buffers that the module computes as it is built."""
    buffers = dict(module.named_buffers())
    mine = [key for key in keys if key in buffers and not _is_statistic(key, buffers[key])]
    if not mine:
        return []
    second = dict(again().named_buffers())  # other numbers: they were drawn, to be learnt
    return [key for key in mine if torch.equal(buffers[key], second[key])]


def _is_statistic(key: str, value: Tensor) -> bool:
    """Whether a buffer has the name of a running statistic, or the zeros or ones of its start."""
    if key.rpartition(".")[2].startswith("running_"):
        return True
    many = value.is_floating_point() and value.numel() > 1
    return many and bool((value == 0).all() or (value == 1).all())


def _is_extra(module: nn.Module, key: str, value: Tensor) -> bool:
    """Whether a tensor that a module's state dict lacks is not a weight."""
    if _is_mask(key) or not (value.is_floating_point() or value.is_complex()):
        return True
    owner, leaf = _owner(module, key)
    return owner is not None and (
        leaf in owner._buffers  # also one of None, which only some sizes need
        or isinstance(vars(owner).get(leaf), Tensor)
    )


def _owner(module: nn.Module, key: str) -> tuple[nn.Module | None, str]:
    place, _, leaf = key.rpartition(".")
    try:
        return module.get_submodule(place), leaf
    except AttributeError:
        return None, leaf


def _take_extra(module: nn.Module, extra: Mapping[str, Tensor], name: str) -> list[str]:
    """Set the buffers that only the file's state dict has; return what was changed or left out."""
    buffers = dict(module.named_buffers())
    taken = [key for key, value in extra.items() if key in buffers and _alike(buffers[key], value)]
    changed = [key for key in taken if not torch.equal(buffers[key], extra[key])]
    for key in changed:
        owner, leaf = _owner(module, key)
        setattr(owner, leaf, extra[key])
    left = [key for key in extra if key not in taken]
    return [
        f"{what}: {shortened(keys)}"
        for what, keys in (
            (f"taken from the file, {name} computes other values", changed),
            (f"left out, not weights of {name}", left),
        )
        if keys
    ]


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype
