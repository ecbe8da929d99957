"""PCK, AUC, pixel errors, splits and intervals: by hand, and by plain loops over every joint."""

import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.evaluate import scores
from nkjax.evaluate.scores import Found

COCO17, WHOLE, GOLIATH = (skeletons.load(n) for n in ("coco17", "wholebody133", "goliath308"))
NAN = float("nan")
pytestmark = pytest.mark.filterwarnings("error")


def made(skeleton, count, **changes):
    """Return people without any labelled joint, in boxes of 60 x 100 px, predicted at (0, 0)."""
    joints = len(skeleton.keypoints)
    plain = {
        "points_nk2": np.zeros((count, joints, 2)), "scores_nk": np.ones((count, joints)),
        "truth_nk2": np.zeros((count, joints, 2)), "visible_nk": np.zeros((count, joints), int),
        "box_n4": np.tile([5.0, 5, 60, 100], (count, 1)), "box_score_n": np.ones(count),
        "area_n": np.full(count, 3e3), "crop_px_n": np.ones(count),
        "people": tuple({"person_id": str(i)} for i in range(count)),
    }  # fmt: skip
    return Found(**plain | changes)


def drawn(skeleton, count, seed=0, subjects=5):
    """Draw people with errors of all sizes, some joints not labelled, some of a hand alone."""
    rng, joints = np.random.default_rng(seed), len(skeleton.keypoints)
    truth = rng.uniform(0, 100, (count, joints, 2))
    visible = rng.choice(3, (count, joints), p=[0.35, 0.2, 0.45])
    truth[visible == 0] = NAN
    size = rng.uniform(40, 200, (count, 2))
    spread = rng.uniform(1, 40, (count, 1, 1))
    points = np.nan_to_num(truth) + rng.normal(0, 1, truth.shape) * spread
    people = tuple(
        {"person_id": f"p{i}", "picture_id": f"q{i}", "subject": f"s{rng.integers(subjects)}",
         "posture": ("walk", "sit", "")[i % 3], "grasp": ("pincer", "")[i % 2],
         "age_months": (13.0, NAN, 80.0, 5.9)[i % 4]} for i in range(count)
    )  # fmt: skip
    return made(
        skeleton, count, truth_nk2=truth, visible_nk=visible, points_nk2=points,
        box_n4=np.column_stack([np.zeros((count, 2)), size]), people=people,
        crop_px_n=rng.uniform(0.5, 3, count),
    )  # fmt: skip


def one(name, away, visible=2):
    """Return one person with one labelled joint, predicted (away, 0) px beside it."""
    found = made(COCO17, 1)
    i = COCO17.keypoints.index(name)
    found.visible_nk[0, i] = visible
    found.truth_nk2[0, i] = (40, 60)
    found.points_nk2[0, i] = (40 + away, 60)
    return found


@pytest.mark.parametrize("away, within", [(5, 3), (5.01, 2), (10, 2), (10.01, 1), (20.01, 0)])
def test_a_joint_counts_up_to_a_share_of_the_longer_side(away, within):
    figures = scores.measure(one("nose", away), COCO17)
    got = [figures[f"pck_box@{share}"] for share in (0.2, 0.1, 0.05)]
    assert got == [1.0] * within + [0.0] * (3 - within)
    assert figures["auc_box"] == pytest.approx(max(1 - away / 20, 0))
    assert figures["pixel_error_mean"] == figures["pixel_error_median"] == pytest.approx(away)
    assert (figures["joints"], figures["people"], figures["people_without_torso"]) == (1, 1, 1)
    assert np.isnan([figures["pck_torso@0.2"], figures["hand_auc_hand_box"]]).all()


def test_nothing_labelled_is_no_number():
    for count in (0, 2):
        found = made(WHOLE, count)
        figures = scores.measure(found, WHOLE)
        counts = {n: figures.pop(n) for n in ("joints", "people", "people_without_torso")}
        assert set(counts.values()) == {0} and np.isnan(list(figures.values())).all()
        assert len(figures) == 12
        for rows in scores.tables(found, WHOLE).values():
            assert all(row["n"] == row["people"] == 0 for row in rows)
        assert len(scores.worst(found, 3)) == 0
        (ends,) = scores.intervals(found, WHOLE, ["pck_box@0.1"]).values()
        assert np.isnan(ends).all()


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_torso_is_its_longer_diagonal(mirrored):
    found = made(COCO17, 3)
    at = {"left_shoulder": (60, 10), "right_shoulder": (30, 10), "left_hip": (50, 50),
          "right_hip": (30, 50)}  # fmt: skip
    # From the left shoulder (60, 10) to the right hip (30, 50): 50 px; the other is 44.7.
    for name, point in at.items():
        i = COCO17.keypoints.index(name)
        if mirrored:
            i, point = COCO17.flip_indices[i], (100 - point[0], point[1])
        found.truth_nk2[:, i] = point
        found.points_nk2[:, i] = np.add(point, (0, 5))
        found.visible_nk[:, i] = 2
    found.points_nk2[0, COCO17.keypoints.index("left_hip")] += (0, 0.01)
    found.visible_nk[1, COCO17.keypoints.index("left_hip")] = 0
    found.truth_nk2[2] = 7
    figures = scores.measure(found, COCO17)
    # Of four joints of the only one with a torso three are within 5 px.
    assert figures["pck_torso@0.1"] == 0.75 and figures["pck_torso@0.05"] == 0
    assert (figures["people"], figures["people_without_torso"], figures["joints"]) == (3, 2, 11)


def test_joints_have_one_vote_each_whoever_they_are_of():
    found = made(COCO17, 2)
    found.visible_nk[0, :4] = 1
    found.visible_nk[1, 0] = 2
    found.points_nk2[1, 0] = (50, 0)
    found.crop_px_n[1] = 2
    figures = scores.measure(found, COCO17)
    assert figures["pck_box@0.2"] == 0.8
    assert (figures["pixel_error_mean"], figures["pixel_error_median"]) == (20, 0)


def test_a_hand_is_measured_by_its_own_box_if_half_of_it_is_labelled():
    found = made(WHOLE, 2)
    left, right = (list(WHOLE.groups[f"{side}_hand"]) for side in ("left", "right"))
    for person, hand, count in ((0, left, 11), (0, right, 10), (1, right, 21)):
        found.visible_nk[person, hand[:count]] = 2
        # 10 px wide, 20 px high.
        found.truth_nk2[person, hand] = [(i % 3 * 5, i % 11 * 2) for i in range(21)]
        found.points_nk2[person, hand] = found.truth_nk2[person, hand] + (2, 0)
    found.points_nk2[0, left[0]] += (0.01, 0)
    figures = scores.measure(found, WHOLE)
    # The ten of the first one's right hand have no say.
    assert figures["hand_pck_hand_box@0.1"] == pytest.approx(31 / 32)
    assert figures["hand_pck_hand_box@0.2"] == 1
    assert figures["hand_auc_hand_box"] == pytest.approx(1 - (0.1 + 0.0005 / 32) / 0.3)
    assert figures["joints"] == 42


def by_loops(found, skeleton, chosen):
    """Return the figures of some joints the slow way, thresholds of areas tried one by one."""
    names = {n: i for i, n in enumerate(skeleton.keypoints)}
    votes = {"box": [], "torso": [], "hand": []}
    pixels = []
    people = zip(found.points_nk2, found.truth_nk2, found.visible_nk, strict=True)
    for n, (points, truth, v) in enumerate(people):
        box = max(found.box_n4[n][2:])
        corners = [
            names[f"{s}_{j}"]
            for s, j in (
                ("left", "shoulder"),
                ("right", "hip"),
                ("right", "shoulder"),
                ("left", "hip"),
            )
        ]
        a, b, c, d = (truth[i] for i in corners)
        torso = max(np.linalg.norm(a - b), np.linalg.norm(c - d)) if v[corners].all() else None
        for i in range(len(v)):
            if not (v[i] and chosen[n, i]):
                continue
            error = np.linalg.norm(points[i] - truth[i])
            pixels.append(error * found.crop_px_n[n])
            votes["box"].append(error / box)
            if torso:
                votes["torso"].append(error / torso)
            for side in ("left_hand", "right_hand"):
                joints = [j for j in skeleton.groups[side] if v[j]]
                if i in joints and 2 * len(joints) >= len(skeleton.groups[side]):
                    low, high = truth[joints].min(0), truth[joints].max(0)
                    votes["hand"].append(error / max(high - low))

    def share(kind, t):
        return np.mean(np.array(votes[kind]) <= t) if votes[kind] else NAN

    want = {f"pck_{by}@{t}": share(by, t) for by in ("box", "torso") for t in (0.05, 0.1, 0.2)}
    want |= {f"hand_pck_hand_box@{t}": share("hand", t) for t in (0.1, 0.2)}
    for name, kind, to in (("auc_box", "box", 0.2), ("hand_auc_hand_box", "hand", 0.3)):
        want[name] = np.mean([share(kind, t) for t in (np.arange(4000) + 0.5) / 4000 * to])
    want["pixel_error_mean"] = np.mean(pixels) if pixels else NAN
    want["pixel_error_median"] = np.median(pixels) if pixels else NAN
    return want, len(pixels)


def assert_figures(row, want, count):
    assert row["n"] == count
    for name, value in want.items():
        tolerance = 3e-4 if "auc" in name else 1e-9
        np.testing.assert_allclose(row[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("skeleton", [COCO17, WHOLE, GOLIATH], ids=lambda s: s.name)
def test_figures_are_those_of_plain_loops(skeleton):
    found = drawn(skeleton, 9)
    want, count = by_loops(found, skeleton, np.ones(found.visible_nk.shape, bool))
    figures = scores.measure(found, skeleton)
    assert_figures(figures | {"n": figures["joints"]}, want, count)
    assert figures["joints"] == count and 0 < figures["people_without_torso"] < 9


def test_every_row_of_every_table_is_of_its_own_joints():
    found, shape = drawn(WHOLE, 9), (9, 133)
    tables = scores.tables(found, WHOLE)
    v, who, i = found.visible_nk, found.people, np.arange(133)[None]
    hand = set(WHOLE.groups["left_hand"]) | set(WHOLE.groups["right_hand"])

    def of(key, value):
        return np.array([p[key] == value for p in who])[:, None]

    age = np.array([p["age_months"] for p in who])[:, None]
    want = {
        ("joint", "nose"): i == 0, ("joint", "left_hip"): i == 11,
        ("group", "body"): ~np.isin(i, list(hand)),
        ("group", "left_hand"): np.isin(i, WHOLE.groups["left_hand"]),
        ("visible", "occluded"): v == 1, ("visible", "visible"): v == 2,
        ("posture", "sit"): of("posture", "sit"), ("posture", "not known"): of("posture", ""),
        ("grasp", "pincer"): of("grasp", "pincer"), ("grasp", "not known"): of("grasp", ""),
        ("subject", who[0]["subject"]): of("subject", who[0]["subject"]),
        ("age", "12-17 months"): age == 13, ("age", "00-05 months"): age == 5.9,
        ("age", "72+ months"): age == 80, ("age", "age not known"): np.isnan(age),
    }  # fmt: skip
    assert list(tables) == ["joint", "group", "visible", "posture", "grasp", "subject", "age"]
    for (table, part), chosen in want.items():
        (row,) = [row for row in tables[table] if row[table] == part]
        chosen = np.broadcast_to(chosen, shape)
        assert_figures(row, *by_loops(found, WHOLE, chosen))
        assert row["people"] == ((v > 0) & chosen).any(1).sum()
    for table, rows in tables.items():
        total = sum(row["n"] for row in rows if table != "group" or row["group"] in
                    ("body", "left_hand", "right_hand"))  # fmt: skip
        assert total == (v > 0).sum(), table
    assert [row["joint"] for row in tables["joint"]] == list(WHOLE.keypoints)
    # Without hands there are no rows of them.
    groups = [row["group"] for row in scores.tables(drawn(COCO17, 2), COCO17)["group"]]
    assert groups == ["body", "head", "arms", "legs"]


@pytest.mark.parametrize("wrong", [NAN, np.inf, -np.inf])
def test_a_prediction_at_no_number_is_wrong(wrong):
    found = one("nose", 0)
    found.visible_nk[0, 1] = 2
    found.points_nk2[0, 1, 0] = wrong
    figures = scores.measure(found, COCO17)
    assert figures["pck_box@0.2"] == figures["auc_box"] == 0.5
    assert 1e5 < figures["pixel_error_mean"] < np.inf


def test_the_worst_come_first():
    found = made(COCO17, 5)
    found.visible_nk[:4, :2] = 2
    found.points_nk2[:, 0, 0] = (10, 40, 20, 10, 99)
    found.box_n4[0, 2:] = 20
    # Mean errors over sides: 5 / 20, 20 / 100, 10 / 100, 5 / 100; nobody labelled the fifth.
    assert scores.worst(found, 3).tolist() == [0, 1, 2]
    assert scores.worst(found, 9).tolist() == [0, 1, 2, 3]
    found.points_nk2[3] = NAN
    assert scores.worst(found, 1).tolist() == [3]


# ---- intervals ----


def by_resampling(votes, subjects, seed, draws=3000):
    """Return the 2.5 % and 97.5 % of the pooled mean, subjects drawn one after the other."""
    rng, of = np.random.default_rng(seed), {}
    for values, subject in zip(votes, subjects, strict=True):
        of.setdefault(subject, []).extend(values[~np.isnan(values)])
    every = list(of.values())
    means = [np.mean(np.concatenate([every[i] for i in rng.integers(len(every), size=len(every))]))
             for _ in range(draws)]  # fmt: skip
    return np.quantile(means, [0.025, 0.975])


@pytest.mark.parametrize("name, norm", [("pck_box@0.1", 0.1), ("pixel_error_mean", None)])
def test_an_interval_is_that_of_subjects_drawn_one_by_one(name, norm):
    found = drawn(COCO17, 40, seed=3, subjects=8)
    error = np.linalg.norm(found.points_nk2 - found.truth_nk2, axis=-1)
    votes = error * found.crop_px_n[:, None]
    if norm:
        side = found.box_n4[:, 2:].max(1)[:, None]
        votes = np.where(found.visible_nk > 0, error / side <= norm, NAN)
    want = by_resampling(votes, [p["subject"] for p in found.people], seed=9)
    low, high = scores.intervals(found, COCO17, [name], draws=3000)[name]
    np.testing.assert_allclose((low, high), want, rtol=0.03)
    assert low < scores.measure(found, COCO17)[name] < high
    assert scores.intervals(found, COCO17, [name], draws=3000)[name] == (low, high)
    assert scores.intervals(found, COCO17, [name], draws=3000, seed=1)[name] != (low, high)
    inner = scores.intervals(found, COCO17, [name], draws=3000, level=0.5)[name]
    assert low < inner[0] < inner[1] < high


def test_subjects_are_drawn_whole_and_the_nameless_alone():
    found = made(COCO17, 8)
    found.visible_nk[:, 0] = 2
    found.points_nk2[:4, 0] = 50

    def width(*subjects):
        people = tuple({"person_id": str(i), "subject": s} for i, s in enumerate(subjects))
        low, high = scores.intervals(found._replace(people=people), COCO17, ["pck_box@0.1"],
                                     draws=4000)["pck_box@0.1"]  # fmt: skip
        return high - low

    assert width(*"aaaabbbb") == 1
    assert width(*"abcdefgh") == width(*[""] * 8) == 0.75
    assert np.isnan(width(*"aaaaaaaa"))


@pytest.mark.parametrize("name", ["pixel_error_median", "joints", "pck"])
def test_what_is_no_mean_has_no_interval(name):
    with pytest.raises(ValueError, match=f"^{name}: not a mean.*pck_box@0.05") as error:
        scores.intervals(drawn(COCO17, 2), COCO17, [name])
    assert "\n" not in str(error.value)


def test_what_makes_a_subject_hard_for_both_cancels():
    first = drawn(COCO17, 40, seed=5, subjects=6)
    # Errors a tenth larger, everywhere.
    away = np.where(first.visible_nk[..., None] > 0, first.points_nk2 - first.truth_nk2, 0)
    second = first._replace(points_nk2=first.points_nk2 + 0.1 * away)
    name = "pixel_error_mean"
    alone = scores.intervals(first, COCO17, [name])[name]
    low, high = scores.paired_interval(second, first, COCO17, [name])[name]
    # The difference is a tenth of the first one's mean in every draw.
    np.testing.assert_allclose((low, high), 0.1 * np.array(alone), rtol=1e-9)
    turned = scores.paired_interval(first, second, COCO17, [name])[name]
    np.testing.assert_allclose(turned, (-high, -low), rtol=1e-9)
    assert scores.paired_interval(first, first, COCO17, [name])[name] == (0, 0)


def test_predictions_of_other_people_or_labels_are_not_compared():
    first, fewer = drawn(COCO17, 4), drawn(COCO17, 3)
    other = first._replace(visible_nk=np.roll(first.visible_nk, 1, 1))
    renamed = first._replace(people=tuple(p | {"person_id": "?"} for p in first.people))
    for second in (fewer, other, renamed):
        with pytest.raises(ValueError, match="predict the same split"):
            scores.paired_interval(first, second, COCO17, ["auc_box"])
