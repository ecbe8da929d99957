"""Energies against own formulas; the prior's network is of random numbers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax.kinematics import corruptions, energies, limbs
from nkjax.prior import coordinates, diffusion, refine
from tests.kinematics.stick_people import (
    COCO,
    FEW,
    PRONE,
    WHOLE,
    lying,
    measure,
    measures,
    people,
    place,
    statistics_of,
)

LEGS = [f"{side}_{joint}" for side in ("left", "right") for joint in ("hip", "knee", "ankle")]


@jax.jit
@jax.grad
def by_points(points, by, valid, diagonal):
    return energies.energies(by, points, valid, diagonal)["length"].sum()


def test_what_is_measured_by_is_read_off_the_statistics_and_null_is_unknown():
    facts = json.loads(json.dumps(statistics_of(COCO)))
    nothing = {"n": 1, "quantiles": None, "mad": None}
    facts["bones"]["left_forearm"] |= {"usual_log": None, "projected": nothing}
    facts["symmetry"]["left_shank"]["absolute"] = None
    turns = facts["angles"]["left_knee"]["projected_rad"]
    percent = {"0.5": -0.4, "2.5": -0.2, "50": 0.0, "97.5": 0.1, "99.5": 0.3}
    turns["prone"] = {"n": 60, "mean": 1.0, "quantiles": percent}
    by = energies.measures(COCO, facts, measures(COCO).prior)
    for i, bone in enumerate(by.bones):
        fact, wanted = facts["bones"][bone.name], [np.nan] * 4
        if bone.name != "left_forearm":
            of = fact["projected"]
            quantiles = of["quantiles"]
            wanted = [fact["usual_log"], quantiles["50"], quantiles["99"], 1.4826 * of["mad"]]
        found = [by.usual_b[i], by.middle_b[i], by.longest_b[i], by.spread_b[i]]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, err_msg=bone.name)
    names = [by.bones[left].name for left, _ in by.pairs]
    assert sorted(names) == ["left_forearm", "left_thigh", "left_torso", "left_upper_arm"]
    usual = [facts["symmetry"][name]["absolute"]["95"] for name in names]
    np.testing.assert_allclose(by.uneven_p, usual, rtol=1e-5)
    # Everybody's where a cluster has few: nobody here is seated.
    knee = [angle.name for angle in by.angles].index("left_knee")
    everybody = [turns["all"]["mean"], *(turns["all"]["quantiles"][q] for q in ("0.5", "99.5"))]
    assert turns["seated"]["quantiles"] is None and turns["upright"]["n"] > 700
    for cluster, wanted in (("prone", [1.0, -0.4, 0.3]), ("seated", everybody)):
        c = limbs.CLUSTERS.index(cluster)
        found = [by.mean_ca[c, knee], by.lowest_ca[c, knee], by.highest_ca[c, knee]]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_hands_are_not_measured_and_feet_not_against_each_other():
    by = measures(WHOLE)
    assert {bone.part for bone in by.bones} == {angle.part for angle in by.angles}
    assert {bone.part for bone in by.bones} == {"body", "foot"}
    assert {by.bones[i].part for pair in by.pairs for i in pair} == {"body"} and len(by.pairs) == 5


@pytest.mark.parametrize("longer", ["forearm", "torso"])
def test_length_is_by_how_much_the_longest_bone_exceeds_the_usual(longer):
    by, (points, valid, diagonal) = measures(COCO), people(COCO, FEW, 2)
    a, b = place(COCO, "left_elbow"), place(COCO, "left_wrist")
    if longer == "forearm":
        points[:, b] = points[:, a] + 1.8 * (points[:, b] - points[:, a])
    else:
        points[:, [place(COCO, name) for name in LEGS], 1] += 0.7 * diagonal[:, None]
    excess, slope = [], []
    for n in range(20):
        logs = [np.log(np.hypot(*(points[n, bone.b] - points[n, bone.a]))) for bone in by.bones]
        size = np.quantile(np.array(logs) - np.asarray(by.usual_b), 0.75)
        spread = np.asarray(by.spread_b) * [1 if bone.rigid else 2 for bone in by.bones]
        shares = np.exp(np.array(logs) - size)
        over = (shares - np.asarray(by.longest_b)) / spread
        excess.append(max(*over, 0))
        slope.append((shares / spread)[over.argmax()])
        assert longer in by.bones[over.argmax()].name
    found = measure(by, points, valid, diagonal)["length"]
    np.testing.assert_allclose(found, excess, rtol=2e-3)
    assert min(excess) > 3
    # With the size held fixed, as if a person who grows had longer bones.
    gradient = by_points(points, by, valid, diagonal)
    middle = points.mean(1, keepdims=True)
    np.testing.assert_allclose((gradient * (points - middle)).sum((1, 2)), slope, rtol=2e-3)


def test_nothing_is_too_short():
    by, (points, valid, diagonal) = measures(COCO), people(COCO, FEW, 2)
    a, b = place(COCO, "left_elbow"), place(COCO, "left_wrist")
    points[:, b] = points[:, a] + 0.3 * (points[:, b] - points[:, a])
    assert np.median(measure(by, points, valid, diagonal)["length"]) == 0


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
        # Of who is prone the knee lies about pi, from 0.1416 before it to 0.1 after it.
        planted = dataclasses.replace(
            by, mean_ca=mean.at[PRONE, which].set(np.pi),
            lowest_ca=lowest.at[PRONE, which].set(3.0 - np.pi),
            highest_ca=highest.at[PRONE, which].set(0.1),
        )  # fmt: skip
        thigh = points[0, knee] - points[0, hip]
        way = np.arctan2(thigh[1], thigh[0]) + turn
        points[0, ankle] = points[0, knee] + 50 * np.array([np.cos(way), np.sin(way)])
        points[1] = lying(points[0])
        found = measure(planted, points, valid, diagonal)["angle"]
        np.testing.assert_allclose(found[:2], [0, outside / shape[1]], atol=1e-5)


def test_symmetry_is_what_the_log_ratio_exceeds_the_usual_by():
    by, (points, valid, diagonal) = measures(COCO), people(COCO, FEW, 4)
    elbow, wrist = place(COCO, "left_elbow"), place(COCO, "left_wrist")
    points[1, wrist] = points[1, elbow] + 0.5 * (points[1, wrist] - points[1, elbow])
    points[2, wrist] = points[2, elbow]
    valid[0, place(COCO, "right_ankle")] = False
    bones = {bone.name: bone for bone in limbs.bones(COCO)}

    def log(n, name):
        return np.log(np.hypot(*(points[n, bones[name].b] - points[n, bones[name].a])))

    for n in (0, 1):
        over = []
        for (left, right), usual in zip(by.pairs, by.uneven_p, strict=True):
            if n == 0 and by.bones[left].name == "left_shank":
                continue
            ratio = log(n, by.bones[left].name) - log(n, by.bones[right].name)
            over.append(max(abs(ratio) - usual, 0))
        found = measure(by, points, valid, diagonal)["symmetry"][n]
        np.testing.assert_allclose(found, np.mean(over), rtol=1e-3, atol=1e-6)
    assert {by.bones[left].name for left, _ in by.pairs} == {
        f"left_{bone}" for bone in (*corruptions.BONES, "torso")
    }
    # Two joints on one place are uneven too: about log(1 / 0.05) for one pair of five.
    assert 0.4 < measure(by, points, valid, diagonal)["symmetry"][2] < 0.65


def test_what_nothing_is_known_of_is_nan_and_not_usual():
    by, (points, valid, diagonal) = measures(COCO), people(COCO, FEW, 13)
    valid[:2] = False
    # Two upper arms and the line between them: equal or not, too few to tell a size.
    valid[1, [place(COCO, f"{s}_{j}") for s in limbs.SIDES for j in ("shoulder", "elbow")]] = True
    found = measure(by, points, valid, diagonal)
    assert all(np.isnan(value[0]) for value in found.values())
    assert {name for name, value in found.items() if np.isfinite(value[1])} == {"diffusion"}
    assert all(np.isfinite(value[2:]).all() for value in found.values())


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
