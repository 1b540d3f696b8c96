"""Merge adjacent image axes of a PrimFunc, so that rules see one long pixel axis.

Given:   C[co, y, x] += X[ci, y, x] * W[co, ci]            (y, x in H, W)
Result:  C[co, p] += X[ci, p] * W[co, ci]                  (p in H * W)

One axis of H * W pixels splits into full vectors whatever W is. The merged function has other
parameter shapes than its caller knows; `restore` gives a scheduled function its signature back.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm_ffi
from tvm import s_tir, sym, tirx
from tvm.ir import Range, TensorLoad, TensorRegion
from tvm.tirx.buffer import is_buffer_var

Buffers = dict[tirx.Var, tirx.Var]


@dataclass(frozen=True)
class Merged:
    """A function with merged axes, and for each merged parameter the original one."""

    func: tirx.PrimFunc
    originals: Buffers


@dataclass(frozen=True)
class _Leaf:
    """One computing block with its own loop nest; `values[i]` binds `block.iter_vars[i]`."""

    loops: list[tirx.For]
    block: s_tir.SBlock
    values: list[tirx.Expr]


class _CannotMergeError(Exception):
    """Accesses that do not run along the merged axis, and the buffers that they are to."""

    def __init__(self, buffers: list[tirx.Var]) -> None:
        super().__init__()
        self.buffers = buffers


def int64(value: int) -> tirx.IntImm:
    """Return an index constant of the type that Relax gives to shapes."""
    return tirx.IntImm("int64", value)


def static_shape(buffer: tirx.Var) -> tuple[int, ...] | None:
    """Return a buffer's shape, None when a dimension is symbolic."""
    dims = buffer.ty.shape
    if not all(isinstance(dim, tirx.IntImm) for dim in dims):
        return None
    return tuple(int(dim) for dim in dims)


def merge_axes(func: tirx.PrimFunc) -> Merged:
    """Merge the last two axes of a function's buffers again and again while that is possible."""
    originals: Buffers = {}
    leaves = _leaves(func)
    while leaves is not None:
        for height, width in _pairs(func):
            merged = _merge(func, leaves, height, width)
            if merged is None:
                continue
            func, replaced = merged
            originals = {
                **{k: v for k, v in originals.items() if k not in replaced},
                **{new: originals.get(old, old) for old, new in replaced.items()},
            }
            leaves = _leaves(func)
            break
        else:
            break
    kept = {param: originals[param] for param in func.params if param in originals}
    return Merged(func, kept)


def _merge(
    func: tirx.PrimFunc, leaves: list[_Leaf], height: int, width: int
) -> tuple[tirx.PrimFunc, Buffers] | None:
    """Merge two axes of all buffers that have them; None where that is not possible.

    A matrix may be as high and wide as the image by chance: what is not read along the merged
    axis stays as it is.
    """
    kept: list[tirx.Var] = []
    while True:
        try:
            return _Merger(func, leaves, height, width, kept).result()
        except _CannotMergeError as error:
            if not error.buffers:
                return None
            kept += error.buffers


def restore(func: tirx.PrimFunc, originals: Buffers) -> tirx.PrimFunc:
    """Give a scheduled function the parameters it had before `merge_axes`."""
    if not originals:
        return func

    def indices(buffer: tirx.Var, values: list[tirx.Expr]) -> list[tirx.Expr]:
        """Split the last index back until the rank is the original one."""
        values = list(values)
        dims = static_shape(buffer) or ()
        while len(values) < len(dims):
            # The first merged axis of the remaining ones is the outermost.
            inner = 1
            for dim in dims[len(values) :]:
                inner *= dim
            last = values.pop()
            values += [tirx.floordiv(last, int64(inner)), tirx.floormod(last, int64(inner))]
        return values

    def load(node: TensorLoad) -> TensorLoad:
        old = originals.get(node.source)
        return node if old is None else tirx.BufferLoad(old, indices(old, node.indices))

    def store(node: tirx.BufferStore) -> tirx.BufferStore:
        old = originals.get(node.buffer)
        if old is None:
            return node
        return tirx.BufferStore(old, node.value, indices(old, node.indices))

    def region(node: TensorRegion) -> TensorRegion:
        old = originals.get(node.source)
        if old is None:
            return node
        # Regions of parameters only inform; the whole merged axes are always right.
        kept = list(node.region)[:-1]
        whole = [Range(int64(0), dim) for dim in old.ty.shape[len(kept) :]]
        return tirx.BufferRegion(old, [*kept, *whole])

    body = tvm_ffi.structural_map(
        func.body,
        [(TensorLoad, load), (tirx.BufferStore, store), (TensorRegion, region)],
        order="post",
    )
    params = [originals.get(param, param) for param in func.params]
    return tirx.PrimFunc(params, body, func.ret_type, func.attrs)


def _pairs(func: tirx.PrimFunc) -> list[tuple[int, int]]:
    """Candidates: the last two dimensions of each parameter, the output's first."""
    pairs: dict[tuple[int, int], None] = {}
    for param in reversed(func.params):
        shape = static_shape(param) if is_buffer_var(param) else None
        if shape is not None and len(shape) > 1 and min(shape[-2:]) > 1:
            pairs[shape[-2], shape[-1]] = None
    return list(pairs)


def _leaves(func: tirx.PrimFunc) -> list[_Leaf] | None:
    """Split a function into its blocks; None when it is not a plain sequence of loop nests."""
    if not isinstance(func.body, s_tir.SBlockRealize):
        return None
    root = func.body.block
    leaves = []
    for stmt in root.body.seq if isinstance(root.body, tirx.SeqStmt) else [root.body]:
        loops = []
        while isinstance(stmt, tirx.For):
            if stmt.kind != tirx.ForKind.SERIAL or not isinstance(stmt.extent, tirx.IntImm):
                return None
            loops.append(stmt)
            stmt = stmt.body
        if not isinstance(stmt, s_tir.SBlockRealize):
            return None
        if not isinstance(stmt.block.body, tirx.BufferStore):
            return None
        leaves.append(_Leaf(loops, stmt.block, list(stmt.iter_values)))
    return leaves


def substitute(expr: tirx.Expr, values: dict[tirx.Var, tirx.Expr]) -> tirx.Expr:
    return tvm_ffi.structural_map(expr, (tirx.Var, lambda var: values.get(var, var)), order="post")


class _Merger:
    """Rewrites one function so that trailing dimensions (height, width) become one."""

    def __init__(
        self,
        func: tirx.PrimFunc,
        leaves: list[_Leaf],
        height: int,
        width: int,
        kept: list[tirx.Var],
    ) -> None:
        self.func, self.leaves = func, leaves
        self.height, self.width = height, width
        self.kept = kept
        self.buffers: Buffers = {}
        # An exception does not pass unchanged through the callbacks of a structural walk.
        self.failed = False
        self.askew: list[tirx.Var] = []

    def result(self) -> tuple[tirx.PrimFunc, Buffers]:
        """Return the rewritten function and which buffer replaced which."""
        root = self.func.body.block
        body = tirx.stmt_seq(*[self.nest(leaf) for leaf in self.leaves])
        if not self.buffers or self.failed or self.askew:
            raise _CannotMergeError(self.askew)
        allocated = [self.replacement(buffer) for buffer in root.alloc_buffers]
        params = [self.replacement(param) for param in self.func.params]
        block = s_tir.SBlock([], [], [], root.name_hint, body, None, allocated, [], {})
        realize = s_tir.SBlockRealize([], True, block)
        func = tirx.PrimFunc(params, realize, self.func.ret_type, self.func.attrs)
        return func, self.buffers

    def merged(self, old: tirx.Var) -> tirx.Var | None:
        """Return the buffer that replaces `old`, None when `old` stays."""
        shape = static_shape(old) if is_buffer_var(old) else None
        if shape is None or shape[-2:] != (self.height, self.width):
            return None
        if any(old.same_as(each) for each in self.kept):
            return None
        if old not in self.buffers:
            dims = [int64(dim) for dim in (*shape[:-2], self.height * self.width)]
            dtype, scope = old.ty.dtype, old.ty.storage_scope
            self.buffers[old] = tirx.decl_buffer(dims, dtype, old.name, scope=scope)
        return self.buffers[old]

    def replacement(self, old: tirx.Var) -> tirx.Var:
        merged = self.merged(old)
        return old if merged is None else merged

    def nest(self, leaf: _Leaf) -> tirx.Stmt:
        """Rebuild one loop nest on the merged buffers."""
        block, store = leaf.block, leaf.block.body
        analyzer = sym.Analyzer()
        for iter_var in block.iter_vars:
            analyzer.bind(iter_var.var, iter_var.dom)
        pixel = tirx.Var("v_p", "int64")
        count = int64(self.height * self.width)
        values: dict[tirx.Var, tirx.Expr] = {}
        if self.merged(store.buffer) is not None:
            extents = {iv.var: int(iv.dom.extent) for iv in block.iter_vars}
            rows, columns = store.indices[-2:]
            if (extents.get(rows), extents.get(columns)) != (self.height, self.width):
                raise _CannotMergeError([store.buffer])
            analyzer.bind(pixel, Range(int64(0), count))
            values = {
                rows: tirx.floordiv(pixel, int64(self.width)),
                columns: tirx.floormod(pixel, int64(self.width)),
            }

        def indices(buffer: tirx.Var, old: list[tirx.Expr]) -> list[tirx.Expr]:
            new = [substitute(index, values) for index in old]
            if self.merged(buffer) is not None:
                new = [*new[:-2], new[-2] * int64(self.width) + new[-1]]
            new = [analyzer.simplify(index) for index in new]
            if self.merged(buffer) is not None and not isinstance(new[-1], tirx.Var):
                self.askew.append(buffer)
            return new

        def load(node: TensorLoad) -> TensorLoad:
            buffer = self.replacement(node.source)
            return tirx.BufferLoad(buffer, indices(node.source, list(node.indices)))

        def rewrite(node: tirx.BufferStore) -> tirx.BufferStore:
            # Only loads may use the two old variables: elsewhere the rows and columns matter.
            value = tvm_ffi.structural_map(node.value, (TensorLoad, load), order="post")
            target = self.replacement(node.buffer)
            return tirx.BufferStore(target, value, indices(node.buffer, list(node.indices)))

        body = rewrite(store)
        init = None if block.init is None else rewrite(block.init)
        self.check(body, set(values), pixel)
        iter_vars, bindings, loops = [], [], []
        for iter_var, value in zip(block.iter_vars, leaf.values, strict=True):
            if iter_var.var in values:
                if iter_var.var.same_as(columns):
                    loop = tirx.Var("p", "int64")
                    loops.append((loop, count))
                    iter_vars.append(
                        tirx.IterVar(Range(int64(0), count), pixel, iter_var.iter_type)
                    )
                    bindings.append(loop)
                continue
            iter_vars.append(iter_var)
            bindings.append(value)
            loops += [(lp.loop_var, lp.extent) for lp in leaf.loops if lp.loop_var.same_as(value)]
        reads = _regions(body.value, exclude=body.buffer)
        writes = [_point(body.buffer, body.indices)]
        new = s_tir.SBlock(iter_vars, reads, writes, block.name_hint, body, init)
        stmt: tirx.Stmt = s_tir.SBlockRealize(bindings, True, new)
        for loop, extent in reversed(loops):
            stmt = tirx.For(loop, int64(0), extent, tirx.ForKind.SERIAL, stmt)
        return stmt

    def check(self, body: tirx.BufferStore, old: set[tirx.Var], pixel: tirx.Var) -> None:
        """Refuse leftovers of the old variables, and divisions of the new one."""

        def inside(node: tirx.Expr) -> None:
            def hit(var: tirx.Var) -> None:
                self.failed |= var.same_as(pixel)

            tvm_ffi.structural_walk(node, (tirx.Var, hit))

        def leftover(var: tirx.Var) -> None:
            self.failed |= var in old

        tvm_ffi.structural_walk(body, [(tirx.FloorDiv, inside), (tirx.FloorMod, inside)])
        tvm_ffi.structural_walk(body, (tirx.Var, leftover))


def _point(buffer: tirx.Var, indices: list[tirx.Expr]) -> TensorRegion:
    return tirx.BufferRegion(buffer, [Range.from_min_extent(i, int64(1)) for i in indices])


def _regions(value: tirx.Expr, exclude: tirx.Var) -> list[TensorRegion]:
    """Return one region for each distinct load, as schedule primitives demand."""
    found: list[TensorLoad] = []
    analyzer = sym.Analyzer()

    def same(first: TensorLoad, second: TensorLoad) -> bool:
        pairs = zip(first.indices, second.indices, strict=False)
        return first.source.same_as(second.source) and all(
            analyzer.can_prove_equal(a, b) for a, b in pairs
        )

    def load(node: TensorLoad) -> None:
        if not node.source.same_as(exclude) and not any(same(node, other) for other in found):
            found.append(node)

    tvm_ffi.structural_walk(value, (TensorLoad, load))
    return [_point(node.source, list(node.indices)) for node in found]
