"""Make the graph of a network."""

from __future__ import annotations

from distillc.frontend.trace import export_settled
from distillc.network import Network
from distillc.pipeline import Context, Pass, PassResult


class Trace(Pass):
    """Export the network at its size, and settle what its Python asks of values.

    Given:   Network(module=Restormer, size=(256, 256))
    Result:  program: %conv2d = aten.conv2d(%image, ...)  # nn_module_stack: patch_embed.proj

    Raises:
        TraceError: The network cannot be exported, or not at this size.
    """

    def run(self, net: Network, ctx: Context) -> PassResult:
        if net.program is not None:
            return PassResult(net, False)
        module, program = export_settled(net.module, net.input_shape)
        nodes = len(program.graph.nodes)
        return PassResult(net.with_(module=module, program=program), True, (f"{nodes} nodes",))
