"""What the figures of a prior count, by hand and by priors whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax.evaluate import (
    prior_denoising,
    prior_flattening,
    prior_report,
    prior_scores,
    prior_study,
)
from nkjax.evaluate.pictures import BadInput
from nkjax.kinematics import corruptions, plausibility
from nkjax.losses import developmental
from nkjax.losses.developmental import Developmental
from nkjax.prior import coordinates, refine
from nkjax.toddlersim import camera, world
from tests.prior import small_prior

SKELETON = world.SKELETON


@pytest.fixture(scope="module")
def people():
    """Simulated toddlers, upright ones among them, as points in the picture: no pixel is cast."""
    points = []
    for index in range(40):
        _, act, scene, _ = world.draw("toddler", "labelled", index, (96, 128), 5)
        points.append(camera.project(scene.camera, scene.joints_k3)[0])
    points = np.array(points, np.float32)
    some = small_prior.people(SKELETON, len(points), missing=0.0)
    extent = points.max(1) - points.min(1)
    return some._replace(points_nk2=points, diagonal_n=np.hypot(*extent.T).astype(np.float32))


@pytest.fixture(scope="module")
def body(people):
    part = coordinates.parts(SKELETON)["body"]
    poses, _ = coordinates.take(part, people, SKELETON)
    prior = small_prior.prior(SKELETON, width=8, depth=1)
    return prior, poses


@pytest.fixture
def denoises(monkeypatch):
    """Set what `mean_denoised` answers, as a function of the poses that it is given."""
    return lambda answer: monkeypatch.setattr(
        prior_denoising, "mean_denoised", lambda prior, poses, ratio, seed=0: answer(poses)
    )


def test_a_prior_that_changes_nothing_repairs_nothing(body, people, denoises):
    prior, poses = body
    denoises(lambda poses: poses.u_bj2)
    for row in prior_denoising.table(prior, poses, people.points_nk2, SKELETON):
        assert row["moved"] == row["ankle"] == 0 and abs(row["forearm"]) < 1e-6
        assert abs(row["variance"] - 1) < 1e-6


def test_a_prior_that_knows_the_truth_repairs_all(body, people, denoises):
    prior, poses = body
    true = prior_denoising.in_units(prior, poses)
    stretched = corruptions.stretched_bone(people.points_nk2, SKELETON, 0, ("forearm",))
    who = stretched.usable_n
    wrong = stretched.points_nk2[:, list(prior.part.joints)]
    frames = poses._replace(points_bj2=wrong)
    right = prior_denoising.in_units(prior, poses, frames).u_bj2[who]
    denoises(lambda given: right if len(given.u_bj2) == who.sum() < len(true.u_bj2) else true.u_bj2)
    assert 5 < who.sum() < len(who)
    row = prior_denoising.table(prior, poses, people.points_nk2, SKELETON)[0]
    assert abs(row["forearm"] - 1) < 1e-5 and abs(row["ankle"] - 1) < 1e-5 and row["moved"] == 0


def test_half_of_everything_is_a_quarter_of_the_variance(body, people, denoises):
    prior, poses = body
    valid = poses.valid_bj.copy()
    valid[:10, prior.part.keypoints.index("left_wrist")] = False
    poses = poses._replace(valid_bj=valid)
    denoises(lambda poses: 0.5 * poses.u_bj2)
    row = prior_denoising.table(prior, poses, people.points_nk2, SKELETON)[0]
    assert abs(row["variance"] - 0.25) < 1e-6
    length = np.linalg.norm(prior_denoising.in_units(prior, poses).u_bj2, axis=-1)
    assert abs(row["moved"] - 0.5 * length[valid].mean()) < 1e-6


def test_a_joint_that_is_not_labelled_has_no_variance():
    u, valid = np.array([[[1.0, 0]], [[3, 4]], [[90, 90]]]), np.array([[True], [True], [False]])
    assert prior_denoising._variance(u, valid) == 1 + 4


def test_before_it_has_learned_the_prior_is_its_gaussian(body):
    prior, poses = body
    prior.params["out"]["kernel"] *= 0.0
    units = prior_denoising.in_units(prior, poses)
    for ratio in (0.1, 0.4):
        found = prior_denoising.gain(prior, units, ratio)
        assert abs(found["prior"] / found["gaussian"] - 1) < 1e-5
        # Noise of that standard deviation was added, and is what is left.
        assert abs(found["identity"] / ratio - 1) < 0.05 and found["n"] == len(poses.valid_bj)


def test_what_is_hidden_is_not_handed_over(body, monkeypatch):
    prior, poses = body
    asked = []

    def complete(key, prior, given, count, steps):
        asked.append(given)
        filled = jnp.where(given.observed_bj[..., None], given.values_bj2, 0.0)
        return filled, jnp.zeros(filled.shape[:2])

    monkeypatch.setattr(refine, "complete", complete)
    monkeypatch.setattr(prior_denoising.jax, "jit", lambda function: function)
    subjects = np.array([f"K{n // 2}" for n in range(len(poses.valid_bj))])
    found = prior_denoising.completion(prior, poses, subjects, SKELETON)
    assert {name.split("_")[1] for name in found} == {"wrist", "elbow", "ankle"} and len(found) == 6
    joint = prior.part.keypoints.index("left_wrist")
    assert np.isnan(asked[0].values_bj2[:, joint]).all()
    assert not asked[0].observed_bj[:, joint].any()
    ankle = asked[8]  # the left one: two walks for each joint before
    gone = {prior.part.keypoints[i] for i in np.flatnonzero(~ankle.observed_bj.any(0))}
    assert gone == {"left_ankle", "left_big_toe", "left_small_toe", "left_heel"}
    # Who guesses the root is off by the joint's distance from it.
    true, _ = prior_denoising.hide(prior, poses, joint, SKELETON)
    away = np.linalg.norm(true[:, joint], axis=-1).mean()
    assert abs(found["left_wrist"]["prior"] - away) < 1e-5
    means = np.asarray(prior.gaussian.mean_d).reshape(-1, 2)[joint]
    off = np.linalg.norm(true[:, joint] - means[None], axis=-1).mean()
    assert abs(found["left_wrist"]["mean"] - off) < 1e-5
    low, high = found["left_wrist"]["interval"]
    assert low < found["left_wrist"]["gaussian"] - found["left_wrist"]["prior"] < high


def test_the_frame_does_not_tell_where_the_hidden_joint_was(body):
    """Moved by 1e3 px, the hidden joint changes nothing of what is observed of the others."""
    prior, poses = body
    joint = prior.part.keypoints.index("left_wrist")
    far = poses._replace(points_bj2=poses.points_bj2.copy())
    far.points_bj2[:, joint] += 1e3
    (near, given), (moved, _) = (
        prior_denoising.hide(prior, each, joint, SKELETON) for each in (poses, far)
    )
    observed = given.observed_bj
    assert (near[observed] == moved[observed]).all()


def standing(ankles, elbows):
    """A person facing the camera: hips at 0 and 10, shoulders at 0 and 10, px."""
    points = np.full((1, 65, 2), np.nan, np.float32)
    index = {name: i for i, name in enumerate(SKELETON.keypoints)}
    for name, place in {
        "left_hip": (10, 0), "right_hip": (0, 0), "left_ankle": (ankles[0], 40),
        "right_ankle": (ankles[1], 40), "left_shoulder": (10, -20), "right_shoulder": (0, -20),
        "left_elbow": elbows[0], "right_elbow": elbows[1],
    }.items():  # fmt: skip
        points[0, index[name]] = place
    return points


def test_step_width_and_elevation_by_hand():
    points = standing((15, -3), ((20, -20), (0, -10)))
    found = prior_flattening.held(points, SKELETON)
    assert np.allclose(found.step_width_n, 1.8) and np.allclose(found.elevation_na, [[90, 0]])
    raised = prior_flattening.held(standing((5, 5), ((10, -30), (-10, -10))), SKELETON)
    assert np.allclose(raised.step_width_n, 0) and np.allclose(raised.elevation_na, [[180, 45]])


def test_a_change_is_counted_of_those_who_show_it():
    before = np.concatenate([standing((15, -3), ((20, -20), (0, -10)))] * 3)
    after = np.concatenate([standing((10, 1), ((10, -10), (0, -10)))] * 3)
    seen = prior_flattening.Held(np.array([True, True, False]), np.ones((3, 2), bool))
    found = prior_flattening.change(before, after, SKELETON, seen)
    assert abs(found["step_width"] - 0.5) < 1e-6 and abs(found["kept"] - 0.5) < 1e-6
    assert abs(found["elevation"] - 45) < 1e-4 and abs(found["elevation_signed"] + 45) < 1e-4
    assert found["people"] == 2 and found["arms"] == 6


def test_who_abstains_goes_a_tenth_of_the_way(body):
    prior, poses = body
    few = coordinates.Poses(*(np.asarray(x)[:4] for x in poses))
    sure = np.full(few.valid_bj.shape, 0.9, np.float32)
    moved = []
    for abstain in (1.0, 0.1):
        after = prior_flattening.descend(
            prior, few, sure, -1.0, Developmental(abstain=abstain), 1.0, steps=1
        )
        moved.append(after - few.points_bj2)
    assert np.abs(moved[0]).max() > 1e-3
    assert np.abs(moved[1] - 0.1 * moved[0]).max() < 2e-2 * np.abs(moved[0]).max()


def test_a_step_is_the_gradient_of_somebodys_own_loss(body):
    """In data units of the first frame, whatever the number of people."""
    prior, poses = body
    few = coordinates.Poses(*(np.asarray(x)[:4] for x in poses))
    sure, settings, rate = np.full(few.valid_bj.shape, 0.9, np.float32), Developmental(), 0.7
    after = prior_flattening.descend(prior, few, sure, 1e3, settings, rate, steps=1)
    key = jax.random.fold_in(jax.random.key(0), 0)

    @jax.jit
    @jax.grad
    def by_points(points):
        return developmental.developmental(
            points, few.points_bj2, sure, few.valid_bj, few.diagonal_b, np.ones(4, bool),
            few.context_bc, prior, 1e3, key, settings,
        )[0]  # fmt: skip

    at = coordinates.frame(prior.part, prior.units, *few[:3])
    px = np.asarray(at.scale_b)[:, None, None] * prior.units.unit
    way = -rate * 4 * px**2 * np.asarray(by_points(jnp.asarray(few.points_bj2)))
    assert np.abs(way).max() > 1e-3
    assert np.abs(after - few.points_bj2 - way).max() < 1e-2 * np.abs(way).max()


def test_who_abstains_is_told_and_at_no_rate_nobody_changes(body, people, monkeypatch):
    prior, poses = body
    monkeypatch.setattr(prior_flattening, "descend", lambda prior, poses, *rest: poses.points_bj2)
    u = prior_denoising.in_units(prior, poses)
    pulls = np.sort(developmental.residual(prior, *u))
    found = prior_flattening.after_descent(
        prior, poses, people, SKELETON, (pulls[29] + pulls[30]) / 2, Developmental(), 1.0
    )
    assert found["abstained"] == 0.25  # the ten of forty above
    assert found["step_width"] == found["elevation"] == 0 and found["kept"] == 1
    assert found["people"] > 3 and found["arms"] > 20


def test_one_step_of_a_prior_that_changes_nothing_changes_nobody(body, people, denoises):
    prior, poses = body
    denoises(lambda poses: poses.u_bj2)
    found = prior_flattening.one_step(prior, poses, people.points_nk2, SKELETON, 0.1)
    assert max(found["step_width"], found["elevation"]) < 1e-3 and abs(found["kept"] - 1) < 1e-3


def test_who_shows_step_width_and_arms(people):
    from_the_front = {
        "left_shoulder": (20, -80), "left_elbow": (20, -50), "left_wrist": (20, -25),
        "left_hip": (15, 0), "left_knee": (15, 30), "left_ankle": (15, 60),
    }  # fmt: skip
    index = {name: i for i, name in enumerate(SKELETON.keypoints)}
    points = np.full((12, 65, 2), np.nan, np.float32)
    for name, (x, y) in from_the_front.items():
        points[:, index[name]] = x, y
        points[:, index[name.replace("left", "right")]] = -x, y
    points[0, index["left_hip"]], points[0, index["right_hip"]] = (8, 0), (-8, 0)
    points[1] = points[1, :, ::-1]  # lies
    points[2, index["right_ankle"]] = np.nan
    points[3, index["left_elbow"]] = 20, -70  # points at the camera
    points[4, index["right_elbow"]] = np.nan
    seen = prior_flattening.who_shows(points, SKELETON)
    assert np.flatnonzero(~seen.step_width_n).tolist() == [0, 1, 2]
    assert np.argwhere(~seen.elevation_na).tolist() == [[3, 0], [4, 1]]


def test_the_repaired_share_is_of_the_stretched_forearms(body, people, monkeypatch):
    prior, poses = body
    asked = []

    def descend(prior, wrong, sure, limit, settings, rate):
        asked.append((wrong, sure))
        return (1 - rate) * wrong.points_bj2 + rate * poses.points_bj2[usable]

    monkeypatch.setattr(prior_flattening, "descend", descend)
    stretched = corruptions.stretched_bone(people.points_nk2, SKELETON, 0, ("forearm",))
    usable, joints = stretched.usable_n, list(prior.part.joints)
    count, share = prior_flattening.repair(
        prior, poses, people.points_nk2, SKELETON, 1e3, Developmental()
    )
    assert 5 < count == usable.sum() < len(usable)
    # A step of 1 is all the way to the truth.
    for rate in (0.0, 0.5, 1.0):
        assert abs(share(rate) - rate) < 1e-4
    wrong, sure = asked[0]
    assert (wrong.points_bj2 == stretched.points_nk2[usable][:, joints]).all()
    assert (sure == np.where(stretched.moved_nk[usable][:, joints], 0.1, 0.9).astype("f4")).all()
    assert (sure == np.float32(0.1)).sum() == count  # the wrist alone


def test_p_values_come_in_the_order_of_the_people(people, monkeypatch):
    def score(kps, points, valid, diagonal):
        shapes.add(points.shape)
        assert (valid == np.isfinite(points[..., 0])).all() and not valid[:, 3].any()
        return plausibility.Plausibility(diagonal, None, {"length": points[:, 0, 1]}, None)

    shapes = set()
    points = people.points_nk2.copy()
    points[:, 3] = np.nan
    monkeypatch.setattr(prior_scores, "_score", score)
    monkeypatch.setattr(prior_scores, "AT_ONCE", 16)
    found = prior_scores.p_values(None, people._replace(points_nk2=points))
    assert found["p"].tolist() == people.diagonal_n.tolist()
    assert found["length"].tolist() == points[:, 0, 1].tolist() and len(shapes) == 1


def test_broken_poses_are_those_that_carry_the_mistake(people, monkeypatch):
    true = dict(zip(people.person_n, people.points_nk2, strict=True))

    def p_values(kps, people):
        both = zip(people.points_nk2, people.person_n, strict=True)
        moved = np.array([(points != true[name]).any() for points, name in both])
        return {"p": np.where(moved, np.where(np.arange(len(moved)) == 0, np.nan, 0.02), 0.9)}

    monkeypatch.setattr(prior_scores, "p_values", p_values)
    sound = np.where(np.arange(len(true)) % 2, 0.9, np.nan)
    found = prior_scores.found_broken(None, people, SKELETON, sound)
    assert {"stretched_bone", "collapsed_arm"} <= {*found}
    for name, of in found.items():
        usable = corruptions.ALL[name](people.points_nk2, SKELETON, 0).usable_n
        assert of == {"auc": 1.0, "rejected": 1.0, "n": usable.sum() - 1}, name


def test_rejections_with_their_interval():
    p = np.array([0.01] * 3 + [0.07] + [0.5] * 56 + [np.nan])
    posture = np.array(["crawl"] * 20 + ["sit"] * 19 + ["walk"] * 22)
    found = prior_scores.rejected(p, posture)
    assert found["not_judged"] == 1 and found["all"]["n"] == 60
    # Clopper and Pearson's table for 3 of 60.
    assert abs(found["all"]["low"] - 0.0104) < 1e-4 and abs(found["all"]["high"] - 0.1392) < 1e-4
    assert found["all"]["share"] == 0.05 and set(found["postures"]) == {"crawl", "walk"}
    assert found["postures"]["crawl"]["share"] == 0.15


def test_area_under_the_curve_by_hand():
    assert prior_scores.area_under_curve([2.0, 3.0], [1.0]) == 1
    assert prior_scores.area_under_curve([1.0, 3.0], [1.0, 2.0]) == (0.5 + 0 + 1 + 1) / 4


def test_correlation_of_ranks():
    p = np.array([0.1, 0.2, 0.3, np.nan])
    assert prior_scores.correlations(p, np.array([1.0, 10.0, 100.0, 0.0])) == {
        "spearman": 1.0, "n": 3}  # fmt: skip


def test_people_are_spread_over_the_split(people):
    few = prior_report._spread(people, 7)
    assert len(few.subject_n) == 7
    assert few.person_n[0] == people.person_n[0] and few.person_n[-1] == people.person_n[-1]
    assert len(prior_report._spread(people, 1000).subject_n) == len(people.subject_n)


def test_people_that_fitted_are_refused(monkeypatch, people, tmp_path):
    class Manifest:
        skeleton = SKELETON

    monkeypatch.setattr(prior_study.records, "read_manifest", lambda folder: Manifest)
    monkeypatch.setattr(prior_study, "Rows", lambda manifest, split: None)
    monkeypatch.setattr(prior_study.peoples, "read", lambda rows: people)
    known = {"fit": ["x", people.subject_n[0]], "calibration": []}
    prior = prior_study.Prior(SKELETON, {}, {"folds": known}, {})
    with pytest.raises(BadInput, match="1 subjects of split val fitted or calibrated"):
        prior_study._people("DATA", "val", prior)
    other = prior_study.Prior(small_prior.SKELETONS["coco17"], {}, {"folds": {}}, {})
    with pytest.raises(BadInput, match="toddlersim65.* is not the prior's .coco17"):
        prior_study._people("DATA", "val", other)
    fine = prior_study.Prior(SKELETON, {}, {"folds": {"fit": ["x"]}}, {})
    assert prior_study._people("DATA", "val", fine)[1] is people


def test_the_smallest_step_size_that_repairs_enough():
    tried = prior_flattening.least_rate(lambda rate: min(rate / 0.5, 1.0))
    rate = list(tried)[-1]
    assert 0.3 <= rate < 0.3 * 1.05 and tried[rate] >= 0.6
    never = prior_flattening.least_rate(lambda rate: 0.1)
    assert list(never)[-1] == 3.2
