# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Leave tokens where their pixels lie, and let attention find them there."""

from __future__ import annotations

import tvm

from distillc.codegen.rewrites.image_layout.layouter import Layouter
from distillc.codegen.rewrites.walk import rewrite_functions
from distillc.targets.base import Target


@tvm.transform.module_pass(opt_level=0, name="ImageLayout")
class ImageLayout:
    """Keep tokens in the layout of images, and attention in one kernel.

    A tensor of tokens is an image (1, C, H, W) whose numbers stand in another order: channels last,
    windows one after the other, shifted, cut into heads. This pass computes on the image and keeps
    the order as two arrays of places, one for channels and one for pixels.

    1. Reshapes, transpositions, slices and lookups by constant places change the arrays alone.
    2. What treats every pixel alike (products with weights, norms over channels, activations, sums
       with tokens of the same order) is computed on the image.
    3. softmax(q kT scale + bias + mask) v of tokens becomes one kernel, which finds its tokens by
       tables made of the arrays. Its result stands where the queries stood, so that merging
       windows and shifting back leave nothing to do.
    4. Anything else gets its tensor in memory, by the cheapest way there is.

    Args:
        target: Decides the shape of the attention kernel.

    Given:   window_reverse(attention(window_partition(roll(layer_norm(permute(x)))))) @ weight
    Result:  conv1x1(attention(conv1x1(channel_norm(x)), tables))
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def transform_module(self, mod: tvm.IRModule, _: object) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_functions(mod, Layouter(mod, self.target))
