"""The diffusion of poses: schedule, training loss, and the one-step estimate of a clean pose.

A cosine schedule over STEPS steps; x_t = alpha_t x_0 + sigma_t noise. How noisy a pose is, is told
by the ratio sigma / alpha, the standard deviation of the noise in data units. The estimate is that
of a Gaussian (`gaussian.posterior`) and, in units of what that leaves open, what the network adds;
it is trained for the velocity v = alpha noise - sigma x_0. All arithmetic is fp32, products at
`highest`. Source: notes method 2.2 and 2.3, DDPM (arXiv 2006.11239), v-prediction (arXiv
2202.00512), the cosine schedule (arXiv 2102.09672).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nkjax.models import denoiser
from nkjax.prior import gaussian as gaussians
from nkjax.prior.coordinates import Part, Units
from nkjax.prior.gaussian import Gaussian

STEPS = 1000
COSINE_OFFSET = 0.008
LEAST_ALPHA = 0.005  # of the last step: a ratio of 200
NEAR = (0.02, 0.6)  # ratios that training draws more often: those that losses and scores ask for


def _schedule():
    """Return alpha and sigma of steps 0 to STEPS, made in fp64: in bf16 1 - alpha is 0 at first."""
    at = (np.arange(STEPS + 1) / STEPS + COSINE_OFFSET) / (1 + COSINE_OFFSET) * np.pi / 2
    alpha = np.clip(np.cos(at) / np.cos(at[0]), LEAST_ALPHA, 1.0)
    return alpha, np.sqrt(1 - alpha**2)


ALPHA64, SIGMA64 = _schedule()
RATIOS = SIGMA64 / ALPHA64
ALPHA, SIGMA = ALPHA64.astype(np.float32), SIGMA64.astype(np.float32)
# Never at step 0, which has no noise to remove and no logarithm.
LOG_RATIO = np.log(np.maximum(RATIOS, RATIOS[1])).astype(np.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PartPrior:
    """The prior of a part: what it is made of, how it is measured, Gaussian, network. A pytree."""

    part: Part = dataclasses.field(metadata={"static": True})
    units: Units = dataclasses.field(metadata={"static": True})
    spec: denoiser.Spec = dataclasses.field(metadata={"static": True})
    gaussian: Gaussian
    params: dict


class Given(NamedTuple):
    """What is known of B poses beside their noised coordinates.

    valid_bj: which joints there are; observed_bj: of which of them values_bj2 tells the place, in
    data units; context_bc: as `coordinates.CONTEXT`.
    """

    valid_bj: jax.Array
    observed_bj: jax.Array
    values_bj2: jax.Array
    context_bc: jax.Array


def nothing_observed(valid_bj, context_bc) -> Given:
    """Return what is known where no joint is certain."""
    valid = jnp.asarray(valid_bj)
    places = jnp.zeros((*valid.shape, 2))
    return Given(valid, jnp.zeros_like(valid), places, jnp.asarray(context_bc))


def level(ratio):
    """Return the step, from 1, whose noise ratio sigma / alpha is nearest in logarithm."""
    wanted = np.log(np.asarray(ratio, np.float64))
    steps = 1 + np.abs(np.log(RATIOS[1:]) - wanted[..., None]).argmin(-1)
    return steps if steps.shape else int(steps)


def noised(x0_bj2, t_b, noise_bj2):
    """Return alpha x0 + sigma noise at step t_b (B,) of each pose."""
    alpha, sigma = (jnp.asarray(table)[t_b][:, None, None] for table in (ALPHA, SIGMA))
    return alpha * x0_bj2 + sigma * noise_bj2


def clean(prior: PartPrior, x_bj2, t_b, given: Given, dropout=0.0, key=None):
    """Estimate the clean poses x0_bj2 of noised ones at step t_b, in one step; 0 if not valid."""
    t_b = jnp.broadcast_to(jnp.asarray(t_b), x_bj2.shape[:1])
    alpha, sigma, log_ratio = (jnp.asarray(table)[t_b] for table in (ALPHA, SIGMA, LOG_RATIO))
    valid, observed = given.valid_bj, given.valid_bj & given.observed_bj
    x = jnp.where(valid[..., None], jnp.asarray(x_bj2, jnp.float32), 0.0)
    first, spread = gaussians.posterior(
        prior.gaussian, x, alpha, sigma, valid, given.values_bj2, observed
    )
    alpha, sigma = alpha[:, None, None], sigma[:, None, None]
    away = (x - alpha * first) * jax.lax.rsqrt((alpha * spread) ** 2 + sigma**2)
    away = jnp.where(observed[..., None], 0.0, away)
    missed = denoiser.apply(
        prior.params, prior.spec, first, away, spread, log_ratio, valid, observed,
        given.context_bc, dropout, key,
    )  # fmt: skip
    return jnp.where(valid[..., None], first + spread * missed, 0.0)


def draw_steps(key, count: int, near: float):
    """Draw a step for each of so many poses: evenly, and a share `near` of them at low noise."""
    which, even, low = jax.random.split(key, 3)
    evenly = jax.random.randint(even, (count,), 1, STEPS + 1)
    least, most = np.log(NEAR)
    ratio = jnp.exp(jax.random.uniform(low, (count,), minval=least, maxval=most))
    nearby = jnp.clip(jnp.searchsorted(jnp.asarray(RATIOS, jnp.float32), ratio), 1, STEPS)
    return jnp.where(jax.random.uniform(which, (count,)) < near, nearby, evenly)


def draw_observed(key, valid_bj, drop: float):
    """Draw which joints are told: each with the pose's own probability; none for a share `drop`."""
    share, each, none = jax.random.split(key, 3)
    probability = jax.random.uniform(share, valid_bj.shape[:1])
    chosen = jax.random.uniform(each, valid_bj.shape) < probability[:, None]
    return chosen & valid_bj & (jax.random.uniform(none, valid_bj.shape[:1]) >= drop)[:, None]


def loss(prior: PartPrior, u_bj2, t_b, noise_bj2, given: Given, dropout=0.0, key=None):
    """Return the mean squared error of the velocity over all coordinates of valid joints.

    u_bj2: clean poses in data units. A joint that is not valid counts in neither sum.
    """
    estimate = clean(prior, noised(u_bj2, t_b, noise_bj2), t_b, given, dropout, key)
    valid = given.valid_bj[..., None]
    # Of velocities that come with one noised pose, the difference is that of the clean ones.
    error = (estimate - jnp.where(valid, u_bj2, 0.0)) / jnp.asarray(SIGMA)[t_b][:, None, None]
    square = jnp.square(jnp.where(valid, error, 0.0)).sum()
    return square / jnp.maximum(2.0 * given.valid_bj.sum(), 1.0)
