"""L_dev against own formulas, with a prior of random numbers: what it makes of a pose is given."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax import skeleton
from nkjax.losses import developmental as dev
from nkjax.losses.developmental import Developmental
from nkjax.prior import coordinates, diffusion, refine
from tests.prior import small_prior

PRIOR = small_prior.prior(skeleton.load("coco17"))
PART, UNITS = PRIOR.part, PRIOR.units
KEY = jax.random.key(7)
WRIST = PART.keypoints.index("left_wrist")
DEFAULTS = Developmental()
NEVER = np.float32(np.inf)  # a limit above every residual


def people(seed=1, count=3):
    """Random poses in a crop of 192 x 256; of the second person three joints are not valid."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([20, 20], [170, 230], (count, 17, 2)).astype(np.float32)
    confidence = rng.uniform(0.1, 0.95, (count, 17)).astype(np.float32)
    valid = np.ones((count, 17), bool)
    valid[1, [0, 7, WRIST]] = False
    diagonal = np.full(count, 250, np.float32)
    context = rng.normal(size=(count, coordinates.CONTEXT)).astype(np.float32)
    return points, confidence, valid, diagonal, np.zeros(count, bool), context


@functools.partial(jax.jit, static_argnums=9)
def everything(*arguments):
    """Loss and facts, and the gradient of the loss by points and by parameters of the prior."""

    def loss(points, params):
        prior = dataclasses.replace(arguments[6], params=params)
        rest = arguments[1:6]
        return dev.developmental(points, *rest, prior, *arguments[7:9], arguments[9])

    points = jnp.asarray(arguments[0])
    return jax.value_and_grad(loss, (0, 1), has_aux=True)(points, arguments[6].params)


def run(given, limit=NEVER, settings=DEFAULTS):
    (loss, facts), (by_points, by_params) = everything(*given, PRIOR, limit, KEY, settings)
    return float(loss), facts, np.asarray(by_points), by_params


def frame_of(given):
    return coordinates.frame(PART, UNITS, given[0], given[2], given[3])


def prior_says(given, settings):
    """What L_dev is made of: what is told, the pose in data units, the ratios and the noise."""
    condition_key, noise_key = jax.random.split(KEY)
    u = coordinates.normalise(given[0], given[2], frame_of(given), UNITS)
    told = dev.condition(condition_key, u, given[1], given[2], given[5], settings)
    ratios, noise = dev.draw_noise(noise_key, settings, u.shape)
    if settings.form == "literal":
        told, noise = diffusion.nothing_observed(given[2], given[5]), 0 * noise
    return told, np.asarray(u, float), ratios, noise


def slow_huber(u, x0, weight_bj, trust_b, total_b, turn):
    """float64, held at these estimates: the loss and its gradient by u."""
    away = u - x0
    length = np.linalg.norm(away, axis=-1)
    terms = np.where(length <= turn, length**2 / 2, turn * (length - turn / 2))
    slope = np.where(length <= turn, 1.0, turn / np.maximum(length, 1e-12))
    each = trust_b[:, None] * weight_bj / (total_b[:, None] + 1e-6) / len(u)
    return (each * terms).sum(), (each * slope)[..., None] * away


@pytest.mark.parametrize("turn", [0.1, 5.0])
def test_loss_and_gradient_by_own_formula(turn):
    given, settings = people(), Developmental(huber=turn)
    loss, _, by_points, by_params = run(given, settings=settings)
    told, u, ratios, noise = prior_says(given, settings)
    x0 = np.asarray(refine.denoised(PRIOR, jnp.float32(u), told, ratios, noise), float).mean(0)
    weight = np.clip(1 - given[1].astype(float), 0.1, 1) * given[2]
    total, judged = weight.sum(1), weight * ~np.asarray(told.observed_bj)
    own, by_u = slow_huber(u, x0, judged, np.ones(3), total, turn)
    scale = np.asarray(frame_of(given).scale_b, float)[:, None, None] * UNITS.unit
    np.testing.assert_allclose(loss, own, rtol=1e-5)
    np.testing.assert_allclose(by_points * scale, by_u, atol=1e-5 * np.abs(by_u).max())
    assert np.abs(by_u).max() > 1e-3
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(by_params))

    # And by finite differences of the frozen formula, along a random way.
    way = np.random.default_rng(3).normal(size=u.shape)
    up, down = (slow_huber(u + s * way, x0, judged, np.ones(3), total, turn)[0]
                for s in (1e-5, -1e-5))  # fmt: skip
    np.testing.assert_allclose((by_points * scale * way).sum(), (up - down) / 2e-5, rtol=1e-3)


def test_literal_form_has_the_gradient_of_the_network_and_none_of_its_parameters():
    given, settings = people(), Developmental(form="literal")
    loss, facts, by_points, by_params = run(given, settings=settings)
    nothing, u, ratios, noise = prior_says(given, settings)
    valid = given[2][..., None]

    @jax.jit
    def own(u):
        squares = (u[None] - refine.denoised(PRIOR, u, nothing, ratios, noise)) ** 2
        return (jnp.where(valid[None], squares, 0).sum((0, 2, 3)) / (8 * valid.sum((1, 2)))).mean()

    np.testing.assert_allclose(loss, own(jnp.float32(u)), rtol=1e-5)
    scale = np.asarray(frame_of(given).scale_b)[:, None, None] * UNITS.unit
    way = np.random.default_rng(3).normal(size=u.shape) * valid
    up, down = (float(own(jnp.float32(u + s * way))) for s in (3e-3, -3e-3))
    np.testing.assert_allclose((by_points * scale * way).sum(), (up - down) / 6e-3, rtol=2e-3)
    # What the gradient would be without the network's Jacobian is something else.
    x0 = np.asarray(refine.denoised(PRIOR, jnp.float32(u), nothing, ratios, noise)).mean(0)
    alone = (u - x0) * valid / valid.sum(1, keepdims=True) / 3
    assert np.abs(by_points * scale - alone).max() > 0.1 * np.abs(alone).max()
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(by_params))
    assert facts["abstained"] == 0


@pytest.mark.parametrize("form", ["huber", "literal"])
def test_an_invalid_joint_does_nothing_wherever_it_is(form):
    settings = Developmental(form=form)
    given = people()
    for number in (1e3, np.nan, np.inf):
        moved = given[0].copy()
        moved[~given[2]] += number
        unsure = given[1].copy()
        unsure[~given[2]] = number
        loss, facts, by_points, _ = run(given, settings=settings, limit=0.0)
        again = run((moved, unsure, *given[2:]), settings=settings, limit=0.0)
        assert loss == again[0] and np.isfinite(loss) and loss > 0
        assert jax.tree.all(jax.tree.map(lambda a, b: a == b, facts, again[1]))
        np.testing.assert_array_equal(by_points, again[2])
        assert not by_points[~given[2]].any() and by_points[given[2]].any()
        assert np.isfinite(by_points).all()


@pytest.mark.parametrize("form", ["huber", "literal"])
def test_somebody_without_a_label_adds_nothing(form):
    settings = Developmental(form=form)
    points, confidence, valid, *rest = people()
    points[2], valid[2] = np.nan, False
    loss, facts, by_points, _ = run((points, confidence, valid, *rest), settings=settings)
    assert np.isfinite(loss) and np.isfinite(by_points).all() and not by_points[2].any()
    nobody = run((points, confidence, np.zeros_like(valid), *rest), settings=settings)
    assert nobody[0] == 0 and not nobody[2].any()
    assert {name: float(value) for name, value in nobody[1].items()} == dict.fromkeys(facts, 0.0)


def test_what_is_told_is_not_judged_and_what_is_judged_is_not_told():
    given, settings = people(), Developmental()
    told, u, ratios, noise = prior_says(given, settings)
    observed = np.asarray(told.observed_bj)
    sure = given[2] & (given[1] >= 0.6)
    assert observed[sure].all() and not observed[~given[2]].any()
    hidden = given[2] & ~observed
    assert 3 < hidden.sum() and (observed & ~sure).any()
    by_points = run(given)[2]
    np.testing.assert_array_equal((by_points != 0).any(-1), hidden)
    # The place of a hidden joint is nowhere in what is told, nor would it be read.
    values = np.asarray(told.values_bj2)
    assert not values[~observed].any()
    np.testing.assert_allclose(values[observed], u[observed], rtol=1e-6)
    lied = told._replace(values_bj2=jnp.where(hidden[..., None], 1e3, told.values_bj2))
    says = jax.jit(lambda told: dev.estimate(PRIOR, jnp.float32(u), told, ratios, noise))
    np.testing.assert_array_equal(says(told), says(lied))
    liar = told._replace(values_bj2=jnp.where(sure[..., None], 0.0, told.values_bj2))
    assert np.abs(says(told) - says(liar)).max() > 1e-2


def test_half_of_the_unsure_are_hidden_and_draws_come_in_opposite_pairs():
    settings = Developmental(ratios=(0.05, 0.2), draws=64)
    unsure = np.full((200, 17), 0.5, np.float32)
    everyone = np.ones((200, 17), bool)
    given = dev.condition(KEY, np.zeros((200, 17, 2)), unsure, everyone, None, settings)
    assert abs(np.mean(given.observed_bj) - 0.5) < 0.05
    ratios, noise = dev.draw_noise(KEY, settings, (5, 17, 2))
    np.testing.assert_array_equal(noise[:32], -noise[32:])
    np.testing.assert_array_equal(ratios[:32], ratios[32:])
    assert ratios.min() >= 0.05 and ratios.max() <= 0.2 and len(set(ratios[:32].tolist())) == 32
    assert 0.08 < np.exp(np.log(ratios).mean()) < 0.125  # the geometric middle is .1


def test_translation_and_scale_change_nothing():
    points, confidence, valid, diagonal, agree, context = people()
    loss, facts, by_points, _ = run((points, confidence, valid, diagonal, agree, context))
    moved = 2.5 * points + np.array([40, -70], np.float32)
    other = run((moved, confidence, valid, 2.5 * diagonal, agree, context))
    np.testing.assert_allclose(other[0], loss, rtol=1e-4)
    np.testing.assert_allclose(other[1]["residual"], facts["residual"], rtol=1e-4)
    np.testing.assert_allclose(2.5 * other[2], by_points, atol=1e-4 * np.abs(by_points).max())


def test_abstention_by_hand():
    points, confidence, valid, diagonal, _, context = people(count=2)
    residuals = []
    losses = []
    for i in range(2):
        only = valid & (np.arange(2) == i)[:, None]
        loss, facts, *_ = run((points, confidence, only, diagonal, np.ones(2, bool), context))
        losses.append(loss)
        residuals.append(float(facts["residual"]))
    assert min(losses) > 0 and residuals[0] != residuals[1]
    low, high = min(residuals), max(residuals)
    far = residuals.index(high)
    for agree, limit, abstain in (
        ([True, True], high + 1, []),
        ([True, True], (low + high) / 2, [far]),
        ([True, True], low - 1e-3, [0, 1]),
        ([True, False], low - 1e-3, [0]),
        ([False, False], 0.0, []),
    ):
        given = (points, confidence, valid, diagonal, np.array(agree), context)
        loss, facts, *_ = run(given, limit=limit)
        wanted = sum(x * (0.1 if i in abstain else 1) for i, x in enumerate(losses))
        np.testing.assert_allclose(loss, wanted, rtol=1e-5)
        assert facts["abstained"] == len(abstain) / 2


def test_the_residual_by_own_formula_and_its_limit():
    points, _, valid, diagonal, _, context = people(count=5)
    points[~valid] = np.nan
    valid[4] = False
    u = np.asarray(dev.in_units(PRIOR, points, valid, diagonal))
    half = np.asarray(jax.random.normal(jax.random.key(0), (2, 1, 17, 2)))
    nothing, t = diffusion.nothing_observed(valid, context), diffusion.level(0.1)
    alpha, sigma = diffusion.ALPHA[t], diffusion.SIGMA[t]
    clean = jax.jit(lambda x: diffusion.clean(PRIOR, x, t, nothing))
    x0 = np.mean([clean(alpha * u + sigma * n) for n in (*half, *-half)], 0)
    squares = np.where(valid, np.square(u - x0).sum(-1), 0).sum(1)
    own = np.sqrt(squares / np.maximum(2 * valid.sum(1), 1)) / 0.1
    found = dev.residual(PRIOR, u, valid, context)
    np.testing.assert_allclose(found, own, rtol=1e-4)
    assert found[4] == 0 and (found[:4] > 0).all()
    poses = coordinates.Poses(points, valid, diagonal, context)
    # Of four people the limit of 99 % is the largest; who has no joint is not asked.
    np.testing.assert_allclose(dev.fit_limit(PRIOR, poses), own.max(), rtol=1e-4)
    with pytest.raises(ValueError, match="no labelled pose to fit the limit"):
        dev.fit_limit(PRIOR, poses._replace(valid_bj=np.zeros_like(valid)))


def test_the_limit_is_a_quantile_and_not_of_parts(monkeypatch):
    poses = people(count=7)
    poses = coordinates.Poses(poses[0], poses[2], poses[3], poses[5])
    monkeypatch.setattr(dev, "QUANTILE", 0.5)
    whole = dev.fit_limit(PRIOR, poses)
    u = dev.in_units(PRIOR, *poses[:3])
    middle = sorted(dev.residual(PRIOR, u, poses.valid_bj, poses.context_bc))[3]
    np.testing.assert_allclose(whole, middle, rtol=1e-4)
    monkeypatch.setattr(dev, "AT_ONCE", 3)
    np.testing.assert_allclose(dev.fit_limit(PRIOR, poses), whole, rtol=1e-4)


def test_readable_refusals():
    with pytest.raises(ValueError, match="form 'sds' of L_dev is unknown: use 'huber' or"):
        Developmental(form="sds")
    with pytest.raises(ValueError, match="3 draws do not pair: use an even number"):
        Developmental(draws=3)
    with pytest.raises(ValueError, match="want 0 < lowest <= highest"):
        Developmental(ratios=(0.2, 0.1))
