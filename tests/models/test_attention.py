"""Attention against an independent softmax in float64, and its memory against the plain form."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from nkjax.models import attention


def random_qkv(batch, length, heads, dim, dtype=np.float32):
    # In fp32, 1.5 would put the rounding of the largest scores at the tests' bound itself. In bf16
    # large scores are what shows the mistake of keeping them in bf16.
    std = 1.0 if dtype == np.float32 else 1.5
    rng = np.random.default_rng(length + dim)
    return [rng.normal(0, std, (batch, length, heads, dim)).astype(dtype) for _ in range(3)]


def softmax_attention(q, k, v):
    """Attend by the formula, in float64, one head of one picture at a time."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.empty_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            scores = q[b, :, h] @ k[b, :, h].T / np.sqrt(q.shape[3])
            weights = np.exp(scores - scores.max(1, keepdims=True))
            out[b, :, h] = weights / weights.sum(1, keepdims=True) @ v[b, :, h]
    return out


def plain(q, k, v):
    scores = jnp.einsum("bnhd,bmhd->bhnm", q, k) * q.shape[-1] ** -0.5
    return jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(scores), v)


CASES = [(1, 193, 3, 64), (3, 193, 2, 80), (1, 513, 2, 60), (3, 1, 2, 64), (1, 512, 1, 16),
         (2, 1025, 1, 8), (1, 7, 5, 60)]  # fmt: skip


@pytest.mark.parametrize("shape", CASES, ids=str)
def test_chunked_is_softmax_attention(shape):
    q, k, v = random_qkv(*shape)
    ours = jax.jit(attention.chunked)(q, k, v)
    assert ours.shape == shape and ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, softmax_attention(q, k, v), atol=5e-6)


@pytest.mark.parametrize("shape", CASES, ids=str)
def test_chunked_in_bfloat16(shape):
    q, k, v = random_qkv(*shape, dtype=ml_dtypes.bfloat16)
    ours = jax.jit(attention.chunked)(q, k, v)
    wanted = softmax_attention(q, k, v)
    assert ours.shape == shape and ours.dtype == jnp.bfloat16
    # Weights and output are rounded to 8 bits; scores in bf16 would be off by a tenth.
    assert np.abs(np.asarray(ours, np.float64) - wanted).max() < 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize("chunk", [16, 64, 512])
def test_result_does_not_depend_on_the_chunks(chunk, monkeypatch):
    monkeypatch.setattr(attention, "QUERY_CHUNK", chunk)
    q, k, v = random_qkv(2, 70, 3, 16)
    np.testing.assert_allclose(attention.chunked(q, k, v), softmax_attention(q, k, v), atol=5e-6)


def test_large_scores_do_not_overflow():
    q, k, v = random_qkv(1, 40, 2, 64)
    ours = attention.chunked(q * 100, k * 100, v)
    assert np.abs(q).max() * 100 * np.abs(k).max() * 100 * 8 > 88  # exp of it is inf
    np.testing.assert_allclose(ours, softmax_attention(q * 100, k * 100, v), atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 193, 3, 64), (3, 70, 2, 80), (2, 513, 1, 60)], ids=str)
def test_gradients(shape):
    q, k, v = random_qkv(*shape)
    weight = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    def gradients(attend):
        return jax.jit(jax.grad(lambda *qkv: jnp.sum(attend(*qkv) * weight), (0, 1, 2)))(q, k, v)

    ours, wanted = gradients(attention.chunked), gradients(plain)
    for one, other in zip(ours, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)


def temporary_mb(function) -> float:
    x = jax.ShapeDtypeStruct((1, 3072, 16, 64), jnp.float32)
    return jax.jit(function).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes / 1e6


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="accelerators may hold more at once")
def test_memory_at_full_size():
    def gradient(attend):
        return jax.grad(lambda *qkv: jnp.sum(jnp.square(attend(*qkv))), (0, 1, 2))

    assert temporary_mb(plain) > 576  # fp32 scores of 16 heads x 3072 x 3072
    assert temporary_mb(attention.chunked) < 120
    assert temporary_mb(gradient(attention.chunked)) < 250


def test_heads_at_once_stay_within_the_budget_of_an_accelerator(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for length in (193, 3072, 12288):
        scores = min(length, attention.QUERY_CHUNK) * length
        together = attention._heads_at_once(16, scores)
        assert 1 <= together <= 16
        assert together == 1 or together * scores * 4 <= attention.SCORE_BYTES


def test_cudnn_refuses_float32_in_one_line():
    q, k, v = random_qkv(1, 16, 2, 64)
    with pytest.raises(ValueError, match="takes bfloat16 or float16, not float32.*chunked"):
        attention.attend(q, k, v, backend="cudnn")


@pytest.mark.parametrize("dim", [60, 64, 80])
def test_cudnn_gets_padded_heads_and_the_scale_of_the_real_ones(dim, monkeypatch):
    def kernel(q, k, v, scale, implementation):
        assert implementation == "cudnn" and q.shape[-1] % 8 == 0
        assert q.shape == k.shape == v.shape
        return real(q, k, v, scale=scale, implementation="xla")

    real = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    q, k, v = random_qkv(2, 33, 2, dim, ml_dtypes.bfloat16)
    ours = attention.attend(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), backend="cudnn")
    assert ours.shape == q.shape
    wanted = softmax_attention(q, k, v)
    assert np.abs(np.asarray(ours, np.float64) - wanted).max() < 0.02 * np.abs(wanted).max()


def test_unknown_backend():
    q, k, v = random_qkv(1, 4, 1, 8)
    with pytest.raises(ValueError, match="'flash' is unknown: use auto, chunked, cudnn, splash"):
        attention.attend(q, k, v, backend="flash")


@pytest.mark.parametrize(
    ("platform", "dtype", "backend"),
    [("cpu", "float32", "chunked"), ("cpu", "bfloat16", "chunked"), ("gpu", "float32", "chunked"),
     ("gpu", "bfloat16", "cudnn"), ("gpu", "float16", "cudnn"), ("tpu", "bfloat16", "splash"),
     ("tpu", "float32", "chunked")],
)  # fmt: skip
def test_automatic_backend(platform, dtype, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert attention.default_backend(dtype) == backend
