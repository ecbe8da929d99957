"""Softmax attention behind one function, with a backend for each kind of machine.

`chunked` runs everywhere and is the reference: it never holds more than a few blocks of the score
matrix. `cudnn` is flash attention on NVIDIA GPUs (bf16 or fp16). `splash` is the TPU kernel.
"""

import math

import einops
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from nkjax.mesh import BATCH_AXES

QUERY_CHUNK = 512
SPLASH_BLOCK = 512
SCORE_BYTES = 1 << 28  # what one step of the chunked backend may hold on an accelerator


def attend(q_bnhd, k_bnhd, v_bnhd, *, backend: str = "auto"):
    """Attend without a mask: softmax(q k^T / sqrt(d)) v, any head dimension, any length.

    Args are (batch, tokens, heads, head_dim) of one dtype; the result has the shape and dtype of
    `q_bnhd`. Scores and softmax are fp32 in every backend. `backend` is one of BACKENDS, or
    'auto': for 16-bit inputs splash on TPU and cudnn on GPU, otherwise chunked.

    Raises ValueError for an unknown backend, and for cudnn with fp32 inputs.
    """
    if backend == "auto":
        backend = default_backend(q_bnhd.dtype)
    if backend not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise ValueError(f"attention backend {backend!r} is unknown: use auto, {known}")
    return over_batch(BACKENDS[backend], q_bnhd, k_bnhd, v_bnhd)


def over_batch(backend, q_bnhd, k_bnhd, v_bnhd):
    """Run a backend on each device's own part of the batch, on the mesh in scope.

    Pallas calls are not partitioned by the compiler, and the loop over heads of `chunked` would be
    run for the whole batch on every device. Without a mesh (`jax.set_mesh`), inside a `shard_map`,
    or with a batch that the devices do not divide, the backend runs as it is.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(a for a in BATCH_AXES if a in mesh.axis_names and a not in mesh.manual_axes)
    if not axes or q_bnhd.shape[0] % math.prod(mesh.shape[axis] for axis in axes):
        return backend(q_bnhd, k_bnhd, v_bnhd)
    spec = PartitionSpec(axes)
    mapped = jax.shard_map(backend, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)
    return mapped(q_bnhd, k_bnhd, v_bnhd)


def default_backend(dtype) -> str:
    """Name the fastest backend for this process's devices and this dtype."""
    platform = jax.default_backend()
    if jnp.dtype(dtype).itemsize != 2:
        return "chunked"
    return {"tpu": "splash", "gpu": "cudnn"}.get(platform, "chunked")


def chunked(q_bnhd, k_bnhd, v_bnhd):
    """Attend in blocks of queries, head by head, recomputing the blocks in the backward pass.

    Holds heads_at_once x QUERY_CHUNK x tokens fp32 scores, whatever the batch.
    """
    batch, length, heads, dim = q_bnhd.shape
    chunk = min(QUERY_CHUNK, length)
    chunks = -(-length // chunk)
    q_bnhd = jnp.pad(q_bnhd * dim**-0.5, ((0, 0), (0, chunks * chunk - length), (0, 0), (0, 0)))
    q = einops.rearrange(q_bnhd, "b (i c) h d -> (b h) i c d", c=chunk)
    k = einops.rearrange(k_bnhd, "b n h d -> (b h) n d")
    v = einops.rearrange(v_bnhd, "b n h d -> (b h) n d")

    @jax.checkpoint
    def one_block(q_cd, k_nd, v_nd):
        scores_cn = jnp.einsum("cd,nd->cn", q_cd, k_nd, preferred_element_type=jnp.float32)
        weights_cn = jax.nn.softmax(scores_cn, axis=-1).astype(v_nd.dtype)
        out_cd = jnp.einsum("cn,nd->cd", weights_cn, v_nd, preferred_element_type=jnp.float32)
        return out_cd.astype(q_cd.dtype)

    def one_head(qkv):
        q_icd, k_nd, v_nd = qkv
        return lax.map(lambda q_cd: one_block(q_cd, k_nd, v_nd), q_icd)

    out = lax.map(one_head, (q, k, v), batch_size=_heads_at_once(batch * heads, chunk * length))
    out_bnhd = einops.rearrange(out, "(b h) i c d -> b (i c) h d", b=batch)
    return out_bnhd[:, :length]


def _heads_at_once(heads: int, scores: int) -> int:
    # A CPU is fastest when a block stays in its cache, an accelerator when it is kept busy.
    wanted = 2 if jax.default_backend() == "cpu" else max(1, SCORE_BYTES // (4 * scores))
    return min(heads, wanted)


def cudnn(q_bnhd, k_bnhd, v_bnhd):
    """Attend with cuDNN's fused kernel; head dims that are not a multiple of 8 are zero-padded.

    Raises ValueError for inputs that are not 16-bit.
    """
    if jnp.dtype(q_bnhd.dtype).itemsize != 2:
        raise ValueError(
            f"attention backend 'cudnn' takes bfloat16 or float16, not {q_bnhd.dtype}: "
            "use backend 'chunked', or compute in bfloat16"
        )
    dim = q_bnhd.shape[-1]
    padding = ((0, 0), (0, 0), (0, 0), (0, -dim % 8))
    q, k, v = (jnp.pad(x, padding) for x in (q_bnhd, k_bnhd, v_bnhd))
    out = jax.nn.dot_product_attention(q, k, v, scale=dim**-0.5, implementation="cudnn")
    return out[..., :dim]


def splash(q_bnhd, k_bnhd, v_bnhd, *, interpret: bool = False):
    """Attend with the TPU splash kernel; `interpret` runs it, slowly, on any machine.

    The kernel wants a whole number of blocks: shorter lengths are padded, and the padding is kept
    apart by segment ids. The products of its backward pass have the default precision, whatever the
    context says: for gradients in true fp32 take `chunked`.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernel,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    _, length, heads, dim = q_bnhd.shape
    block = min(SPLASH_BLOCK, -(-length // 128) * 128)
    padded = -(-length // block) * block
    sizes = kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    mask = masks.MultiHeadMask([masks.FullMask((padded, padded)) for _ in range(heads)])
    attention = kernel.make_splash_mha(
        mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret
    )

    def to_kernel(x_bnhd):
        x_bnhd = jnp.pad(x_bnhd, ((0, 0), (0, padded - length), (0, 0), (0, 0)))
        return einops.rearrange(x_bnhd, "b n h d -> b h n d")

    segments = None
    if padded != length:
        ids = (jnp.arange(padded) >= length).astype(jnp.int32)
        segments = kernel.SegmentIds(q=ids, kv=ids)
    q, k, v = to_kernel(q_bnhd * dim**-0.5), to_kernel(k_bnhd), to_kernel(v_bnhd)
    out = jax.vmap(lambda q, k, v: attention(q, k, v, segment_ids=segments))(q, k, v)
    return einops.rearrange(out, "b h n d -> b n h d")[:, :length].astype(q_bnhd.dtype)


BACKENDS = {"chunked": chunked, "cudnn": cudnn, "splash": splash}
