"""What is drawn, against the recipes as written down and distributions worked out elsewhere."""

import json
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.data import augment
from nkjax.geometry import affine

N = 20_000
PIPELINES = Path(__file__).parents[1] / "data" / "recipes" / "pose_train_pipelines.json"
COCO17 = skeletons.load("coco17")


@pytest.fixture(scope="module")
def drawn():
    return [augment.draw(np.random.default_rng((7, i)), augment.SAPIENS) for i in range(N)]


def within(share, probability):
    """Four standard deviations of a binomial share: one false alarm in 16,000."""
    return abs(share - probability) <= 4 * (probability * (1 - probability) / N) ** 0.5


def cut_normal_cdf(x):
    """P(Z <= x) of a standard normal cut at +-1, written down from its density alone."""
    grid = np.linspace(-1, 1, 4001)
    density = np.exp(-(grid**2) / 2)
    cumulative = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(x, grid, cumulative / cumulative[-1])


def distance(values, cdf):
    """Kolmogorov-Smirnov: the largest gap between the drawn and the wanted distribution."""
    values = np.sort(values)
    wanted, ranks = cdf(values), np.arange(len(values) + 1) / len(values)
    return max(np.abs(ranks[1:] - wanted).max(), np.abs(wanted - ranks[:-1]).max())


def test_the_coins_fall_as_often_as_the_recipe_says(drawn):
    assert within(np.mean([d.flip for d in drawn]), 0.5)
    assert within(np.mean([d.half_body != "" for d in drawn]), 0.3)
    assert within(np.mean([d.half_body == "upper" for d in drawn]), 0.3 * 0.7)
    assert within(np.mean([d.shift != (0, 0) for d in drawn]), 0.3)
    assert within(np.mean([d.rotation_deg != 0 for d in drawn]), 0.6)


def test_the_sizes_are_normals_cut_at_the_bounds(drawn):
    # 1.95 / sqrt(n): one false alarm in a thousand.
    scales = np.array([d.scale for d in drawn])
    assert scales.min() >= 0.5 and scales.max() <= 1.5
    assert distance((scales - 1) / 0.5, cut_normal_cdf) < 1.95 / N**0.5
    turned = np.array([d.rotation_deg for d in drawn if d.rotation_deg])
    assert np.abs(turned).max() <= 80
    assert distance(turned / 80, cut_normal_cdf) < 1.95 / len(turned) ** 0.5
    moved = np.array([d.shift for d in drawn if d.shift != (0, 0)])
    assert np.abs(moved).max() <= 0.16
    for axis in (0, 1):
        assert distance(moved[:, axis] / 0.16, cut_normal_cdf) < 1.95 / len(moved) ** 0.5


def test_an_uncut_or_uniform_draw_would_be_noticed():
    uniform = np.random.default_rng(0).uniform(-1, 1, N)
    assert distance(uniform, cut_normal_cdf) > 1.95 / N**0.5
    normal = np.random.default_rng(0).normal(size=N)
    assert distance(normal, cut_normal_cdf) > 1.95 / N**0.5
    nd = NormalDist()
    assert distance(normal, np.vectorize(nd.cdf)) < 1.95 / N**0.5


def test_draws_are_independent_of_each_other(drawn):
    columns = np.array(
        [[d.flip, d.half_body != "", *d.shift, d.scale, d.rotation_deg] for d in drawn], float
    )
    correlation = np.corrcoef(columns.T) - np.eye(6)
    assert np.abs(correlation).max() < 4 / N**0.5


@pytest.mark.parametrize(("recipe", "scale", "rotation", "shift"), [
    (augment.WEAK, 0.05, 10, 0), (augment.STRONG, 0.25, 30, 0.05), (augment.HAND, 0.25, 90, 0.16),
])  # fmt: skip
def test_the_other_views_stay_in_their_bounds(recipe, scale, rotation, shift):
    drawn = [augment.draw(np.random.default_rng((1, i)), recipe) for i in range(2000)]
    spread = np.array([[d.scale - 1, d.rotation_deg, *d.shift] for d in drawn])
    bounds = np.array([scale, rotation, shift, shift])
    assert (np.abs(spread).max(0) <= bounds).all()
    assert (np.abs(spread).max(0) >= 0.98 * bounds).all()
    assert not any(d.half_body for d in drawn)


def test_one_generator_one_draw():
    a, b = (augment.draw(np.random.default_rng((1, 2, 3)), augment.SAPIENS) for _ in range(2))
    assert a == b
    assert a != augment.draw(np.random.default_rng((1, 2, 4)), augment.SAPIENS)


def body(labelled):
    keypoints = np.zeros((17, 3))
    for name in labelled:
        i = COCO17.keypoints.index(name)
        keypoints[i] = (10 + 7 * i, 300 - 11 * i, 1 + i % 2)
    return keypoints


ARMS = [f"{s}_{j}" for s in ("left", "right") for j in ("shoulder", "elbow", "wrist")]
LEGS = [f"{s}_{j}" for s in ("left", "right") for j in ("hip", "knee", "ankle")]


def test_half_bodies_are_boxes_of_their_joints():
    keypoints = body(ARMS + LEGS)
    # Shoulders to wrists are joints 5 ... 10, hips to ankles 11 ... 16.
    assert augment.half_body_box(keypoints, COCO17, "upper") == (45, 190, 35, 55)
    assert augment.half_body_box(keypoints, COCO17, "lower") == (87, 124, 35, 55)


def test_half_bodies_need_joints():
    assert augment.half_body_box(body(ARMS + LEGS[:2]), COCO17, "upper") is None  # 8 in all
    few_legs = body(["nose", "left_eye", *ARMS, *LEGS[:2]])
    lower = augment.half_body_box(few_legs, COCO17, "lower")
    assert lower == augment.half_body_box(few_legs, COCO17, "upper") != None  # noqa: E711
    assert augment.half_body_box(np.zeros((17, 3)), COCO17, "upper") is None


def test_a_mirrored_view_is_the_view_mirrored():
    drawn = augment.Draw(False, "", (0.1, -0.05), 0.8, 25.0)
    flipped = augment.Draw(True, "", (0.1, -0.05), 0.8, 25.0)
    args = ((300.0, 200.0), (150.0, 200.0), (120.0, 200.0), (768, 1024))
    points = np.array([[310.0, 190.0], [250.0, 260.0]])
    plain = affine.transform_points(augment.view_matrix(*args, drawn), points)
    mirrored = affine.transform_points(augment.view_matrix(*args, flipped), points)
    np.testing.assert_allclose(mirrored, [[767, 0]] + plain * [[-1, 1]], atol=1e-9)


def test_shift_scale_and_rotation_do_what_they_say():
    center, scale, extent = (300.0, 200.0), (150.0, 200.0), (120.0, 200.0)
    middle = np.array([767 / 2, 1023 / 2])

    def at(draw, point):
        matrix = augment.view_matrix(center, scale, extent, (768, 1024), draw)
        return affine.transform_points(matrix, np.array([point]))[0]

    shifted = augment.Draw(False, "", (0.1, -0.05), 1.0, 0.0)
    np.testing.assert_allclose(at(shifted, (312.0, 190.0)), middle, atol=1e-9)
    smaller = augment.Draw(False, "", (0, 0), 0.5, 0.0)
    np.testing.assert_allclose(at(smaller, (300 + 37.5, 250.0)), (767, 1023), atol=1e-9)
    turned = augment.Draw(False, "", (0, 0), 1.0, 90.0)
    # Content turns clockwise: what was to the right of the middle is below it.
    x, y = at(turned, (310.0, 200.0))
    assert abs(x - middle[0]) < 1e-6 and y > middle[1]


def test_the_reference_changes_no_default_of_what_is_drawn_here():
    """Its pose recipes name these augmentations without numbers: the defaults of notes A8 hold."""
    for pipeline in json.loads(PIPELINES.read_text()).values():
        steps = {step.pop("type"): step for step in pipeline}
        assert steps["RandomFlip"] == {"direction": "horizontal"}
        assert steps["RandomHalfBody"] == steps["RandomBBoxTransform"] == {}
    assert augment.SAPIENS == augment.Recipe(0.5, 0.3, 0.16, 0.3, (0.5, 1.5), 80.0, 0.6)
