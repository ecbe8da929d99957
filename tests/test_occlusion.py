"""What is covered, and by what, against masks counted by hand from the pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax import occlusion, views

MANY = 1000
KEYS = views.sample_keys(3, np.arange(MANY))
HEIGHT, WIDTH = 64, 48
# Joints so far apart that no disc of up to 5 px, a radius off, reaches another's.
FAR = np.array([[x, y] for y in (8, 32, 56) for x in (8, 40)], np.float32)


def plain(count, level=100.0):
    return jnp.full((count, HEIGHT, WIDTH, 3), level, jnp.float32)


def points(count):
    return jnp.tile(jnp.asarray(FAR)[None], (count, 1, 1))


def even(values, low, high):
    """Assert that draws stay in a range, reach both ends and lie around its middle."""
    values = np.asarray(values, np.float64)
    assert low <= values.min() and values.max() <= high
    margin = 0.07 * (high - low)
    assert values.min() < low + margin and values.max() > high - margin
    error = (high - low) / np.sqrt(12 * len(values))
    assert abs(values.mean() - (low + high) / 2) < 4 * error


def test_cutout_is_one_black_hole_of_the_recipe_s_size_anywhere():
    got = np.asarray(jax.jit(occlusion.cutout)(jnp.full((MANY, 100, 80, 3), 9.0), KEYS))
    assert set(np.unique(got)) == {0, 9}
    hole = (got == 0).all(-1)
    for along, size in ((hole.any(2), 100), (hole.any(1), 80)):
        length, start = along.sum(1), along.argmax(1)
        even(length + 0.5, 0.2 * size, 0.4 * size + 0.5)  # rounded down to whole px
        even(start / (size - length), 0, 1)
    # One rectangle: as many px as its rows times its columns.
    np.testing.assert_array_equal(hole.sum((1, 2)), hole.any(2).sum(1) * hole.any(1).sum(1))


def test_joint_cutout_covers_five_valid_joints_and_nothing_else():
    valid = np.random.default_rng(0).random((MANY, 6)) < 0.7
    valid[0], valid[1] = False, True
    ramp = np.broadcast_to(np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH, 1),
                           (HEIGHT, WIDTH, 3)) / 20  # fmt: skip
    pictures = jnp.tile(jnp.asarray(ramp)[None], (MANY, 1, 1, 1))
    got = np.asarray(jax.jit(occlusion.joint_cutout)(pictures, KEYS, points(MANY), valid))
    changed = (got != ramp[None]).any(-1)
    assert np.allclose(got[changed], ramp.mean(), atol=1e-2)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    away = np.hypot(x[None] - FAR[:, :1, None], y[None] - FAR[:, 1:, None])
    # Discs of 10 to 20 px at a height of 256 are of 2.5 to 5 px here.
    covered = np.array([changed[:, away_k < 2.4].all(1) for away_k in away]).T
    np.testing.assert_array_equal(covered.sum(1), np.minimum(valid.sum(1), 5))
    assert not (covered & ~valid).any() and not changed[:, (away > 5.01).all(0)].any()
    # A disc's size from its px; every joint's chance of being left out is the same.
    radius = np.sqrt(changed[:, away[2] < 8].sum(1)[covered[:, 2]] / np.pi)
    assert 2.4 < radius.min() < 2.7 and 4.6 < radius.max() < 5.1
    assert abs(radius.mean() - 3.75) < 0.15
    left_out = (~covered & (valid.sum(1) == 6)[:, None]).sum(0)
    assert left_out.sum() == (valid.sum(1) == 6).sum() and left_out.min() > 0


def test_undefined_joints_are_no_joints():
    wild = points(2).at[:, 1].set(jnp.nan).at[:, 2].set(jnp.inf)
    valid = np.array([[True, False, False, True, False, False]] * 2)
    pictures = jnp.stack([plain(1)[0], plain(1, 200.0)[0]])
    got = jax.jit(occlusion.joint_cutout)(pictures.at[:, 0, 0].set(0), KEYS[:2], wild, valid)
    assert np.isfinite(got).all()
    got, share = jax.jit(occlusion.keypoint_cutmix)(pictures, KEYS[:2], wild, valid)
    assert np.isfinite(got).all() and np.isfinite(share).all() and (share > 0).all()


def coded(count):
    """Pictures whose channels tell sample, x and y of every px."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    return jnp.asarray(np.stack([np.stack([np.full_like(x, b), x, y], -1) for b in range(count)]))


@pytest.mark.parametrize("count", [2, 60])
def test_keypoint_cutmix_pastes_what_is_around_a_joint_of_the_next_sample(count):
    rng = np.random.default_rng(1)
    joints = rng.uniform([0, 0], [WIDTH - 1, HEIGHT - 1], (count, 6, 2)).astype(np.float32)
    valid = rng.random((count, 6)) < 0.5
    valid[:2, 0] = True
    pictures = coded(count)
    got, share = jax.jit(occlusion.keypoint_cutmix)(pictures, KEYS[:count], joints, valid)
    got, before = np.asarray(got), np.asarray(pictures)
    for b in range(count):
        following = (b + 1) % count
        pasted = got[b, ..., 0] != b
        assert set(np.unique(got[b, ..., 0])) <= {b, following}  # only ever of the next sample
        assert pasted.any() == (valid[b].any() and valid[following].any())
        np.testing.assert_array_equal(got[b][~pasted], before[b][~pasted])
        rows, columns = np.nonzero(pasted)
        at, source = np.stack([columns, rows], -1), got[b][pasted][:, 1:]
        for here, known in (
            (at, joints[b][valid[b]]),
            (source, joints[following][valid[following]]),
        ):
            if pasted.any():
                away = np.linalg.norm(here[:, None] - known[None], axis=-1).min(1)
                # Discs of 5 px at most, their middles at most 5 px off in x and y. A window moved
                # inside the picture moves the source by half its side, 5 px, each way.
                assert away.max() <= 5 + 5 * np.sqrt(2) + 0.8
        known = joints[b][valid[b]]
        if not len(known):
            assert share[b] == 0
            continue
        (x1, y1), (x2, y2) = np.floor(known.min(0)).astype(int), np.ceil(known.max(0)).astype(int)
        box = pasted[y1 : y2 + 1, x1 : x2 + 1]
        assert share[b] == pytest.approx(box.mean(), abs=1e-6)


def test_keypoint_cutmix_draws_two_patches_of_the_stated_size_off_the_joint():
    pictures = jnp.asarray(np.arange(MANY) % 2, jnp.float32)[:, None, None, None] + jnp.zeros(
        (1, HEIGHT, WIDTH, 3)
    )
    everyone = jnp.ones((MANY, 6), bool)
    got, _ = jax.jit(occlusion.keypoint_cutmix)(pictures, KEYS, points(MANY), everyone)
    pasted = np.asarray((got != pictures).any(-1))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    nearest = np.argmin(np.hypot(x[None] - FAR[:, :1, None], y[None] - FAR[:, 1:, None]), 0)
    area = np.stack([(pasted & (nearest == k)[None]).sum((1, 2)) for k in range(6)], 1)
    np.testing.assert_array_equal((area > 0).sum(1), 2)
    chances = (area > 0).mean(0)
    assert np.abs(chances - 2 / 6).max() < 4 * np.sqrt(2 / 9 / MANY)
    # Joint 2 is far from all edges but the left, where a disc may be cut.
    sizes = np.sqrt(area[:, 2][area[:, 2] > 0] / np.pi)
    assert 2.3 <= sizes.min() < 2.7 and 4.7 < sizes.max() <= 5.1
    # Neighbours are of the other level, so the pasted px have a middle: it scatters evenly.
    moved = [np.argwhere(p & (nearest == 2)).mean(0)[0] - 32 for p in pasted[area[:, 2] > 0]]
    assert abs(np.mean(moved)) < 0.6 and 4 < np.max(np.abs(moved)) <= 5.6


def test_a_batch_of_one_never_gets_itself():
    one, valid = coded(1), jnp.ones((1, 6), bool)
    for mix in (occlusion.keypoint_cutmix, occlusion.cutmix):
        got, share = mix(one, KEYS[:1], points(1), valid)
        np.testing.assert_array_equal(got, one)
        np.testing.assert_array_equal(share, [0])


def test_cutmix_takes_the_same_rectangle_of_the_next_sample():
    pictures, valid = coded(50), np.ones((50, 6), bool)
    valid[3] = False
    got, share = jax.jit(occlusion.cutmix)(pictures, KEYS[:50], points(50), valid)
    for b in range(50):
        replaced = np.asarray(got[b, ..., 0] == (b + 1) % 50)
        assert (np.asarray(got[b, ..., 0])[~replaced] == b).all()
        np.testing.assert_array_equal(got[b, ..., 1:], pictures[b, ..., 1:])
        assert 0.19 * 0.19 < replaced.mean() < 0.41 * 0.41
        want = replaced[8:57, 8:41].mean() if b != 3 else 0
        assert share[b] == pytest.approx(want, abs=1e-6)


def test_discs_grow_with_the_crop():
    for height, low, high in ((256, 10, 20), (1024, 40, 80)):
        pictures = jnp.zeros((4, height, height * 3 // 4, 3)).at[:, 0, 0].set(255.0)
        middle = jnp.full((4, 1, 2), height / 2 - height / 16)
        got = occlusion.joint_cutout(pictures, KEYS[:4], middle, jnp.ones((4, 1), bool), joints=1)
        radius = np.sqrt((np.asarray(got) != np.asarray(pictures)).any(-1).sum((1, 2)) / np.pi)
        assert (radius > low - 1).all() and (radius < high + 1).all()
