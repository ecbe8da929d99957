"""Heatmap losses by hand, and in fp32 whatever they are given.

tests/convert_weights/test_fixtures.py compares them and their gradients with the reference's.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax.losses import heatmap
from tests.losses import precision_walk


def made_up(batch=2, joints=4, dtype=np.float32):
    rng = np.random.default_rng(5)
    maps, targets = rng.normal(size=(2, batch, 6, 5, joints)).astype(dtype)
    return maps, targets, rng.choice([0.0, 0.5, 1.0], size=(batch, joints)).astype(np.float32)


def test_by_hand():
    maps = np.zeros((1, 1, 2, 3), np.float32)
    targets = np.array([[[[1, 2, 3], [0, 2, 0]]]], np.float32)
    weights = np.array([[1.0, 0.5, 0.0]], np.float32)
    # Joints: (1 + 0) x 1, (4 + 4) x .5, (9 + 0) x 0; over all 6 elements, weights or not.
    np.testing.assert_allclose(heatmap.mse(maps, targets, weights), 5 / 6, rtol=1e-6)
    # Means per joint are .5, 2 and 0.
    np.testing.assert_allclose(heatmap.hardest(maps, targets, weights, 1), 2, rtol=1e-6)
    np.testing.assert_allclose(heatmap.hardest(maps, targets, weights, 2), 1.25, rtol=1e-6)


def test_the_hardest_are_chosen_for_each_sample():
    errors = np.array([[4, 3, 2, 1], [10, 20, 30, 40]], np.float32)
    maps = np.sqrt(errors)[:, None, None] * np.ones((1, 3, 2, 1), np.float32)
    value = heatmap.hardest(maps, np.zeros_like(maps), np.ones((2, 4), np.float32), 2)
    np.testing.assert_allclose(value, (4 + 3 + 40 + 30) / 4, rtol=1e-6)


def test_all_joints_hardest_is_the_plain_loss_and_fewer_teach_fewer():
    maps, targets, weights = made_up()
    value = heatmap.hardest(maps, targets, weights, 4)
    np.testing.assert_allclose(value, heatmap.mse(maps, targets, weights), rtol=1e-6)
    gradient = jax.grad(heatmap.hardest)(maps, targets, np.ones_like(weights), 3)
    taught = np.abs(gradient).sum((1, 2)) > 0
    assert taught.sum(1).tolist() == [3, 3]


@pytest.mark.parametrize("loss", [heatmap.mse, partial(heatmap.hardest, top=3)])
def test_fp32_from_the_first_line_to_the_gradient(loss):
    maps, targets, weights = made_up()
    low = jnp.asarray(maps, jnp.bfloat16)
    assert precision_walk.faults(loss, low, targets, weights) == []
    # Among fp32 all would be promoted; targets in bf16 must be cast too.
    assert precision_walk.faults(loss, low, targets.astype(jnp.bfloat16), weights) == []
    assert loss(low, targets, weights).dtype == jnp.float32
    exact = loss(np.asarray(low, np.float32), targets, weights)
    np.testing.assert_allclose(loss(low, targets, weights), exact, rtol=1e-7)


@pytest.mark.parametrize("loss", [heatmap.mse, partial(heatmap.hardest, top=3)])
def test_without_a_labelled_joint_nothing_is_taught(loss):
    maps, targets, weights = made_up()
    value, gradient = jax.value_and_grad(loss)(maps, targets, np.zeros_like(weights))
    assert value == 0 and not np.asarray(gradient).any()


def test_readable_refusals():
    maps, targets, weights = made_up()
    with pytest.raises(ValueError, match=r"weights \(B, K\), not"):
        heatmap.mse(maps, targets, weights[:, :3])
    with pytest.raises(ValueError, match="maps and targets"):
        heatmap.mse(maps, targets[:, :3], weights)
    for top in (0, 5):
        with pytest.raises(ValueError, match=rf"the hardest {top} of 4 joints: want 1 ... 4"):
            heatmap.hardest(maps, targets, weights, top)
