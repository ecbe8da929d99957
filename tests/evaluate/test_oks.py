"""OKS and AP against the reference's own numbers, and against cases counted by hand."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.evaluate import oks
from nkjax.evaluate.scores import Found

GOLDENS = Path(__file__).parents[1] / "data" / "eval"
COCO17 = skeletons.load("coco17")
SETS = ("coco17", "goliath308")
K = 17
pytestmark = pytest.mark.filterwarnings("error")


def golden(name, kind):
    return json.loads((GOLDENS / f"{name}_{kind}.json").read_text())


def assert_same(got, want):
    assert list(got) == list(want)
    np.testing.assert_allclose(list(got.values()), list(want.values()), rtol=0, atol=1e-8)


@pytest.fixture(params=SETS)
def name(request):
    return request.param


@pytest.fixture
def sigmas(name):
    return skeletons.load(name).sigmas


def test_average_precision_is_the_reference_s(name, sigmas):
    truth, raw, want = (golden(name, kind) for kind in ("gt", "raw_predictions", "expected"))
    found = oks.detections(raw, sigmas)
    assert len(found) == want["num_after_nms"] and len(raw) == want["num_raw"]
    assert_same(oks.average_precision(truth, found, sigmas), want["CocoMetric/default"])
    every = oks.average_precision(truth, oks.detections(raw, sigmas, 1), sigmas)
    assert_same(every, want["CocoMetric/nms_mode=none"])
    # By the scores of boxes alone: joints that are all sure.
    sure = [one | {"keypoint_scores": [1.0] * len(sigmas)} for one in raw]
    by_box = oks.average_precision(truth, oks.detections(sure, sigmas), sigmas)
    assert_same(by_box, want["CocoMetric/score_mode=bbox"])
    written = oks.average_precision(truth, golden(name, "detections"), sigmas)
    assert_same(written, want["pycocotools_on_detections(float64 sigmas)"])


def test_detections_are_those_that_the_reference_writes(name, sigmas):
    found = oks.detections(golden(name, "raw_predictions"), sigmas)

    def ordered(results):
        return sorted(results, key=lambda r: (r["image_id"], -r["score"], r["keypoints"][0]))

    for got, want in zip(ordered(found), ordered(golden(name, "detections")), strict=True):
        assert got["image_id"] == want["image_id"] and got["category_id"] == 1
        np.testing.assert_allclose(got["score"], want["score"], rtol=1e-6)
        np.testing.assert_allclose(got["keypoints"], want["keypoints"], rtol=1e-6)


def test_similarities_are_the_reference_s(name, sigmas):
    found, people = golden(name, "detections"), golden(name, "gt")["annotations"]
    wanted = golden(name, "expected")["oks_matrix_per_image[det sorted by score desc][gt]"]
    compared = 0
    for image, want in wanted.items():
        mine = sorted((d for d in found if d["image_id"] == int(image)), key=lambda d: -d["score"])
        points = np.array([np.reshape(d["keypoints"], (-1, 3))[:, :2] for d in mine])
        theirs = [one for one in people if one["image_id"] == int(image)]
        if not want:
            assert not mine or not theirs
            continue
        got = [
            oks.similarity(np.reshape(one["keypoints"], (-1, 3)), one["bbox"], one["area"], points,
                           sigmas) for one in theirs
        ]  # fmt: skip
        np.testing.assert_allclose(np.transpose(got), want, rtol=0, atol=1e-8)
        compared += np.size(want)
    assert compared > 10


def person(x=0.0, v=2, **changes):
    """Return an annotation of 100 x 100 px: 17 joints at (x + 5, 50)."""
    plain = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x, 0, 100, 100], "area": 1e4,
             "keypoints": [x + 5, 50.0, v] * K, "num_keypoints": K * (v > 0),
             "iscrowd": 0}  # fmt: skip
    return plain | changes


def seen(x=0.0, score=0.9, image=1, **changes):
    return {"image_id": image, "category_id": 1, "keypoints": [x + 5, 50.0, 0.8] * K,
            "score": score} | changes  # fmt: skip


def ap(people, found, images=(1,)):
    truth = {"images": [{"id": i} for i in images], "annotations": list(people)}
    return oks.average_precision(truth, found, COCO17.sigmas)


def test_one_of_two_found_is_half_recalled():
    figures = ap([person(), person(200, id=2)], [seen()])
    assert figures["AR"] == 0.5
    # Of the 101 levels of recall 0 ... 0.5 are reached.
    assert figures["AP"] == pytest.approx(51 / 101)
    assert figures["AP (L)"] == figures["AP"] and np.isnan(figures["AP (M)"])


def test_nobody_to_find_is_no_number_and_nothing_found_is_zero(capfd):
    assert all(np.isnan(v) for v in ap([], []).values())
    assert all(np.isnan(v) for v in ap([person(v=0)], [seen()]).values())
    assert ap([person()], [])["AP"] == 0 and ap([person()], [])["AR"] == 0
    assert capfd.readouterr() == ("", "")


def test_ids_may_be_zero_or_text_and_nothing_given_is_changed():
    people = [person(id=0, image_id="a"), person(200, id="x", image_id=0)]
    for one in people:
        del one["num_keypoints"]
    found = [seen(image="a", id=7), seen(200, image=0, bbox=[0, 0, 1, 1])]
    truth = {"images": [{"id": "a"}, {"id": 0}], "annotations": people}
    before = copy.deepcopy((truth, found))
    assert oks.average_precision(truth, found, COCO17.sigmas)["AP"] == pytest.approx(1)
    assert before == (truth, found)


def test_an_area_that_is_missing_is_that_of_the_box_less_the_corners():
    # 5300 px^2, which is medium; the box alone would be large.
    figures = ap([person(area=None)], [seen()])
    assert figures["AP (M)"] == pytest.approx(1) and np.isnan(figures["AP (L)"])


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_joints_at_no_number_are_wrong(wrong):
    lost = seen(keypoints=[wrong, wrong, 0.5] * K)
    figures = ap([person()], [lost])
    assert figures["AP"] == 0 and figures["AR"] == 0
    # And it counts as somebody who is not there.
    both = ap([person()], [lost | {"score": 1.0}, seen(score=0.5)])
    assert both["AR"] == 1 and both["AP"] == pytest.approx(0.5)
    # Also with some joints where there is nobody: its area must not put it out of the count.
    some = seen(score=1.0, keypoints=[wrong, wrong, 0.5] * 9 + [600, 400, 0.5] * 8)
    assert ap([person()], [some, seen(score=0.5)])["AP"] == pytest.approx(0.5)
    raw = [{"img_id": 1, "keypoints": np.full((K, 2), wrong), "keypoint_scores": np.full(K, wrong),
            "bbox_score": 1.0, "bbox_scale": (9, 9)}] * 2  # fmt: skip
    assert len(oks.detections(raw, COCO17.sigmas)) == 2


def test_of_two_alike_the_better_one_stays():
    def one(shift, score):
        return {"keypoints": [shift, 0.0, 1.0] * K, "score": score, "area": 1e4}

    kept = oks.nms([one(0, 0.2), one(1, 0.9), one(500, 0.1)], COCO17.sigmas)
    assert [k["score"] for k in kept] == [0.9, 0.1]
    # By hand: exp(-1 / (2 area (2 sigma)^2)) is .9 where area (2 sigma)^2 is 4.7456.
    sigmas = [0.5] * K
    for area, count in ((4.70, 2), (4.79, 1)):
        pair = [one(0, 0.5) | {"area": area - 1}, one(1, 0.4) | {"area": area + 1}]
        assert len(oks.nms(pair, sigmas)) == count


def test_the_score_is_of_the_box_and_the_good_joints():
    scores = np.array([0.9, 0.2, 0.19, 0.5] + [0.0] * 13)
    raw = {"img_id": 4, "keypoints": np.ones((K, 2)), "keypoint_scores": scores,
           "bbox_score": 0.5, "bbox_scale": (10, 20)}  # fmt: skip
    (found,) = oks.detections([raw], COCO17.sigmas)
    assert found["score"] == pytest.approx(0.5 * 0.7) and found["area"] == 200
    # At 1 even two that are the same stay.
    assert len(oks.detections([raw, raw], COCO17.sigmas)) == 1
    assert len(oks.detections([raw, raw], COCO17.sigmas, 1)) == 2
    (none,) = oks.detections([raw | {"keypoint_scores": scores * 0.1}], COCO17.sigmas)
    assert none["score"] == 0


@pytest.mark.parametrize("found, rule", [
    ([seen(image=9)], "image 9, which"), ([seen(keypoints=[1.0] * 9)], "of 3 joints, but 17"),
])  # fmt: skip
def test_what_does_not_fit_together_is_refused_in_one_line(found, rule):
    with pytest.raises(ValueError, match=rule) as error:
        ap([person()], found)
    assert "\n" not in str(error.value)


def test_packed_people_become_pictures_people_and_crowds():
    truth = np.zeros((3, K, 2))
    truth[1] += (205, 50)
    truth[0] += (5, 50)
    visible = np.full((3, K), 2)
    visible[2] = 0
    truth[2] = np.nan
    visible[0, 3], truth[0, 3] = 0, (77, 77)
    box = np.array([(0, 0, 100, 100), (200, 0, 100, 100), (0, 0, 8, 8)], float)
    people = tuple({"picture_id": p} for p in ("b", "a", "a"))
    score = np.array([0.9, 0.8, 0.7])
    points = np.where(visible[..., None] > 0, truth, 1e3)
    found = Found(points, np.full((3, K), 0.6), truth, visible, box, score, np.full(3, 5e3),
                  people, np.ones(3))  # fmt: skip
    sizes = {"a": (640, 480), "b": (320, 240), "c": (64, 48)}
    content, raw = oks.from_found(found, {"a": [(600, 0, 40, 50)], "c": []}, sizes)
    json.dumps(content)
    assert content["images"] == [
        {"id": 1, "width": 640, "height": 480}, {"id": 2, "width": 320, "height": 240},
        {"id": 3, "width": 64, "height": 48},
    ]  # fmt: skip
    told = [(a["id"], a["image_id"], a["num_keypoints"], a["iscrowd"], a["area"], a["bbox"])
            for a in content["annotations"]]  # fmt: skip
    assert told == [
        (1, 2, 16, 0, 5e3, [0, 0, 100, 100]), (2, 1, 17, 0, 5e3, [200, 0, 100, 100]),
        (3, 1, 0, 0, 5e3, [0, 0, 8, 8]), (4, 1, 0, 1, 2e3, [600, 0, 40, 50]),
    ]  # fmt: skip
    assert content["annotations"][0]["keypoints"][9:12] == [0, 0, 0]
    np.testing.assert_allclose(raw[1]["bbox_scale"], (125, 125))
    results = oks.detections(raw, COCO17.sigmas)
    assert {(r["image_id"], round(r["score"], 6)) for r in results} == {
        (2, 0.54), (1, 0.48), (1, 0.42)
    }  # fmt: skip
    # The third, of whom nothing is labelled, is found where nobody is, with the lowest score.
    figures = oks.average_precision(content, results, COCO17.sigmas)
    assert figures["AR"] == 1 and figures["AP"] == pytest.approx(1)


@pytest.mark.parametrize("at, want", [((300, 300), 2 / 3), ((620, 20), 1), ((660, 90), 1)])
def test_what_is_found_in_a_crowd_counts_neither_way(at, want):
    """The surest of three detections, where nobody is labelled; a crowd reaches as far as its box
    on every side."""
    truth = np.zeros((3, K, 2)) + np.reshape([(5, 50), (205, 50), (0, 0)], (3, 1, 2))
    visible = np.repeat([[2], [2], [0]], K, 1)
    points = np.where(visible[..., None] > 0, truth, at)
    box = np.array([(0, 0, 100, 100), (200, 0, 100, 100), (0, 0, 8, 8)])
    found = Found(points, np.full((3, K), 0.6), truth, visible, box, np.array([0.5, 0.4, 1.0]),
                  np.full(3, 5e3), ({"picture_id": "a"},) * 3, np.ones(3))  # fmt: skip
    content, raw = oks.from_found(found, {"a": [(600, 0, 40, 50)]}, {"a": (640, 480)})
    figures = oks.average_precision(content, oks.detections(raw, COCO17.sigmas), COCO17.sigmas)
    assert figures["AP"] == pytest.approx(want)
