"""A person's scale and the usual lengths of bones, from values that were planted."""

import jax
import numpy as np
import pytest

from nkjax.kinematics import scale

USUAL = np.log([1.0, 0.8, 1.2, 1.1, 1.5, 1.0, 0.8, 1.2, 1.1, 1.5, 0.7, 0.5])


def planted(count, seed):
    """Return log lengths (N, 12) of bones that point anywhere, and log scales (N,)."""
    draw = np.random.default_rng(seed)
    scales = draw.normal(4, 0.5, count)
    # A direction that is uniform on the sphere has a depth that is uniform.
    shorter = 0.5 * np.log(1 - draw.uniform(0, 0.999, (count, 12)) ** 2)
    return scales[:, None] + USUAL[None] + shorter, scales


def test_a_person_twice_as_large_has_log_2_more_and_equal_relative_lengths():
    logs, _ = planted(100, 0)
    usual = scale.usual_lengths(logs)
    one, two = scale.person_scale(logs, usual), scale.person_scale(logs + np.log(2), usual)
    np.testing.assert_allclose(two - one, np.log(2), rtol=1e-6)


def test_usual_lengths_are_the_planted_ratios_where_nothing_is_foreshortened():
    scales = np.random.default_rng(1).normal(size=200)
    found = scale.usual_lengths(scales[:, None] + USUAL[None])
    np.testing.assert_allclose(found, USUAL - USUAL.mean(), atol=1e-12)


def test_usual_lengths_are_within_3_percent_of_the_planted_ratios_seen_from_anywhere():
    logs, _ = planted(4000, 2)
    found = scale.usual_lengths(logs)
    np.testing.assert_allclose(found, USUAL - USUAL.mean(), atol=0.03)


def test_scale_follows_the_planted_one_closely():
    logs, scales = planted(2000, 3)
    error = scale.person_scale(logs, scale.usual_lengths(logs)) - scales
    assert np.std(error) < 0.12  # the mean of the bones, foreshortened as they are, has 0.16
    mean_error = (logs - USUAL[None]).mean(1) - scales
    assert np.std(error) < 0.8 * np.std(mean_error)


def test_a_bone_stretched_1_8_times_hardly_moves_the_scale():
    logs, _ = planted(2000, 4)
    usual = scale.usual_lengths(logs)
    before = scale.person_scale(logs, usual)
    for bone in range(12):
        stretched = logs.copy()
        stretched[:, bone] += np.log(1.8)
        moved = scale.person_scale(stretched, usual) - before
        assert np.median(moved) < 0.03 and np.quantile(moved, 0.95) < 0.12


def test_too_few_bones_give_no_scale():
    logs = np.repeat(np.zeros((1, 12)), 2, 0)
    logs[0, 5:] = logs[1, 4:] = np.nan
    found = scale.person_scale(logs, np.zeros(12))
    assert found[0] == 0 and np.isnan(found[1])


def test_bones_without_a_usual_length_do_not_count():
    logs = np.random.default_rng(5).normal(size=(9, 12))
    usual = np.where(np.arange(12) < 6, 0.3, np.nan)
    found = scale.person_scale(logs, usual)
    np.testing.assert_allclose(found, np.quantile(logs[:, :6] - 0.3, 0.75, axis=1))


def test_a_bone_that_nobody_has_is_nan_and_changes_no_bit_of_the_others():
    logs, _ = planted(300, 6)
    more = np.concatenate([logs, np.full((300, 1), np.nan)], 1)
    found = scale.usual_lengths(more)
    assert np.isnan(found[12])
    np.testing.assert_array_equal(found[:12], scale.usual_lengths(logs))
    assert np.isnan(scale.usual_lengths(np.full((4, 3), np.nan))).all()


def test_jit_gives_the_same():
    logs, _ = planted(50, 7)
    logs = np.where(np.random.default_rng(8).random(logs.shape) < 0.4, np.nan, logs)
    ours = scale.person_scale(logs.astype(np.float32), USUAL.astype(np.float32))
    compiled = jax.jit(scale.person_scale)(logs.astype(np.float32), USUAL.astype(np.float32))
    np.testing.assert_allclose(ours, compiled, rtol=1e-6)
    assert compiled.dtype == np.float32


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_anybody_is_no_error(count):
    logs, _ = planted(count, 9)
    assert scale.usual_lengths(logs).shape == (12,)
    assert scale.person_scale(logs, USUAL).shape == (count,)
