from __future__ import annotations

import pytest
import tvm

from distillc.codegen.compile import tvm_target
from distillc.errors import UsageError
from distillc.targets.base import get_target, targets


def test_ours_are_known_by_name() -> None:
    assert {"host", "snapdragon8elite", "snapdragon8gen3", "generic-aarch64"} <= set(targets())
    assert get_target(get_target("host")) == get_target("host")


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="generic-aarch64, host, snapdragon8elite"):
        get_target("snapdragon9")


@pytest.mark.parametrize("name", sorted(targets()))
def test_llvm_knows_every_cpu(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    target = get_target(name)
    described = tvm_target(target)
    assert isinstance(described, tvm.target.Target)
    assert "is not a recognized processor" not in capfd.readouterr().err
    assert target.vector_bits % 128 == 0
    assert target.threads <= sum(target.cores)


def test_the_elite_has_two_big_and_six_small_cores() -> None:
    target = get_target("snapdragon8elite")
    assert target.cores == (2, 6)
    assert target.cpu == "oryon-1"
    assert target.lanes == 4
