"""The prior's pictures: which there are, what is drawn in them, what their histograms count."""

import functools
import struct

import jax
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from nkjax import skeleton as skeletons
from nkjax.evaluate import prior_denoising
from nkjax.evaluate import prior_drawings as drawings
from nkjax.evaluate import prior_histograms as histograms
from nkjax.evaluate import prior_pictures as pictures
from nkjax.evaluate import prior_scenes as scenes
from nkjax.models import denoiser
from nkjax.prior import coordinates, diffusion, saved
from nkjax.prior.gaussian import Gaussian
from tests.prior import small_prior

COCO, SIM, LAB = small_prior.SKELETONS.values()
BODY = coordinates.parts(COCO)["body"]
SAMPLES = 60
ALWAYS = {"samples_body.png", "denoising.png", "completion.png", "bones.png", "angles.png"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(pictures, "SAMPLES", SAMPLES)
    monkeypatch.setattr(pictures, "STEPS", 2)
    monkeypatch.setattr(scenes, "STEPS", 2)


@functools.cache
def prior_of(skeleton):
    parts = {name: random_prior(part) for name, part in coordinates.parts(skeleton).items()}
    return saved.Prior(skeleton, parts, {}, {})


def random_prior(part):
    """A prior whose samples lie about random places, its network of random numbers."""
    rng, numbers = np.random.default_rng(0), 2 * len(part.joints)
    about = Gaussian(np.float32(rng.normal(size=numbers)), 30 * np.eye(numbers, dtype=np.float32))
    spec = denoiser.Spec(len(part.joints), coordinates.CONTEXT, 8, 1, 2)
    params = jax.jit(denoiser.init, static_argnums=1)(jax.random.key(0), spec)
    params["out"]["kernel"] = np.float32(0.3 * rng.normal(size=(8, 2)))
    return diffusion.PartPrior(part, coordinates.Units(1.0, 0.3, (0.0, 1.0)), spec, about, params)


def people_of(skeleton, count=150):
    return small_prior.people(skeleton, count, missing=0.02)


def poses_in(axes):
    return [c for c in axes.collections if isinstance(c, LineCollection) and c.get_gid() == "pose"]


def size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def assert_readable(figure):
    """Every title, name and legend lies within the figure, and titles of axes apart."""
    FigureCanvasAgg(figure).draw()
    texts = [*figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]
    titles = [axes.title for axes in figure.axes if axes.get_title()]
    texts += [*titles, *(t for axes in figure.axes for t in (axes.yaxis.label, *axes.texts))]
    width, height = figure.bbox.size
    for text in texts:
        box = text.get_window_extent()
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside or not text.get_text(), text.get_text()
    boxes = [title.get_window_extent().padded(-1) for title in titles]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("skeleton", [COCO, SIM, LAB], ids=lambda s: s.name)
def test_all_pictures_are_there_and_nothing_else(tmp_path, skeleton):
    people = people_of(skeleton)
    people = people._replace(posture_n=np.where(people.posture_n == "walk", "", "crawl"))
    p = np.random.default_rng(0).uniform(size=150)
    names = pictures.write(tmp_path, prior_of(skeleton), people, p)
    hands = {"samples_hand.png"} if skeleton is SIM else set()
    assert {*names} == ALWAYS | hands | {"plausibility.png"}
    assert {path.name for path in tmp_path.iterdir()} == {*names}
    for name in names:
        assert 300 < min(size(tmp_path / name)) and max(size(tmp_path / name)) < 5000, name


def test_without_p_values_nor_hands_the_rest_is_drawn_and_a_seed_tells_every_byte(tmp_path):
    people = people_of(COCO)
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    for folder, seed in ((first, 3), (again, 3), (other, 4)):
        assert {*pictures.write(folder, prior_of(COCO), people, seed=seed)} == ALWAYS
    for name in ALWAYS:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
        assert (first / name).read_bytes() != (other / name).read_bytes(), name


def test_people_without_hands_give_no_picture_of_hands():
    people = people_of(SIM, 40)
    hand = coordinates.parts(SIM)["hand"]
    people.points_nk2[:, [*hand.joints, *hand.mirrored]] = np.nan
    look = pictures.look(prior_of(SIM).parts["hand"], SIM, people, 0)
    assert not len(look.labelled.points_bj2) and not len(look.samples.points_bj2)
    assert pictures.bones_figure({}, SIM) is None


@pytest.mark.parametrize("count", [150, 5])
def test_a_grid_holds_48_poses_of_each_kind_or_all_there_are(count):
    look = pictures.look(prior_of(COCO).parts["body"], COCO, people_of(COCO, count), 0)
    figure = pictures.samples_figure(look, 0)
    assert [len(poses_in(axes)) for axes in figure.axes] == [min(count, 48), 48]
    assert f"{min(count, 48)} of {count} at random" in figure.axes[0].get_title()
    assert_readable(figure)
    low, high = np.array([figure.axes[0].get_xlim(), sorted(figure.axes[0].get_ylim())]).T
    for pose in poses_in(figure.axes[0]):
        ends = np.concatenate(pose.get_segments())
        assert (ends > low[None]).all() and (ends < high[None]).all()


def test_samples_have_the_joints_of_labelled_people_and_are_told_nothing_else():
    people = people_of(COCO)
    people.points_nk2[:, 3] = np.nan
    look = pictures.look(prior_of(COCO).parts["body"], COCO, people, 0)
    assert look.samples.points_bj2.shape == (SAMPLES, 17, 2)
    assert not look.samples.valid_bj[:, 3].any()
    known = {mask.tobytes() for mask in np.isfinite(people.points_nk2).all(-1)}
    assert {mask.tobytes() for mask in look.samples.valid_bj} <= known
    # With nothing told, what the people look like otherwise plays no part.
    other = people._replace(age_n=people.age_n + 20)
    again = pictures.look(prior_of(COCO).parts["body"], COCO, other, 0)
    np.testing.assert_array_equal(again.samples.points_bj2, look.samples.points_bj2)


def test_denoising_shows_every_mistake_at_every_ratio_over_what_was_given():
    figure = scenes.denoising_figure(prior_of(SIM).parts["body"], SIM, people_of(SIM), 0)
    rows = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    # Of these random people nobody need have legs so far apart that they can be swapped.
    assert rows == ["as labelled", "forearm 1.8 × as long", "legs swapped"][: len(rows)]
    assert len(rows) >= 2
    assert [len(poses_in(axes)) for axes in figure.axes] == [1, *[2] * 5] * len(rows)
    titles = [axes.get_title() for axes in figure.axes[1:6]]
    assert titles == [f"noise ratio {r}" for r in (0.05, 0.1, 0.2, 0.4, 0.8)]
    assert_readable(figure)


def test_completion_shows_eight_samples_the_chosen_one_and_the_truth():
    figure = scenes.completion_figure(prior_of(SIM).parts["body"], SIM, people_of(SIM), 0)
    rows = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert rows == [f"{title} hidden" for title, _ in scenes.HIDDEN]
    assert len(figure.axes) == 4 * 6
    for axes in figure.axes:
        # What is seen, eight samples, the chosen one, the truth of what is hidden.
        assert len(poses_in(axes)) == 1 + 8 + 1 + 1
    wrist = poses_in(figure.axes[0])
    chosen, truth = wrist[-2], wrist[-1]
    assert chosen.get_linewidth()[0] > 2 * wrist[1].get_linewidth()[0]
    assert truth.get_linestyle()[0][1] is not None and chosen.get_linestyle()[0][1] is None
    assert_readable(figure)


def test_what_is_observed_is_told_in_the_frame_of_what_is_seen():
    prior, people = prior_of(COCO).parts["body"], people_of(COCO, 4)
    people.points_nk2[:] = np.nan_to_num(people.points_nk2, nan=50.0)
    poses, _ = coordinates.take(prior.part, people, COCO)
    hidden = np.zeros_like(poses.valid_bj)
    hidden[:, 9] = True
    u, given = prior_denoising.hiding(prior, poses, hidden)
    assert not given.observed_bj[:, 9].any() and np.isnan(given.values_bj2[:, 9]).all()
    moved = poses._replace(points_bj2=poses.points_bj2.copy())
    moved.points_bj2[:, 9] += 30
    u_moved, given_moved = prior_denoising.hiding(prior, moved, hidden)
    jax.tree.map(np.testing.assert_array_equal, given_moved, given)
    assert (np.abs(u_moved - u)[:, 9] > 0.1).all()


def test_of_a_body_left_and_right_have_their_colours_and_the_head_no_lines():
    of = drawings.sketch(BODY, COCO)
    at = COCO.keypoints.index
    by_pair = {frozenset(p): c for p, c in zip(of.lines, of.line_colours, strict=True)}
    left, right = (by_pair[frozenset((at(f"{s}_elbow"), at(f"{s}_wrist")))]
                   for s in ("left", "right"))  # fmt: skip
    assert (left, right) == (drawings.SIDE_COLOURS["left"], drawings.SIDE_COLOURS["right"])
    assert by_pair[frozenset((at("left_hip"), at("right_hip")))] == drawings.SIDE_COLOURS["middle"]
    assert {*of.head} == {0, 1, 2, 3, 4} and not {i for p in of.lines for i in p} & {*of.head}
    assert of.nose == 0 and not of.dots


def test_joints_that_are_not_valid_are_not_drawn():
    of = drawings.sketch(BODY, COCO)
    points = people_of(COCO, 1).points_nk2[0]
    points = np.nan_to_num(points, nan=40.0)
    hidden = COCO.keypoints.index("left_elbow")
    valid = np.ones(17, bool)
    valid[hidden], points[hidden] = False, np.nan
    axes = Figure().subplots()
    drawings.add(axes, of, points, valid)
    drawings.add(axes, of, points, valid, touching=[COCO.keypoints.index("right_elbow")])
    whole, arm = poses_in(axes)
    assert len(whole.get_segments()) == len(of.lines) - 2  # upper arm and forearm
    assert np.isfinite(np.concatenate(whole.get_segments())).all()
    assert len(arm.get_segments()) == 2


def test_a_window_shows_all_joints_and_the_circle_of_the_head():
    of = drawings.sketch(BODY, COCO)
    points, valid = np.zeros((1, 17, 2)), np.zeros((1, 17), bool)
    assert drawings.extent(of, points, valid)[1] == 1
    points[0, [5, 15]], valid[0, [5, 15]] = [[10, 20], [30, 80]], True
    middle, half = drawings.extent(of, points, valid)
    np.testing.assert_allclose([*middle, half], [20, 50, 30 * 1.08])
    # Ears 20 apart: a circle of radius 11.5 about (20, 10), up to -1.5.
    points[0, [3, 4]], valid[0, [3, 4]] = [[10, 10], [30, 10]], True
    middle, half = drawings.extent(of, points, valid)
    np.testing.assert_allclose([*middle, half], [20, 39.25, 40.75 * 1.08])


PLACES = {  # from the front; y downwards; the left side, the right one is its mirror image
    "shoulder": (10, -40), "elbow": (12, -20), "wrist": (14, -4), "hip": (7, 0), "knee": (7, 30),
    "ankle": (7, 55),
}  # fmt: skip


def figures_of(bend, count=4):
    """COCO people from the front whose shanks turn inwards by so many degrees, sizes 1 to count."""
    points, valid = np.zeros((17, 2)), np.zeros(17, bool)
    shank = 25 * np.array([-np.sin(np.radians(bend)), np.cos(np.radians(bend))])
    places = PLACES | {"ankle": np.array(PLACES["knee"]) + shank}
    for name, place in places.items():
        for sign, side in ((1, "left"), (-1, "right")):
            index = COCO.keypoints.index(f"{side}_{name}")
            points[index], valid[index] = np.array(place) * [sign, 1], True
    sizes = np.arange(1, count + 1)[:, None, None]
    return histograms.Poses(points[None] * sizes, np.repeat(valid[None], count, 0))


def test_lengths_are_relative_to_the_person_and_beyond_the_last_edge_in_the_last_bin():
    labelled = figures_of(0)
    labelled.valid_bj[0, COCO.keypoints.index("left_wrist")] = False
    made = figures_of(0, 3)
    elbow, wrist = (COCO.keypoints.index(f"left_{joint}") for joint in ("elbow", "wrist"))
    forearm = made.points_bj2[:, wrist] - made.points_bj2[:, elbow]
    factors = np.array([1.1, 3.0, 0.55])
    made.points_bj2[:, wrist] = made.points_bj2[:, elbow] + factors[:, None] * forearm
    found = {h.name: h for h in histograms.lengths(BODY, COCO, labelled, made)}
    forearm = found["forearm"]
    # Everybody has the same shape, so the edges reach to 1.25 of it, in 30 bins: 1 is at 24.
    in_bins = np.flatnonzero(forearm.samples).tolist()
    assert forearm.samples.sum() == 6 and forearm.labelled.sum() == 7
    assert {13, 26, 29} <= {*in_bins} <= {13, 23, 24, 26, 29}
    assert {*np.flatnonzero(forearm.labelled)} <= {23, 24}
    lengths = [np.hypot(2, 20), np.hypot(2, 16), 30, 25, np.hypot(3, 40)]
    middle = np.exp(np.mean([*np.log(lengths * 2), *np.log([20, 14])]))
    np.testing.assert_allclose(forearm.edges[-1], 1.25 * np.hypot(2, 16) / middle, rtol=1e-6)
    assert found["shoulder line"].labelled.sum() == 4  # one bone, not two


def test_turns_are_counted_left_and_right_together_per_way_a_body_is_held():
    labelled, made = figures_of(40), figures_of(5)
    legs = [i for i, name in enumerate(COCO.keypoints) if "knee" in name or "ankle" in name]
    labelled.valid_bj[0, legs] = False  # held nobody knows how
    made.points_bj2[0, :, 1] *= -1  # upside down: prone, as far as that goes
    found = histograms.angles(BODY, COCO, labelled, made)
    assert [*found] == ["upright"]
    knee = {h.name: h for h in found["upright"]}["knee"]
    # Bins of 15 degrees from -180: 40 is in the 15th, 5 in the 13th.
    assert np.flatnonzero(knee.labelled).tolist() == [14] and knee.labelled[14] == 2 * 3
    assert np.flatnonzero(knee.samples).tolist() == [12] and knee.samples[12] == 2 * 3


def test_rejected_are_those_below_the_level_as_in_the_scores():
    p = np.array([0.04, 0.05, 0.5, np.nan, 0.01, 1.0])
    posture = np.array(["high_guard", "high_guard", "", "high_guard", "sit", "high_guard"])
    found = histograms.rejections(p, posture)
    told = [(g.posture, g.people, g.rejected) for g in found]
    assert told == [
        ("everybody", 5, 2), ("high guard", 3, 1), ("not labelled", 1, 0), ("sit", 1, 1)
    ]  # fmt: skip
    assert found[1].counts[[0, 1, 19]].tolist() == [1, 1, 1] and found[1].counts.sum() == 3
    figure = pictures.plausibility_figure(p, posture)
    assert "1 of 3 at p < 0.05 (33.3 %)" in {t.get_text() for a in figure.axes for t in a.texts}
    assert_readable(figure)
    assert pictures.plausibility_figure(np.full(6, np.nan), posture) is None
    narrow = pictures.plausibility_figure(p, np.full(6, ""))
    narrow.draw_without_rendering()
    assert narrow.get_tightbbox().width <= narrow.get_size_inches()[0]


def test_people_of_another_skeleton_or_nobody_are_refused_in_one_line(tmp_path):
    for people in (people_of(SIM, 3), people_of(COCO, 3).chosen(slice(0, 0))):
        with pytest.raises(ValueError, match="at least one person of that skeleton") as error:
            pictures.write(tmp_path / "none", prior_of(COCO), people)
        assert "\n" not in str(error.value) and "coco17" in str(error.value)
    assert not (tmp_path / "none").exists()


def test_a_skeleton_without_arms_and_legs_has_no_mistakes_nor_completion(tmp_path):
    names = ["nose", "left_eye", "right_eye", "left_hip", "right_hip"]
    bare = skeletons.parse({"name": "bare", "keypoints": names}, "bare")
    prior = saved.Prior(bare, {"body": random_prior(coordinates.parts(bare)["body"])}, {}, {})
    written = pictures.write(tmp_path, prior, people_of(bare, 20))
    assert "samples_body.png" in written and not {"denoising.png", "completion.png"} & {*written}
