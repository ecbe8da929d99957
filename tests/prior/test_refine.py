"""Denoising, walks to clean poses, completion: against a prior whose answer is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_prior import SKELETONS, prior

from nkjax.prior import diffusion, refine
from nkjax.prior.diffusion import Given
from nkjax.prior.gaussian import Gaussian

MEAN, SPREAD = 0.7, 0.5  # of every coordinate of the Gaussian poses below


@pytest.fixture
def gaussian(monkeypatch):
    """A prior of independent Gaussian coordinates: its best estimate is known in closed form."""

    def clean(of_prior, x_bj2, t_b, given):
        t_b = jnp.broadcast_to(jnp.asarray(t_b), x_bj2.shape[:1])
        tables = diffusion.ALPHA, diffusion.SIGMA
        alpha, sigma = (jnp.asarray(table)[t_b][:, None, None] for table in tables)
        gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
        return jnp.where(given.valid_bj[..., None], MEAN + gain * (x_bj2 - alpha * MEAN), 0.0)

    monkeypatch.setattr(diffusion, "clean", clean)


@pytest.fixture(scope="module")
def network():
    """A prior of random numbers, nothing of it replaced."""
    return prior(SKELETONS["coco17"], width=8, depth=1)


def given_of(batch, observed=False):
    valid, told = jnp.ones((batch, 17), bool), jnp.full((batch, 17), observed)
    return Given(valid, told, jnp.zeros((batch, 17, 2)), jnp.zeros((batch, 5)))


def test_noise_in_opposite_pairs():
    noise = np.asarray(refine.antithetic(jax.random.key(0), 6, (2, 3)))
    assert (noise[:3] == -noise[3:]).all() and noise.std() > 0.5


def test_denoising_follows_tweedie(gaussian):
    u = jnp.asarray(np.random.default_rng(0).normal(size=(3, 17, 2)), jnp.float32)
    ratios = diffusion.RATIOS[[57, 57, 240, 240]] * 1.001  # the nearest of a thousand steps
    noise = refine.antithetic(jax.random.key(0), 2, u.shape)
    found = refine.denoised(None, u, given_of(3), ratios, jnp.concatenate([noise, noise]))
    for i, ratio in enumerate(ratios):
        noisy = u + ratio * (noise[i % 2])
        wanted = MEAN + SPREAD**2 / (SPREAD**2 + ratio**2) * (noisy - MEAN)
        assert np.abs(found[i] - wanted).max() < 2e-3


def test_the_residual_is_the_pull_and_the_noise(gaussian):
    u = jnp.full((2, 17, 2), MEAN).at[1].add(1.0)
    noise = refine.antithetic(jax.random.key(0), 1000, u.shape)
    found = np.asarray(refine.residual(None, u, given_of(2), (0.2,), noise))[:, 0]
    keeps = SPREAD**2 / (SPREAD**2 + 0.04)
    wanted = keeps**2 + np.array([0, 1]) * (1 - keeps) ** 2 / 0.04
    assert np.abs(found / wanted - 1).max() < 0.05
    density = np.asarray(refine.log_density(None, u, given_of(2), noise))
    ratios = np.array([0.05, 0.1, 0.2])[:, None]
    keeps = SPREAD**2 / (SPREAD**2 + ratios**2)
    wanted = keeps**2 + np.array([[0, 1]]) * (1 - keeps) ** 2 / ratios**2
    assert np.abs(density / (-wanted.mean(0) / 2) - 1).max() < 0.05


def test_the_residual_leaves_out_what_is_not_there(gaussian):
    u = jnp.full((1, 17, 2), MEAN)
    valid = jnp.ones((1, 17), bool).at[0, 3].set(False)
    noise = refine.antithetic(jax.random.key(0), 8, u.shape)
    given, ratio = given_of(1)._replace(valid_bj=valid), float(diffusion.RATIOS[126])
    near, far = (
        refine.residual(None, u.at[0, 3].set(x), given, (ratio,), noise) for x in (0.0, 1e3)
    )
    assert (np.asarray(near) == np.asarray(far)).all()
    # Nor does it count: the mean is that of what noise leaves of the sixteen others.
    keeps = SPREAD**2 / (SPREAD**2 + ratio**2)
    wanted = keeps**2 * np.square(np.delete(noise, 3, 2)).mean()
    assert np.isclose(float(near[0, 0]), wanted, rtol=1e-3)


def test_walks_begin_at_their_noise_and_take_so_many_steps(monkeypatch):
    asked, begun = [], []
    monkeypatch.setattr(diffusion, "clean", lambda of, x, t, given: asked.append(int(t)) or 0 * x)
    u, given = jnp.ones((1, 17, 2)), given_of(1)
    assert (np.asarray(refine.ddim(None, u, 600, 4, given)) == 0).all()
    assert asked == [600, 450, 300, 150]
    monkeypatch.setattr(refine, "ddim", lambda of, x, *walk: begun.append(walk[:2]) or x)
    refine.samples(jax.random.key(0), None, given, 2, 5)
    refine.refine(jax.random.key(0), None, u, given, 0.4, 6, 2)
    # Whatever the mapping over draws: it may trace a walk more than once.
    assert list(dict.fromkeys(begun)) == [(diffusion.STEPS, 5), (diffusion.level(0.4), 6)]


def test_samples_have_the_prior_s_mean_and_spread(gaussian):
    found = np.asarray(refine.samples(jax.random.key(0), None, given_of(4), 300, 20))
    assert found.shape == (300, 4, 17, 2)
    assert abs(found.mean() - MEAN) < 0.01 and abs(found.std() - SPREAD) < 0.05
    assert np.abs(found.std(0) - SPREAD).max() < 0.15  # every sample from noise of its own


def test_observed_joints_stay(gaussian):
    values = jnp.asarray(np.random.default_rng(0).normal(size=(2, 17, 2)), jnp.float32)
    given = given_of(2)._replace(
        observed_bj=jnp.ones((2, 17), bool).at[:, 9].set(False), values_bj2=values
    )
    for found in (
        refine.samples(jax.random.key(0), None, given, 4, 5),
        refine.refine(jax.random.key(0), None, values, given),
    ):
        found = np.asarray(found)
        assert np.allclose(np.delete(found, 9, 2), np.delete(values, 9, 1)[None], atol=1e-6)
        assert found[:, :, 9].std(0).min() > 1e-3
    chosen, spread = refine.complete(jax.random.key(0), None, given)
    assert np.allclose(np.delete(chosen, 9, 1), np.delete(values, 9, 1), atol=1e-6)
    assert (np.delete(spread, 9, 1) < 1e-6).all() and (np.asarray(spread)[:, 9] > 0.1).all()


def test_refining_stays_near_where_it_began(gaussian):
    u = jnp.full((1, 17, 2), MEAN + SPREAD)
    near, far = (
        np.asarray(refine.refine(jax.random.key(0), None, u, given_of(1), ratio, 5, 200))
        for ratio in (0.1, 2.0)
    )
    assert np.abs(near - u[None]).mean() < 0.15 < np.abs(far - u[None]).mean()
    assert abs(far.mean() - MEAN) < abs(near.mean() - MEAN)


def test_a_hidden_joint_cannot_see_itself(network):
    """Of a real network: what stood at a hidden joint changes no bit of its completion."""
    values = jnp.asarray(np.random.default_rng(0).normal(size=(2, 17, 2)), jnp.float32)
    observed = jnp.ones((2, 17), bool).at[:, 9].set(False)

    @jax.jit
    def outputs(place):
        there = values.at[:, 9].set(place)
        given = Given(jnp.ones((2, 17), bool), observed, there, jnp.zeros((2, 5)))
        return refine.complete(jax.random.key(0), network, given, 4, 3)

    for a, b in zip(outputs(0.0), outputs(np.nan), strict=True):
        assert (np.asarray(a) == np.asarray(b)).all() and np.isfinite(a).all()


def test_a_joint_is_completed_from_those_it_moves_with(network):
    """By hand, of a Gaussian prior: 9 is 0.95 of 7, and the rest knows nothing of either."""
    covariance = np.eye(34)
    for x, y in ((14, 18), (15, 19)):
        covariance[x, y] = covariance[y, x] = 0.95
    precision = jnp.asarray(np.linalg.inv(covariance), jnp.float32)
    zeros = jax.tree.map(jnp.zeros_like, network.params)
    known = dataclasses.replace(
        network, gaussian=Gaussian(jnp.zeros(34), precision), params=zeros
    )
    values = jnp.asarray(np.random.default_rng(0).normal(size=(6, 17, 2)), jnp.float32)
    given = given_of(6, True)._replace(values_bj2=values)
    given = given._replace(observed_bj=given.observed_bj.at[:, 9].set(False))
    drawn = jax.jit(lambda key: refine.samples(key, known, given, 200, 8))(jax.random.key(0))
    hidden = np.asarray(drawn)[:, :, 9]
    assert np.abs(hidden.mean(0) - 0.95 * values[:, 7]).max() < 0.1
    spread = np.sqrt(1 - 0.95**2)
    assert 0.7 * spread < hidden.std(0).mean() < 1.2 * spread
    assert np.allclose(np.delete(drawn, 9, 2), np.delete(values, 9, 1)[None])


def test_the_sample_of_least_energy_is_chosen_per_pose():
    samples = jnp.arange(3.0)[:, None, None, None] * jnp.ones((3, 2, 17, 2))
    energy = jnp.array([[3.0, 0.0], [1.0, 2.0], [2.0, 1.0]])
    chosen = np.asarray(refine.choose(samples, energy))
    assert (chosen[0] == 1).all() and (chosen[1] == 0).all()


def test_the_completion_is_a_sample_never_a_mean(monkeypatch):
    """Three of five samples say left, one says right by far: the middle of them is nowhere.

    Nor is it the sample nearest to that middle, 0.06: one outlier does not move the choice.
    """
    places = jnp.array([-1.0, -0.9, -0.8, 0.0, 3.0])
    given = given_of(1)
    drawn = places[:, None, None, None] * jnp.ones((5, 1, 17, 2))
    monkeypatch.setattr(refine, "samples", lambda *rest: drawn)
    chosen, spread = refine.complete(jax.random.key(0), None, given, 5, 5)
    assert np.allclose(chosen, -0.8)
    assert np.allclose(spread, np.sqrt(2 * places.var()), atol=1e-6)
