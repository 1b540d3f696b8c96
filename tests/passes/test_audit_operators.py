from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distillc.errors import LoweringError, PreconditionError
from distillc.network import Network
from distillc.passes.audit_operators import AuditOperators
from distillc.passes.trace import Trace
from distillc.pipeline import Pipeline


class Odd(nn.Module):
    """Two operators that nothing here can compile."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.special.bessel_j0(image) + torch.special.airy_ai(image)


def test_a_network_that_can_be_compiled_is_left_alone(tiny_restormer: nn.Module) -> None:
    net = Trace()(Network(tiny_restormer, (16, 16), multiple=8))
    audited = AuditOperators()(net)
    assert audited.with_(log=net.log) == net
    assert "all can be compiled" in audited.log[-1].notes[0]


def test_all_missing_operators_are_listed_at_once() -> None:
    with pytest.raises(LoweringError, match="cannot be compiled") as caught:
        Pipeline([Trace(), AuditOperators()]).run(Network(nn.Sequential(Odd()), (8, 8)))
    assert "bessel_j0" in str(caught.value)
    assert "airy_ai" in str(caught.value)
    assert "test_audit_operators.py" in str(caught.value)


def test_it_needs_a_graph(tiny_restormer: nn.Module) -> None:
    with pytest.raises(PreconditionError, match="run Trace first"):
        AuditOperators()(Network(tiny_restormer, (16, 16)))
