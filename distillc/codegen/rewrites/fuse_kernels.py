# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Fuse kernels along the pixels: norms and depthwise convolutions into products."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import GlobalVar
from tvm.relax.expr_functor import PyExprMutator, mutator

from distillc.codegen.rewrites.kernel_kinds import KernelKind, Kind, kernel_kind
from distillc.codegen.rewrites.walk import is_call, rewrite_functions
from distillc.codegen.schedule.rules.base import vector_extent
from distillc.targets.base import Target

Vars = list[relax.Var]

FEW = 4096
"""Steps of a kernel's blocks that take about as long as calling it."""


@tvm.transform.module_pass(opt_level=0, name="FuseKernels")
class FuseKernels:
    """Merge calls of kernels into one kernel where a tile of pixels can stay in the caches.

    1. A copy that leaves the contiguous axis contiguous (a slice, a reshape) is read in place by
       every kernel that reads it; so is a transposition, by a product summed over many pixels. A
       product multiplies in place only what keeps its axes whole.
    2. A kernel that maps pixels to pixels (elementwise over any channels, sums over channels, one
       matrix product) takes in the kernels before it that do the same without a matrix product,
       as long as nobody else reads their results: nor a concatenation, which reads a part of each,
       nor what follows the product.
    3. A product takes in depthwise convolutions likewise, but nothing before those except copies:
       their windows overlap, so that would be computed again. Then its vectors are parts of lines:
       where these are shorter than of all pixels, it stays apart.
    4. What takes no longer than a call joins what takes no longer and reads it alone, if both only
       compute floating-point numbers where their axes are (a softmax): no windows, no lookups.
       Matrix products join vectors (gates of channels), or what moves their result. Sums of rows
       join what is done to them.

    Args:
        target: Decides how long vectors are.

    Given:   n = layer_norm(x); y = conv1x1(n)
    Result:  y = fused(x), for each tile of pixels: normalise, multiply
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def transform_module(self, mod: tvm.IRModule, _: object) -> tvm.IRModule:
        """Fuse the calls of `main`; the module was through FuseTIR."""
        mod = rewrite_functions(mod, _Fuser(mod, _Graph(mod, self.target.lanes)))
        return relax.transform.DeadCodeElimination()(relax.transform.FuseTIR()(mod))


class _Graph:
    """The kernel calls of `main`, what they are, and who reads what."""

    def __init__(self, mod: tvm.IRModule, lanes: int) -> None:
        main = mod["main"]
        self.lanes = lanes
        bindings = [b for block in main.body.blocks for b in block.bindings]
        self.calls = {b.var: b.value for b in bindings if is_call(b.value, "relax.call_tir")}
        kinds: dict[GlobalVar, KernelKind] = {}
        for call in self.calls.values():
            name = call.args[0]
            if name not in kinds:
                kinds[name] = kernel_kind(mod[name])
        self.kinds = {var: kinds[call.args[0]] for var, call in self.calls.items()}
        self.users: dict[relax.Var, Vars] = {}
        for binding in bindings:
            for used in relax.analysis.free_vars(binding.value):
                self.users.setdefault(used, []).append(binding.var)
        self.outputs = set(relax.analysis.free_vars(main.body.body))
        self.groups = self._group()

    def members(self, var: relax.Var) -> Vars:
        """Return the calls to merge into the one that binds `var`, in order, itself the last."""
        return self.groups.get(var, [var])

    def _group(self) -> dict[relax.Var, Vars]:
        groups: dict[relax.Var, Vars] = {}
        taken: set[relax.Var] = set()
        order = list(self.calls)
        for position in range(len(order) - 1, -1, -1):
            root = order[position]
            if root in taken:
                continue
            members = [root]
            if self.kinds[root].kind in (Kind.POINTWISE, Kind.PRODUCT):
                for var in reversed(order[:position]):
                    if self._joins(var, members):
                        members.append(var)
            for var in reversed(order[:position]):
                if var not in members and self._is_small(var, members):
                    members.append(var)
            taken |= set(members)
            scheduled = self.kinds[root].kind is Kind.SCHEDULED
            copies = [] if scheduled else self._copies(members)
            if len(members) + len(copies) > 1:
                chosen = {*members, *copies}
                groups[root] = [var for var in order if var in chosen]
        return groups

    def _joins(self, var: relax.Var, members: Vars) -> bool:
        """Apply rules 2 and 3."""
        kind, root = self.kinds[var], self.kinds[members[0]]
        joined = {Kind.POINTWISE} | ({Kind.DEPTHWISE} if root.kind is Kind.PRODUCT else set())
        if kind.kind not in joined or kind.pixels != root.pixels:
            return False
        if kind.kind is Kind.DEPTHWISE:
            width, whole = (vector_extent(n, self.lanes) for n in (kind.shape[-1], kind.pixels))
            if width < whole:
                return False
        readers = self._readers(var)
        return bool(readers) and all(
            reader in members and self._computable(reader, copies) for reader, copies in readers
        )

    def _is_small(self, var: relax.Var, members: Vars) -> bool:
        """Apply rule 4."""
        kind, root = self.kinds[var], self.kinds[members[0]]
        if not kind.simple or not root.simple or root.kind in (Kind.COPY, Kind.TRANSPOSE):
            return False
        if var in self.outputs or max(self.kinds[each].work for each in members) > FEW:
            return False
        users = self.users.get(var)
        if not users or not set(users) <= set(members):
            return False
        first = len(members) == 1 and not root.sums
        if kind.work > FEW:
            return first and kind.rows and kind.shape == root.shape != ()
        if len(root.shape) <= 1:
            return not kind.product or len(kind.shape) <= 1
        if kind.product or any(self.kinds[each].product for each in members):
            return first and root.kind is Kind.OTHER
        return root.kind is Kind.OTHER

    def _readers(self, var: relax.Var) -> list[tuple[relax.Var, Vars]]:
        """Return what reads a variable, each with the variable and the copies between; see rule 1.

        Nothing is returned for an output, and for what is copied to one.
        """
        if var in self.outputs:
            return []
        found = []
        for user in self.users.get(var, ()):
            if user in self.calls and self.kinds[user].kind is Kind.COPY:
                more = [(reader, [var, *copies]) for reader, copies in self._readers(user)]
            else:
                more = [(user, [var])]
            if not more:
                return []
            found += more
        return found

    def _computable(self, reader: relax.Var, copies: Vars) -> bool:
        """Whether a kernel can compute what it reads, and read the copies of that in place."""
        kind, numbers = self.kinds[reader], self._numbers(reader, copies[-1])
        plain = all(self.kinds[copy].plain for copy in copies[1:])
        return not numbers & kind.apart and (plain or not numbers & kind.factors)

    def _numbers(self, reader: relax.Var, operand: relax.Var) -> set[int]:
        operands = self.calls[reader].args[1].fields
        return {number for number, each in enumerate(operands) if each.same_as(operand)}

    def _copies(self, members: Vars) -> Vars:
        """Return the copies that members read, and those that these read (rule 1)."""
        root, *_ = members
        transposed = self.kinds[root].kind is Kind.GRAM
        kept = self._kept(root)
        found: dict[relax.Var, None] = {}
        frontier = list(members)
        while frontier:
            for used in relax.analysis.free_vars(self.calls[frontier.pop()].args[1]):
                kind = self.kinds[used].kind if used in self.calls else None
                if used in kept or used in found:
                    continue
                if kind is Kind.COPY or (kind is Kind.TRANSPOSE and transposed):
                    found[used] = None
                    frontier.append(used)
        return [var for var in found if var not in members]

    def _kept(self, root: relax.Var) -> set[relax.Var]:
        """Return the copies that a product must find in memory, for they break up its axes."""
        operands = self.calls[root].args[1].fields
        frontier: Vars = [operands[number] for number in self.kinds[root].factors]
        kept: set[relax.Var] = set()
        while frontier:
            used = frontier.pop()
            if used not in self.calls or self.kinds[used].kind is not Kind.COPY:
                continue
            if self.kinds[used].plain:
                frontier += list(self.calls[used].args[1].fields)
            else:
                kept.add(used)
        return kept


@mutator
class _Fuser(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, graph: _Graph) -> None:
        super().__init__(mod)
        self.graph = graph
        self.roots = {
            call: graph.members(var)
            for var, call in graph.calls.items()
            if len(graph.members(var)) > 1
        }

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        members = self.roots.get(call)
        if members is None:
            return super().visit_call_(call)
        function, args = self._function(members)
        name = self.builder_.add_func(function, "fused")
        return relax.Call(name, [self.visit_expr(arg) for arg in args])

    def _function(self, members: Vars) -> tuple[relax.Function, list[relax.Expr]]:
        """Return a primitive function of some calls, and what it is called with."""
        args: list[relax.Expr] = []
        params: list[relax.Var] = []
        inner: dict[relax.Expr, relax.Expr] = {}
        builder = relax.BlockBuilder()
        for var in members:
            for arg in self.graph.calls[var].args[1].fields:
                if arg not in members and arg not in inner:
                    args.append(arg)
                    params.append(relax.Var(f"p{len(params)}", arg.ty))
                    inner[arg] = params[-1]
        with builder.function("fused", params, attrs={"Primitive": True}, private=True):
            with builder.dataflow():
                for var in members:
                    call = self.graph.calls[var]
                    operands = [inner[arg] for arg in call.args[1].fields]
                    emit = builder.emit_output if var is members[-1] else builder.emit
                    inner[var] = emit(relax.call_tir(call.args[0], operands, call.ty))
            builder.emit_func_output(inner[members[-1]])
        return builder.get()["fused"], args
