from __future__ import annotations

import pytest
import torch

from distillc.frontend.window_index import window_index, with_indices


@pytest.mark.parametrize("window", [1, 2, 7, 8])
def test_the_index_is_that_of_a_public_network(window: int) -> None:
    from spandrel.architectures.SwinIR.__arch.SwinIR import WindowAttention

    attention = WindowAttention(4, (window, window), 2)
    theirs = dict(attention.named_buffers())["relative_position_index"]
    assert torch.equal(window_index(window), theirs)
    table = {"a.relative_position_bias_table": attention.relative_position_bias_table}
    found = with_indices(table)
    assert torch.equal(found["a.relative_position_index"], theirs)


def test_an_index_of_the_file_stays() -> None:
    state = {
        "relative_position_bias_table": torch.zeros(9, 2),
        "relative_position_index": torch.zeros(4, 4, dtype=torch.int64),
    }
    found = with_indices(state)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize("shape", [(16, 2), (10, 2), (9,), (0, 2)])
def test_tables_of_other_sizes_get_no_index(shape: tuple[int, ...]) -> None:
    state = {"relative_position_bias_table": torch.zeros(shape)}
    assert with_indices(state).keys() == state.keys()
