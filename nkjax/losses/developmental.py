"""L_dev, the loss of the developmental prior: coordinates with gradient in, a scalar out.

Coordinates come from `geometry.centroids`, of the joints of one part, in px of the canonical crop.
The prior denoises them, and they are drawn to what it makes of them; where a sure picture
contradicts it, the loss abstains. All arithmetic is fp32, products at `highest`. Data units are
those of the prior (`coordinates.normalise`). Source: notes method 2.5; DPoser (arXiv 2312.05541),
which holds its one-step estimate fixed too.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from nkjax.prior import coordinates, diffusion, refine
from nkjax.prior.coordinates import Poses
from nkjax.prior.diffusion import Given, PartPrior

TOLD = 0.5  # of the joints that the picture is sure of, so many are told, others at every step
LEAST_WEIGHT = 0.1  # of a joint that the picture is sure of
# The residual that abstention looks at: one noise level, the same noise for every pose and step. At
# 0.05 it tells 21 % of simulated atypical people from others, at the notes' 0.1 17 %.
RESIDUAL_RATIO, RESIDUAL_DRAWS, QUANTILE = 0.05, 4, 0.99
AT_ONCE = 512  # poses that the limit is fitted on at a time


@dataclasses.dataclass(frozen=True)
class Developmental:
    """How L_dev judges; defaults as in notes method 8. Raises ValueError.

    form: 'huber', towards a fixed estimate, or 'literal', as the proposal wrote it; ratios: window
    of the noise, sigma / alpha in data units; draws: of the noise, in opposite pairs; huber: where
    the loss turns linear, data units; abstain: weight of a person whose picture contradicts the
    prior; sure: confidence from which the picture is sure of a joint.
    """

    form: Literal["huber", "literal"] = "huber"
    ratios: tuple[float, float] = (0.05, 0.2)
    draws: int = 4
    huber: float = 0.1
    abstain: float = 0.1
    sure: float = 0.6

    def __post_init__(self):
        if self.form not in ("huber", "literal"):
            raise ValueError(f"form {self.form!r} of L_dev is unknown: use 'huber' or 'literal'")
        if self.draws < 2 or self.draws % 2:
            raise ValueError(f"{self.draws} draws do not pair: use an even number, such as 4")
        if not 0 < self.ratios[0] <= self.ratios[1]:
            raise ValueError(f"ratios {self.ratios}: want 0 < lowest <= highest")


def developmental(
    points_bj2, told_bj2, confidence_bj, valid_bj, diagonal_b, agree_b, context_bc,
    prior: PartPrior, limit, key, settings: Developmental,
):  # fmt: skip
    """Return L_dev, a scalar in fp32, and its facts, a dict of scalars without gradient.

    points_bj2: px of the canonical crop, with gradient, of the joints of prior.part; told_bj2: the
    teacher's, px of the crop, never with gradient, NaN where it has none; without a teacher the
    points themselves; confidence_bj: 0 to 1, of whom is told; valid_bj: joints that are there, no
    others are read, NaN or not; diagonal_b: of the box, px of the crop; agree_b: the two weak views
    agree and are sure; context_bc: as `coordinates.CONTEXT`; limit: of `residual`, by `fit_limit`,
    None where too few people were there to fit it: nobody abstains; key: of the noise and of what
    is hidden. Mean over all B people; one without a valid joint adds 0.

    'huber', of a person: g sum_k w_k huber(|u_k - x0_k|) / sum_k w_k. u: the points in data units,
    root and scale held fixed; x0: the mean estimate of the clean pose (`estimate`), held fixed; so
    the gradient is u - x0 within settings.huber, and no Jacobian of the network. w = 1 -
    confidence, at least LEAST_WEIGHT, 0 where not valid. g = settings.abstain where the views agree
    and `residual` is above the limit, else 1.

    Which joints the prior is told the place of, `condition` says: in the frame of the points, as
    root and scale are theirs, so a teacher who sees the person elsewhere says so. A joint that is
    told is not judged (its term and gradient are 0, its weight counts in the sum below), so none is
    compared with a copy of itself; sure joints are judged at every other step, by little. Not
    guaranteed: that a judged joint has no say in its own estimate, which starts from its noised
    place; nor that what is told is right, as a wrong joint that is told speaks for its neighbours.

    g asks the sure joints alone: a wrist that the picture is not sure of does not make a person
    unusual, and is repaired; a pose that it is sure of everywhere, yet unlike all others, is left.

    'literal': the mean over coordinates of valid joints of (u - D(alpha u, t))^2, as the proposal
    has it: no noise, nothing told, no weights, no abstention, and gradient through D as well.
    In both forms parameters of the prior have a gradient of exactly 0.

    Facts: 'residual' (mean), 'abstained' (share of people) and 'distance' (mean |u - x0| of judged
    joints, data units), over those who have a valid joint. Source: notes method 2.5.
    """
    prior, context_bc, confidence_bj = jax.lax.stop_gradient(
        (prior, jnp.asarray(context_bc, jnp.float32), jnp.asarray(confidence_bj, jnp.float32))
    )
    valid_bj = jnp.asarray(valid_bj)
    at = coordinates.frame(prior.part, prior.units, points_bj2, valid_bj, diagonal_b)
    u_bj2 = coordinates.normalise(points_bj2, valid_bj, at, prior.units)
    sure_bj = valid_bj & (confidence_bj >= settings.sure)
    residual_b = residual(prior, u_bj2, sure_bj, context_bc)
    condition_key, noise_key = jax.random.split(key)
    ratios_s, noise_sbj2 = draw_noise(noise_key, settings, u_bj2.shape)

    if settings.form == "literal":
        loss_b, away_bj2 = _literal(prior, u_bj2, valid_bj, context_bc, ratios_s)
        judged_bj, abstains_b = valid_bj, jnp.zeros_like(residual_b, bool)
    else:
        told_bj2 = jax.lax.stop_gradient(jnp.asarray(told_bj2, jnp.float32))
        seen_bj = valid_bj & jnp.isfinite(told_bj2).all(-1)
        told_bj2 = coordinates.normalise(told_bj2, seen_bj, at, prior.units)
        given = condition(condition_key, told_bj2, sure_bj & seen_bj, valid_bj, context_bc)
        away_bj2 = u_bj2 - estimate(prior, u_bj2, given, ratios_s, noise_sbj2)
        judged_bj = valid_bj & ~given.observed_bj
        abstains_b = jnp.asarray(agree_b) & (residual_b > (np.inf if limit is None else limit))
        loss_b = _weighted(away_bj2, confidence_bj, judged_bj, valid_bj, settings.huber)
        loss_b = jnp.where(abstains_b, settings.abstain, 1.0) * loss_b
    facts = _facts(residual_b, abstains_b, away_bj2, judged_bj, valid_bj)
    return loss_b.mean(), facts


def _literal(prior, u_bj2, valid_bj, context_bc, ratios_s):
    """Return the mean square (B,) of u - D(alpha u, t), and u less the mean estimate."""
    given = diffusion.nothing_observed(valid_bj, context_bc)
    silence = jnp.zeros((ratios_s.shape[0], *u_bj2.shape))
    estimates_sbj2 = refine.denoised(prior, u_bj2, given, ratios_s, silence)
    square_bj = jnp.square(u_bj2[None] - estimates_sbj2).mean((0, 3))
    return _mean(square_bj, valid_bj, (1,)), u_bj2 - estimates_sbj2.mean(0)


def _weighted(away_bj2, confidence_bj, judged_bj, valid_bj, turn):
    """Return the Huber terms (B,) of judged joints, weighted by how unsure the joints are."""
    weight_bj = jnp.clip(1.0 - confidence_bj, LEAST_WEIGHT, 1.0)
    # What is told keeps its share: a person with one unsure joint must not count like ten.
    total_b = jnp.where(valid_bj, weight_bj, 0.0).sum(1) + 1e-6
    return jnp.where(judged_bj, weight_bj * _huber(away_bj2, turn), 0.0).sum(1) / total_b


def _facts(residual_b, abstains_b, away_bj2, judged_bj, valid_bj):
    residual_b, away_bj2 = jax.lax.stop_gradient((residual_b, away_bj2))
    somebody_b = valid_bj.any(1)
    return {
        "residual": _mean(residual_b, somebody_b, (0,)),
        "abstained": _mean(abstains_b.astype(jnp.float32), somebody_b, (0,)),
        "distance": _mean(jnp.sqrt(jnp.square(away_bj2).sum(-1)), judged_bj, (0, 1)),
    }


def in_units(prior: PartPrior, points_bj2, valid_bj, diagonal_b):
    """Return points in px as data units of the prior (B, J, 2), root and scale held fixed."""
    at = coordinates.frame(prior.part, prior.units, points_bj2, valid_bj, diagonal_b)
    return coordinates.normalise(points_bj2, valid_bj, at, prior.units)


def condition(key, told_bj2, sure_bj, valid_bj, context_bc) -> Given:
    """Return what the prior is told of poses, their places in data units, without gradient.

    Of the valid joints that are sure each with probability TOLD, of others none: what may be wrong
    must not speak for its neighbours.
    """
    told = valid_bj & sure_bj & jax.random.bernoulli(key, TOLD, sure_bj.shape)
    values = jnp.where(told[..., None], jax.lax.stop_gradient(told_bj2), 0.0)
    return Given(valid_bj, told, values, context_bc)


def draw_noise(key, settings: Developmental, shape):
    """Draw ratios (S,), log-uniform, and noise (S, *shape), each pair of one ratio and opposite."""
    ratio_key, noise_key = jax.random.split(key)
    low, high = np.log(settings.ratios)
    half = jnp.exp(jax.random.uniform(ratio_key, (settings.draws // 2,), minval=low, maxval=high))
    return jnp.concatenate([half, half]), refine.antithetic(noise_key, settings.draws, shape)


def estimate(prior: PartPrior, u_bj2, given: Given, ratios_s, noise_sbj2):
    """Return the mean over draws of the clean pose that the prior sees in a noised one, held fixed.

    As `refine.denoised`; no gradient reaches the pose or the prior. The noise that is opposite in
    a pair cancels to first order, in it and in the estimate.
    """
    # On the inputs, so that the network's Jacobian is not even traced.
    prior, u_bj2 = jax.lax.stop_gradient((prior, u_bj2))
    return refine.denoised(prior, u_bj2, given, ratios_s, noise_sbj2).mean(0)


def residual(prior: PartPrior, u_bj2, valid_bj, context_bc):
    """Return R (B,), how far a pose is from what the prior makes of it, in units of the noise.

    RMS over coordinates of valid joints of |u - x0| / RESIDUAL_RATIO, 0 without any; no gradient.
    Nothing is told, or a pose of sure joints would be compared with itself and never stand out; the
    noise is the same for every pose, so that R depends on the pose alone. x0 is a mean over draws:
    of a single draw the noise that a denoiser rightly keeps, along joint angles, outweighs the
    rest. Source: notes method 2.5.
    """
    given = diffusion.nothing_observed(valid_bj, context_bc)
    noise = refine.antithetic(jax.random.key(0), RESIDUAL_DRAWS, (1, *u_bj2.shape[1:]))
    ratios = np.full(RESIDUAL_DRAWS, RESIDUAL_RATIO, np.float32)
    u_bj2 = jax.lax.stop_gradient(u_bj2)
    away = u_bj2 - estimate(prior, u_bj2, given, ratios, noise)
    return jnp.sqrt(_mean(jnp.square(away).mean(-1), valid_bj, (1,))) / RESIDUAL_RATIO


def fit_limit(prior: PartPrior, poses: Poses) -> float:
    """Return the limit of `residual`: the value that QUANTILE of labelled poses stay at or below.

    poses: of people that the prior was not fitted on. Raises ValueError where no joint is labelled.
    """

    @jax.jit
    def of(prior, points, valid, diagonal, context):
        u = in_units(prior, points, valid, diagonal)
        return residual(prior, u, valid, context)

    some = np.asarray(poses.valid_bj).any(1)
    if not some.any():
        raise ValueError("no labelled pose to fit the limit of L_dev on: hold out more subjects")
    poses = [np.asarray(array)[some] for array in poses]
    parts = [[x[at : at + AT_ONCE] for x in poses] for at in range(0, int(some.sum()), AT_ONCE)]
    values = np.concatenate([np.asarray(of(prior, *part)) for part in parts])
    return float(np.quantile(values, QUANTILE, method="higher"))


def _huber(away_bj2, turn):
    """Return the Huber function of lengths (B, J): half the square up to `turn`, then linear."""
    square = jnp.square(away_bj2).sum(-1)
    inside = square <= turn**2
    # The root of 0 has no gradient, and is not needed inside.
    length = jnp.sqrt(jnp.where(inside, 1.0, square))
    return jnp.where(inside, 0.5 * square, turn * (length - 0.5 * turn))


def _mean(values, counted, axes):
    count = jnp.maximum(counted.sum(axes), 1).astype(jnp.float32)
    return jnp.where(counted, values, 0.0).sum(axes) / count
