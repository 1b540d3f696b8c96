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
            main = self._main(nodes)
            if not main:
                return f"takes {len(entering)} activations and returns {len(leaving)}"
            before, after = shape(main), shape(leaving[0])
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
        main = self._main(self.calls[path][0])
        return shape(main) if main else ()

    def layout(self, path: str) -> Layout | None:
        """Return the layout of a module's main input in its first call, None for any other."""
        main = self._main(self.calls[path][0])
        return self._layout(main) if main else None

    def _main(self, nodes: set[Node]) -> Node | None:
        """Return the activation that a module's call maps, of several the one it adds to."""
        entering, leaving = boundary(nodes, self.live)
        if len(leaving) != 1 or not entering:
            return None
        if len(entering) == 1:
            return entering[0]
        added = [each for each in entering if is_residual(each, leaving[0], nodes)]
        if not added:
            sums = [node for node in nodes if self._is_sum(node)]
            added = [
                each for each in entering if any(is_residual(each, node, nodes) for node in sums)
            ]
        return added[0] if len(added) == 1 else None

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
        main, (leaving,) = self._main(nodes), boundary(nodes, self.live)[1]
        return main is not None and is_residual(main, leaving, nodes)
