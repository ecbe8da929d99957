"""Losses of heatmaps: the mean squared error, over all joints or over each sample's hardest.

Source: notes sapiens A6.
"""

import jax
import jax.numpy as jnp


def mse(maps_bhwk, targets_bhwk, weights_bk):
    """Average weight x (map - target)^2 over all elements (B, h, w, K): a scalar, fp32.

    maps_bhwk: any float; weights_bk: of each joint, 0 where it is not labelled. The weights do not
    divide, so a batch with fewer labelled joints counts less. Raises ValueError for shapes that do
    not fit. Source: notes sapiens A6.
    """
    return jnp.mean(_per_joint(maps_bhwk, targets_bhwk, weights_bk))


def hardest(maps_bhwk, targets_bhwk, weights_bk, top: int):
    """Average the same error over the `top` joints of each sample where it is largest.

    top: 1 ... K. Returns a scalar, fp32. Raises ValueError for another `top` or shapes that do not
    fit. Source: notes sapiens A6 (online hard keypoint mining).
    """
    errors_bk = _per_joint(maps_bhwk, targets_bhwk, weights_bk)
    joints = errors_bk.shape[1]
    if not 1 <= top <= joints:
        raise ValueError(f"the hardest {top} of {joints} joints: want 1 ... {joints}")
    return jnp.mean(jax.lax.top_k(errors_bk, top)[0])


def _per_joint(maps_bhwk, targets_bhwk, weights_bk):
    """Average the weighted squared error over each map: (B, K) fp32."""
    maps, targets, weights = (
        jnp.asarray(x).astype(jnp.float32) for x in (maps_bhwk, targets_bhwk, weights_bk)
    )
    if maps.ndim != 4 or maps.shape != targets.shape or weights.shape != maps.shape[::3]:
        raise ValueError(
            f"want maps and targets (B, h, w, K) and weights (B, K), not {maps.shape}, "
            f"{targets.shape} and {weights.shape}"
        )
    return jnp.mean(jnp.square(maps - targets), (1, 2)) * weights
