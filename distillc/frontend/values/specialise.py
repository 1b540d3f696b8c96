"""Choices that depend on the image, fixed as they are for one."""

from __future__ import annotations

import logging

from torch import Tensor, nn

from distillc.errors import UsageError
from distillc.frontend.values.advice import shown
from distillc.frontend.values.settle import settle

log = logging.getLogger(__name__)


def fix_choices(network: nn.Module, image: Tensor) -> tuple[nn.Module, tuple[str, ...]]:
    """Fix whatever Python chooses by values of the image, and log each as a warning.

    Args:
        network: Module in eval mode; it is not changed.
        image: (1, C, H, W) float32; the network is right for images like it, of this size.

    Returns:
        The network, and what was fixed, a line each.

    Raises:
        UsageError: Nothing in it depends on the image.
    """
    settled = settle(network, image.shape, image)
    if not settled.open:
        raise UsageError(
            "no Python of the network chooses by values of the image that are not settled already",
            where="--specialise",
            hint="leave it out",
        )
    fixed = tuple(
        f"{each.place}: fixed to {shown(each)}, as for the image given: {each.place.source}"
        for each in settled.open
    )
    for each in fixed:
        log.warning("%s", each)
    return settled.module, fixed
