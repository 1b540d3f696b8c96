"""Selective scans of other code, as our operator: a loop over pixels is useless once exported."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from distillc.errors import TraceError

log = logging.getLogger(__name__)

ROLES = {
    "u": {"u", "x", "us", "xs", "input", "inputs", "hidden_states"},
    "delta": {"delta", "dt", "dts", "deltas", "delta_t"},
    "A": {"A", "As"},
    "B": {"B", "Bs"},
    "C": {"C", "Cs"},
    "D": {"D", "Ds", "D_skip"},
    "z": {"z"},
    "delta_bias": {"delta_bias", "dt_bias"},
    "delta_softplus": {"delta_softplus"},
}
"""What a scan is given, and how people name it."""

NEEDED = ("u", "delta", "A", "B", "C")
BY_NAME = {"selective_scan_fn", "selective_scan_ref"}
"""Functions of mamba-ssm; copies of them that only run on CUDA cannot be tried here."""

_MARK = "scans_by_distillc"


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor:
    """Compute what mamba-ssm's `selective_scan_fn` does, by our operator.

    Args:
        u, delta, z: (B, D, L).
        A: (D, N), real.
        B, C: (B, N, L), (B, G, N, L), or the same for all positions, (D, N).
        D, delta_bias: (D,).
        delta_softplus: Whether step sizes pass through softplus.
        return_last_state: Must be false.

    Returns:
        (B, D, L), of the type of `u`.

    Raises:
        TraceError: The state is asked for, or is complex.
    """
    if return_last_state or A.is_complex():
        raise TraceError(
            "a selective scan "
            + ("of complex states" if A.is_complex() else "is asked for its last state"),
            hint="restoration needs neither: leave return_last_state out, and A real",
        )
    import_module("distillc.surrogates.selective_scan")  # registers it; only its name is known here
    batch, _, length = u.shape
    B, C = (
        each[None, :, :, None].expand(batch, -1, -1, length) if each.dim() == 2 else each
        for each in (B, C)
    )
    wide = [
        None if each is None else each.float() for each in (u, delta, A, B, C, D, z, delta_bias)
    ]
    y: Tensor = torch.ops.distillc.selective_scan(*wide, delta_softplus)
    return y.to(u.dtype)


def adopt_scans(module: nn.Module) -> None:
    """Let the scans in the code of a network be ours, and log which.

    A function or method is one if its arguments are named so and it returns the same on random
    input: (B, D, L) with B and C (B, N, L), or (B, L, D) with (B, L, N). Its every reference in
    the files of the network's classes, in these classes and in the modules is replaced. Functions
    with the names of mamba-ssm's, which do not run on a CPU, are taken at their word.
    """
    parts = list(module.modules())
    places: dict[ModuleType | type, nn.Module | None] = {}
    for part in parts:
        for base in type(part).__mro__:
            if not _is_torch(base):
                places[base] = part
                if base.__module__ in sys.modules:
                    places[sys.modules[base.__module__]] = None
    found = {
        value: owner
        for place, owner in places.items()
        for value in vars(place).values()
        if isinstance(value, FunctionType) and not _is_ours(value) and _roles(value)
    }
    adopted = {each: new for each, owner in found.items() if (new := _ours(each, owner))}
    if not adopted:
        return
    for where in (*places, *parts):
        for name, value in list(vars(where).items()):
            if (new := _renewed(value, adopted)) is not None:
                setattr(where, name, new)
    for each in adopted:
        log.warning(
            "%s.%s is a selective scan: distillc's operator takes its place, which computes the "
            "same",
            each.__module__,
            each.__qualname__,
        )


def _is_ours(function: FunctionType) -> bool:
    """Whether a function was replaced before, or was imported from our stand-in."""
    return function.__module__.startswith("distillc.") or hasattr(function, _MARK)


def _is_torch(each: type) -> bool:
    return each is object or each.__module__.partition(".")[0] in {"torch", "distillc", "typing"}


def _renewed(value: Any, adopted: Mapping[FunctionType, Callable[..., Any]]) -> Any:
    if isinstance(value, FunctionType):
        return adopted.get(value)
    if isinstance(value, functools.partial) and value.func in adopted:
        return functools.partial(adopted[value.func], *value.args, **value.keywords)  # type: ignore[index]
    return None


def _roles(function: FunctionType) -> dict[str, str]:
    """Return the parameters of a function by what they are for; empty if it does not scan."""
    names = [each for each in inspect.signature(function).parameters if each != "self"]
    roles = {role: name for role, known in ROLES.items() for name in names if name in known}
    return roles if all(each in roles for each in NEEDED) else {}


def _ours(function: FunctionType, owner: nn.Module | None) -> Callable[..., Any] | None:
    """Return our operator in a function's place, if it is a scan."""
    roles, signature = _roles(function), inspect.signature(function)
    method = "self" in signature.parameters
    for last in (False, True):
        made = _replacement(function, roles, signature, last)
        arguments = (owner,) if method else ()
        for given in _examples(roles, last):
            named = {roles[role]: value for role, value in given.items()}
            try:
                with torch.no_grad():
                    expected = function(*arguments, **named)
                    fits = torch.allclose(expected, made(*arguments, **named), atol=1e-5)
            except TraceError:
                raise
            except Exception:  # another layout, or it needs CUDA
                fits = False
            if not fits:
                break
        else:
            return made
    known = function.__name__ in BY_NAME and list(signature.parameters)[:5] == list(NEEDED)
    if known and not _runs(function, roles):
        return _replacement(function, roles, signature, False)
    return None


def _runs(function: FunctionType, roles: Mapping[str, str]) -> bool:
    for given in _examples(roles, False):
        try:
            function(**{roles[role]: value for role, value in given.items()})
        except Exception:
            return False
    return True


def _examples(roles: Mapping[str, str], last: bool) -> Iterator[dict[str, Any]]:
    """Yield inputs of a scan: with what it needs and its skip, then with all that it takes."""
    source = torch.Generator().manual_seed(0)

    def made(*extents: int) -> Tensor:
        return torch.rand(extents, generator=source)

    def laid(x: Tensor) -> Tensor:
        return x.mT.contiguous() if last else x

    batch, channels, states, length = 2, 4, 3, 5
    given: dict[str, Any] = {
        "u": laid(made(batch, channels, length)),
        "delta": laid(made(batch, channels, length)),
        "A": -made(channels, states),
        "B": laid(made(batch, states, length)),
        "C": laid(made(batch, states, length)),
    }
    if "D" in roles:
        given["D"] = made(channels)
    yield dict(given)
    more = {
        "z": laid(made(batch, channels, length)),
        "delta_bias": made(channels),
        "delta_softplus": True,
    }
    known = {role: value for role, value in more.items() if role in roles}
    if known:
        yield {**given, **known}


def _replacement(
    function: FunctionType, roles: Mapping[str, str], signature: inspect.Signature, last: bool
) -> Callable[..., Any]:
    """Return a function that is called like another one, and scans by our operator.

    What it is given beyond the roles must be as by default; else the other one runs.
    """
    others = set(signature.parameters) - set(roles.values()) - {"self"}

    @functools.wraps(function)
    def scans(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        usual = {name: signature.parameters[name].default for name in others}
        if any(bound.arguments.get(name, value) != value for name, value in usual.items()):
            return function(*args, **kwargs)
        bound.apply_defaults()
        given = {role: bound.arguments[name] for role, name in roles.items()}
        if last:
            turned = {"u", "delta", "B", "C", "z"}
            given = {
                role: each.mT if role in turned and each is not None else each
                for role, each in given.items()
            }
        y = scan(**given)
        return y.mT if last else y

    setattr(scans, _MARK, True)
    return scans
