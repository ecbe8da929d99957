"""What the device does to a batch, against the reference, planted dots and numbers by hand."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from nkjax import skeleton, views
from nkjax.geometry import affine

GOLDEN = np.load(Path(__file__).parent / "data" / "fixtures" / "tiny_pose.npz")
COCO = skeleton.load("coco17")
HEIGHT, WIDTH, BATCH = 64, 48, 8
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (BATCH, HEIGHT, WIDTH, 3), np.uint8)
POINTS = RNG.uniform(4, [WIDTH - 5, HEIGHT - 5], (BATCH, 17, 2)).astype(np.float32)
VALID = RNG.random((BATCH, 17)) < 0.8


def keys(count, seed=0):
    return views.sample_keys(seed, np.arange(count))


def test_normalise_is_the_reference_s():
    rgb = GOLDEN["image_bgr_u8"][:1, :32, :32, ::-1]
    wanted = GOLDEN["input_sample0_crop32"].transpose(0, 2, 3, 1)
    got = views.normalise(rgb)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_keys_depend_on_seed_and_index_alone():
    some = jax.random.key_data(views.sample_keys(5, np.array([9, 2, 7], np.uint32)))
    many = jax.random.key_data(views.sample_keys(5, np.arange(10, dtype=np.int32)))
    np.testing.assert_array_equal(some, many[np.array([9, 2, 7])])
    other = jax.random.key_data(views.sample_keys(6, np.arange(10)))
    assert len({tuple(k) for k in np.concatenate([many, other]).tolist()}) == 20
    # The first key by hand: fold_in of the seed's key.
    want = jax.random.fold_in(jax.random.key(5, impl="threefry2x32"), 2)
    np.testing.assert_array_equal(many[2], jax.random.key_data(want))
    for bad in (np.zeros(3, np.float32), np.zeros(3, np.int8)):
        with pytest.raises(ValueError, match="int32 or uint32"):
            views.sample_keys(0, bad)


def test_the_same_seed_gives_the_same_view_wherever_a_sample_lies():
    recipe = jax.jit(views.recipe)
    whole = np.asarray(recipe(PICTURES, keys(BATCH)))
    np.testing.assert_array_equal(recipe(PICTURES, keys(BATCH)), whole)
    order = np.array([5, 1, 6])
    # Another batch size is another program, which may round the last bit differently.
    np.testing.assert_allclose(recipe(PICTURES[order], keys(BATCH)[order]), whole[order], atol=1e-4)
    assert (np.asarray(recipe(PICTURES, keys(BATCH, seed=1))) != whole).any((1, 2, 3)).all()


def test_sharding_a_batch_changes_no_view():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    batch = (PICTURES, keys(BATCH), POINTS, VALID)
    apart = jax.device_put(batch, split)
    recipe, strong = jax.jit(views.recipe), jax.jit(views.strong)
    np.testing.assert_allclose(recipe(*apart[:2]), recipe(*batch[:2]), atol=1e-4)
    for got, want in zip(strong(*apart), strong(*batch), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_the_recipe_leaves_one_hole_in_every_sample():
    got = np.asarray(jax.jit(views.recipe)(np.full((64, 50, 40, 3), 128, np.uint8), keys(64)))
    assert got.dtype == np.float32 and got.min() >= 0 and got.max() <= 255
    hole = (got == 0).all(-1)
    assert (hole.sum((1, 2)) >= 0.19 * 0.19 * 2000).all()
    assert (hole.sum((1, 2)) <= 0.41 * 0.41 * 2000).all()
    assert len(np.unique(got[~hole].round(1), axis=0)) > 30  # and colours differ


@pytest.mark.parametrize("view", ["recipe", "strong"])
def test_a_fifth_of_the_views_is_blurred(view):
    count = 256
    # Stripes of one pixel on the right; their two levels again, broad, on the left.
    picture = np.zeros((count, 32, 48, 3), np.uint8)
    picture[:, :, :12] = picture[:, :, 24::2] = 200
    points, nobody = np.zeros((count, 1, 2), np.float32), np.zeros((count, 1), bool)
    if view == "recipe":
        got = np.asarray(jax.jit(views.recipe)(picture, keys(count)))
    else:
        got = np.asarray(jax.jit(views.strong)(picture, keys(count), points, nobody)[0])
    fine = np.median(np.abs(np.diff(got[:, :, 28:44], axis=2)).max(-1), (1, 2))
    broad = np.abs(np.median(got[:, :, 4:8], (1, 2)) - np.median(got[:, :, 16:20], (1, 2))).max(-1)
    told = broad > 20  # holes cover some
    blurred = fine[told] < 0.6 * broad[told]
    assert told.mean() > 0.6
    assert abs(blurred.mean() - 0.2) < 4 * np.sqrt(0.16 / told.sum())


def test_joints_outside_the_crop_are_neither_covered_nor_copied():
    picture = np.full((64, HEIGHT, WIDTH, 3), 100, np.uint8)
    picture[::2] = 30
    outside = np.tile(np.array([[[-40, 5], [WIDTH + 9, 10]]], np.float32), (64, 1, 1))
    valid = np.ones((64, 2), bool)
    arguments = picture, keys(64), outside
    with_joints = views.strong(*arguments, valid)
    without = views.strong(*arguments, np.zeros_like(valid))
    for got, wanted in zip(with_joints, without, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_strong_view_is_one_of_the_mixes_and_all_come_up():
    count = 2000
    kinds = np.asarray(views.draw_mix(keys(count)))
    chances = np.bincount(kinds, minlength=4) / count
    assert len(chances) == 4 and np.abs(chances - 0.25).max() < 4 * np.sqrt(0.1875 / count)


def strong_on_levels(count=96):
    """Strong views of level pictures with a stripe on the right; every fifth has no joints."""
    levels = np.where(np.arange(count) % 2, 60, 130)  # no distortion clips these
    pictures = np.tile(levels[:, None, None, None], (1, HEIGHT, WIDTH, 3)).astype(np.uint8)
    pictures[:, :, 42:] -= 50
    corners = np.array([[[10, 10], [28, 10], [10, 54], [28, 54]]], np.float32)
    valid = np.ones((count, 4), bool)
    valid[::5] = False
    got, share = jax.jit(views.strong)(
        pictures, keys(count), np.tile(corners, (count, 1, 1)), valid
    )
    return np.asarray(got)[:, :, :38], np.asarray(share), valid.any(1)  # no blur of the stripe


def test_each_mix_does_what_its_name_says():
    got, share, known = strong_on_levels()
    kinds = np.asarray(views.draw_mix(views._split(keys(len(got)), 7)[2]))
    seen, both = set(), []
    for b, (picture, kind) in enumerate(zip(got, kinds, strict=True)):
        levels, counts = np.unique(picture.reshape(-1, 3).round(2), axis=0, return_counts=True)
        base = levels[counts.argmax()]
        foreign = (np.abs(picture - base) > 0.02).any(-1)
        black = (picture == 0).all(-1)
        seen.add((kind, bool(known[b])))
        if kind == 0:
            assert foreign.any() == known[b] and not black.any() and share[b] == 0
            if known[b]:  # all discs are of one colour
                assert len(np.unique(picture[foreign].round(2), axis=0)) == 1
        elif kind in (1, 2):
            pasted = (foreign & ~black).any()
            assert pasted == (known[b] and known[(b + 1) % len(got)])
            assert black.any() == (kind == 2)
        else:
            assert foreign.any() and not black.any()
            colours = np.unique(picture[foreign].round(2), axis=0)
            # The rectangle of the next sample; and discs, where joints are known.
            assert len(colours) == 1 or known[b]
            both.append(len(colours) > 1)
        assert (share[b] > 0) <= (kind > 0 and known[b]) and share[b] <= 1
    assert len(seen) == 8 and (share > 0).sum() > 20
    assert np.mean(both) > 0.3


def test_a_mixed_person_is_told_by_the_share():
    picture = np.full((40, HEIGHT, WIDTH, 3), 100, np.uint8)
    middle = np.array([[[20, 30], [24, 34]]], np.float32)  # a person of 5 x 5 px
    valid = np.ones((40, 2), bool)
    _, share = jax.jit(views.strong)(picture, keys(40), np.tile(middle, (40, 1, 1)), valid)
    kinds = np.asarray(views.draw_mix(views._split(keys(40), 7)[2]))
    assert (share[kinds == 0] == 0).all()
    assert (np.asarray(share)[kinds == 1] > 0).all()
    assert 0 < (np.asarray(share) > views.MOST_REPLACED).mean() < 1


def spots(points_bk2):
    """Pictures whose channel k shows a spot around joint k."""
    pictures = np.zeros((len(points_bk2), HEIGHT, WIDTH, 17), np.float32)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for b, points in enumerate(points_bk2):
        for k, (px, py) in enumerate(points):
            pictures[b, ..., k] = np.exp(-((x - px) ** 2 + (y - py) ** 2) / 4)
    return pictures


def read(pictures):
    """The middle of what each channel shows, px."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mass = pictures.sum((1, 2))
    return np.stack([(pictures * axis[None, ..., None]).sum((1, 2)) / mass for axis in (x, y)], -1)


def test_a_planted_dot_is_where_the_flipped_points_and_matrices_say():
    centers, scales = np.full((BATCH, 2), 100.0), RNG.uniform(60, 90, (BATCH, 2))
    matrices = affine.udp_matrix(centers, scales, RNG.uniform(-40, 40, BATCH), (WIDTH, HEIGHT))
    mirrored = np.arange(BATCH) % 2 == 0
    visible = RNG.integers(0, 3, (BATCH, 17)).astype(np.uint8)
    inside = RNG.uniform(12, [WIDTH - 13, HEIGHT - 13], (BATCH, 17, 2)).astype(np.float32)
    in_picture = affine.transform_points(affine.invert(matrices), inside)
    args = (inside, visible, matrices.astype(np.float32), mirrored)
    flip = jax.jit(lambda *a: views.flip(*a, COCO.flip_indices))
    got, points, seen, leads = map(np.asarray, flip(spots(inside), *args))
    at = read(got)
    swap = np.array(COCO.flip_indices)
    for b in range(BATCH):
        # Channel k still shows the dot of the joint once called k: it is now its partner.
        want = points[b][swap] if mirrored[b] else points[b]
        np.testing.assert_allclose(at[b], want, atol=0.02)
        np.testing.assert_array_equal(seen[b], visible[b][swap] if mirrored[b] else visible[b])
        # The matrix takes the joint in the picture to its dot.
        np.testing.assert_allclose(
            affine.transform_points(leads[b].astype(np.float64), in_picture[b]), at[b], atol=0.02
        )
    twice = flip(got, points, seen, leads, mirrored)
    for array, want in zip(twice, (spots(inside), *args[:3]), strict=True):
        np.testing.assert_allclose(array, want, atol=1e-4)


def test_points_below_fp32_and_bad_pairs_are_refused():
    matrices = np.zeros((BATCH, 2, 3), np.float32)
    mirrored, half = np.ones(BATCH, bool), jnp.asarray(POINTS, jnp.bfloat16)
    with pytest.raises(ValueError, match="points must be fp32, not bfloat16"):
        views.flip(PICTURES, half, VALID, matrices, mirrored, COCO.flip_indices)
    with pytest.raises(ValueError, match="matrices must be fp32, not float16"):
        views.flip(PICTURES, POINTS, VALID, matrices.astype(np.float16), mirrored, range(17))
    with pytest.raises(ValueError, match="points must be fp32"):
        views.targets(half, VALID, COCO.joint_weights, (WIDTH, HEIGHT), (12, 16), 1.0)
    with pytest.raises(ValueError, match="points must be fp32"):
        views.strong(PICTURES, keys(BATCH), half, VALID)
    for bad in (range(16), [0] * 17, [1, 2, 0, *range(3, 17)]):
        with pytest.raises(ValueError, match="flip_indices must pair each of the 17"):
            views.flip(PICTURES, POINTS, VALID, matrices, mirrored, bad)


def test_targets_stand_at_the_joints_and_weigh_what_they_should():
    # By hand: a crop of 49 x 65 px on maps of 13 x 17 px has a stride of 4 px.
    points = np.array([[[8, 32], [9, 32], [48, 64], [20, 20], [200, 20]]], np.float32)
    visibility = np.array([[2, 1, 2, 0, 2]])
    weights = [1.0, 1.5, 2.0, 1.0, 1.0]
    maps, got = views.targets(points, visibility, weights, (49, 65), (13, 17), 1.0)
    assert maps.shape == (1, 17, 13, 5) and maps.dtype == got.dtype == np.float32
    np.testing.assert_array_equal(got, [[1, 1.5, 2, 0, 0]])
    assert maps[0, 8, 2, 0] == 1 and maps[0, 16, 12, 2] == 1 and not maps[..., 3:].any()
    # A quarter of a map px further left than the peak of joint 1.
    np.testing.assert_allclose(maps[0, 8, 2, 1], np.exp(-(0.25**2) / 2), rtol=1e-6)
    _, got = views.targets(points, visibility, weights, (49, 65), (13, 17), 1.0, 0.5)
    np.testing.assert_array_equal(got, [[1, 0.75, 2, 0, 0]])
