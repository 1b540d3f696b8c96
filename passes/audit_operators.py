"""Refuse what cannot be compiled, before anything is trained."""

from __future__ import annotations

from distillc.codegen.operators.audit import audit
from distillc.network import Network
from distillc.passes.trace import Trace
from distillc.pipeline import Context, Pass, PassResult, require


class AuditOperators(Pass):
    """Check that every operator of the network can be compiled.

    Given:   %y = aten.foo(%x)   # in body.3, net.py:17
    Result:  LoweringError that lists foo and every other such operator, with module and line

    Raises:
        LoweringError: Some operators cannot be compiled.
    """

    after = (Trace,)

    def requires(self, net: Network) -> None:
        require(net.program is not None, "the network has no graph", "Trace")

    def run(self, net: Network, ctx: Context) -> PassResult:
        assert net.program is not None
        operators = {node.target for node in audit(net.program).graph.nodes}
        return PassResult(net, False, (f"{len(operators)} operators, all can be compiled",))
