"""Attention that a network allows kernels of CUDA only: on a CPU the plain one stands in."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable

import torch
from torch.nn import attention

log = logging.getLogger(__name__)


def lacks_kernel(error: Exception) -> bool:
    """Whether an error says that attention is allowed no kernel that runs here."""
    words = "No available kernel|backend for scaled_dot_product_attention"
    return re.search(words, str(error)) is not None


def allow_math(error: Exception) -> bool:
    """Let `sdpa_kernel(...)` choose torch's plain kernel as well, if that it may not is the error.

    From then on every such choice in this process includes `SDPBackend.MATH`, for a network runs in
    many places; results are the same but for rounding. A warning says so.

    Returns:
        Whether it is allowed now and was not before: the network may run.
    """
    choose = getattr(attention, "_sdpa_kernel", None)
    if not lacks_kernel(error) or isinstance(choose, _WithMath) or choose is None:
        return False
    attention._sdpa_kernel = _WithMath(choose)
    torch.backends.cuda.enable_math_sdp(True)
    log.warning(
        "the network allows attention no kernel that runs on a CPU: SDPBackend.MATH is allowed too"
    )
    return True


class _WithMath:
    """Torch's function that sets the kernels, with the plain one among them."""

    def __init__(self, choose: Callable[..., None]) -> None:
        self.choose = choose

    def __call__(
        self, backends: Iterable[attention.SDPBackend], set_priority: bool = False
    ) -> None:
        self.choose(list(dict.fromkeys([*backends, attention.SDPBackend.MATH])), set_priority)
