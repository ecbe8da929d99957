"""Mean and covariance of poses, and what they say of a noised one: where the network starts from.

A Gaussian removes noise and fills in hidden joints in closed form, exactly as far as linear
relations reach; the network learns what it misses, in units of what it leaves open. All fp32.
Source: Wiener filter; preconditioning as in EDM (arXiv 2206.00364).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

LEAST_VARIANCE = 1e-4  # of any direction: labels are no more exact than 0.01 data units
KNOWN = 1e4  # precision of an observed joint


class Gaussian(NamedTuple):
    """Mean (D,) and inverse covariance (D, D) of poses in data units, D = 2 J, x before y."""

    mean_d: jax.Array
    precision_dd: jax.Array


def fit(u_nj2, valid_nj) -> Gaussian:
    """Fit a Gaussian to poses in data units, from the joints that are valid in each.

    Covariances are of the people who show both joints, shrunk towards none where people are few.
    """
    u, valid = np.asarray(u_nj2, np.float64), np.asarray(valid_nj)
    known = np.repeat(valid, 2, 1).astype(np.float64)
    flat = np.where(known > 0, rearrange(u, "n j c -> n (j c)"), 0.0)
    count = np.maximum(known.sum(0), 1)
    mean = flat.sum(0) / count
    centred = np.where(known > 0, flat - mean[None], 0.0)
    covariance = centred.T @ centred / np.maximum(known.T @ known, 1)
    share = len(mean) / (len(mean) + len(u))
    # A joint that nobody shows may be anywhere, in data units of variance 1.
    variance = np.where(known.any(0), np.diag(covariance), 1.0)
    covariance = (1 - share) * covariance
    np.fill_diagonal(covariance, variance)
    # Pairs of different people may contradict each other: no direction of negative variance.
    variances, directions = np.linalg.eigh(covariance)
    variances = np.maximum(variances, LEAST_VARIANCE)
    precision = directions / variances[None] @ directions.T
    return Gaussian(mean.astype(np.float32), precision.astype(np.float32))


def posterior(gaussian: Gaussian, x_bj2, alpha_b, sigma_b, valid_bj, values_bj2, observed_bj):
    """Return mean and standard deviation (B, J, 2) of clean poses, given noised ones.

    x = alpha clean + sigma noise is read of valid joints, and values_bj2 of observed ones; what is
    not valid is inferred from the rest. Linear in x and values.
    """
    observed = (valid_bj & observed_bj)[..., None]
    read = jnp.where(valid_bj[..., None] & ~observed, jnp.asarray(x_bj2, jnp.float32), 0.0)
    values = jnp.where(observed, values_bj2, 0.0)
    ratio_b = (alpha_b / sigma_b)[:, None, None]
    there = jnp.where(valid_bj, 1.0, 0.0)[..., None]
    told = jnp.where(observed, KNOWN, there * ratio_b**2) * jnp.ones((1, 1, 2))
    pull = KNOWN * values + ratio_b / sigma_b[:, None, None] * read
    told_bd, pull_bd = (rearrange(each, "b j c -> b (j c)") for each in (told, pull))
    with jax.default_matmul_precision("highest"):
        prior_pull = gaussian.precision_dd @ gaussian.mean_d
        whole = gaussian.precision_dd[None] + told_bd[:, :, None] * jnp.eye(told_bd.shape[1])[None]
        # Scaled to a diagonal of 1, or precise and vague joints would meet in fp32.
        size = jax.lax.rsqrt(jnp.diagonal(whole, axis1=1, axis2=2))
        inverse = _inverse(whole * size[:, :, None] * size[:, None, :])
        covariance = inverse * size[:, :, None] * size[:, None, :]
        mean_bd = jnp.einsum("bij,bj->bi", covariance, prior_pull[None] + pull_bd)
    variance_bd = jnp.maximum(jnp.diagonal(covariance, axis1=1, axis2=2), 1e-10)
    mean, variance = (rearrange(x, "b (j c) -> b j c", c=2) for x in (mean_bd, variance_bd))
    return mean, jnp.sqrt(variance)


def _inverse(a_bdd):
    """Invert positive definite matrices by the sweep operator.

    Elementwise, so that it is spread over devices like any batch; LAPACK's batched inverse inside a
    compiled program waits for ever on a CPU of two cores.
    """
    a_ddb = jnp.moveaxis(a_bdd, 0, 2)  # poses last: neighbours in memory

    def sweep(k, a_ddb):
        column = jax.lax.dynamic_index_in_dim(a_ddb, k, 0, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(column, k, 0, keepdims=False)
        scaled = column / pivot[None]
        a_ddb = a_ddb - scaled[:, None] * column[None]
        scaled = jax.lax.dynamic_update_index_in_dim(scaled, -1 / pivot, k, 0)
        a_ddb = jax.lax.dynamic_update_index_in_dim(a_ddb, scaled, k, 0)
        return jax.lax.dynamic_update_index_in_dim(a_ddb, scaled, k, 1)

    return -jnp.moveaxis(jax.lax.fori_loop(0, a_bdd.shape[1], sweep, a_ddb), 2, 0)
