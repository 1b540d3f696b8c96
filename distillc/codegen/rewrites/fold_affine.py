# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Let a convolution's weights do what is done to each of its channels after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Constant
from tvm.relax.expr_functor import PyExprMutator, mutator

from distillc.codegen.rewrites.walk import VIEWS, extents, is_call, readers_of, rewrite_functions

Numbers = np.ndarray

_PAIRS: dict[str, Callable[..., Numbers]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
}
_EACH: dict[str, Callable[..., Numbers]] = {
    "relax.sqrt": np.sqrt,
    "relax.rsqrt": lambda x: 1 / np.sqrt(x),
    "relax.negative": np.negative,
}


@tvm.transform.module_pass(opt_level=0, name="FoldAffine")
class FoldAffine:
    """Scale a convolution's weights instead of its result.

    1. Constants that are added to, subtracted from, multiplied with each channel of a convolution,
       or divide it, become new weights and one sum: (W x + b - m) / s is (W / s) x + (b - m) / s.
    2. Only where nothing else reads what stands between.
    3. A sum alone stays as it is.

    A batch norm after a convolution is such a chain, and so is the scale of a whole branch.

    Given:   multiply(subtract(conv2d(x, W), mean), scale)
    Result:  add(conv2d(x, W scale), -mean scale)
    """

    def transform_module(self, mod: tvm.IRModule, _: object) -> tvm.IRModule:
        """Rewrite every Relax function."""
        folded = rewrite_functions(mod, _Folder(mod))
        return relax.transform.CanonicalizeBindings()(folded)


class _Chain(NamedTuple):
    """A convolution's result times `scale` plus `shift`, a number for each channel."""

    conv: relax.Call
    weight: Numbers
    scale: Numbers
    shift: Numbers
    is_scaled: bool

    def then(self, name: str, constant: Numbers, swapped: bool) -> _Chain | None:
        """Apply an operator with a constant, which comes first where it is swapped."""
        count = len(self.scale)
        if constant.ndim > 4 or constant.size not in (1, count):
            return None
        shape = (1,) * (4 - constant.ndim) + constant.shape
        if shape[1] != constant.size:
            return None
        each = np.broadcast_to(constant.astype("float64").reshape(-1), count)
        if name == "relax.add":
            return self._replace(shift=self.shift + each)
        if name == "relax.subtract":
            if swapped:
                return self._replace(scale=-self.scale, shift=each - self.shift, is_scaled=True)
            return self._replace(shift=self.shift - each)
        if name == "relax.divide":
            if swapped:
                return None
            each = 1 / each
        return self._replace(scale=self.scale * each, shift=self.shift * each, is_scaled=True)


@mutator
class _Folder(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.constants: dict[relax.Var, Numbers] = {}
        self.chains: dict[relax.Var, _Chain] = {}
        self.readers = readers_of(mod)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        value = binding.value
        constant = self.evaluated(value)
        if constant is not None:
            self.constants[binding.var] = constant
        chain = self.chain(value)
        if chain is not None:
            self.chains[binding.var] = chain
            if chain.is_scaled and not self.goes_on(binding.var, chain):
                binding = relax.VarBinding(binding.var, self.folded(chain))
        super().visit_var_binding_(binding)

    def constant(self, expr: relax.Expr) -> Numbers | None:
        """Return the value of an expression of constants."""
        if isinstance(expr, Constant):
            return expr.value.numpy()
        return self.constants.get(expr) if isinstance(expr, relax.Var) else None

    def evaluated(self, call: relax.Expr) -> Numbers | None:
        """Compute an operator whose operands are constants, where they are few."""
        if not is_call(call, *VIEWS, *_PAIRS, *_EACH):
            return None
        count = 2 if is_call(call, *_PAIRS) else 1
        operands: list[Numbers] = []
        for each in call.args[:count]:
            value = self.constant(each)
            if value is None:
                return None
            operands.append(value)
        if is_call(call, *_PAIRS):
            return np.asarray(_PAIRS[call.op.name](*operands))
        if is_call(call, *_EACH):
            return np.asarray(_EACH[call.op.name](*operands))
        shape = extents(call)
        return operands[0].reshape(shape) if operands[0].size == np.prod(shape) else None

    def chain(self, call: relax.Expr) -> _Chain | None:
        """Return a call as a convolution and what was done to its channels."""
        if is_call(call, "relax.nn.conv2d"):
            weight = self.constant(call.args[1])
            if weight is None or call.attrs.data_layout != "NCHW":
                return None
            ones = np.ones(len(weight))
            return _Chain(call, weight, ones, 0 * ones, False)
        if not is_call(call, *_PAIRS):
            return None
        for number, expr in enumerate(call.args):
            before = self.chains.get(expr) if isinstance(expr, relax.Var) else None
            constant = self.constant(call.args[1 - number])
            if before is None or constant is None or len(self.readers[expr]) > 1:
                continue
            return before.then(call.op.name, constant, swapped=number == 1)
        return None

    def goes_on(self, var: relax.Var, chain: _Chain) -> bool:
        """Whether the only reader of a chain's result continues it."""
        readers = self.readers.get(var, [])
        return len(readers) == 1 and self.chain(readers[0]) is not None

    def folded(self, chain: _Chain) -> relax.Expr:
        """Return the convolution with new weights, and one sum."""
        scale = chain.scale.reshape(-1, *(1,) * (chain.weight.ndim - 1))
        weight, shift = chain.weight * scale, chain.shift.reshape(1, -1, 1, 1)
        dtype = str(chain.weight.dtype)
        conv = relax.Call(
            chain.conv.op,
            [self.visit_expr(chain.conv.args[0]), relax.const(weight.astype(dtype))],
            chain.conv.attrs,
            chain.conv.ty_args,
        )
        if not chain.shift.any():
            return conv
        return relax.op.add(self.builder_.emit(conv), relax.const(shift.astype(dtype)))
