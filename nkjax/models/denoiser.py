"""The network of the prior: a small transformer with one token per joint.

apply(params, spec, ...) says what a first estimate of a noised pose misses. Blocks are stacked on a
leading layer axis and scanned; time and context reach them by adaptive layer norm, whose projection
they share. Joints that are not valid are seen by nobody. All arithmetic is fp32. Source: notes
method 2.2, DiT (arXiv 2212.09748), PixArt (arXiv 2310.00426).

Shapes: b batch, j joints, d width, h heads, l layers.
"""

import dataclasses

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MLP_RATIO = 2
MODULATIONS = 6  # shift, scale and gate, of attention and of the MLP
EPS = 1e-6


@dataclasses.dataclass(frozen=True)
class Spec:
    """Describe a denoiser of poses of so many joints; context: numbers it is told of a pose."""

    joints: int
    context: int
    width: int = 128
    depth: int = 4
    heads: int = 4


class Block(nn.Module):
    """One pre-norm transformer block, modulated by shift, scale and gate."""

    heads: int
    dropout: float

    @nn.compact
    def __call__(self, x_bjd, shared_b6d, valid_bj):
        """Return x_bjd after attention among valid joints and an MLP."""
        width = x_bjd.shape[-1]
        own_6d = self.param("modulation", nn.initializers.zeros, (MODULATIONS, width))
        parts = jnp.moveaxis(shared_b6d + own_6d[None], 1, 0)[:, :, None]
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = parts
        drop = nn.Dropout(self.dropout, deterministic=not self.dropout)

        y_bjd = _norm("ln1")(x_bjd) * (1 + scale_1) + shift_1
        qkv = nn.Dense(3 * width, name="qkv")(y_bjd)
        q, k, v = einops.rearrange(qkv, "b j (three h d) -> three b h j d", three=3, h=self.heads)
        logits_bhij = jnp.einsum("bhid,bhjd->bhij", q, k) / np.sqrt(q.shape[-1]).astype(np.float32)
        logits_bhij = jnp.where(valid_bj[:, None, None], logits_bhij, -1e9)
        y = jnp.einsum("bhij,bhjd->bhid", jax.nn.softmax(logits_bhij), v)
        y_bjd = nn.Dense(width, name="proj")(einops.rearrange(y, "b h j d -> b j (h d)"))
        x_bjd = x_bjd + (1 + gate_1) * drop(y_bjd)

        y_bjd = _norm("ln2")(x_bjd) * (1 + scale_2) + shift_2
        y_bjd = jax.nn.gelu(nn.Dense(MLP_RATIO * width, name="fc1")(y_bjd))
        return x_bjd + (1 + gate_2) * drop(nn.Dense(width, name="fc2")(y_bjd))


def _norm(name):
    return nn.LayerNorm(epsilon=EPS, use_bias=False, use_scale=False, name=name)


def init(key, spec: Spec) -> dict:
    """Return random fp32 parameters; each leaf of `blocks` has a leading layer axis."""
    keys = dict(zip(("embed", "joints", "time", "context", "modulate", "blocks"),
                    jax.random.split(key, 6), strict=True))  # fmt: skip
    x_bjd = jnp.zeros((1, spec.joints, spec.width))
    block, shared = Block(spec.heads, 0.0), jnp.zeros((1, MODULATIONS, spec.width))

    def dense(name, inputs, outputs):
        return nn.Dense(outputs).init(keys[name], jnp.zeros((1, inputs)))["params"]

    def block_params(block_key):
        return block.init(block_key, x_bjd, shared, jnp.ones((1, spec.joints), bool))["params"]

    return {
        "embed": dense("embed", _features_count(), spec.width),
        "joints": 0.5 * jax.random.normal(keys["joints"], (spec.joints, spec.width)),
        "time": dense("time", 2 * len(TIME_WAVES), spec.width),
        "context": dense("context", spec.context, spec.width),
        "modulate": jax.tree.map(
            lambda x: 0.1 * x, dense("modulate", spec.width, MODULATIONS * spec.width)
        ),
        "blocks": jax.vmap(block_params)(jax.random.split(keys["blocks"], spec.depth)),
        # Zero: before training, the first estimate is the last.
        "out": {"kernel": jnp.zeros((spec.width, 2)), "bias": jnp.zeros(2)},
    }


TIME_WAVES = tuple(float(x) for x in np.geomspace(0.25, 16.0, 12))
POINT_WAVES = (1.0, 2.0, 4.0, 8.0)  # radians per unit: what a narrow network cannot resolve itself


def _features_count() -> int:
    return 2 * (1 + 2 * len(POINT_WAVES)) + 2 + 2 + 2


def _waves(x, waves):
    """Return sines and cosines of numbers (..., n): (..., n * 2 * waves)."""
    angles = einops.rearrange(jnp.stack([x * wave for wave in waves], -1), "... n w -> ... (n w)")
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def apply(
    params: dict, spec: Spec, first_bj2, away_bj2, spread_bj2, log_ratio_b, valid_bj, observed_bj,
    context_bc, dropout: float = 0.0, key=None,
):  # fmt: skip
    """Predict what first estimates of poses miss, (B, J, 2) in units of their spread; 0 if invalid.

    first_bj2: estimates, data units; away_bj2: how far the noised pose is from them, in what is to
    be expected; spread_bj2: what they leave open; log_ratio_b: natural log of sigma / alpha;
    observed_bj: joints whose place is known; context_bc: numbers about a pose. dropout with its
    key: in training.
    """
    valid = valid_bj[..., None]
    # Before anything is made of them: what is NaN there would give NaN gradients.
    first_bj2, away_bj2 = (jnp.where(valid, x, 0.0) for x in (first_bj2, away_bj2))
    told = (
        first_bj2, _waves(first_bj2, POINT_WAVES), away_bj2, jnp.log(spread_bj2), valid,
        (valid_bj & observed_bj)[..., None],
    )  # fmt: skip
    features = jnp.concatenate([each.astype(jnp.float32) for each in told], -1)
    features = jnp.where(valid, features, 0.0)
    with jax.default_matmul_precision("highest"):
        x_bjd = _dense(params["embed"], features) + params["joints"][None]
        time = _dense(params["time"], _waves(log_ratio_b[:, None], TIME_WAVES))
        about_bd = jax.nn.silu(time + _dense(params["context"], context_bc))
        shared = _dense(params["modulate"], about_bd)
        shared_b6d = einops.rearrange(shared, "b (m d) -> b m d", m=MODULATIONS)
        block = Block(spec.heads, dropout if key is not None else 0.0)
        keys = jax.random.split(jax.random.key(0) if key is None else key, spec.depth)

        def run(x_bjd, layer):
            block_params, layer_key = layer
            rngs = {"dropout": layer_key}
            inputs = (x_bjd, shared_b6d, valid_bj)
            return block.apply({"params": block_params}, *inputs, rngs=rngs), None

        x_bjd, _ = lax.scan(run, x_bjd, (params["blocks"], keys))
        x_bjd = nn.LayerNorm(epsilon=EPS, use_bias=False, use_scale=False).apply({}, x_bjd)
        return jnp.where(valid, _dense(params["out"], x_bjd), 0.0)


def _dense(params, x):
    y = x @ params["kernel"]
    return y + params["bias"].reshape((1,) * (y.ndim - 1) + (-1,))
