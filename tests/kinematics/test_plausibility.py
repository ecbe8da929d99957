"""Energies against own formulas, p-values of simulated people; the prior's network is random."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.kinematics import calibration, corruptions, energies, limbs, plausibility, statistics
from nkjax.models import denoiser
from nkjax.prior import coordinates, diffusion, gaussian, refine
from nkjax.prior.people import People

COCO = skeletons.load("coco17")
WHOLE = skeletons.load("wholebody133")
LAB = skeletons.parse({"name": "lab27", "keypoints": ["Nose", "Neck", "MidHip", *(
    f"{side}-{joint}" for joint in ("Eye", "Ear", "Shoulder", "Elbow", "Wrist", "Hip", "Knee",
    "Ankle", "BigToe", "Heel", "Thumb1", "Thumb2") for side in "LR")]}, "lab27")  # fmt: skip
TREE = {  # joint: parent, length, mean direction (0 is right, pi / 2 down), its spread
    "knee": ("hip", 30, 1.4, 0.2), "ankle": ("knee", 28, 1.7, 0.2),
    "elbow": ("shoulder", 20, 0.8, 0.5), "wrist": ("elbow", 18, 0.4, 0.5),
}  # fmt: skip
SIDED = [f"{side}_{joint}" for joint in ("shoulder", "hip", *TREE) for side in ("left", "right")]
BODY = skeletons.parse({"name": "body", "keypoints": SIDED}, "body")
FEW = 20  # one size of batch, one compilation


def joints(skeleton):
    return dict(zip(SIDED, skeletons.match(skeleton, BODY), strict=True))


def people(skeleton, count, seed):
    """Stick figures from the front, mirrored or not, sizes from 1 to 3, bones good to 4 %."""
    rng = np.random.default_rng(seed)
    points = np.zeros((count, len(skeleton.keypoints), 2))
    flip = list(skeleton.flip_indices)
    at = {}
    for name, index in joints(skeleton).items():
        side, joint = name.split("_")
        sign = 1 if side == "left" else -1
        if joint in ("shoulder", "hip"):
            x, y = {"shoulder": (10, -40), "hip": (7, 0)}[joint]
            place = np.array([sign * x, y]) + rng.normal(size=(count, 2)) * 0.4
        else:
            parent, length, way, spread = TREE[joint]
            angle = way + spread * rng.normal(size=count)
            step = length * np.exp(0.04 * rng.normal(size=count))
            offset = np.stack([sign * np.cos(angle), np.sin(angle)], 1) * step[:, None]
            place = at[f"{side}_{parent}"] + offset
        at[name] = points[:, index] = place
    for index in sorted({*range(len(skeleton.keypoints))} - {*joints(skeleton).values()}):
        points[:, index] = np.array([index - flip[index], -55]) + rng.normal(size=(count, 2))
    points = points * rng.uniform(1, 3, (count, 1, 1)) + rng.uniform(100, 500, (count, 1, 2))
    diagonal = np.hypot(*(points.max(1) - points.min(1)).T)
    return points.astype(np.float32), np.ones(points.shape[:2], bool), diagonal.astype(np.float32)


def prior_of(skeleton, points, valid, diagonal):
    part = coordinates.parts(skeleton)["body"]
    joints = list(part.joints)
    context = np.zeros((len(points), coordinates.CONTEXT), np.float32)
    poses = coordinates.Poses(points[:, joints], valid[:, joints], diagonal, context)
    units = coordinates.Units(0.7, 0.25, (0.0, 1.0))
    u = jax.jit(lambda *a: coordinates.normalise(*a[:2], coordinates.frame(part, units, *a), units))
    found = gaussian.fit(u(*poses[:3]), poses.valid_bj)
    spec = denoiser.Spec(len(joints), coordinates.CONTEXT, 16, 1, 2)
    params = jax.jit(denoiser.init, static_argnums=1)(jax.random.key(0), spec)
    # Initialised to say nothing; it must say something here.
    rng = np.random.default_rng(1)
    noisy = jax.tree.map(lambda x: np.float32(x + 0.1 * rng.normal(size=x.shape)), params)
    return diffusion.PartPrior(part, units, spec, found, noisy)


@functools.cache
def measures(skeleton):
    """Statistics of people and of the same mirrored, so that left and right are alike."""
    points, valid, diagonal = people(skeleton, 400, 0)
    mirrored = (points * [-1, 1])[:, list(skeleton.flip_indices)]
    both = np.concatenate([points, mirrored]).astype(np.float32)
    text = np.full(len(both), "")
    group = People(
        both, np.full(both.shape[:2], 2, np.int8), np.tile(diagonal, 2),
        np.full(len(both), np.nan), np.full(len(both), "s"), text, text, text,
    )  # fmt: skip
    found = statistics.fit(group, skeleton, {"fit": ["s"]}, "")
    return energies.measures(skeleton, found, prior_of(skeleton, points, valid, diagonal))


@functools.cache
def fitted(skeleton):
    points, valid, diagonal = people(skeleton, 300, 1)
    content = plausibility.fit(measures(skeleton), points, valid, diagonal, np.full(300, ""))
    return json.loads(json.dumps(content))


def kps(skeleton):
    return plausibility.make(measures(skeleton), fitted(skeleton))


score = jax.jit(plausibility.score)
measure = jax.jit(energies.energies)


def place(skeleton, name):
    return joints(skeleton)[name]


def test_length_is_by_how_much_the_longest_bone_exceeds_the_usual():
    by, (points, valid, diagonal) = measures(COCO), people(COCO, FEW, 2)
    a, b = place(COCO, "left_elbow"), place(COCO, "left_wrist")
    points[:, b] = points[:, a] + 1.8 * (points[:, b] - points[:, a])
    excess = []
    for n in range(20):
        logs = [np.log(np.hypot(*(points[n, bone.b] - points[n, bone.a]))) for bone in by.bones]
        size = np.quantile(np.array(logs) - np.asarray(by.usual_b), 0.75)
        over = [
            (np.exp(log - size) - by.longest_b[i])
            / by.spread_b[i]
            / (1 if by.bones[i].rigid else 2)
            for i, log in enumerate(logs)
        ]
        excess.append(max(*over, 0))
    found = measure(by, points, valid, diagonal)["length"]
    np.testing.assert_allclose(found, excess, rtol=2e-3)
    assert min(excess) > 3
    shorter = points.copy()
    shorter[:, b] = points[:, a] + 0.2 * (points[:, b] - points[:, a])
    assert np.median(measure(by, shorter, valid, diagonal)["length"]) == 0


def test_angles_count_outside_their_range_around_the_circle():
    by, (points, valid, diagonal) = measures(COCO), people(COCO, FEW, 3)
    hip, knee, ankle = (place(COCO, f"left_{j}") for j in ("hip", "knee", "ankle"))
    shape = by.mean_ca.shape
    wide = {"mean_ca": jnp.zeros(shape), "lowest_ca": jnp.full(shape, -4.0),
            "highest_ca": jnp.full(shape, 4.0)}  # fmt: skip
    which = [angle.name for angle in by.angles].index("left_knee")
    for turn, outside in (
        (np.pi - 0.05, 0.0),
        (-np.pi + 0.05, 0.0),
        (-np.pi + 0.3, 0.2),
        (2.9, 0.1),
    ):
        lowest, highest, mean = (wide[n] for n in ("lowest_ca", "highest_ca", "mean_ca"))
        # The usual range of the knee lies about pi, from 0.1416 before it to 0.1 after it.
        planted = dataclasses.replace(
            by, mean_ca=mean.at[:, which].set(np.pi),
            lowest_ca=lowest.at[:, which].set(3.0 - np.pi),
            highest_ca=highest.at[:, which].set(0.1),
        )  # fmt: skip
        thigh = points[0, knee] - points[0, hip]
        way = np.arctan2(thigh[1], thigh[0]) + turn
        points[0, ankle] = points[0, knee] + 50 * np.array([np.cos(way), np.sin(way)])
        found = measure(planted, points, valid, diagonal)["angle"]
        np.testing.assert_allclose(found[0], outside / shape[1], atol=1e-5)


def test_symmetry_is_what_the_log_ratio_exceeds_the_usual_by():
    by, (points, valid, diagonal) = measures(COCO), people(COCO, FEW, 4)
    elbow, wrist = place(COCO, "left_elbow"), place(COCO, "left_wrist")
    points[1, wrist] = points[1, elbow] + 0.5 * (points[1, wrist] - points[1, elbow])
    points[2, wrist] = points[2, elbow]
    bones = {bone.name: bone for bone in limbs.bones(COCO)}

    def log(n, name):
        return np.log(np.hypot(*(points[n, bones[name].b] - points[n, bones[name].a])))

    for n in (0, 1):
        over = []
        for (left, right), usual in zip(by.pairs, by.uneven_p, strict=True):
            ratio = log(n, by.bones[left].name) - log(n, by.bones[right].name)
            over.append(max(abs(ratio) - usual, 0))
        found = measure(by, points, valid, diagonal)["symmetry"][n]
        np.testing.assert_allclose(found, np.mean(over), rtol=1e-3, atol=1e-6)
    assert {by.bones[left].name for left, _ in by.pairs} == {
        f"left_{bone}" for bone in (*corruptions.BONES, "torso")
    }
    # Two joints on one place are uneven too: about log(1 / 0.05) for one pair of five.
    assert 0.4 < measure(by, points, valid, diagonal)["symmetry"][2] < 0.65


def test_pull_is_the_square_of_how_far_the_mean_estimate_moves():
    by, (points, valid, diagonal) = measures(COCO), people(COCO, FEW, 5)
    valid[2, 3] = False
    part, units = by.prior.part, by.prior.units
    joints = list(part.joints)
    at = coordinates.frame(part, units, points[:, joints], valid[:, joints], diagonal)
    u = coordinates.normalise(points[:, joints], valid[:, joints], at, units)
    given = diffusion.nothing_observed(valid[:, joints], jnp.zeros((FEW, coordinates.CONTEXT)))
    denoised, wanted = jax.jit(refine.denoised), np.zeros(FEW)
    for ratio in (0.05, 0.1, 0.2):
        noise = np.broadcast_to(np.asarray(by.noise_sj2)[:, None], (8, FEW, len(joints), 2))
        mean = np.asarray(denoised(by.prior, u, given, jnp.full(8, ratio), noise)).mean(0)
        for n in range(FEW):
            score = ((mean[n] - u[n]) ** 2).sum(-1)[valid[n, joints]] / (2 * ratio**2)
            wanted[n] += (score**2).mean() / 3
    found = measure(by, points, valid, diagonal)["diffusion"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert len(set(np.round(wanted, 6))) == FEW
    np.testing.assert_allclose(np.asarray(by.noise_sj2).sum(0), 0, atol=1e-6)


def test_a_joint_that_is_not_valid_plays_no_part():
    by, judge = measures(COCO), kps(COCO)
    points, valid, diagonal = people(COCO, FEW, 6)
    valid &= np.random.default_rng(0).uniform(size=valid.shape) < 0.8
    moved = [np.where(valid[..., None], points, points + 1e3),
             np.where(valid[..., None], points, np.nan)]  # fmt: skip

    def total(points):
        found = energies.energies(by, points, valid, diagonal)
        return sum(jnp.nansum(value) for value in found.values())

    gradient = jax.jit(jax.grad(total))
    wanted, slope = score(judge, points, valid, diagonal), gradient(points)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0
    assert not np.asarray(slope)[~valid].any()
    for other in moved:
        found = score(judge, other.astype(np.float32), valid, diagonal)
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
        np.testing.assert_array_equal(gradient(other.astype(np.float32)), slope)


def test_shift_and_scale_play_no_part_and_a_mirror_only_for_the_prior():
    by, (points, valid, diagonal) = measures(COCO), people(COCO, FEW, 7)
    points = corruptions.stretched_bone(points, COCO, 0).points_nk2
    wanted = measure(by, points, valid, diagonal)
    for shift, zoom in ((30.0, 1.0), (0.0, 2.5), (-200.0, 0.3)):
        found = measure(by, points * np.float32(zoom) + np.float32(shift), valid, diagonal * zoom)
        for name, value in found.items():
            np.testing.assert_allclose(value, wanted[name], rtol=1e-3, atol=1e-4, err_msg=name)
    mirrored = (500 - points * [1, 0] + points * [-0, 1] - [0, 500])[:, list(COCO.flip_indices)]
    found = measure(by, mirrored.astype(np.float32), valid, diagonal)
    assert max(wanted["length"]) > 1 and max(wanted["symmetry"]) > 0.01 and max(wanted["angle"]) > 0
    for name in ("length", "symmetry", "angle"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-2, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("skeleton", [COCO, WHOLE, LAB], ids=lambda s: s.name)
def test_true_people_pass_and_planted_mistakes_do_not(skeleton):
    judge, (points, valid, diagonal) = kps(skeleton), people(skeleton, 400, 8)
    found = score(judge, points, valid, diagonal)
    assert bool(found.judged_b.all())
    assert set(found.parts) == {"length", "angle", "symmetry", "diffusion"}
    p = np.asarray(found.p_b)
    # Three standard deviations of 400 judged by 300.
    assert 0.01 < (p < 0.05).mean() < 0.105
    for name in ("stretched_bone", "collapsed_arm"):
        wrong = corruptions.ALL[name](points, skeleton, 0)
        with_it = score(judge, wrong.points_nk2, valid, diagonal).p_b[wrong.usable_n]
        assert (with_it[:, None] < p[None]).mean() > 0.9


def test_few_valid_joints_are_not_judged_and_said_so():
    points, valid, diagonal = people(COCO, FEW, 9)
    valid[0, 7:], valid[1, 8:] = False, False
    found = score(kps(COCO), points, valid, diagonal)
    assert found.judged_b.tolist() == [False] + [True] * (FEW - 1)
    assert np.isnan(found.p_b[0]) and 0 < found.p_b[1] <= 1


def test_with_fewer_than_fifty_nobody_is_judged():
    group = people(COCO, 49, 10)
    content = plausibility.fit(measures(COCO), *group, np.full(49, ""))
    assert content["conformal"] is None and set(content["energies"].values()) == {None}
    assert content["left_out"]["length"] == "49 people, 50 needed"
    found = score(plausibility.make(measures(COCO), content), *(a[:FEW] for a in group))
    assert not found.judged_b.any() and np.isnan(found.p_b).all()
    nobody = plausibility.fit(measures(COCO), *(a[:0] for a in group), [])
    assert nobody["people"] == 0 and nobody["conformal"] is None


def test_an_energy_that_too_few_show_is_left_out_and_the_rest_judges():
    points, valid, diagonal = people(COCO, 100, 11)
    valid[:60, [i for i, name in enumerate(COCO.keypoints) if "right_" in name]] = False
    content = plausibility.fit(measures(COCO), points, valid, diagonal, np.full(100, "walk"))
    assert content["left_out"] == {"symmetry": "40 people, 50 needed"}
    assert content["energies"]["symmetry"] is None
    found = score(plausibility.make(measures(COCO), content), points, valid, diagonal)
    assert found.judged_b.all() and np.isnan(found.parts["symmetry"]).all()
    assert not np.isnan(found.parts["length"][60:]).any()


def test_the_pull_is_told_by_people_with_as_many_joints():
    counts = np.array([10] * 60 + [17] * 80)
    pulls = np.where(counts == 10, 1.0, 3.0)
    usual = plausibility._usual_pull(pulls, counts, 17)
    assert usual[:14].tolist() == [1.0] * 14 and usual[14:].tolist() == [3.0] * 4
    # Fewer than fifty of a number are joined by their neighbours.
    usual = plausibility._usual_pull(pulls[20:], counts[20:], 17)
    np.testing.assert_allclose(usual[10], (40 * 1 + 80 * 3) / 120)


def test_parts_are_tail_probabilities_among_who_calibrated():
    points, valid, diagonal = people(COCO, FEW, 12)
    judge = kps(COCO)
    found = score(judge, points, valid, diagonal)
    lengths = np.asarray(measure(measures(COCO), points, valid, diagonal)["length"])
    table = np.array(fitted(COCO)["energies"]["length"], np.float32)
    wanted = [(1 + (table >= s).sum()) / 301 for s in lengths]
    np.testing.assert_allclose(found.parts["length"], wanted, atol=2 / 301)
    clusters = np.asarray(limbs.posture_cluster(points, valid, COCO))
    np.testing.assert_array_equal(found.cluster_b, clusters)


def test_a_calibration_of_other_noise_is_refused_in_one_line():
    by = measures(COCO)
    other = dataclasses.replace(by, seed=1)
    with pytest.raises(ValueError, match="'seed' is 0, not 1; fit the prior again") as error:
        plausibility.make(other, fitted(COCO))
    assert "\n" not in str(error.value)
    assert calibration.FEWEST == 50
