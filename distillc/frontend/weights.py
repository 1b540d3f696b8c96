"""The state dict among all that a checkpoint holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillc.errors import CheckpointError, UsageError
from distillc.frontend.changes import shortened

AVERAGED = (
    "params_ema",
    "state_dict_ema",
    "model_ema",
    "generator_ema",
    "net_g_ema",
    "g_ema",
    "ema_model",
    "ema",
)
WRAPPERS = (
    *AVERAGED,
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "generator",
    "net_g",
    "netG",
    "net",
    "network",
    "weights",
)
"""Names under which checkpoints keep the network's weights, the preferred first.

They are keys of dicts around the state dict, and prefixes of the names in it.
"""

DEEPEST = 4
"""Dicts within each other that are looked through."""

ROOT = "."
"""What `--weights-key` calls the outermost dict."""


def find_state(
    content: Any, path: Path, key: str | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict in a checkpoint's content, and what was left out for it.

    1. With `key`, the dict of that place, or the tensors whose names begin with it.
    2. The only dict of tensors is the state dict, whatever is around it.
    3. Of several, the first that only `WRAPPERS` are around.

    Raises:
        CheckpointError: There is none, or there are several and none has a known name.
        UsageError: There are no weights under `key`.
    """
    found = _state_dicts(content)
    if not found:
        raise CheckpointError(
            f"there is no state dict in the file (it holds a {type(content).__name__})",
            where=str(path),
            hint="save the network's weights: torch.save(model.state_dict(), path)",
        )
    if key is not None:  # rule 1
        return _tensors(_at(content, key, path, found))
    known = [keys for keys in found if keys and all(each in WRAPPERS for each in keys)]
    known.sort(key=lambda keys: [WRAPPERS.index(each) for each in keys])
    if len(found) > 1 and not known:
        raise CheckpointError(
            f"the file holds several state dicts: {_listed(found)}",
            where=str(path),
            hint="choose one with --weights-key NAME (in Python: weights_key=NAME)",
        )
    place = known[0] if known else next(iter(found))  # rules 3 and 2
    state, notes = _tensors(found.pop(place))
    if found:
        notes.insert(0, f"the weights are those under {_name(place)}; left out: {_listed(found)}")
    return state, notes


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix (with its dot), without it."""
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def _state_dicts(content: Any) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """Return the dicts of weights by the keys around them; where there are none, of any tensors.

    An optimiser keeps its tensors under numbers, and a random generator's state is of integers.
    """
    weights, others = {}, {}
    seen: set[int] = set()
    todo: deque[tuple[tuple[str, ...], Any]] = deque([((), content)])
    while todo:
        keys, each = todo.popleft()
        if not isinstance(each, Mapping) or id(each) in seen or len(keys) > DEEPEST:
            continue
        seen.add(id(each))
        if any(_is_weight(value) for value in each.values()):
            weights[keys] = each
        elif any(_is_tensor(value) for value in each.values()):
            others[keys] = each
        todo += [((*keys, key), value) for key, value in each.items() if isinstance(key, str)]
    return weights or others


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
    )


def _is_weight(value: Any) -> bool:
    """Whether a value may be learnt: fractions, and more of them than a counter has."""
    if not isinstance(value, Tensor):
        return _is_tensor(value) and value.dtype.kind in "fc" and value.size > 1
    plain = value.is_floating_point() or value.is_complex()
    return value.is_nested or value.is_quantized or (plain and value.numel() > 1)


def _tensors(found: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a dict, and a note about what else is in it."""
    state = {
        str(key): torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
        for key, value in found.items()
        if _is_tensor(value)
    }
    others = [
        str(key)
        for key, value in found.items()
        if not _is_tensor(value) and not isinstance(value, Mapping)
    ]
    return state, [f"left out, not tensors: {shortened(others)}"] if others else []


def _at(
    content: Any, key: str, path: Path, found: Mapping[tuple[str, ...], Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Return the dict at a place such as `model.ema`, or the names that begin with its end."""
    rest = [] if key == ROOT else key.split(".")
    while rest and isinstance(content, Mapping):
        ends = [end for end in range(len(rest), 0, -1) if ".".join(rest[:end]) in content]
        if not ends:
            break
        content = content[".".join(rest[: ends[0]])]
        rest = rest[ends[0] :]
    if isinstance(content, Mapping):
        prefix = ".".join([*rest, ""])
        named = {name: value for name, value in content.items() if isinstance(name, str)}
        begun = under(named, prefix)
        if any(_is_tensor(value) for value in begun.values()):
            return begun
    heads = {str(name).partition(".")[0] for each in found.values() for name in each}
    raise UsageError(
        f"there are no weights under {key!r}; the file holds {_listed(found)}",
        where=str(path),
        hint="--weights-key takes one of these, with a dot and a prefix of its names if need be: "
        + shortened(sorted(heads), 8),
    )


def _name(keys: tuple[str, ...]) -> str:
    return ".".join(keys) or ROOT


def _listed(found: Mapping[tuple[str, ...], Mapping[str, Any]]) -> str:
    counts = [
        f"{_name(keys)} ({sum(map(_is_tensor, each.values()))} tensors)"
        for keys, each in found.items()
    ]
    return shortened(counts, 12)
