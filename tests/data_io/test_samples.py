"""Dots planted in pictures, followed through every view; hands; pictures decoded smaller."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.data import augment, samples
from nkjax.geometry import affine
from tests.data_io import drawn, packed

COCO17 = skeletons.load("coco17")
WHOLEBODY = skeletons.load("wholebody133")
VIEWS = (("plain", augment.PLAIN), ("weak", augment.WEAK), ("strong", augment.STRONG))


def canvases(look):
    return [np.full((look.size_wh[1], look.size_wh[0], 3), 77, np.uint8) for _ in look.views]


def dotted(size_wh, at, sigma):
    """A grey picture with a bright Gaussian dot at a fraction of a pixel."""
    x, y = np.arange(size_wh[0]), np.arange(size_wh[1])
    bell = np.exp(-((x[None] - at[0]) ** 2 + (y[:, None] - at[1]) ** 2) / (2 * sigma**2))
    return np.repeat((20 + 200 * bell).round().astype(np.uint8)[..., None], 3, 2)


def centroid(image_hwc, near, radius):
    """Weigh the pixels around a place by how much brighter than the ground they are."""
    x0, y0 = (int(v) - radius for v in near)
    window = image_hwc[y0 : y0 + 2 * radius + 1, x0 : x0 + 2 * radius + 1, 1].astype(float) - 20
    window = np.maximum(window - 4, 0)
    ys, xs = np.mgrid[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]]
    return np.array([(window * xs).sum(), (window * ys).sum()]) / window.sum()


def one_joint(at, joint=0, count=17, v=2):
    keypoints = np.zeros((count, 3), np.float32)
    keypoints[joint] = (*at, v)
    return keypoints


def make(picture, keypoints, box, look, index=0, skeleton=COCO17, seed=3, **fields):
    size_wh = picture.shape[1], picture.shape[0]
    row = packed.picture_row(packed.jpeg(picture, 98), size_wh)
    row |= packed.person_row(keypoints, box) | fields
    return samples.sample(row, index, seed, look, skeleton, ("crawl", "walk"), canvases(look))


@pytest.mark.parametrize(("picture_wh", "crop_wh"), [
    ((641, 480), (96, 128)), ((300, 417), (192, 256)), ((233, 311), (768, 1024)),
    ((900, 700), (160, 90)), ((2000, 3001), (96, 128)),
])  # fmt: skip
@pytest.mark.parametrize("index", range(4))
def test_a_planted_dot_is_where_the_matrices_say(picture_wh, crop_wh, index):
    rng = np.random.default_rng((index, *picture_wh))
    w, h = picture_wh
    box = np.array([0.2 * w, 0.15 * h, 0.5 * w, 0.6 * h])
    at = box[:2] + box[2:] * rng.uniform(0.4, 0.6, 2)
    zoom = max(crop_wh[0] / box[2], crop_wh[1] / box[3]) / 1.25
    picture = dotted(picture_wh, at, sigma=max(3.0, 3 / zoom))
    look = samples.Look(crop_wh, VIEWS)
    made = make(picture, one_joint(at, 5), box, look, index)

    assert made["from_picture"].dtype == np.float32
    dot = jnp.asarray(at, jnp.float32)[None]
    canonical = affine.transform_points(jnp.asarray(made["from_picture"]), dot)
    np.testing.assert_allclose(made["points"][5], canonical[0], atol=2e-3)
    for name, view in made["views"].items():
        assert view["from_canonical"].dtype == view["points"].dtype == np.float32
        matrix = jnp.asarray(view["from_canonical"])
        said = np.asarray(affine.transform_points(matrix, canonical))[0]
        radius = int(4 * max(3.0, 3 / zoom) * zoom * 1.4) + 2
        seen = centroid(view["image"], said, radius)
        assert np.abs(seen - said).max() < 0.1, name
        joint = 6 if view["mirrored"] else 5  # the left shoulder's place, or the right one's
        np.testing.assert_allclose(view["points"][joint], said, atol=5e-3)
        assert view["visible"].tolist() == [2 * (i == joint) for i in range(17)]
        back = affine.transform_points(affine.invert(matrix), jnp.asarray(said)[None])
        home = affine.transform_points(affine.invert(jnp.asarray(made["from_picture"])), back)
        assert np.abs(np.asarray(home)[0] - at).max() < 0.1 * max(1, 1 / zoom)


@pytest.mark.parametrize("index", range(3))
def test_in_bfloat16_the_dot_is_lost(index):
    """The negative of the test above: the same chain in bf16 is pixels away."""
    at, box = np.array([310.3, 222.7]), np.array([120.0, 60.0, 320.0, 300.0])
    look = samples.Look((768, 1024), VIEWS)
    made = make(dotted((641, 480), at, 3.0), one_joint(at, 5), box, look, index)
    view = made["views"]["strong"]
    seen = centroid(view["image"], view["points"][6 if view["mirrored"] else 5], 40)

    def chain(dtype):
        point = jnp.asarray(at, dtype)[:, None]
        for matrix in (made["from_picture"], view["from_canonical"]):
            m = jnp.asarray(matrix, dtype)
            point = m[:, :2] @ point + m[:, 2:]
        return np.asarray(point.astype(jnp.float32))[:, 0]

    assert np.abs(chain(jnp.float32) - seen).max() < 0.1
    assert np.abs(chain(jnp.bfloat16) - seen).max() > 0.5


def test_flips_come_with_swapped_joints_and_without_them_nothing_is_swapped():
    at, box = np.array([60.0, 50.0]), np.array([20.0, 10.0, 80.0, 80.0])
    picture = dotted((120, 100), at, 3.0)
    recipe = augment.Recipe(flip=0.5)
    look = samples.Look((96, 128), (("view", recipe),))
    seen = set()
    for index in range(12):
        made = make(picture, one_joint(at, 9, v=1), box, look, index)
        view = made["views"]["view"]
        seen.add(bool(view["mirrored"]))
        assert int(np.flatnonzero(view["visible"])[0]) == (10 if view["mirrored"] else 9)
        assert view["visible"].max() == 1  # an occluded joint stays occluded
        assert made["visible"][9] == 1
    assert seen == {True, False}


def hand(side, middle, size):
    """21 joints of a hand on a circle, all different, and the wrist of the body."""
    keypoints = np.zeros((133, 3), np.float32)
    turn = np.linspace(0, 2 * np.pi, 21, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1) * size / 2 + middle
    joints = WHOLEBODY.groups[f"{side}_hand"]
    keypoints[list(joints)] = np.concatenate([circle, np.full((21, 1), 2)], 1)
    wrist = WHOLEBODY.keypoints.index(f"{side}_wrist")
    keypoints[wrist] = (*circle[0], 2)
    keypoints[0] = (5, 5, 2)  # a nose, which is no business of a hand's
    return keypoints


@pytest.mark.parametrize("side", ["left", "right"])
def test_hands_are_square_crops_of_left_hands(side):
    keypoints = hand(side, (150.0, 90.0), 40.0)
    at = keypoints[WHOLEBODY.groups[f"{side}_hand"][3], :2]
    picture = dotted((240, 180), at, 2.0)
    look = samples.Look((128, 128), (("plain", augment.PLAIN), ("hand", augment.HAND)))
    made = make(picture, keypoints, (20, 20, 200, 150), look, 4, WHOLEBODY, part=f"{side}_hand")
    left = list(WHOLEBODY.groups["left_hand"])
    left_wrist = WHOLEBODY.keypoints.index("left_wrist")
    assert sorted(np.flatnonzero(made["visible"])) == sorted([*left, left_wrist])
    # 40 px of hand, padded by 1.25, across 127 px of crop; the right hand mirrored.
    matrix = made["from_picture"]
    np.testing.assert_allclose(np.abs(np.diag(matrix[:, :2])), 127 / 50, rtol=5e-3)
    assert (matrix[0, 0] < 0) == (side == "right")
    assert samples.PARTS[made["part"]] == f"{side}_hand"
    for view in made["views"].values():
        said = view["points"][left[3]]
        assert np.abs(centroid(view["image"], said, 16) - said).max() < 0.1
        assert (view["points"][left].min() > -0.5) and (view["points"][left].max() < 260)


def test_hand_views_of_either_side_look_the_same():
    """A right hand in a mirrored picture is a left hand, down to the pixels."""
    rng = np.random.default_rng(0)
    picture = np.repeat(np.repeat(rng.integers(0, 255, (30, 40, 3), np.uint8), 6, 0), 6, 1)
    left = hand("left", (150.0, 90.0), 40.0)
    right = np.zeros_like(left)
    right[list(WHOLEBODY.flip_indices)] = left
    right[:, 0] = np.where(right[:, 2] > 0, 239 - right[:, 0], 0)
    look = samples.Look((128, 128), (("hand", augment.HAND),))
    box = (20, 20, 200, 150)
    a = make(picture, left, box, look, 7, WHOLEBODY, part="left_hand")["views"]["hand"]
    b = make(picture[:, ::-1], right, box, look, 7, WHOLEBODY, part="right_hand")["views"]["hand"]
    assert (a["visible"] == b["visible"]).all() and a["visible"].sum() == 44
    np.testing.assert_allclose(a["points"], b["points"], atol=1e-3)
    # Two JPEGs of the picture, so not to the last grey level.
    assert np.abs(a["image"].astype(int) - b["image"]).mean() < 3
    assert np.abs(a["image"].astype(int) - b["image"][:, ::-1]).mean() > 10


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_large_pictures_are_decoded_smaller(monkeypatch, factor):
    used = []
    real = samples.images.decode_reduced
    monkeypatch.setattr(
        samples.images, "decode_reduced", lambda data, f: used.append(f) or real(data, f)
    )
    size = (1000, 900)
    look = samples.Look((96, 128), (("plain", augment.PLAIN),))
    # The crop: 1.25 x 128 / 1.25 x factor px become 128.
    side = 128 * factor / 1.25 * 1.02
    box = (10, 10, side * 0.6, side)
    make(np.full((size[1], size[0], 3), 90, np.uint8), one_joint((50, 50)), box, look)
    assert used == [factor]


def test_the_sharpest_view_decides_and_nothing_is_ever_enlarged(monkeypatch):
    used = []
    real = samples.images.decode_reduced
    monkeypatch.setattr(
        samples.images, "decode_reduced", lambda data, f: used.append(f) or real(data, f)
    )
    close = augment.Recipe(scale=(0.5, 0.5))
    look = samples.Look((96, 128), (("plain", augment.PLAIN), ("close", close)))
    side = 128 * 2 / 1.25 * 1.02
    make(np.full((600, 600, 3), 90, np.uint8), one_joint((50, 50)), (10, 10, 100, side), look)
    assert used == [1]


def test_the_largest_magnification_is_the_singular_value():
    rng = np.random.default_rng(0)
    for _ in range(500):
        matrix = rng.normal(size=(2, 3)) * 10 ** rng.uniform(-2, 2)
        turn = np.radians(rng.uniform(-180, 180))
        same = 3.7 * np.array([[np.cos(turn), -np.sin(turn), 5], [np.sin(turn), np.cos(turn), 6]])
        for m in (matrix, same):
            wanted = np.linalg.svd(m[:, :2], compute_uv=False)[0]
            assert samples._sharpest(m) == pytest.approx(wanted, rel=1e-6)


def test_labels_keep_all_three_visibilities_and_unlabelled_joints_have_no_place():
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[0], keypoints[1], keypoints[2] = (30, 30, 2), (40, 30, 1), (20, 30, 0)
    look = samples.Look((48, 64), (("plain", augment.PLAIN),))
    made = make(np.zeros((60, 60, 3), np.uint8), keypoints, (10, 10, 40, 40), look)
    assert made["visible"].tolist() == [2, 1] + [0] * 15
    assert (made["points"][2:] == 0).all() and (made["views"]["plain"]["points"][2:] == 0).all()


def test_a_sample_depends_on_seed_and_index_alone():
    picture, box = dotted((120, 100), (60, 50), 3.0), (20, 10, 80, 80)
    look = samples.Look((48, 64), (("view", augment.SAPIENS),))

    def matrix(seed, index):
        made = make(picture, one_joint((60, 50)), box, look, index, seed=seed)
        return made["views"]["view"]["from_canonical"].tolist()

    assert matrix(5, 3) == matrix(5, 3)
    assert matrix(5, 3) != matrix(5, 4)
    assert matrix(5, 3) != matrix(6, 3)


def test_a_blank_has_the_shapes_of_a_sample():
    look = samples.Look((48, 64), VIEWS)
    made = make(np.zeros((60, 60, 3), np.uint8), one_joint((30, 30)), (10, 10, 40, 40), look)
    empty = samples.blank({}, 0, look, COCO17, canvases(look), "why")

    def shapes(tree):
        if isinstance(tree, dict):
            return {key: shapes(value) for key, value in tree.items()}
        return "text" if isinstance(tree, str) else (np.shape(tree), np.asarray(tree).dtype)

    assert shapes(made) == shapes(empty)
    assert not empty["valid"] and made["valid"]
    assert all((view["image"] == 0).all() for view in empty["views"].values())


def test_views_of_the_recipe_against_a_formula_written_down_apart():
    """Half body, padding, shift, aspect, scale, rotation, flip: in the recipe's order."""
    look, halves = samples.Look((96, 128), (("view", augment.SAPIENS),)), 0
    for i in range(150):
        joints = drawn.person(np.random.default_rng(i), (320, 240))
        x, y, w, h = drawn.box_around(joints, (320, 240))
        made = make(np.zeros((240, 320, 3), np.uint8), joints, (x, y, w, h), look, i, seed=4)
        draw = augment.draw(np.random.default_rng((4, i, 0)), augment.SAPIENS)
        padding, known = 1.25, joints[:, 2] > 0
        upper, lower = np.flatnonzero(known[:11]), 11 + np.flatnonzero(known[11:])
        half = {"upper": upper, "lower": lower}.get(draw.half_body)
        if half is not None and known.sum() >= 9 and len(upper) >= 2 and len(lower) >= 3:
            halves += 1
            (x, y), high = joints[half, :2].min(0), joints[half, :2].max(0)
            w, h, padding = high[0] - x, high[1] - y, 1.5
        cx, cy, w, h = x + w / 2, y + h / 2, w * padding, h * padding
        cx, cy = cx + draw.shift[0] * w, cy + draw.shift[1] * h
        w, h = max(w, h * 0.75) * draw.scale, max(h, w / 0.75) * draw.scale
        turn = math.radians(draw.rotation_deg)
        dx, dy = joints[:, 0] - cx, joints[:, 1] - cy
        wanted = np.stack([
            (dx * math.cos(turn) - dy * math.sin(turn)) * 95 / w + 47.5,
            (dx * math.sin(turn) + dy * math.cos(turn)) * 127 / h + 63.5,
        ], 1)  # fmt: skip
        if draw.flip:
            wanted[:, 0] = 95 - wanted[:, 0]
            wanted, known = (a[list(COCO17.flip_indices)] for a in (wanted, known))
        view = made["views"]["view"]
        np.testing.assert_allclose(view["points"][known], wanted[known], atol=2e-3)
        assert (view["points"][~known] == 0).all()
    assert halves > 20


def test_the_facts_of_a_sample_are_the_row_s():
    look = samples.Look((48, 64), (("plain", augment.PLAIN),))
    made = make(
        np.zeros((60, 80, 3), np.uint8), one_joint((30, 30)), (10, 12, 40, 36), look, 2**32 + 7,
        age_months=np.float32(17.5), area=np.float32(812), posture="walk", grasp="radial",
        person_id="abc", picture_id="def", subject="ghi",
    )  # fmt: skip
    assert made["index"] == 7 and made["index"].dtype == np.uint32
    assert (made["age_months"], made["area"], made["posture"], made["part"]) == (17.5, 812, 1, 0)
    assert made["box"].tolist() == [10, 12, 40, 36] and made["valid"]
    assert made["who"] == {
        "person_id": "abc", "picture_id": "def", "subject": "ghi", "posture": "walk",
        "grasp": "radial", "failure": "",
    }  # fmt: skip
    # 1.25 x 40 = 50 px wide, and 36 x 1.25 = 45 high, so 66.7 high at 3:4.
    matrix = made["from_picture"]
    np.testing.assert_allclose(matrix[:, :2], [[47 / 50, 0], [0, 63 / (50 / 0.75)]], rtol=1e-5)
    np.testing.assert_allclose(matrix @ [30, 30, 1], [23.5, 31.5], atol=1e-4)
    unknown = make(np.zeros((60, 80, 3), np.uint8), one_joint((30, 30)), (10, 12, 40, 36), look,
                   posture="swimming")  # fmt: skip
    assert unknown["posture"] == -1


def test_the_box_of_a_hand_is_the_hand_s():
    look = samples.Look((64, 64), (("plain", augment.PLAIN),))
    made = make(np.zeros((180, 240, 3), np.uint8), hand("left", (150.0, 90.0), 40.0),
                (20, 20, 200, 150), look, 0, WHOLEBODY, part="left_hand")  # fmt: skip
    np.testing.assert_allclose(made["box"], (130, 70, 40, 40), atol=0.3)
