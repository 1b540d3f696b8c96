"""Which products of a network are scores of attention: a softmax and a second product follow."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from tvm import relax
from tvm.ir import Constant

from distillc.codegen.rewrites.walk import VIEWS, extents, is_call

log = logging.getLogger(__name__)

MOVES = (*VIEWS, "relax.permute_dims")
ARITHMETIC = (
    "relax.add",
    "relax.subtract",
    "relax.multiply",
    "relax.divide",
    "relax.where",
)


def score_products(func: relax.Function) -> set[relax.Var]:
    """Return the variables bound to q kT wherever softmax(q kT * a + b) v is computed.

    Between the products there may be views, transpositions and arithmetic with constants. Depth is
    less than queries and keys: what has few rows and many terms, as attention of channels to
    channels, is left to other kernels.
    """
    bindings = [each for block in func.body.blocks for each in block.bindings]
    values = {each.var: each.value for each in bindings}
    users: dict[relax.Var, list[relax.Var]] = {}
    for var, value in values.items():
        for used in relax.analysis.free_vars(value):
            users.setdefault(used, []).append(var)
    found = set()
    for var, call in values.items():
        if not is_call(call, "relax.nn.softmax") or not _is_last(call):
            continue
        product = _before(call.args[0], values)
        if product is None:
            reason = "no product before it, or something else than constants between"
        elif not _is_shallow(values[product]):
            reason = "the product's sum is longer than its rows or columns"
        elif not _is_read(var, users, values):
            reason = "something else than products reads it"
        else:
            found.add(product)
            continue
        log.debug("the softmax of %s is not part of an attention kernel: %s", extents(call), reason)
    return found


def _is_last(call: relax.Call) -> bool:
    count = len(extents(call))
    return int(call.attrs.axis) % count == count - 1


def _is_shallow(product: relax.Call) -> bool:
    depth = extents(product.args[0])[-1]
    return len(extents(product)) > 2 and depth <= min(extents(product)[-2:])


def _before(expr: relax.Expr, values: dict[relax.Var, relax.Expr]) -> relax.Var | None:
    """Walk back from a softmax to a product."""
    while isinstance(expr, relax.Var) and expr in values:
        call = values[expr]
        if is_call(call, "relax.matmul"):
            return expr
        if is_call(call, *MOVES):
            expr = call.args[0]
        elif is_call(call, *ARITHMETIC):
            loose = [each for each in call.args if not is_constant(each, values)]
            if len(loose) != 1:
                return None
            (expr,) = loose
        else:
            return None
    return None


def is_constant(expr: relax.Expr, values: dict[relax.Var, relax.Expr]) -> bool:
    """Whether an expression is a constant or a view of one."""
    while isinstance(expr, relax.Var) and is_call(values.get(expr), *MOVES):
        expr = values[expr].args[0]
    return isinstance(expr, Constant)


def _is_read(
    var: relax.Var, users: dict[relax.Var, list[relax.Var]], values: dict[relax.Var, relax.Expr]
) -> bool:
    """Whether all that reads a softmax are products that take it first."""
    return all(
        is_call(values[user], "relax.matmul") and values[user].args[0].same_as(read)
        for read, user in _readers(var, users, values)
    )


def _readers(
    var: relax.Var, users: dict[relax.Var, list[relax.Var]], values: dict[relax.Var, relax.Expr]
) -> Iterator[tuple[relax.Var, relax.Var]]:
    for user in users.get(var, ()):
        if is_call(values[user], *MOVES):
            yield from _readers(user, users, values)
        else:
            yield var, user
