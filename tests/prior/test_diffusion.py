"""The schedule, the loss, and the one-step estimate; what masks let through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_prior import SKELETONS, people, prior

from nkjax.models import denoiser
from nkjax.prior import coordinates, diffusion
from nkjax.prior.diffusion import Given
from tests.losses.precision_walk import faults


def bodies(name="toddlersim65", part="body", missing=0.2, count=6):
    """Return a prior of random numbers, poses in data units, what is known, some joints observed."""
    skeleton = SKELETONS[name]
    of_part = prior(skeleton, part)
    poses, _ = coordinates.take(of_part.part, people(skeleton, count, missing=missing), skeleton)
    at = coordinates.frame(of_part.part, of_part.units, *poses[:3])
    u = coordinates.normalise(poses.points_bj2, poses.valid_bj, at, of_part.units)
    observed = np.random.default_rng(2).random(poses.valid_bj.shape) < 0.5
    return of_part, u, Given(jnp.asarray(poses.valid_bj), jnp.asarray(observed), u, poses.context_bc)


def test_the_schedule_is_the_cosine_one():
    alpha, sigma = diffusion.ALPHA64, diffusion.SIGMA64
    assert np.allclose(alpha**2 + sigma**2, 1) and alpha[0] == 1 and sigma[0] == 0
    # Nichol and Dhariwal's f(t) / f(0), in the middle and near the end.
    for t in (1, 300, 500, 900):
        f = [np.cos((s / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2 for s in (t, 0)]
        assert np.isclose(alpha[t] ** 2, f[0] / f[1], rtol=1e-12)
    assert (np.diff(diffusion.RATIOS) >= 0).all() and diffusion.RATIOS[-1] > 100
    assert diffusion.ALPHA.dtype == np.float32 and 0 < diffusion.SIGMA[1] < 0.02


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.2, 0.4, 1.0])
def test_the_level_of_a_ratio_is_the_nearest(ratio):
    step = diffusion.level(ratio)
    assert abs(diffusion.RATIOS[step] / ratio - 1) < 0.03
    assert diffusion.level(np.array([ratio, ratio])).tolist() == [step, step]


def test_a_perfect_velocity_gives_back_the_clean_pose(monkeypatch):
    of_part, u, given = bodies()
    noise = jax.random.normal(jax.random.key(0), u.shape)
    t = jnp.array([1, 40, 126, 500, 700, 900])

    def perfect(params, spec, x, log_ratio, *rest):
        alpha, sigma = diffusion.ALPHA[t], diffusion.SIGMA[t]
        return alpha[:, None, None] * noise - sigma[:, None, None] * u

    monkeypatch.setattr(denoiser, "apply", perfect)
    x = diffusion.noised(u, t, noise)
    assert np.abs(diffusion.clean(of_part, x, t, given) - u).max() < 1e-5
    error = diffusion.loss({}, of_part.spec, u, t, noise, given)
    assert float(error) < 1e-10


def test_the_loss_by_hand():
    of_part, u, given = bodies()
    noise = jax.random.normal(jax.random.key(0), u.shape)
    t = jnp.full(6, 126)
    x = diffusion.ALPHA[126] * np.asarray(u) + diffusion.SIGMA[126] * np.asarray(noise)
    got = denoiser.apply(of_part.params, of_part.spec, x, jnp.full(6, diffusion.LOG_RATIO[126]),
                         given.valid_bj, given.values_bj2, given.observed_bj, given.context_bc)
    wanted = diffusion.ALPHA[126] * np.asarray(noise) - diffusion.SIGMA[126] * np.asarray(u)
    square = np.square(np.asarray(got) - wanted)[np.asarray(given.valid_bj)]
    loss = diffusion.loss(of_part.params, of_part.spec, u, t, noise, given)
    assert np.isclose(float(loss), square.mean(), rtol=1e-5)


@pytest.mark.parametrize(("name", "part"), [("lab27", "body"), ("toddlersim65", "hand")])
def test_an_invalid_joint_moves_nothing(name, part):
    of_part, u, given = bodies(name, part)
    noise = jax.random.normal(jax.random.key(0), u.shape)
    t = jnp.full(len(u), 126)

    def outputs(moved):
        there = given.valid_bj[..., None]
        u_moved, values = (jnp.where(there, x, moved) for x in (u, given.values_bj2))
        of = given._replace(values_bj2=values)
        value = diffusion.clean(of_part, diffusion.noised(u_moved, t, noise), t, of)
        by = jax.value_and_grad(diffusion.loss, argnums=(0, 2))
        return value, *by(of_part.params, of_part.spec, u_moved, t, noise, of)

    compiled = jax.jit(lambda moved: jax.tree.leaves(outputs(moved)))

    assert not np.asarray(given.valid_bj).all()
    for a, b, c in zip(compiled(0.0), compiled(1e3), compiled(np.nan), strict=True):
        assert (np.asarray(a) == np.asarray(b)).all() and np.isfinite(a).all()
        assert (np.asarray(a) == np.asarray(c)).all()


def test_the_value_of_a_hidden_joint_is_not_read():
    of_part, u, given = bodies(missing=0.0)
    t = jnp.full(len(u), 126)
    far = jnp.where(given.observed_bj[..., None], given.values_bj2, 1e3)
    same, other = (
        diffusion.clean(of_part, u, t, given._replace(values_bj2=values))
        for values in (given.values_bj2, far)
    )
    assert (np.asarray(same) == np.asarray(other)).all()
    moved = given._replace(values_bj2=given.values_bj2 + 1.0)
    assert not np.allclose(diffusion.clean(of_part, u, t, moved), same)


def test_observed_joints_are_drawn_as_the_recipe_has_it():
    valid = jnp.ones((20000, 8), bool).at[:, 7].set(False)
    observed = np.asarray(diffusion.draw_observed(jax.random.key(0), valid, 0.1))
    assert not observed[:, 7].any()
    counts = np.bincount(observed.sum(1), minlength=9)[:8] / 20000
    # p uniform: every number of 7 is equally likely, but for the tenth that is told nothing.
    assert np.abs(counts[1:] - 0.9 / 8).max() < 0.01 and abs(counts[0] - 0.1 - 0.9 / 8) < 0.01


def test_steps_are_drawn_evenly_and_at_low_noise():
    steps = np.asarray(diffusion.draw_steps(jax.random.key(0), 20000, 0.0))
    assert steps.min() >= 1 and steps.max() <= 1000 and abs(steps.mean() - 500) < 10
    near = diffusion.RATIOS[np.asarray(diffusion.draw_steps(jax.random.key(0), 20000, 1.0))]
    assert 0.018 < near.min() and near.max() < 0.62
    assert abs(np.log(near).mean() - np.log([0.02, 0.6]).mean()) < 0.02


def test_all_of_it_is_fp32_at_highest():
    of_part, u, given = bodies(count=2)
    noise, t = jnp.ones_like(u), jnp.full(2, 126)

    def loss(x, dtype=jnp.float32):
        noisy = diffusion.noised(x.astype(jnp.float32), t, noise)
        clean = diffusion.clean(of_part, noisy.astype(dtype), t, given)
        return jnp.square(clean).sum()

    assert faults(loss, u.astype(jnp.bfloat16)) == []
    assert faults(lambda x: loss(x, jnp.bfloat16), u.astype(jnp.bfloat16))
