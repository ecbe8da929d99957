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

COCO = skeleton.load("coco17")
PRIOR = small_prior.prior(COCO, width=8, depth=1)
PART, UNITS = PRIOR.part, PRIOR.units
KEY = jax.random.key(7)
WRIST = PART.keypoints.index("left_wrist")
# Some of the lengths below lie on either side of where this Huber turns.
SETTINGS, LITERAL = Developmental(huber=0.4), Developmental(form="literal")
FORMS = pytest.mark.parametrize("settings", [SETTINGS, LITERAL], ids=["huber", "literal"])
NEVER = np.float32(np.inf)  # a limit above every residual
# All tests but one look at three people: programs are compiled once per shape.
denoised, residual = jax.jit(refine.denoised), jax.jit(dev.residual)


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
    """Loss and facts, and the gradient by points, and by all else: prior, what is told, context."""
    points, confidence, *fixed, context, prior, limit, key, settings, told = arguments

    def loss(points, params, gaussian, told, confidence, context):
        of = dataclasses.replace(prior, params=params, gaussian=gaussian)
        return dev.developmental(
            points, told, confidence, *fixed, context, of, limit, key, settings
        )

    gradient = jax.value_and_grad(loss, tuple(range(6)), has_aux=True)
    return gradient(points, prior.params, prior.gaussian, told, confidence, context)


def run(given, limit=NEVER, settings=SETTINGS, told=None):
    """Loss, facts, gradient by points; that by all else is exactly 0, of everything run here."""
    told = given[0] if told is None else told
    (loss, facts), (by_points, *by_rest) = everything(*given, PRIOR, limit, KEY, settings, told)
    leaves = jax.tree.leaves(by_rest)
    assert len(leaves) > 10 and not any(np.asarray(leaf).any() for leaf in leaves)
    return float(loss), facts, np.asarray(by_points)


def frame_of(given):
    return coordinates.frame(PART, UNITS, given[0], given[2], given[3])


def prior_says(given, settings=SETTINGS, told=None):
    """What L_dev is made of: what is told, the pose in data units, the ratios and the noise."""
    condition_key, noise_key = jax.random.split(KEY)
    u = coordinates.normalise(given[0], given[2], frame_of(given), UNITS)
    places = u if told is None else coordinates.normalise(told, given[2], frame_of(given), UNITS)
    told = dev.condition(condition_key, places, given[2] & (given[1] >= 0.6), given[2], given[5])
    ratios, noise = dev.draw_noise(noise_key, settings, u.shape)
    if settings.form == "literal":
        told, noise = diffusion.nothing_observed(given[2], given[5]), 0 * noise
    return told, np.asarray(u, float), ratios, noise


def estimate(u, told, ratios, noise):
    return np.asarray(denoised(PRIOR, jnp.float32(u), told, ratios, noise), float).mean(0)


def slow_huber(u, x0, weight_bj, trust_b, total_b, turn):
    """float64, held at these estimates: the loss and its gradient by u."""
    away = u - x0
    length = np.linalg.norm(away, axis=-1)
    terms = np.where(length <= turn, length**2 / 2, turn * (length - turn / 2))
    slope = np.where(length <= turn, 1.0, turn / np.maximum(length, 1e-12))
    each = trust_b[:, None] * weight_bj / (total_b[:, None] + 1e-6) / len(u)
    return (each * terms).sum(), (each * slope)[..., None] * away


@pytest.mark.parametrize("away", [0, 25], ids=["alone", "a teacher sees them elsewhere"])
def test_loss_and_gradient_by_own_formula(away):
    given = people()
    teacher = given[0] + np.float32(away) * np.random.default_rng(9).normal(size=given[0].shape)
    loss, facts, by_points = run(given, told=teacher)
    told, u, ratios, noise = prior_says(given, told=teacher)
    x0 = estimate(u, told, ratios, noise)
    weight = np.clip(1 - given[1].astype(float), 0.1, 1) * given[2]
    total, judged = weight.sum(1), weight * ~np.asarray(told.observed_bj)
    formula = functools.partial(
        slow_huber, x0=x0, weight_bj=judged, trust_b=np.ones(3), total_b=total, turn=0.4
    )
    own, by_u = formula(u)
    length = np.linalg.norm(u - x0, axis=-1)[judged > 0]
    assert (length < 0.4).sum() > 3 and (length > 0.4).sum() > 3, np.sort(length).round(2)
    np.testing.assert_allclose(facts["distance"], length.mean(), rtol=1e-5)
    scale = np.asarray(frame_of(given).scale_b, float)[:, None, None] * UNITS.unit
    np.testing.assert_allclose(loss, own, rtol=1e-5)
    np.testing.assert_allclose(by_points * scale, by_u, atol=1e-5 * np.abs(by_u).max())
    assert np.abs(by_u).max() > 1e-3

    # And by finite differences of the frozen formula, along a random way.
    way = np.random.default_rng(3).normal(size=u.shape)
    up, down = (formula(u + s * way)[0] for s in (1e-5, -1e-5))
    np.testing.assert_allclose((by_points * scale * way).sum(), (up - down) / 2e-5, rtol=1e-3)


def test_literal_form_has_the_gradient_of_the_network():
    given = (*people()[:4], np.ones(3, bool), people()[5])
    loss, facts, by_points = run(given, settings=LITERAL, limit=0.0)
    nothing, u, ratios, noise = prior_says(given, LITERAL)
    valid = given[2][..., None]

    def own(u):
        estimates = np.asarray(denoised(PRIOR, jnp.float32(u), nothing, ratios, noise), float)
        squares = np.where(valid[None], (np.float32(u)[None] - estimates) ** 2, 0)
        return (squares.sum((0, 2, 3)) / (8 * valid.sum((1, 2)))).mean()

    np.testing.assert_allclose(loss, own(u), rtol=1e-5)
    scale = np.asarray(frame_of(given).scale_b)[:, None, None] * UNITS.unit
    way = np.random.default_rng(3).normal(size=u.shape) * valid
    up, down = (own(u + s * way) for s in (3e-3, -3e-3))
    np.testing.assert_allclose((by_points * scale * way).sum(), (up - down) / 6e-3, rtol=5e-3)
    # What the gradient would be without the network's Jacobian is something else.
    alone = (u - estimate(u, nothing, ratios, noise)) * valid / valid.sum(1, keepdims=True) / 3
    assert np.abs(by_points * scale - alone).max() > 0.1 * np.abs(alone).max()
    assert facts["abstained"] == 0


@FORMS
def test_an_invalid_joint_does_nothing_wherever_it_is(settings):
    given = people()
    loss, facts, by_points = run(given, settings=settings, limit=0.0)
    for number in (1e3, np.nan, np.inf):
        moved = given[0].copy()
        moved[~given[2]] += number
        unsure = given[1].copy()
        unsure[~given[2]] = number
        again = run((moved, unsure, *given[2:]), settings=settings, limit=0.0)
        assert loss == again[0] and np.isfinite(loss) and loss > 0
        assert jax.tree.all(jax.tree.map(lambda a, b: a == b, facts, again[1]))
        np.testing.assert_array_equal(by_points, again[2])
        assert not by_points[~given[2]].any() and by_points[given[2]].any()
        assert np.isfinite(by_points).all()


@FORMS
def test_somebody_without_a_label_adds_nothing(settings):
    points, confidence, valid, diagonal, _, context = people()
    points[2], valid[2] = np.nan, False
    rest = diagonal, np.ones(3, bool), context
    loss, facts, by_points = run((points, confidence, valid, *rest), 0.0, settings)
    assert np.isfinite(loss) and np.isfinite(by_points).all() and not by_points[2].any()
    # Facts are means over the other two; only 'huber' abstains.
    u = dev.in_units(PRIOR, points, valid, diagonal)
    pulls = np.asarray(residual(PRIOR, u, valid & (confidence >= 0.6), context))
    np.testing.assert_allclose(facts["residual"], pulls[:2].mean(), rtol=1e-4)
    assert pulls[2] == 0 and facts["abstained"] == (settings is SETTINGS)
    nobody = run((points, confidence, np.zeros_like(valid), *rest), 0.0, settings)
    assert nobody[0] == 0 and not nobody[2].any()
    assert {name: float(value) for name, value in nobody[1].items()} == dict.fromkeys(facts, 0.0)


def test_what_is_told_is_not_judged_and_what_is_judged_is_not_told():
    given = people(seed=4)
    told, u, ratios, noise = prior_says(given)
    observed = np.asarray(told.observed_bj)
    sure = given[2] & (given[1] >= 0.6)
    # Of what the picture is sure of some is told and some judged, all else is judged.
    assert not observed[~sure].any()
    assert observed.sum() > 3 and (sure & ~observed).sum() > 3 and (given[2] & ~sure).sum() > 3
    judged = given[2] & ~observed
    np.testing.assert_array_equal((run(given)[2] != 0).any(-1), judged)
    # The place of a judged joint is nowhere in what is told, nor would it be read.
    values = np.asarray(told.values_bj2)
    assert not values[~observed].any()
    np.testing.assert_allclose(values[observed], u[observed], rtol=1e-6)
    says = functools.partial(estimate, u, ratios=ratios, noise=noise)
    lied = told._replace(values_bj2=jnp.where(judged[..., None], 1e3, told.values_bj2))
    np.testing.assert_array_equal(says(told), says(lied))
    liar = told._replace(values_bj2=jnp.where(observed[..., None], 0.0, told.values_bj2))
    assert np.abs((says(told) - says(liar))[judged]).max() > 1e-2


def test_the_prior_is_told_what_the_teacher_sees_and_no_more():
    given = people(seed=4)
    told, *_ = prior_says(given)
    observed = np.asarray(told.observed_bj)
    loss, _, by_points = run(given)
    elsewhere = np.float32([25, -15])
    others = np.where(observed[..., None], given[0], given[0] + elsewhere)
    assert run(given, told=others)[0] == loss  # of joints that are not told nothing is read
    loss_of_others, _, by_others = run(given, told=given[0] + elsewhere * observed[..., None])
    assert abs(loss_of_others / loss - 1) > 1e-3
    np.testing.assert_array_equal((by_others != 0).any(-1), given[2] & ~observed)
    # What the teacher has no place of is not told, so it is judged: by a half place, too.
    b, k = np.argwhere(observed)[0]
    for lost in (np.nan, [np.nan, 50], np.inf):
        unseen = given[0].copy()
        unseen[b, k] = lost
        loss_unseen, _, by_unseen = run(given, told=unseen)
        assert np.isfinite(loss_unseen) and np.isfinite(by_unseen).all()
        assert by_unseen[b, k].any() and not by_points[b, k].any()


def test_half_of_the_sure_are_told_and_draws_come_in_opposite_pairs():
    everyone = np.ones((200, 17), bool)
    sure = np.broadcast_to(np.arange(17) < 9, everyone.shape)
    valid = np.broadcast_to(np.arange(17) > 1, everyone.shape)
    given = dev.condition(KEY, np.ones((200, 17, 2)), sure, valid, None)
    share = np.mean(given.observed_bj, 0)
    assert not share[:2].any() and not share[9:].any()
    assert abs(share[2:9].mean() - 0.5) < 0.05 and (abs(share[2:9] - 0.5) < 0.2).all()
    ratios, noise = dev.draw_noise(KEY, Developmental(ratios=(0.05, 0.2), draws=2048), (2, 3, 2))
    np.testing.assert_array_equal(noise[:1024], -noise[1024:])
    np.testing.assert_array_equal(ratios[:1024], ratios[1024:])
    assert ratios.min() >= 0.05 and ratios.max() <= 0.2 and len({*ratios[:1024].tolist()}) > 1000
    # The geometric middle is .1, to 1.3 %; drawn evenly it would be .117.
    assert np.exp(np.log(ratios).mean()) == pytest.approx(0.1, rel=0.04)


def test_translation_and_scale_change_nothing():
    points, confidence, valid, diagonal, agree, context = people()
    loss, facts, by_points = run((points, confidence, valid, diagonal, agree, context))
    moved = 2.5 * points + np.array([40, -70], np.float32)
    other = run((moved, confidence, valid, 2.5 * diagonal, agree, context))
    np.testing.assert_allclose(other[0], loss, rtol=1e-4)
    np.testing.assert_allclose(other[1]["residual"], facts["residual"], rtol=1e-4)
    np.testing.assert_allclose(2.5 * other[2], by_points, atol=1e-4 * np.abs(by_points).max())


def test_abstention_by_hand():
    points, confidence, valid, diagonal, _, context = people()
    residuals, losses = [], []
    for i in range(3):
        only = valid & (np.arange(3) == i)[:, None]
        loss, facts, _ = run((points, confidence, only, diagonal, np.ones(3, bool), context))
        losses.append(loss)
        residuals.append(float(facts["residual"]))
    low, middle, high = np.argsort(residuals)
    between = (residuals[middle] + residuals[high]) / 2
    assert min(losses) > 0 and residuals[low] < residuals[middle] < between < residuals[high]
    for agree, limit, abstain in (
        ([True, True, True], residuals[high] + 1, []),
        ([True, True, True], between, [high]),
        ([True, True, True], residuals[low] - 1e-3, [0, 1, 2]),
        ([True, False, True], residuals[low] - 1e-3, [0, 2]),
        ([False, False, False], 0.0, []),
    ):
        given = (points, confidence, valid, diagonal, np.array(agree), context)
        loss, facts, _ = run(given, limit=np.float32(limit))
        wanted = sum(x * (0.1 if i in abstain else 1) for i, x in enumerate(losses))
        np.testing.assert_allclose(loss, wanted, rtol=1e-5)
        np.testing.assert_allclose(facts["abstained"], len(abstain) / 3, rtol=1e-6)


def test_without_a_limit_nobody_abstains():
    given = (*people()[:4], np.ones(3, bool), people()[5])
    loss, facts, by_points = run(given, limit=None)
    assert facts["abstained"] == 0 < run(given, limit=np.float32(0))[1]["abstained"]
    never, _, by_never = run(given)
    np.testing.assert_allclose(loss, never, rtol=1e-6)
    np.testing.assert_allclose(by_points, by_never, atol=1e-6 * np.abs(by_never).max())


def test_a_wrist_far_off_makes_somebody_abstain_only_if_the_picture_is_sure_of_it():
    points = 2 * small_prior.people(COCO, 1, seed=5, missing=0).points_nk2.repeat(3, 0)
    points[1:, WRIST] += [120, -120]
    confidence = np.full((3, 17), 0.9, np.float32)
    confidence[2, WRIST] = 0.3
    valid, diagonal = np.ones((3, 17), bool), np.full(3, 283, np.float32)
    context = np.zeros((3, coordinates.CONTEXT), np.float32)
    u = dev.in_units(PRIOR, points, valid, diagonal)
    pulls = np.asarray(residual(PRIOR, u, confidence >= 0.6, context))
    others = max(pulls[0], pulls[2])
    assert pulls[1] > 1.05 * others, pulls
    limit = np.float32((pulls[1] * others) ** 0.5)
    for agree, abstained in ((True, 1 / 3), (False, 0)):
        given = (points, confidence, valid, diagonal, np.full(3, agree), context)
        _, facts, by_points = run(given, limit=limit)
        np.testing.assert_allclose(facts["abstained"], abstained, rtol=1e-6)
        np.testing.assert_allclose(facts["residual"], pulls.mean(), rtol=1e-4)
        # The unsure wrist is repaired: it goes back, by much more than the sure one at 0.1 x 0.1.
        back = -by_points[:, WRIST] @ [-1, 1]
        assert back[2] > 5 * abs(back[1])


def test_the_residual_by_own_formula():
    points, _, valid, diagonal, _, context = people()
    points[~valid] = np.nan
    valid[2] = False
    u = np.asarray(dev.in_units(PRIOR, points, valid, diagonal))
    half = np.broadcast_to(jax.random.normal(jax.random.key(0), (2, 1, 17, 2)), (2, 3, 17, 2))
    nothing = diffusion.nothing_observed(valid, context)
    ratios = jnp.full(4, 0.05)
    x0 = estimate(u, nothing, ratios, jnp.concatenate([half, -half]))
    squares = np.where(valid, np.square(u - x0).sum(-1), 0).sum(1)
    own = np.sqrt(squares / np.maximum(2 * valid.sum(1), 1)) / 0.05
    found = residual(PRIOR, u, valid, context)
    np.testing.assert_allclose(found, own, rtol=1e-4)
    assert found[2] == 0 and (found[:2] > 0).all()


def test_the_limit_is_a_quantile_of_all_who_have_a_joint(monkeypatch):
    poses = people(count=7)
    poses = coordinates.Poses(poses[0], poses[2], poses[3], poses[5])
    poses.valid_bj[4] = False
    monkeypatch.setattr(dev, "QUANTILE", 0.5)
    monkeypatch.setattr(dev, "AT_ONCE", 3)
    six = coordinates.Poses(*(np.delete(array, 4, 0) for array in poses))
    own = []
    for at in (0, 3):
        three = coordinates.Poses(*(array[at : at + 3] for array in six))
        u = dev.in_units(PRIOR, *three[:3])
        own += residual(PRIOR, u, three.valid_bj, three.context_bc).tolist()
    # Half of six stay below the fourth; `higher`, never a number that nobody has.
    np.testing.assert_allclose(dev.fit_limit(PRIOR, poses), sorted(own)[3], rtol=1e-4)
    with pytest.raises(ValueError, match="no labelled pose to fit the limit"):
        dev.fit_limit(PRIOR, poses._replace(valid_bj=np.zeros_like(poses.valid_bj)))


def test_readable_refusals():
    with pytest.raises(ValueError, match="form 'sds' of L_dev is unknown: use 'huber' or"):
        Developmental(form="sds")
    with pytest.raises(ValueError, match="3 draws do not pair: use an even number"):
        Developmental(draws=3)
    with pytest.raises(ValueError, match="want 0 < lowest <= highest"):
        Developmental(ratios=(0.2, 0.1))
