"""L_dev through heatmaps: its precision, how far its gradient reaches, what becomes of a map."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nkjax import skeleton
from nkjax.geometry import centroids, heatmaps
from nkjax.losses import developmental as dev
from nkjax.losses.developmental import Developmental
from nkjax.models import sapiens
from nkjax.prior import coordinates, refine
from tests.losses import precision_walk
from tests.prior import small_prior

SKELETON = skeleton.load("coco17")
PRIOR = small_prior.prior(SKELETON, width=8, depth=1)
JOINTS = len(SKELETON.keypoints)
KEY = jax.random.key(7)


def of_maps(maps_bhwk, size_wh, sigma, prior=PRIOR, confidence=0.3, key=KEY, settings=None):
    """L_dev of heatmaps: centroids of the body's joints, all of them valid and unsure."""
    points, _ = centroids.local_centroid(maps_bhwk, size_wh, sigma)
    points = points[:, np.array(prior.part.joints)]
    people, joints = points.shape[:2]
    return dev.developmental(
        points, points,
        jnp.broadcast_to(jnp.asarray(confidence, jnp.float32), (people, joints)),
        jnp.ones((people, joints), bool),
        jnp.full(people, float(np.hypot(*size_wh))),
        jnp.zeros(people, bool),
        jnp.zeros((people, coordinates.CONTEXT)),
        prior, 1.0, key, settings or Developmental(),
    )[0]  # fmt: skip


@pytest.mark.parametrize("form", ["huber", "literal"])
def test_fp32_from_bf16_maps_to_their_gradient(form):
    maps = jax.random.normal(KEY, (2, 16, 12, JOINTS), jnp.bfloat16)
    loss = functools.partial(of_maps, size_wh=(48, 64), sigma=2, settings=Developmental(form))
    assert precision_walk.faults(loss, maps) == []
    value, gradient = jax.eval_shape(jax.value_and_grad(loss), maps)
    assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16


def test_a_planted_leak_and_a_planted_default_product_are_caught(monkeypatch):
    maps = jax.random.normal(KEY, (2, 16, 12, JOINTS), jnp.bfloat16)
    normalise, denoised = coordinates.normalise, refine.denoised

    def faults_with(module, name, fault):
        # Another function each time: traces of the same one are kept.
        loss = functools.partial(of_maps, size_wh=(48, 64), sigma=2)
        with monkeypatch.context() as planted:
            planted.setattr(module, name, fault)
            return precision_walk.faults(loss, maps)

    def leaks(*arguments):
        return normalise(*arguments).astype(jnp.bfloat16).astype(jnp.float32)

    def coarse(*arguments):
        return denoised(*arguments) @ jnp.eye(2)

    found = faults_with(coordinates, "normalise", leaks)
    assert {fault.split(":")[0] for fault in found} == {"loss", "gradient"}
    assert all("convert_element_type gives bfloat16" in fault for fault in found)
    found = faults_with(refine, "denoised", coarse)
    assert found and all("dot_general at precision None" in fault for fault in found)


def test_the_gradient_reaches_the_first_block_and_is_0_with_weight_0():
    spec = sapiens.make_spec("tiny", "pose", JOINTS, (32, 32))
    params = sapiens.init(jax.random.key(0), spec)
    images = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))

    @jax.jit
    @jax.grad
    def by_params(params, weight):
        maps = sapiens.apply(params, spec, images)["pose"]
        return weight * of_maps(maps, (32, 32), 1)

    def first_block(weight):
        gradient = by_params(params, weight)["backbone"]["blocks"]
        return [np.abs(leaf[0]).max() for leaf in jax.tree.leaves(gradient)]

    reached, zero = first_block(1.0), first_block(0.0)
    assert np.isfinite(reached).all() and np.median(reached) > 0
    # Keys shift all scores alike, so a bias of theirs has none; every kernel of the block has.
    assert np.mean(np.array(reached) > 0) > 0.9
    assert not np.any(zero)


SIZE, MAP, SIGMA = (192, 256), (48, 64), 2
WRIST = PRIOR.part.keypoints.index("left_wrist")


def overfitted(decode, monkeypatch, steps=200, rate=0.01):
    """Overfit maps of one picture by L_dev alone: a wrist 8 px off, where the prior says the truth.

    The picture is sure of all but the wrist. decode: maps to coordinates of the loss. Returns the
    wrist's map before and after, how far from the truth its peak is, and how far the peaks of the
    others have moved at most, px of the crop.
    """
    truth = np.random.default_rng(0).uniform([50, 60], [140, 200], (1, JOINTS, 2))
    start = np.float32(truth)
    start[0, WRIST] += [6, -5]
    before, _ = heatmaps.encode(start, np.ones((1, JOINTS)), SIZE, MAP, SIGMA)
    diagonal = np.full(1, np.hypot(*SIZE))
    target = dev.in_units(PRIOR, truth, np.ones((1, JOINTS), bool), diagonal)
    confidence = np.full((1, JOINTS), 0.9)
    confidence[0, WRIST] = 0.1
    optimizer = optax.adam(rate)

    @jax.jit
    def fit(maps):
        def step(carry, key):
            maps, state = carry
            gradient = jax.grad(of_maps)(maps, SIZE, SIGMA, confidence=confidence, key=key)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(maps, updates), state), None

        keys = jax.random.split(KEY, steps)
        return jax.lax.scan(step, (maps, optimizer.init(maps)), keys)[0][0]

    with monkeypatch.context() as planted:
        planted.setattr(refine, "denoised", lambda prior, u, given, ratios, noise: target[None])
        planted.setattr(centroids, "local_centroid", decode)
        # Adam makes as much of the small pull on sure joints, and with them the frame moves.
        planted.setattr(dev, "TOLD", 1.0)
        after = fit(before)
    moved = np.subtract(*(heatmaps.decode(maps, SIZE)[0] for maps in (before, after)))
    others = np.linalg.norm(np.delete(moved, WRIST, 1), axis=-1).max()
    # The codec's points are too large by this much.
    peak = heatmaps.decode(after, SIZE)[0][0, WRIST] * (1 - 1 / np.array(SIZE))
    distance = np.linalg.norm(peak - truth[0, WRIST])
    return before[0, ..., WRIST], after[0, ..., WRIST], distance, others


def second_moment(map_hw):
    weights = np.maximum(map_hw - 0.05 * map_hw.max(), 0)
    weights = weights / weights.sum()
    places = np.stack(np.mgrid[: map_hw.shape[0], : map_hw.shape[1]])
    middle = (weights * places).sum((1, 2), keepdims=True)
    return (weights * (places - middle) ** 2).sum()


def test_one_picture_overfitted_reaches_the_estimate_and_keeps_its_shape(monkeypatch):
    before, after, distance, others = overfitted(centroids.local_centroid, monkeypatch)
    assert distance < 1
    assert others < 1
    assert 0.9 < second_moment(after) / second_moment(before) < 1.1


def test_softmax_of_unit_temperature_does_not_get_there(monkeypatch):
    def unit(maps, size_wh, sigma):
        return centroids.soft_argmax(maps, size_wh, 1.0)

    before, after, distance, _ = overfitted(unit, monkeypatch)
    assert distance > 5
    assert second_moment(after) > 10 * second_moment(before)
