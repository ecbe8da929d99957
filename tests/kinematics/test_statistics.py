"""Statistics of people against what was planted in them, and against numbers worked by hand."""

import json

import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.kinematics import limbs, scale, statistics
from nkjax.prior.people import People

COCO = skeletons.load("coco17")
AT = {name: i for i, name in enumerate(COCO.keypoints)}
# m. The right arm is shorter than the left one: nothing may take one for the other.
LENGTHS = {
    "left_upper_arm": 0.16, "left_forearm": 0.13, "right_upper_arm": 0.14, "right_forearm": 0.11,
    "left_thigh": 0.19, "right_thigh": 0.19, "left_shank": 0.18, "right_shank": 0.18,
    "shoulder_line": 0.2, "hip_line": 0.14,
}  # fmt: skip
TORSO = 0.26
CHAIN = (("upper_arm", "shoulder", "elbow"), ("forearm", "elbow", "wrist"),
         ("thigh", "hip", "knee"), ("shank", "knee", "ankle"))  # fmt: skip


def stick_figures(count, seed, size=100.0):
    """Return points (N, 17, 2) px: 3D bodies of LENGTHS that turn, lean, and move all their limbs.

    size: px per m at most usual; everybody has another one. y points down, z at the camera.
    """
    draw = np.random.default_rng(seed)
    points = np.zeros((count, 17, 3))
    points[:, AT["left_shoulder"]] = [LENGTHS["shoulder_line"] / 2, -TORSO, 0]
    points[:, AT["right_shoulder"]] = [-LENGTHS["shoulder_line"] / 2, -TORSO, 0]
    points[:, AT["left_hip"]] = [LENGTHS["hip_line"] / 2, 0, 0]
    points[:, AT["right_hip"]] = [-LENGTHS["hip_line"] / 2, 0, 0]
    for side in ("left", "right"):
        for name, a, b in CHAIN:
            way = draw.normal(size=(count, 3)) + [0, 1, 0]
            way *= LENGTHS[f"{side}_{name}"] / np.linalg.norm(way, axis=1, keepdims=True)
            points[:, AT[f"{side}_{b}"]] = points[:, AT[f"{side}_{a}"]] + way
    for lean in (False, True):
        angle = draw.normal(0, 0.4, count) if lean else draw.uniform(-np.pi, np.pi, count)
        turn, (c, s) = np.zeros((count, 3, 3)), (np.cos(angle), np.sin(angle))
        i, j, k = (0, 1, 2) if lean else (0, 2, 1)
        turn[:, i, i], turn[:, i, j], turn[:, j, i], turn[:, j, j], turn[:, k, k] = c, -s, s, c, 1
        points = np.einsum("nij,nkj->nki", turn, points)
    scale = size * np.exp(draw.normal(0, 0.4, count))
    shift = draw.uniform(-50, 50, (count, 1, 2))
    return (points[:, :, :2] * scale[:, None, None] + shift).astype(np.float32)


def crowd(points, visible=None, per_subject=4, **texts):
    """Return People of points, all of them visible where nothing else is said."""
    n, k = points.shape[:2]
    visible = np.full((n, k), 2, np.int8) if visible is None else visible
    arrays = {name: np.full(n, "", "<U9") for name in ("posture", "grasp")}
    arrays |= {"subject": np.array([f"s{i // per_subject:04}" for i in range(n)])}
    arrays |= {"person": np.array([f"p{i:05}" for i in range(n)])} | texts
    points = np.where((visible > 0)[:, :, None], points, np.nan).astype(np.float32)
    ages = np.full(n, np.nan, np.float32)
    return People(points, visible, np.full(n, 100.0, np.float32), ages, arrays["subject"],
                  arrays["posture"], arrays["grasp"], arrays["person"])  # fmt: skip


def fit(people, skeleton=COCO):
    return statistics.fit(people, skeleton, {"fit": people.subject_n}, "hash")


def test_planted_bone_lengths_are_recovered_within_3_percent():
    bones = fit(crowd(stick_figures(6000, 0)))["bones"]
    upper = {name: bones[name]["projected"]["quantiles"]["95"] for name in LENGTHS}
    unit = np.mean(list(upper.values())) / np.mean(list(LENGTHS.values()))
    for name, length in LENGTHS.items():
        assert upper[name] / unit == pytest.approx(length, rel=0.03), name
        assert np.exp(bones[name]["usual_log"]) / upper[name] == pytest.approx(1, abs=0.06)
        assert bones[name]["compensated"] is None
    assert (bones["left_torso"]["rigid"], bones["left_thigh"]["rigid"]) == (False, True)


def test_left_and_right_are_told_apart():
    found = fit(crowd(stick_figures(6000, 1)))
    for bone in ("upper_arm", "forearm"):
        left, right = (found["bones"][f"{s}_{bone}"]["projected"] for s in ("left", "right"))
        ratio = LENGTHS[f"left_{bone}"] / LENGTHS[f"right_{bone}"]
        assert left["quantiles"]["95"] / right["quantiles"]["95"] == pytest.approx(ratio, rel=0.03)
        # Both are foreshortened alike, so the median of the log ratio is that of the lengths.
        assert found["symmetry"][f"left_{bone}"]["median"] == pytest.approx(np.log(ratio), abs=0.03)
    assert found["symmetry"]["left_thigh"]["median"] == pytest.approx(0, abs=0.03)
    assert found["symmetry"].keys() == {
        f"left_{bone}" for bone in ("upper_arm", "forearm", "thigh", "shank", "torso")
    }


def test_symmetry_by_hand():
    points = stick_figures(100, 2)
    share = np.linspace(0.5, 1.5, 100)
    shoulders = points[:, [AT["left_shoulder"], AT["right_shoulder"]]]
    points[:, AT["left_elbow"]] = shoulders[:, 0] + np.array([10, 0])
    points[:, AT["right_elbow"]] = shoulders[:, 1] + 10 * share[:, None] * np.array([[0.6, 0.8]])
    found = fit(crowd(points))["symmetry"]["left_upper_arm"]
    ratios = -np.log(share)
    assert (found["n"], found["mirror"]) == (100, "right_upper_arm")
    assert found["median"] == pytest.approx(np.median(ratios), abs=1e-5)
    assert found["mad"] == pytest.approx(np.median(np.abs(ratios - np.median(ratios))), abs=1e-5)
    # Weibull's position of the 95 % quantile of 100 samples: (100 + 1) x .95 = 95.95.
    a, b = np.sort(np.abs(ratios))[94:96]
    assert found["absolute"]["95"] == pytest.approx(a + 0.95 * (b - a), abs=1e-5)


def test_order_plays_no_part_bit_for_bit(monkeypatch):
    monkeypatch.setattr(statistics, "DIGITS", 20)  # rounding would hide what sums differ by
    draw = np.random.default_rng(3)
    visible = draw.integers(0, 3, (600, 17)).astype(np.int8)
    posture = draw.choice(["crawl", "walk", ""], 600)
    people = crowd(stick_figures(600, 3), visible, posture=posture)
    wanted = json.dumps(fit(people))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(600)
        assert json.dumps(fit(people.chosen(order))) == wanted


def test_size_and_place_in_the_picture_play_no_part():
    points = stick_figures(500, 4)
    one, two = fit(crowd(points)), fit(crowd(points * 2 + 31))
    for name, bone in one["bones"].items():
        for percent, value in bone["projected"]["quantiles"].items():
            other = two["bones"][name]["projected"]["quantiles"][percent]
            assert other == pytest.approx(value, rel=1e-4)
    assert one["clusters"] == two["clusters"]


def with_toes():
    data = skeletons.to_json(COCO)
    keypoints = [*data["keypoints"], "left_big_toe", "right_big_toe"]
    lines = [*data["limbs"], ["left_ankle", "left_big_toe"], ["right_ankle", "right_big_toe"]]
    return skeletons.parse({"name": "coco17", "keypoints": keypoints, "limbs": lines}, "more")


def test_feet_do_not_tell_how_large_a_person_is_but_are_measured():
    points = stick_figures(300, 13)
    toes = points[:, [AT["left_ankle"], AT["right_ankle"]]]
    toes = toes + np.random.default_rng(13).normal(0, 99, (300, 2, 2))
    wanted, found = fit(crowd(points)), fit(crowd(np.concatenate([points, toes], 1)), with_toes())
    assert {name: found["bones"][name] for name in wanted["bones"]} == wanted["bones"]
    toe = found["bones"]["left_ankle-left_big_toe"]
    assert toe["usual_log"] is None and toe["projected"]["n"] == 300


def test_hands_without_a_body_have_a_scale_of_their_own():
    names = [f"{side}_{joint}" for side in ("left", "right")
             for joint in ("hand_root", "thumb1", "thumb2", "thumb3")]  # fmt: skip
    chain = [[a, b] for a, b in zip(names, names[1:], strict=False) if a[:2] == b[:2]]
    hands = skeletons.parse({"name": "hands", "keypoints": names, "limbs": chain}, "hands")
    found = fit(crowd(np.random.default_rng(14).normal(0, 9, (80, 8, 2))), hands)["bones"]
    assert [bone["usual_log"] is None for bone in found.values()] == [False] * 6


def test_a_joint_that_nobody_labelled_changes_nothing_else():
    more = with_toes()
    points = stick_figures(300, 5)
    visible = np.random.default_rng(5).integers(0, 3, (300, 17)).astype(np.int8)
    wanted = fit(crowd(points, visible))
    points, visible = (np.concatenate([a, 0 * a[:, :2]], 1) for a in (points, visible))
    found = fit(crowd(points, visible), more)
    for table in ("bones", "symmetry", "angles"):
        assert {name: found[table][name] for name in wanted[table]} == wanted[table]
        assert len(found[table]) > len(wanted[table])
    toe = found["bones"]["left_ankle-left_big_toe"]
    assert toe["projected"] == {"n": 0, "quantiles": None, "mad": None} and not toe["usual_log"]
    assert found["visibility"]["all"]["shares"]["left_big_toe"] == [1, 0, 0]
    assert found["clusters"] == wanted["clusters"]


def test_fewer_than_50_samples_are_null_and_50_are_numbers():
    points, visible = stick_figures(60, 6), np.full((60, 17), 2, np.int8)
    visible[49:, AT["left_wrist"]] = 0
    visible[50:, AT["right_wrist"]] = 0
    found = fit(crowd(points, visible))
    left, right = (found["bones"][f"{side}_forearm"] for side in ("left", "right"))
    assert left["projected"] == {"n": 49, "quantiles": None, "mad": None}
    assert left["usual_log"] is None
    assert right["projected"]["n"] == 50 and right["projected"]["mad"] > 0
    assert right["projected"]["quantiles"]["50"] > 0 and right["usual_log"] is not None
    left, right = (found["angles"][f"{s}_elbow"]["projected_rad"]["all"] for s in ("left", "right"))
    assert left == {"n": 49, "mean": None, "quantiles": None}
    assert right["n"] == 50 and right["quantiles"]["0.5"] < 0 < right["quantiles"]["99.5"]
    nothing = {"median": None, "mad": None, "absolute": None}
    wanted = {"mirror": "right_forearm", "n": 49} | nothing
    assert found["symmetry"]["left_forearm"] == wanted
    few = fit(crowd(points[:49]))
    assert few["visibility"]["all"] == {"n": 49, "shares": None}
    assert all(bone["projected"]["quantiles"] is None for bone in few["bones"].values())


def bent_elbows(turns, side):
    """Return standing figures seen from the front, one elbow of each turned so far."""
    points = np.repeat(stick_figures(1, 7), len(turns), 0)
    for name, x, y in (("shoulder", 15, -80), ("hip", 10, -30), ("knee", 10, 0), ("ankle", 10, 30)):
        points[:, AT[f"left_{name}"]], points[:, AT[f"right_{name}"]] = [[x, y], [-x, y]]
    shoulder, elbow = points[:, AT[f"{side}_shoulder"]], np.array([[0, 30]])
    points[:, AT[f"{side}_elbow"]] = shoulder + elbow
    # Downwards is (0, 1); clockwise as seen leads from there to -x.
    wrist = 25 * np.stack([-np.sin(turns), np.cos(turns)], 1)
    points[:, AT[f"{side}_wrist"]] = shoulder + elbow + wrist
    return points


@pytest.mark.parametrize("centre", [0.8, -2.0, np.pi, -3.1])
def test_planted_ranges_of_an_elbow_are_recovered_across_pi_too(centre):
    turns = centre + np.linspace(-0.5, 0.5, 401)
    elbows = fit(crowd(bent_elbows(turns, "left")))["angles"]["left_elbow"]["projected_rad"]
    found = elbows["upright"]
    assert found == elbows["all"] and found["n"] == 401
    assert np.cos(found["mean"] - centre) == pytest.approx(1, abs=1e-6)
    for percent, value in found["quantiles"].items():
        # Positions (401 + 1) q of evenly spread samples, counted from 1.
        assert value == pytest.approx((402 * float(percent) / 100 - 201) / 400, abs=1e-4)


def test_ranges_are_those_of_one_side_and_of_one_cluster():
    turns = np.linspace(0.4, 0.9, 101)
    points = np.concatenate([bent_elbows(turns, "left"), bent_elbows(-turns, "right")])
    visible = np.full((202, 17), 2, np.int8)
    visible[:101, AT["right_wrist"]] = visible[101:, AT["left_wrist"]] = 0
    angles = fit(crowd(points, visible))["angles"]
    left, right = (angles[f"{s}_elbow"]["projected_rad"]["upright"] for s in ("left", "right"))
    assert left["mean"] == pytest.approx(0.65, abs=1e-4) and left["n"] == right["n"] == 101
    assert right["mean"] == pytest.approx(-0.65, abs=1e-4)
    assert angles["left_elbow"]["mirror"] == "right_elbow"
    assert angles["left_elbow"]["projected_rad"]["prone"]["n"] == 0


def test_the_spread_of_lengths_is_about_their_median():
    points, bones = stick_figures(200, 15), limbs.bones(COCO)
    found = fit(crowd(points))["bones"]
    logs = limbs.log_lengths(points.astype(float), np.ones((200, 17), bool), bones)
    usual = np.array([found[bone.name]["usual_log"] for bone in bones])
    relative = np.exp(logs - scale.person_scale(logs, usual)[:, None])
    wanted = np.median(np.abs(relative - np.median(relative, 0)[None]), 0)
    mads = [found[bone.name]["projected"]["mad"] for bone in bones]
    np.testing.assert_allclose(mads, wanted, rtol=1e-3)


def test_intervals_reject_1_percent_of_new_people():
    found, points = fit(crowd(stick_figures(8000, 8))), stick_figures(8000, 9)
    valid, shares = np.ones((8000, 17), bool), []
    bones = limbs.bones(COCO)
    logs = limbs.log_lengths(points, valid, bones)
    usual = np.array([found["bones"][bone.name]["usual_log"] for bone in bones])
    relative = np.exp(logs - scale.person_scale(logs, usual)[:, None])
    for i, bone in enumerate(bones):
        ends = found["bones"][bone.name]["projected"]["quantiles"]
        outside = (relative[:, i] < ends["0.5"]) | (relative[:, i] > ends["99.5"])
        shares.append(outside.mean())
    turns = limbs.turns(points, valid, limbs.angles(COCO))
    for i, angle in enumerate(limbs.angles(COCO)):
        entry = found["angles"][angle.name]["projected_rad"]["all"]
        about = (turns[:, i] - entry["mean"] + np.pi) % (2 * np.pi) - np.pi
        ends = entry["quantiles"]
        shares.append(((about < ends["0.5"]) | (about > ends["99.5"])).mean())
    # 1 % of 8,000 there and here is 1 +- .16 %.
    assert 0.005 < min(shares) and max(shares) < 0.015
    assert np.mean(shares) == pytest.approx(0.01, abs=0.002)


def test_visibility_and_postures_are_counted():
    visible = np.tile(np.array([[0], [1], [2], [2]], np.int8), (30, 17))
    posture = np.array(["crawl"] * 100 + ["walk"] * 15 + [""] * 5)
    found = fit(crowd(stick_figures(120, 10), visible, posture=posture))
    assert found["postures"] == {"crawl": 100, "walk": 15}
    assert found["visibility"]["all"]["shares"]["nose"] == [0.25, 0.25, 0.5]
    assert found["visibility"]["crawl"]["shares"]["left_knee"] == [0.25, 0.25, 0.5]
    assert found["visibility"]["walk"] == {"n": 15, "shares": None}
    assert (found["people"], found["subjects"], found["data"]) == (120, 30, "hash")
    assert sum(found["clusters"].values()) == 120 and found["clusters"]["unknown"] == 30


def test_folds_are_by_subject_and_are_kept():
    people = crowd(stick_figures(8, 11))
    folds = {"fit": ["s0001", "s0000", "s0000"], "calibration": ["s0007"]}
    found = statistics.fit(people, COCO, folds, "hash")["folds"]
    assert found == {"calibration": ["s0007"], "fit": ["s0000", "s0001"]}
    with pytest.raises(statistics.BadStatistics, match="s0001 is in folds 'calibration' and 'fit'"):
        statistics.fit(people, COCO, folds | {"calibration": ["s0001"]}, "hash")
    with pytest.raises(statistics.BadStatistics, match="1 subjects, s0001 first, are not in fold"):
        statistics.fit(people, COCO, {"fit": ["s0000"], "calibration": ["s0001"]}, "hash")
    with pytest.raises(statistics.BadStatistics, match="no labelled people"):
        fit(people.chosen(np.zeros(8, bool)))


def test_a_file_reads_back_equal(tmp_path):
    found = fit(crowd(stick_figures(60, 12)))
    statistics.write(tmp_path / "statistics.json", found)
    assert statistics.read(tmp_path / "statistics.json") == found


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "cannot be opened (No such file"), ("{", "not a JSON file"),
     ("[]", "not a JSON object"),
     ('{"format": 7}', "format 7, not 1"), ('{"format": 1}', "'skeleton' is missing")],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, text, why):
    path = tmp_path / "statistics.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(statistics.BadStatistics) as error:
        statistics.read(path)
    message = str(error.value)
    assert message.startswith(str(path)) and why in message and "fit_prior.py" in message
    assert "\n" not in message
