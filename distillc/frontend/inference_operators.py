"""The operators of torch that a stranger's program may call.

A list of what is allowed: torch has three thousand, and among them are ones that read files, that
set the memory of a tensor, and backward ones that trust their indices.
"""

from __future__ import annotations

import re

import torch

ALLOWED = frozenset(
    re.findall(
        r"\w+",
        """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d
    max_pool1d_with_indices max_pool2d_with_indices _adaptive_avg_pool2d max_unpool2d conv1d
    conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d col2im im2col
    unfold batch_norm layer_norm group_norm instance_norm rms_norm native_layer_norm
    native_group_norm _native_batch_norm_legit _native_batch_norm_legit_no_training linear
    matmul mm bmm addmm baddbmm dot mv einsum tensordot outer linalg_vector_norm
    scaled_dot_product_attention softmax log_softmax _softmax _log_softmax cosine_similarity
    pixel_shuffle pixel_unshuffle channel_shuffle pad constant_pad_nd reflection_pad1d
    reflection_pad2d replication_pad1d replication_pad2d upsample_nearest1d upsample_nearest2d
    _upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d upsample_bicubic2d
    _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler grid_sampler_2d
    grid_sampler_3d affine_grid_generator cdist _cdist_forward pdist dist bucketize
    searchsorted index_reduce max_pool3d_with_indices max_unpool3d dropout feature_dropout
    alpha_dropout native_dropout glu prelu silu hardswish
    logsigmoid relu6 elu gelu mish mean sum prod var var_mean std std_mean norm amax
    amin aminmax max min any all median argmax argmin argsort sort topk cumsum cumprod
    logsumexp count_nonzero gather index index_select index_put index_add index_fill
    index_copy scatter scatter_add scatter_reduce select_scatter slice_scatter masked_scatter
    embedding one_hot take_along_dim take where masked_select nonzero cat concat stack hstack
    vstack chunk split split_with_sizes tensor_split unbind alias clone contiguous detach
    lift_fresh lift_fresh_copy to _to_copy type_as expand expand_as broadcast_to
    broadcast_tensors view view_as reshape reshape_as flatten unflatten permute transpose t
    numpy_T mT adjoint movedim moveaxis swapaxes swapdims squeeze unsqueeze select slice
    narrow diagonal diag diag_embed tril triu flip fliplr flipud rot90 roll repeat
    repeat_interleave tile meshgrid atleast_1d atleast_2d atleast_3d copy unsafe_split
    _unsafe_view _reshape_alias arange linspace zeros ones full empty eye scalar_tensor
    zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty fill zero
    rand randn rand_like randn_like fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2
    fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_fftshift fft_ifftshift
    _fft_r2c _fft_c2r _fft_c2c hann_window hamming_window complex real imag conj _conj
    resolve_conj resolve_neg view_as_complex view_as_real polar item _local_scalar_dense
    sym_size sym_numel _assert_scalar _assert_tensor_metadata _assert_async
        """,
    )
)
"""Beside those that compute each element on its own, which torch marks."""

NEVER = re.compile(r"backward|_out$|^out$")


def is_allowed(target: str) -> bool:
    """Whether a node's target, `torch.ops.namespace.name.overload`, is an inference operator.

    1. Ours are allowed.
    2. Of torch's, those that are listed, and elementwise ones; in place too (with `_` at the end).
    3. None goes backward or writes into a given tensor.
    """
    parts = re.fullmatch(r"torch\.ops\.(aten|distillc)\.(\w+)\.(\w+)", target)
    if not parts:
        return False
    namespace, name, overload = parts.groups()
    packet = getattr(getattr(torch.ops, namespace), name, None)
    operator = getattr(packet, overload, None)
    if not isinstance(operator, torch._ops.OpOverload):
        return False
    if namespace == "distillc":  # rule 1
        return True
    if NEVER.search(name) or NEVER.search(overload):  # rule 3
        return False
    if re.fullmatch(r"__i?(and|or|xor)__", name):  # elementwise, but not tagged so
        return True
    return name.removesuffix("_") in ALLOWED or torch.Tag.pointwise in operator.tags  # rule 2
