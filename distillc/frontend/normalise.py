"""What training adds to a state dict, taken off again: a table of rules, each told to the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from distillc.frontend.changes import shortened
from distillc.frontend.weights import WRAPPERS, under

COUNTS = ("total_ops", "total_params")
"""What thop leaves beside each module's weights."""

COUNTERS = (
    "step",
    "step_counter",
    "global_step",
    "epoch",
    "iter",
    "n_averaged",
    "num_updates",
    "decay",
    "initted",
)
"""What training loops and averages of weights count in."""

AROUND = (
    "_orig_mod",  # torch.compile
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",  # Lightning's strategies
)
"""Names that modules around a module give it, and that nobody gives a module of a network."""

DEEPEST = 3
"""Prefixes of `WRAPPERS` after each other."""


@dataclass(frozen=True)
class Cleaning:
    """One change of the names of a state dict.

    Attributes:
        says: What is told of the names that change.
        rename: (name, value) -> the new name, or None to leave the tensor out.
        whole: Whether it holds only where every name changes.
    """

    says: str
    rename: Callable[[str, Tensor], str | None]
    whole: bool = False


def _without_counts(name: str, value: Tensor) -> str | None:
    return None if name.rpartition(".")[2] in COUNTS else name


def _without_counters(name: str, value: Tensor) -> str | None:
    single = not value.is_nested and value.numel() == 1 and "." not in name
    return None if single and (name in COUNTERS or not value.is_floating_point()) else name


def _without_around(name: str, value: Tensor) -> str:
    return ".".join(part for part in name.split(".") if part not in AROUND)


def _without_module(name: str, value: Tensor) -> str:
    return name.removeprefix("module.")


RULES = (
    Cleaning("left out, a profiler's counts and not weights", _without_counts),
    Cleaning("left out, counters of the training and not weights", _without_counters),
    Cleaning("renamed, without what torch.compile, FSDP or Lightning put in", _without_around),
    Cleaning("renamed, without module. of parallel training", _without_module, whole=True),
)
"""In the order in which they are applied: counters have no prefix, and would keep `module.`."""


def normalise(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return a state dict with a network's own names, float32, and what was changed.

    A rule that would give two tensors one name changes nothing.
    """
    notes = []
    for rule in RULES:
        names = {name: rule.rename(name, value) for name, value in state.items()}
        changed = [name for name, new in names.items() if new != name]
        kept = [new for new in names.values() if new is not None]
        if not changed or len(set(kept)) < len(kept) or (rule.whole and len(changed) < len(names)):
            continue
        state = {new: state[name] for name, new in names.items() if new is not None}
        notes.append(f"{rule.says}: {shortened(changed)}")
    return {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }, notes


def views(
    state: Mapping[str, Tensor], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield a state dict as it is, then what is in it under prefixes that training gave.

    These are names of `WRAPPERS`, and a prefix that all names have.

    Yields:
        (prefix with its dot or empty, the tensors under it).
    """
    yield prefix, state
    if depth == DEEPEST:
        return
    first = {name.partition(".")[0] for name in state}
    shared = [each for each in first if len(first) == 1 and not each.isdecimal()]
    for head in (*WRAPPERS, *(each for each in shared if each not in WRAPPERS)):
        inner = under(state, f"{head}.")
        if inner:
            yield from views(inner, f"{prefix}{head}.", depth + 1)


def about_prefix(state: Mapping[str, Tensor], prefix: str) -> list[str]:
    """Return what is told when only the names under a prefix are taken."""
    if not prefix:
        return []
    others = [name for name in state if not name.startswith(prefix)]
    left = f"; left out: {shortened(others)}" if others else ""
    return [f"the weights are those under the prefix {prefix}{left}"]
