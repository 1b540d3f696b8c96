"""What a network changes as it runs is frozen; what it makes once stays."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import distillc
from distillc.frontend.trace import export_program

SHAPE = (1, 3, 8, 8)


class Centred(nn.Module):
    """Takes centres from the image, which move towards its mean."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(3, 3, 1)
        if how == "parameter":
            self.centres: Tensor = nn.Parameter(torch.full((3,), 0.25))
        elif how == "attribute":
            self.centres = torch.full((3,), 0.25)
        else:
            self.register_buffer("centres", torch.full((3,), 0.25))

    def forward(self, image: Tensor) -> Tensor:
        moved = 0.5 * self.centres + 0.5 * image.mean((0, 2, 3))
        if self.how == "parameter":
            self.centres.data.copy_(moved)
        elif self.how == "in place":
            self.centres.copy_(moved)
        elif self.how == "data":
            self.centres.data = moved
        else:
            self.centres = moved
        result: Tensor = self.conv(image - self.centres[:, None, None])
        return result


WAYS = ("parameter", "attribute", "in place", "data", "buffer")


@pytest.mark.parametrize("how", WAYS)
def test_centres_are_frozen_and_it_is_said(how: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    module, image = Centred(how), torch.rand(SHAPE)
    with torch.no_grad():
        wanted = copy.deepcopy(module)(image)
    net = distillc.trace(nn.Sequential(module), image)
    assert "the network changes 0.centres as it runs: frozen" in caplog.text
    assert torch.equal(module.centres, torch.full((3,), 0.25))
    program = export_program(net.module, SHAPE)
    for each in (net.module, net.module, net.hybrid(), pickle.loads(pickle.dumps(net.module))):
        with torch.no_grad():
            assert torch.equal(each(image), wanted)
    torch.testing.assert_close(program.module()(image), wanted)
    assert [*net.module.state_dict()] == [*nn.Sequential(module).state_dict()]
    assert type(module.centres) is (nn.Parameter if how == "parameter" else Tensor)


def test_a_network_that_changes_nothing_stays(caplog: pytest.LogCaptureFixture) -> None:
    module = nn.Conv2d(3, 3, 1)
    assert distillc.trace(module, torch.rand(SHAPE)).module is module
    assert "distillc" not in caplog.text


class Masked(nn.Module):
    """Makes a mask when it first meets a size."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.masks: dict[int, Tensor] = {}
        self.register_buffer("mask", None)

    def forward(self, image: Tensor) -> Tensor:
        edge = image.shape[-1]
        mask = self.masks.get(edge) if self.how == "dict" else self.mask
        if mask is None or len(mask) != edge:
            mask = self.masks[edge] = torch.linspace(0, 1, edge)
            if self.how == "register":
                self.register_buffer("mask", mask)
            else:
                self.mask = mask
        return image * mask


@pytest.mark.parametrize("how", ["register", "assign", "dict"])
def test_what_is_made_on_the_first_call(how: str, caplog: pytest.LogCaptureFixture) -> None:
    module = Masked(how)
    net = distillc.trace(module, torch.rand(SHAPE))
    assert not net.fixed_size
    for edge in (8, 12):  # the last size it met was another
        image = torch.rand(1, 3, edge, edge)
        program = export_program(net.module, (1, 3, edge, edge))
        assert torch.equal(program.module()(image), net.module(image))
        assert type(module.mask) is Tensor
    assert "distillc" not in caplog.text
