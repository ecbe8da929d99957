"""The dense heads: upsampling deconvolutions, 1x1 convolutions, one linear read-out.

All Sapiens-1 heads are this one pattern (notes/sapiens.md A2); a task is a choice of widths.
"""

import dataclasses
from typing import Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

NORM_EPS = 1e-5


@dataclasses.dataclass(frozen=True)
class Head:
    """Describe a head: widths of its 2x deconvolutions and 1x1 convolutions, and its outputs.

    `norm` is 'instance' (no parameters, then SiLU) or 'batch' (running statistics, then ReLU).
    """

    deconvs: tuple[int, ...]
    convs: tuple[int, ...]
    outputs: int
    norm: Literal["instance", "batch"] = "instance"


def instance_norm(x_bhwc):
    """Normalise each channel of each picture to mean 0, biased variance 1 (eps 1e-5), in fp32."""
    x = x_bhwc.astype(jnp.float32)
    centred = x - x.mean(axis=(1, 2), keepdims=True)
    variance = jnp.square(centred).mean(axis=(1, 2), keepdims=True)
    return (centred * lax.rsqrt(variance + NORM_EPS)).astype(x_bhwc.dtype)


class Deconv(nn.Module):
    """Transposed convolution, kernel 4, stride 2, padding 1, no bias: doubles height and width.

    The kernel (4, 4, in, out) is laid out for correlation (torch's, flipped in space). An output
    pixel meets 2 x 2 of the 4 x 4 taps, so each of the four output phases is a sum of four
    products over shifted inputs: a quarter of the work of a dilated convolution.
    """

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_bhwc):
        """Apply: (b, h, w, in) to (b, 2h, 2w, out)."""
        shape = (4, 4, x_bhwc.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(0.001), shape).astype(self.dtype)
        shape = x_bhwc.shape
        padded = jnp.pad(x_bhwc, ((0, 0), (1, 1), (1, 1), (0, 0)))
        taps = einops.rearrange(kernel, "(i a) (j b) c f -> (a b) (i j c) f", a=2, b=2)
        corners = jnp.array([(a, b) for a in (0, 1) for b in (0, 1)])

        # One phase after the other: their windows are each as large as the result.
        @jax.checkpoint
        def phase(corner, taps):
            windows = [
                lax.dynamic_slice(padded, (0, corner[0] + i, corner[1] + j, 0), shape)
                for i in (0, 1)
                for j in (0, 1)
            ]
            return jnp.concatenate(windows, axis=-1) @ taps

        phases = lax.map(lambda step: phase(*step), (corners, taps))
        return einops.rearrange(phases, "(p q) b h w f -> b (h p) (w q) f", p=2)


class HeadNet(nn.Module):
    """The head itself; (b, h, w, width) to raw outputs, no activation at the end."""

    spec: Head
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_bhwc):
        """Apply: height and width double with every deconvolution."""
        for i, width in enumerate(self.spec.deconvs):
            x_bhwc = Deconv(width, self.dtype, name=f"deconv_{i}")(x_bhwc)
            x_bhwc = self._normalise(x_bhwc, f"deconv_norm_{i}")
        for i, width in enumerate(self.spec.convs):
            x_bhwc = nn.Dense(width, dtype=self.dtype, name=f"conv_{i}")(x_bhwc)
            x_bhwc = self._normalise(x_bhwc, f"conv_norm_{i}")
        return nn.Dense(self.spec.outputs, dtype=self.dtype, name="final")(x_bhwc)

    def _normalise(self, x_bhwc, name):
        if self.spec.norm == "instance":
            return nn.silu(instance_norm(x_bhwc))
        return nn.relu(FrozenBatchNorm(self.dtype, name=name)(x_bhwc))


class FrozenBatchNorm(nn.Module):
    """Batch norm with stored statistics, as in evaluation; the statistics are parameters."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_bhwc):
        """Apply, in fp32."""
        shape = (x_bhwc.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = lax.stop_gradient(self.param("mean", nn.initializers.zeros, shape))
        variance = lax.stop_gradient(self.param("var", nn.initializers.ones, shape))
        gain = lax.rsqrt(variance + NORM_EPS) * scale
        mean, gain, bias = (x_c[None, None, None] for x_c in (mean, gain, bias))
        return ((x_bhwc.astype(jnp.float32) - mean) * gain + bias).astype(self.dtype)


def init(key, spec: Head, width: int) -> dict:
    """Return random fp32 parameters of a head on features of `width` channels."""
    x_bhwc = jnp.zeros((1, 1, 1, width))
    return HeadNet(spec, jnp.float32).init(key, x_bhwc)["params"]


def apply(params: dict, spec: Head, features_bhwc, dtype):
    """Run a head on backbone features (b, h, w, width); raw outputs (b, s*h, s*w, outputs)."""
    return HeadNet(spec, dtype).apply({"params": params}, features_bhwc.astype(dtype))
