"""Which modules of a network a surrogate can stand in for.

The rules that are named here are those of `distillc.passes.FindAttention`.
"""

from __future__ import annotations

import torch
from torch.fx import Node

from distillc.frontend.attention_graph import is_residual
from distillc.frontend.axes import channel_axis, follow_axes
from distillc.frontend.graph import activations, boundary, calls, operator, shape
from distillc.network import Layout

_NO_RESIDUAL = "has no residual connection"


class ReplaceableModules:
    """The modules of a program as a surrogate sees them: what goes in and out.

    Attributes:
        live: Nodes whose value depends on the image.
        calls: Module path -> the nodes that each of its calls made.
        axes: What the axes of an activation count.
    """

    def __init__(self, program: torch.export.ExportedProgram, image: tuple[int, ...]) -> None:
        self.live = activations(program)
        self.calls = calls(program)
        self.axes = follow_axes(program)
        self._image = image

    def why_not(self, path: str) -> str:
        """Say why a module is not a block, `""` when it is one."""
        if path not in self.calls:
            return "is not inside any module"
        for nodes in self.calls[path]:
            entering, leaving = boundary(nodes, self.live)
            ends = self._ends(nodes)
            if not ends:
                return f"takes {len(entering)} activations and returns {len(leaving)}"
            main, result = ends
            before, after = shape(main), shape(result)
            if before != after or len(before) not in (3, 4):
                return f"maps {before} to {after}"
            if before != self.extent(path):
                return "is called with different shapes"
            if self._layout(main) is None:
                return f"has neither images nor tokens as axes of {before}"
            if self._layout(main) != self.layout(path):
                return "is called with different layouts"
            if before == self._image:
                return "maps the image to an image"
            if more := self._unmade(nodes, main, result):
                return f"also returns {shape(more)}, which others use and no surrogate makes"
        if not all(self._adds(nodes) for nodes in self.calls[path]):
            return _NO_RESIDUAL
        return ""

    def is_part(self, path: str) -> bool:
        """Whether a surrogate can stand in for a module (rule 2) that lies beside a residual."""
        return self.why_not(path) == _NO_RESIDUAL

    def is_block(self, path: str) -> bool:
        """Whether a surrogate can stand in for a module that has a residual (rules 2 and 3)."""
        return not self.why_not(path)

    def extent(self, path: str) -> tuple[int, ...]:
        """Return the shape of a module's main input in its first call."""
        ends = self._ends(self.calls[path][0])
        return shape(ends[0]) if ends else ()

    def layout(self, path: str) -> Layout | None:
        """Return the layout of a module's main input in its first call, None for any other."""
        ends = self._ends(self.calls[path][0])
        return self._layout(ends[0]) if ends else None

    def _ends(self, nodes: set[Node]) -> tuple[Node, Node] | None:
        """Return the activation that a module's call maps, and what it makes of it.

        Of several that enter it is the one that is added to, of several that leave the one that it
        is added to, or the only one of its shape. Of two streams it is the first.
        """
        entering, leaving = boundary(nodes, self.live)
        pairs = [
            (before, after)
            for before in entering
            for after in leaving
            if len(leaving) == 1 or shape(before) == shape(after)
        ]
        if len(entering) == 1 and len({after for _, after in pairs}) == 1:
            return pairs[0]
        added = [(before, after) for before, after in pairs if is_residual(before, after, nodes)]
        if not added:
            sums = [node for node in nodes if self._is_sum(node)]
            added = [
                (before, after)
                for before, after in pairs
                if any(is_residual(before, node, nodes) for node in sums)
            ]
        several = len({before for before, _ in added}) > 1
        return None if not added or (several and len(leaving) == 1) else added[0]

    def _unmade(self, nodes: set[Node], main: Node, result: Node) -> Node | None:
        """Return what a call returns besides its result that a surrogate cannot return.

        It can make channels on the same grid, and hand on what has the shape of another input.
        """
        entering, leaving = boundary(nodes, self.live)
        handed_on = [shape(each) for each in entering if each is not main]
        layout, axis = self._layout(main), 1 if self._layout(main) == "image" else -1
        for each in leaving:
            own, grid = list(shape(each)), list(shape(main))
            known = len(own) == len(grid) and each in self.axes and self._layout(each) == layout
            if known and channel_axis(self.axes[each]) is not None:
                own[axis] = grid[axis]
            if each is not result and own != grid and shape(each) not in handed_on:
                return each
        return None

    def _is_sum(self, node: Node) -> bool:
        terms = [each for each in node.all_input_nodes if each in self.live]
        return operator(node) == "add" and len(terms) > 1

    def _layout(self, node: Node) -> Layout | None:
        extents = shape(node)
        channels = channel_axis(self.axes.get(node, ()))
        if len(extents) == 4 and channels in (None, 1):
            return "image"
        if len(extents) == 4 and channels == 3:
            return "channels_last"
        if len(extents) == 3 and extents[0] == 1 and channels in (None, 2):
            return "tokens"
        if len(extents) == 3 and extents[1] == 1 and channels in (None, 2):
            return "tokens_first"
        return None

    def _adds(self, nodes: set[Node]) -> bool:
        ends = self._ends(nodes)
        return ends is not None and is_residual(*ends, nodes)
