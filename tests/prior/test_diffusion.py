"""The schedule, the loss, and the one-step estimate; what masks let through."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_prior import SKELETONS, people, prior

from nkjax.models import denoiser
from nkjax.prior import coordinates, diffusion, gaussian
from nkjax.prior.diffusion import Given
from tests.losses.precision_walk import faults

T = np.array([1, 40, 126, 500, 700, 1000])
clean = jax.jit(diffusion.clean)


def poses_of(name="coco17", part="body", missing=0.2, count=6):
    """Return a prior of random numbers, poses in data units, and what is known of them."""
    skeleton = SKELETONS[name]
    of_part = prior(skeleton, part, width=8, depth=1)
    poses, _ = coordinates.take(of_part.part, people(skeleton, count, missing=missing), skeleton)
    at = coordinates.frame(of_part.part, of_part.units, *poses[:3])
    u = coordinates.normalise(poses.points_bj2, poses.valid_bj, at, of_part.units)
    observed = jnp.asarray(np.random.default_rng(2).random(poses.valid_bj.shape) < 0.5)
    return of_part, u, Given(jnp.asarray(poses.valid_bj), observed, u, poses.context_bc)


@pytest.fixture(scope="module")
def bodies():
    return poses_of()


@pytest.fixture(scope="module")
def noise(bodies):
    return jax.random.normal(jax.random.key(0), bodies[1].shape)


def first_guess(of_part, x, t, given):
    """Return what the Gaussian says: mean and spread."""
    of = of_part.gaussian, x, diffusion.ALPHA[t], diffusion.SIGMA[t]
    return gaussian.posterior(*of, given.valid_bj, given.values_bj2, given.observed_bj)


def test_the_schedule_is_the_cosine_one():
    alpha, sigma = diffusion.ALPHA64, diffusion.SIGMA64
    assert np.allclose(alpha**2 + sigma**2, 1) and alpha[0] == 1 and sigma[0] == 0
    # Nichol and Dhariwal's f(t) / f(0), in the middle and near the end.
    for t in (1, 300, 500, 900):
        f = [np.cos((s / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2 for s in (t, 0)]
        assert np.isclose(alpha[t] ** 2, f[0] / f[1], rtol=1e-12)
    assert (np.diff(diffusion.RATIOS) >= 0).all() and np.isclose(diffusion.RATIOS[-1], 200, 1e-4)
    assert diffusion.ALPHA.dtype == np.float32 and 0 < diffusion.SIGMA[1] < 0.02
    assert np.isfinite(diffusion.LOG_RATIO).all()
    assert np.allclose(diffusion.LOG_RATIO[1:], np.log(sigma[1:] / alpha[1:]), atol=1e-6)


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.2, 0.4, 1.0])
def test_the_level_of_a_ratio_is_the_nearest(ratio):
    step = diffusion.level(ratio)
    assert abs(diffusion.RATIOS[step] / ratio - 1) < 0.03
    assert diffusion.level(np.array([ratio, ratio])).tolist() == [step, step]


def test_a_network_of_zeros_leaves_the_gaussian(bodies, noise):
    of_part, u, given = bodies
    zeros = jax.tree.map(jnp.zeros_like, of_part.params)
    x = diffusion.noised(u, T, noise)
    found = clean(dataclasses.replace(of_part, params=zeros), x, T, given)
    mean, _ = first_guess(of_part, x, T, given)
    valid = given.valid_bj[..., None]
    assert np.abs(found - np.where(valid, mean, 0)).max() < 1e-4
    assert (np.asarray(found)[~np.asarray(given.valid_bj)] == 0).all()
    assert np.abs(clean(of_part, x, T, given) - found).max() > 0.01


def test_the_network_is_told_the_first_guess_in_units_of_what_is_expected(
    bodies, noise, monkeypatch
):
    of_part, u, given = bodies
    x, told = diffusion.noised(u, T, noise), {}

    def listen(params, spec, first, away, spread, log_ratio, valid, observed, context, *dropout):
        told.update(first=first, away=away, spread=spread, log_ratio=log_ratio,
                    valid=valid, observed=observed, context=context, dropout=dropout)  # fmt: skip
        return jnp.ones_like(first)

    monkeypatch.setattr(denoiser, "apply", listen)
    dropout = (0.25, jax.random.key(3))
    diffusion.loss(of_part, u, T, noise, given, *dropout)
    assert told["dropout"] == dropout
    found = diffusion.clean(of_part, x, T, given, *dropout)
    assert told["dropout"] == dropout
    mean, spread = (np.asarray(each) for each in first_guess(of_part, x, T, given))
    valid, observed = (np.asarray(mask) for mask in (given.valid_bj, given.observed_bj))
    assert np.allclose(found[valid], (mean + spread)[valid], atol=1e-4)
    alpha, sigma = (table[T][:, None, None] for table in (diffusion.ALPHA64, diffusion.SIGMA64))
    # x has the variance of what the pose leaves open, seen through alpha, and of the noise.
    away = (np.asarray(x) - alpha * mean) / np.sqrt(alpha**2 * spread**2 + sigma**2)
    hidden = valid & ~observed
    assert np.allclose(told["away"][hidden], away[hidden], rtol=1e-3, atol=1e-4)
    assert (np.asarray(told["away"])[valid & observed] == 0).all()
    assert np.allclose(told["first"], mean, atol=1e-4)
    assert np.allclose(told["spread"], spread, rtol=1e-4)
    assert np.allclose(told["log_ratio"], np.log(sigma / alpha)[:, 0, 0], atol=1e-5)
    assert (told["valid"] == valid).all() and (told["observed"] == observed & valid).all()
    assert (told["context"] == given.context_bc).all()


def test_a_network_that_knows_what_is_missing_gives_back_the_clean_pose(
    bodies, noise, monkeypatch
):
    of_part, u, given = bodies

    def perfect(params, spec, first, away, spread, *rest):
        return (u - first) / spread

    monkeypatch.setattr(denoiser, "apply", perfect)
    x = diffusion.noised(u, T, noise)
    assert np.abs(diffusion.clean(of_part, x, T, given) - u).max() < 1e-5
    assert float(diffusion.loss(of_part, u, T, noise, given)) < 1e-6


def test_the_loss_by_hand(bodies, noise):
    """Mean square of (estimate - u) / sigma, which is that of the velocities' difference."""
    of_part, u, given = bodies
    x = diffusion.noised(u, T, noise)
    estimate = np.asarray(clean(of_part, x, T, given), np.float64)
    alpha, sigma = (table[T][:, None, None] for table in (diffusion.ALPHA64, diffusion.SIGMA64))
    there, loss = np.asarray(given.valid_bj), float(diffusion.loss(of_part, u, T, noise, given))
    error = ((estimate - np.asarray(u)) / sigma)[there]
    assert np.isclose(loss, np.square(error).mean(), rtol=5e-3)
    velocity = alpha * np.asarray(noise) - sigma * np.asarray(u)
    guessed = (alpha * np.asarray(x) - estimate) / sigma
    assert np.isclose(loss, np.square((guessed - velocity)[there]).mean(), rtol=5e-3)


def test_where_nothing_is_observed_only_masks_and_context_are_known(bodies):
    valid, context = bodies[2].valid_bj, bodies[2].context_bc
    given = diffusion.nothing_observed(valid, context)
    assert given.observed_bj.shape == valid.shape and not given.observed_bj.any()
    assert (given.valid_bj == valid).all() and (given.context_bc == context).all()
    assert given.values_bj2.shape == (*valid.shape, 2)


@pytest.mark.parametrize(("name", "part"), [("lab27", "body"), ("toddlersim65", "hand")])
def test_an_invalid_joint_moves_nothing(name, part):
    of_part, u, given = poses_of(name, part, count=4)
    noise = jax.random.normal(jax.random.key(0), u.shape)
    t = jnp.full(len(u), 126)

    @jax.jit
    def outputs(moved):
        there = given.valid_bj[..., None]
        u_moved, values = (jnp.where(there, x, moved) for x in (u, given.values_bj2))
        of = given._replace(values_bj2=values)
        value = diffusion.clean(of_part, diffusion.noised(u_moved, t, noise), t, of)

        def loss(params, u):
            return diffusion.loss(dataclasses.replace(of_part, params=params), u, t, noise, of)

        by = jax.value_and_grad(loss, argnums=(0, 1))
        return jax.tree.leaves((value, by(of_part.params, u_moved)))

    assert not np.asarray(given.valid_bj).all()
    for near, far, nowhere in zip(outputs(0.0), outputs(1e3), outputs(np.nan), strict=True):
        assert np.isfinite(near).all() and (np.asarray(near) == np.asarray(far)).all()
        assert (np.asarray(near) == np.asarray(nowhere)).all()


def test_the_value_of_a_hidden_joint_is_not_read(bodies):
    of_part, u, given = bodies
    t = np.full(len(u), 126)
    there = given.observed_bj[..., None]
    far = given._replace(values_bj2=jnp.where(there, given.values_bj2, jnp.nan))
    same = clean(of_part, u, t, given)
    assert (np.asarray(clean(of_part, u, t, far)) == np.asarray(same)).all()
    moved = given._replace(values_bj2=given.values_bj2 + 1.0)
    assert not np.allclose(clean(of_part, u, t, moved), same)
    # Nor what noise made of a joint that is observed.
    noisy = jnp.where(there, jnp.nan, u)
    assert (np.asarray(clean(of_part, noisy, t, given)) == np.asarray(same)).all()


def test_observed_joints_are_drawn_as_the_recipe_has_it():
    valid = jnp.ones((20000, 8), bool).at[:, 7].set(False)
    observed = np.asarray(diffusion.draw_observed(jax.random.key(0), valid, 0.1))
    assert not observed[:, 7].any()
    counts = np.bincount(observed.sum(1), minlength=9)[:8] / 20000
    # p uniform: every number of 7 is equally likely, but for the tenth that is told nothing.
    assert np.abs(counts[1:] - 0.9 / 8).max() < 0.01 and abs(counts[0] - 0.1 - 0.9 / 8) < 0.01


def test_steps_are_drawn_evenly_and_at_low_noise():
    steps = np.asarray(diffusion.draw_steps(jax.random.key(0), 20000, 0.0))
    assert steps.min() == 1 and steps.max() == 1000 and abs(steps.mean() - 500) < 10
    near = diffusion.RATIOS[np.asarray(diffusion.draw_steps(jax.random.key(0), 20000, 1.0))]
    assert 0.018 < near.min() and near.max() < 0.62
    assert abs(np.log(near).mean() - np.log([0.02, 0.6]).mean()) < 0.02
    # Half of them near, whatever is drawn there: as many below its middle as above.
    both = diffusion.RATIOS[np.asarray(diffusion.draw_steps(jax.random.key(0), 20000, 0.5))]
    middle = np.sqrt(0.02 * 0.6)
    for low, high in ((0.02, middle), (middle, 0.6)):
        share, even = (((low <= x) & (x < high)).mean() for x in (both, diffusion.RATIOS[1:]))
        assert abs(share - (0.25 + even / 2)) < 0.03, (low, share)


def test_all_of_it_is_fp32_at_highest(bodies, noise):
    of_part, u, given = bodies

    def loss(x, dtype=jnp.float32):
        noisy = diffusion.noised(x.astype(jnp.float32), T, noise)
        return jnp.square(diffusion.clean(of_part, noisy.astype(dtype), T, given)).sum()

    assert faults(loss, u.astype(jnp.bfloat16)) == []
    assert faults(lambda x: loss(x, jnp.bfloat16), u.astype(jnp.bfloat16))
