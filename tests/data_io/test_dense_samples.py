"""Labels of every pixel go where their picture goes: through crops, mirrors and borders.

The person is a ball, painted by what it is: red all over, with a blue left and a green right hand.
What its label must be at any place of any view follows from where its centre is seen.
"""

import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.data import augment, dense_labels, images, samples, streams
from nkjax.geometry import affine
from tests.data_io import packed

COCO17 = skeletons.load("coco17")
SIZE_WH, CENTRE, RADIUS, HAND = (300, 260), np.array([141.3, 118.7]), 80.0, 14.0
LEFT, RIGHT = np.array([175.0, 130.0]), np.array([105.0, 140.0])  # px; the person faces the camera
LEFT_WRIST, RIGHT_WRIST, LEFT_HAND, RIGHT_HAND, TORSO = 9, 10, 5, 14, 21
VIEWS = (("plain", augment.PLAIN), ("moved", augment.DENSE), ("again", augment.DENSE))
LOOK = samples.Look((96, 128), VIEWS)


def disc(at, radius):
    ys, xs = np.mgrid[: SIZE_WH[1], : SIZE_WH[0]]
    return np.hypot(xs - at[0], ys - at[1]) <= radius


def row(task, box=None):
    """A row of the ball, with the label of a task as `dense_labels` has it."""
    ball, left, right = disc(CENTRE, RADIUS), disc(LEFT, HAND), disc(RIGHT, HAND)
    picture = np.full((SIZE_WH[1], SIZE_WH[0], 3), 20, np.uint8)
    for where, colour in ((ball, (220, 30, 30)), (left, (30, 30, 220)), (right, (30, 220, 30))):
        picture[where] = colour
    ys, xs = np.mgrid[: SIZE_WH[1], : SIZE_WH[0]]
    out = np.stack([xs - CENTRE[0], -(ys - CENTRE[1])], -1) / RADIUS
    towards = np.sqrt(np.maximum(1 - (out**2).sum(-1), 0))[..., None]
    label = {
        "depth": np.where(ball, 1 - towards[..., 0], -1).astype(np.float32),
        "normal": np.where(ball[..., None], np.concatenate([out, towards], -1), -1000),
        "seg": np.select([left, right, ball], [LEFT_HAND, RIGHT_HAND, TORSO], 0).astype(np.uint8),
    }[task]
    joints = np.zeros((17, 3), np.float32)
    joints[LEFT_WRIST], joints[RIGHT_WRIST] = (*LEFT, 2), (*RIGHT, 2)
    box = [*(CENTRE - RADIUS), 2 * RADIUS, 2 * RADIUS] if box is None else box
    dense = label.astype(np.float32) if task == "normal" else label
    return (
        packed.picture_row(packed.jpeg(picture, 98), SIZE_WH)
        | packed.person_row(joints, box)
        | {"task": task, "dense": dense}
    )


def make(the_row, index, look=LOOK, seed=3):
    canvases = [np.zeros((look.size_wh[1], look.size_wh[0], 3), np.uint8) for _ in look.views]
    return samples.sample(the_row, index, seed, look, COCO17, (), canvases)


def views(task, count=8, **fields):
    """Views of many draws, each with the matrix from picture px to its px."""
    for index in range(count):
        made = make(row(task, **fields), index)
        for view in made["views"].values():
            yield view, affine.compose(view["from_canonical"], made["from_picture"])


def seen_in(matrix):
    """Return the picture px that each pixel of a view shows."""
    ys, xs = np.mgrid[: LOOK.size_wh[1], : LOOK.size_wh[0]]
    pixels = np.stack([xs, ys], -1).reshape(-1, 2)
    at = affine.transform_points(affine.invert(matrix), pixels)
    return np.asarray(at).reshape(*xs.shape, 2)


def test_both_ways_are_drawn():
    drawn = [view["mirrored"] for view, _ in views("seg")]
    assert 4 <= sum(drawn) <= len(drawn) - 4


@pytest.mark.parametrize("task", dense_labels.KINDS)
def test_silhouettes_of_label_and_picture_lie_on_each_other(task):
    for view, matrix in views(task):
        label, image = view["label"], view["image"].astype(int)
        assert label.shape[:2] == image.shape[:2] and label.dtype == row(task)["dense"].dtype
        known = {"depth": label > -1, "seg": (label > 0) & (label < 255)}.get(task)
        known = (label > -100).all(-1) if known is None else known
        shown = image.max(-1) > 120
        ys, xs = np.nonzero(known)
        zoom = abs(matrix[0, 0])
        for found, expected in ((xs, np.nonzero(shown)[1]), (ys, np.nonzero(shown)[0])):
            assert abs(found.mean() - expected.mean()) < 0.15
        assert (known != shown).mean() < 0.02
        inside = np.hypot(*(seen_in(matrix) - CENTRE).T).T < RADIUS - 1 / zoom
        assert known[inside].all()


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_mirrored_persons_left_hand_is_the_one_that_seems_so(mirrored):
    found = [view for view, _ in views("seg", 12) if view["mirrored"] == mirrored]
    assert len(found) >= 5
    for view in found:
        # In the picture the left hand is blue; whoever sees it mirrored takes it for the right one.
        colours = {LEFT_HAND: 2, RIGHT_HAND: 1}
        if mirrored:
            colours = {RIGHT_HAND: 2, LEFT_HAND: 1}
        for part, channel in colours.items():
            where = view["label"] == part
            assert where.sum() > 20
            assert np.median(view["image"][where][:, channel]) > 180
        for joint, part in ((LEFT_WRIST, LEFT_HAND), (RIGHT_WRIST, RIGHT_HAND)):
            x, y = view["points"][joint].round().astype(int)
            assert view["label"][y, x] == part


def test_normals_point_out_of_the_ball_in_every_view():
    for view, matrix in views("normal"):
        known = (view["label"] > -100).all(-1)
        centre = affine.transform_points(matrix, CENTRE[None])[0]
        ys, xs = np.nonzero(known)
        zoom = abs(matrix[0, 0])
        x, y, z = view["label"][known].T
        # As seen in the view: right of its middle they point right, above it up, all to the camera.
        np.testing.assert_allclose(
            x, (xs - centre[0]) / zoom / RADIUS, atol=0.6 / RADIUS / zoom + 0.01
        )
        np.testing.assert_allclose(
            y, (centre[1] - ys) / zoom / RADIUS, atol=0.6 / RADIUS / zoom + 0.01
        )
        assert (z >= 0).all()
        assert (view["label"][~known] == -1000).all()


def test_depth_is_carried_over_as_it_is():
    for view, matrix in views("depth"):
        label = view["label"]
        away = np.hypot(*(seen_in(matrix) - CENTRE).T).T / RADIUS
        inside = away < 0.9
        expected = 1 - np.sqrt(1 - away[inside] ** 2)
        np.testing.assert_allclose(label[inside], expected, atol=0.05)
        assert label[inside].min() < 0.02 and (label[away > 1.1] == -1).all()


@pytest.mark.parametrize(("task", "nothing"), [("depth", -1), ("normal", -1000), ("seg", 255)])
def test_beyond_the_picture_nothing_is_known(task, nothing):
    outside_seen = 0
    for view, matrix in views(task, box=[100.0, 20.0, 250.0, 240.0]):
        at = seen_in(matrix)
        beyond = ((at < -0.6) | (at > np.array(SIZE_WH) - 0.4)).any(-1)
        within = ((at > 0) & (at < np.array(SIZE_WH) - 1)).all(-1)
        outside_seen += beyond.sum()
        assert (view["label"][beyond] == nothing).all()
        if task == "seg":
            assert (view["label"][within] < 28).all()
    assert outside_seen > 1000


def test_nearest_neighbour_by_hand():
    rng = np.random.default_rng(0)
    for dtype, shape in ((np.uint8, (31, 23)), (np.float32, (31, 23, 3))):
        label = (rng.uniform(0, 200, shape)).astype(dtype)
        matrix = np.array([[1.37, 0.21, -3.3], [-0.17, 0.83, 4.1]])
        ours = images.warp_nearest(label, matrix, (40, 36), 7)
        ys, xs = np.mgrid[:36, :40]
        at = affine.transform_points(affine.invert(matrix), np.stack([xs, ys], -1).reshape(-1, 2))
        clear = (np.abs(at % 1 - 0.5) > 2e-3).all(-1)  # not half way between two px
        x, y = at.round().astype(int).T
        inside = (x >= 0) & (x < 23) & (y >= 0) & (y < 31)
        expected = np.full((36 * 40, *shape[2:]), 7, dtype)
        expected[inside] = label[y[inside], x[inside]]
        assert ours.dtype == dtype and clear.mean() > 0.9
        np.testing.assert_array_equal(ours.reshape(expected.shape)[clear], expected[clear])


def test_pairs_of_parts_are_the_references():
    # notes sapiens, seg_classes.json: flip_label_swaps.
    pairs = ((4, 13), (5, 14), (6, 15), (7, 16), (8, 17), (9, 18), (10, 19), (11, 20))
    assert dense_labels.PART_PAIRS == pairs
    others = set(range(256)) - {i for pair in pairs for i in pair}
    assert all(dense_labels.MIRRORED_PARTS[i] == i for i in others)
    assert all(dense_labels.MIRRORED_PARTS[[a, b]].tolist() == [b, a] for a, b in pairs)


def test_rows_without_a_label_are_as_before():
    """The label changes nothing else, and no row gets one unasked."""
    with_label = row("seg")
    without = {key: with_label[key] for key in with_label.keys() - {"task", "dense"}}
    made, plain = make(with_label, 5), make(without, 5)
    for name, view in plain["views"].items():
        assert made["views"][name].keys() - view.keys() == {"label"}
        for key, value in view.items():
            np.testing.assert_array_equal(made["views"][name][key], value)
    assert made.keys() == plain.keys()


class Balls:
    """Rows of which one cannot be read and one has a picture that cannot be decoded."""

    def __init__(self, task):
        self.task = task
        content = {"postures": [], "task": task}
        self.manifest = type("Manifest", (), {"skeleton": COCO17, "content": content})

    def __len__(self):
        return 5

    def __getitem__(self, number):
        if number == 1:
            raise OSError("cannot be read")
        return row(self.task) | ({"image": b"none"} if number == 2 else {})


@pytest.mark.parametrize(("task", "nothing"), [("depth", -1), ("normal", -1000), ("seg", 255)])
def test_rows_that_fail_and_rows_that_fill_up_have_labels_that_say_nothing(task, nothing):
    batches = list(streams.finite(streams.Stream(Balls(task), LOOK, 3), threads=2))
    assert [batch["valid"].tolist() for batch in batches] == [
        [True, False, False],
        [True] * 2 + [False],
    ]
    first, second = (batch["views"]["moved"]["label"] for batch in batches)
    assert first.shape == (3, 128, 96, *((3,) if task == "normal" else ()))
    assert (first[1:] == nothing).all() and (second[2] == nothing).all()
    assert (first[0] != nothing).any() and first.dtype == row(task)["dense"].dtype


def test_a_label_of_another_task_is_refused():
    with pytest.raises(ValueError, match="a label of normal is .* not float32"):
        make(row("depth") | {"task": "normal"}, 0)
    with pytest.raises(ValueError, match="a label of seg is .* not float32"):
        make(row("depth") | {"task": "seg"}, 0)
