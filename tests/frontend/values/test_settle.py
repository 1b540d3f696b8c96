"""Networks whose Python looks at values export, and compute what they did."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from distillc.errors import TraceError
from distillc.frontend.cost import count_cost
from distillc.frontend.static_form import is_dynamic
from distillc.frontend.trace import export_settled
from distillc.frontend.values.settle import settle

SHAPE = (1, 3, 8, 8)


class Gated(nn.Module):
    """Weights, a flag, four experts, and what a test does with them.

    Args:
        body: (module, image) -> image.
    """

    def __init__(self, body: Callable[[Gated, Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("started", torch.tensor(True))
        self.share = nn.Parameter(torch.tensor(0.6))
        self.gate = nn.Linear(3, 4)
        self.experts = nn.ModuleList(nn.Conv2d(3, 3, 2 * i + 1, padding=i) for i in range(4))

    def forward(self, image: Tensor) -> Tensor:
        return self.body(self, image)

    def gates(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights and indices (B, 2) of the experts of each image."""
        gates: Tensor = self.gate(image.std((2, 3)) * 20).softmax(-1)
        weights, chosen = gates.topk(2, dim=-1)
        return weights, chosen


def assert_settled(body: Callable[[Gated, Tensor], Tensor]) -> nn.Module:
    """Assert that a network exports at static sizes and computes the same; return it settled."""
    torch.manual_seed(0)
    network = Gated(body).eval()
    module, program = export_settled(network, SHAPE)
    assert not any(map(is_dynamic, program.graph.nodes))
    for image in (torch.rand(SHAPE), torch.rand(SHAPE) ** 4, torch.zeros(SHAPE)):
        with torch.no_grad():
            wanted = network(image)
            assert torch.equal(module(image), wanted)
            torch.testing.assert_close(program.module()(image), wanted)
    return module


def open_reads(body: Callable[[Gated, Tensor], Tensor]) -> TraceError:
    """Return the error of a network that cannot be exported."""
    torch.manual_seed(0)
    with pytest.raises(TraceError) as caught:
        export_settled(Gated(body).eval(), SHAPE)
    assert "test_settle.py" in str(caught.value.where)
    assert caught.value.hint
    return caught.value


def by_weights(network: Gated, image: Tensor) -> Tensor:
    if not network.started:
        return image
    if network.share > 0.5 and torch.equal(network.started, torch.tensor(True)):
        image = image * 2
    edge = int(8 * network.share)
    return torch.cat([image[..., :edge] + 1, image[..., edge:]], -1)


def test_weights_that_choose() -> None:
    assert_settled(by_weights)


def checked(network: Gated, image: Tensor) -> Tensor:
    assert image.min() > -1
    if torch.isnan(image).any():
        raise ValueError("not numbers")
    torch._assert(image.max() < 9, "too bright")
    return image * 2


def test_checks_are_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    assert_settled(checked)
    assert caplog.text.count("this check is left out") == 3
    assert "assert image.min() > -1" in caplog.text


def compared(network: Gated, image: Tensor) -> Tensor:
    if torch.equal(image, image.flip(1)) and image.sum() > 0:
        raise ValueError("the channels are the same")
    return image + 1


def test_a_check_that_some_images_do_not_pass() -> None:
    assert_settled(compared)


def masked(network: Gated, image: Tensor) -> Tensor:
    dark = image < 0.01
    if dark.any():
        image = image + dark * 0.5
    return image


def test_work_that_adds_nothing_where_it_is_not_needed() -> None:
    assert_settled(masked)


def numbers(network: Gated, image: Tensor) -> Tensor:
    largest, mean = image.max().item(), image.mean((0, 2, 3)).tolist()
    return (image + mean[0]) / (largest + 1) - mean[2]


def test_numbers_of_the_image() -> None:
    assert_settled(numbers)


def iterated(network: Gated, image: Tensor) -> Tensor:
    weights, chosen = network.gates(image)
    results = torch.stack([network.experts[i](image) for i in chosen.squeeze(0)], 1)
    return (weights[:, :, None, None, None] * results).sum(1)


def listed(network: Gated, image: Tensor) -> Tensor:
    weights, chosen = network.gates(image)
    picked = [network.experts[i](image) for i in chosen[0].tolist()]
    return weights[0, 0].item() * picked[0] + weights[0, 1] * picked[1]


def skipped(network: Gated, image: Tensor) -> Tensor:
    weights, chosen = network.gates(image)
    gates = torch.zeros(1, 4).scatter(1, chosen, weights)
    result = torch.zeros_like(image)
    for i, expert in enumerate(network.experts):
        if gates[0, i] > 0:
            result = result + gates[0, i] * expert(image)
    return result


@pytest.mark.parametrize("body", [iterated, listed, skipped])
def test_experts_that_the_image_chooses(
    body: Callable[[Gated, Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    module = assert_settled(body)
    assert ("one of 4 modules: all of them run" in caplog.text) == (body is not skipped)
    convolutions = sum(3 * 3 * (2 * i + 1) ** 2 for i in range(4)) * 64
    # The list is indexed twice, and each time every expert runs.
    assert count_cost(module, SHAPE).macs == (2 - (body is skipped)) * convolutions + 12


def test_a_batch_chooses_for_each_image() -> None:
    module = assert_settled(iterated)
    images = torch.stack([torch.rand(3, 8, 8), torch.rand(3, 8, 8) / 9, torch.zeros(3, 8, 8)])
    with torch.no_grad():
        alone = torch.cat([module(each[None]) for each in images])
        assert torch.equal(module(images), alone)


def framed(network: Gated, image: Tensor) -> Tensor:
    mask = torch.zeros_like(image)
    half = (4 * image.std(dim=(2, 3)).sigmoid()).int()
    for i in range(len(image)):
        mask[i, :, 4 - half[i, 0] : 4 + half[i, 0], : -half[i, 1]] = 2
        mask[i, ..., 6:] = image[i, half[i, 2] - 3, :, 6:]
    return image * mask


def test_a_mask_whose_edges_the_image_chooses() -> None:
    assert_settled(framed)


def test_what_stays_open() -> None:
    def branch(network: Gated, image: Tensor) -> Tensor:
        if image.mean() > 0.2:
            return image * 3
        return -image

    error = open_reads(branch)
    assert "`if image.mean() > 0.2:`" in error.what
    assert "here True" in error.what
    assert "torch.where" in str(error.hint)

    error = open_reads(lambda network, image: image[..., : int(8 * image.mean())])
    assert "keep the tensor" in str(error.hint)

    error = open_reads(lambda network, image: image + float(image.numpy().mean()))
    assert "with torch" in str(error.hint)


def test_sizes_that_depend_on_values_get_a_remedy() -> None:
    def tokens(network: Gated, image: Tensor) -> Tensor:
        kept = torch.where(image > 0.5)[0]
        return image if kept.numel() == 0 else image + len(kept)

    error = open_reads(tokens)
    assert "fixed ratio" in str(error.hint)


def test_what_asks_nothing_stays(caplog: pytest.LogCaptureFixture) -> None:
    network = nn.Conv2d(3, 3, 1).eval()
    settled = settle(network, SHAPE)
    assert settled.module is network
    assert settled.open == ()
    assert "distillc" not in caplog.text


def test_nothing_is_drawn_or_kept_of_the_trials() -> None:
    class Noisy(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            self.seen = image
            return image + torch.rand(1).item()

    network, state = Noisy().eval(), torch.random.get_rng_state()
    settle(network, SHAPE)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not hasattr(network, "seen")
