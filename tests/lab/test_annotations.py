"""The JSON as rows: which joints are which, whose annotations count, what is left out and told."""

import json

import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.data.coco import BadAnnotations
from nkjax.lab import annotations
from nkjax.lab.findings import Findings
from nkjax.lab.rows import Inputs
from nkjax.skeleton import BadSkeleton
from tests.data_io import drawn

COCO17 = drawn.COCO17
WHOLE = skeletons.load("wholebody133")


def entry(number=1, **changes):
    """Return an annotation whose joint i is at (10 i, 10 i + 1), visible."""
    joints = [v for i in range(17) for v in (10 * i, 10 * i + 1, 2)]
    plain = {
        "id": number, "image_id": 7, "category_id": 1, "keypoints": joints, "num_keypoints": 17,
        "bbox": [1, 2, 30, 40], "area": 900.5, "iscrowd": 0,
    }  # fmt: skip
    return {k: v for k, v in (plain | changes).items() if v != "gone"}


def content(*entries, **changes):
    images = [{"id": 7, "file_name": "a/b.jpg", "width": 640, "height": 480}]
    return {"images": images, "annotations": list(entries or [entry()]),
            "categories": [drawn.category()]} | changes  # fmt: skip


@pytest.fixture
def read(tmp_path):
    def read(data, **inputs):
        path, findings = tmp_path / "labels.json", Findings()
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return annotations.read(Inputs(annotations=str(path), **inputs), findings), findings

    return read


def codes(findings):
    return {f.code: f.count for f in findings.listed()}


def test_a_plain_file_is_read_as_it_stands(read):
    labels, findings = read(content(entry(posture=" sit ", grasp=" palmar ")))
    assert codes(findings) == {}
    assert labels.skeleton == COCO17
    (image,), (row,) = labels.images, labels.people
    assert (image.id, image.file_name, image.size_wh) == (7, "a/b.jpg", (640, 480))
    i = np.arange(17.0)
    np.testing.assert_array_equal(row.joints_k3, np.stack([10 * i, 10 * i + 1, 2 + 0 * i], 1))
    assert (row.source_id, row.image_id, row.box_xywh, row.area, row.ignore, row.posture) == (
        1, 7, (1, 2, 30, 40), 900.5, False, "sit")  # fmt: skip
    assert row.grasp == "palmar"


@pytest.mark.parametrize("told", [{}, {"grasp": None}, {"grasp": 3}, {"grasp": ["palmar"]}])
def test_a_grasp_that_is_no_text_is_unknown(read, told):
    labels, findings = read(content(entry(**told)))
    assert codes(findings) == {} and labels.people[0].grasp == ""


@pytest.mark.parametrize("change, code, word", [
    ({"keypoints": [1, 2, 2] * 16}, "NK402", "48 numbers, want 3 x 17"),
    ({"keypoints": [1, 2] * 17}, "NK402", "34 numbers"),
    ({"keypoints": "1 2 2"}, "NK243", "no list"),
    ({"keypoints": [[1, 2, 2]] * 17}, "NK243", "other than numbers"),
    ({"keypoints": [1, None, 2] * 17}, "NK243", "other than numbers"),
    ({"keypoints": [1, True, 2] * 17}, "NK243", "other than numbers"),
    ({"keypoints": [1, float("nan"), 2] * 17}, "NK211", "nan"),
    ({"keypoints": [1, float("inf"), 2] * 17}, "NK211", "inf"),
    ({"keypoints": [1, 10**400, 2] * 17}, "NK211", "1000"),
    ({"keypoints": [1, 1e7, 2] * 17}, "NK211", "10000000"),
    ({"keypoints": [1, 2, 3] * 17}, "NK202", "visibility 3"),
    ({"keypoints": [1, 2, -1] * 17}, "NK202", "visibility -1"),
    ({"keypoints": [1, 2, 0.5] * 17}, "NK202", "visibility 0.5"),
    ({"bbox": [1, 2, float("nan"), 4]}, "NK211", "bbox"),
    ({"bbox": [1, 2, 3]}, "NK243", "3 numbers"),
    ({"bbox": {"x": 1}}, "NK243", "bbox is no list"),
    ({"bbox": ["1", 2, 3, 4]}, "NK243", "bbox"),
    ({"id": "gone"}, "NK243", "id is None"),
    ({"id": 1.5}, "NK243", "id is 1.5"),
    ({"id": [1]}, "NK243", "id is [1]"),
    ({"image_id": None}, "NK243", "image_id is None"),
    ({"image_id": {}}, "NK243", "image_id is {}"),
    ({"image_id": 8}, "NK237", "image 8"),
    ({"image_id": "7"}, "NK237", "image '7'"),
    ({"category_id": 2}, "NK244", "category 2"),
    ({"category_id": "gone"}, "NK243", "category_id is None"),
    ({"category_id": True}, "NK243", "category_id is True"),
])  # fmt: skip
def test_an_entry_that_cannot_be_used_is_left_out_whole(read, change, code, word):
    labels, findings = read(content(entry(1), entry(2, **change), entry(3)))
    assert [row.source_id for row in labels.people] == [1, 3]
    assert codes(findings) == {code: 1}
    assert word in findings.listed()[0].examples[0]


@pytest.mark.parametrize("other", [None, 3, "x", [], [1]])
def test_an_entry_that_is_no_object_is_counted(read, other):
    labels, findings = read(content(entry(), other, images=[*content()["images"], other]))
    assert len(labels.people) == len(labels.images) == 1
    assert codes(findings) == {"NK243": 2}


@pytest.mark.parametrize("change, code, count", [
    ({"num_keypoints": "gone"}, "NK234", 1),
    ({"num_keypoints": 16}, "NK234", 1),
    ({"area": "gone"}, "NK235", 1),
    ({"area": float("nan")}, "NK235", 1),
    ({"area": 0}, "NK235", 1),
    ({"area": "9"}, "NK235", 1),
    ({"iscrowd": "gone"}, "NK235", 1),
    ({"iscrowd": "1"}, "NK235", 1),
    ({"iscrowd": 1}, "NK239", 1),
    ({"ignore": 1}, "NK239", 1),
    ({"id": 0}, "NK231", 1),
    ({"id": "person-1"}, "NK236", 1),
    ({"keypoints": [5, 6, 0] * 4 + [1, 2, 2] * 13, "num_keypoints": 13}, "NK206", 4),
])  # fmt: skip
def test_what_can_be_mended_is_mended_and_counted(read, change, code, count):
    labels, findings = read(content(entry(1, **change)))
    assert codes(findings) == {code: count}
    (row,) = labels.people
    assert row.ignore == (code == "NK239")
    if "area" in change:
        assert row.area is None
    if code == "NK206":
        assert not row.joints_k3[:4].any() and row.joints_k3[4:].tolist() == [[1, 2, 2]] * 13


def test_without_keypoints_and_box_the_row_stays_for_later_rules(read):
    labels, findings = read(content(entry(keypoints="gone", bbox="gone", num_keypoints=0)))
    (row,) = labels.people
    assert row.box_xywh is None and not row.joints_k3.any() and codes(findings) == {}


def test_of_ids_used_twice_all_are_left_out(read):
    labels, findings = read(content(entry(1), entry(2), entry(1, bbox="gone")))
    assert [row.source_id for row in labels.people] == [2] and codes(findings) == {"NK232": 2}
    images = content()["images"] * 2 + [{"id": 9, "file_name": "c.jpg", "width": 8, "height": 8}]
    labels, findings = read(content(entry(1), entry(2, image_id=9), images=images))
    assert [image.id for image in labels.images] == [9]
    assert [row.source_id for row in labels.people] == [2]
    assert codes(findings) == {"NK233": 2, "NK245": 1}


def test_images_with_faults(read):
    bad = [{"id": 8}, {"file_name": "x.jpg"}, {"id": 9, "file_name": "./"}, {"id": None}]
    listed = [*content()["images"], *bad, {"id": "t", "file_name": "t.jpg", "width": None}]
    labels, findings = read(content(entry(), entry(2, image_id=8), images=listed))
    assert [(i.id, i.size_wh) for i in labels.images] == [(7, (640, 480)), ("t", None)]
    assert codes(findings) == {"NK243": 4, "NK236": 1, "NK126": 1, "NK245": 1}


def test_corners_become_a_size_when_asked(read):
    labels, _ = read(content(entry(bbox=[10, 20, 40, 60])), box_format="xyxy")
    assert labels.people[0].box_xywh == (10, 20, 30, 40)


def shuffled(order, names=COCO17.keypoints):
    return [drawn.category() | {"keypoints": [names[i] for i in order]}]


def test_joints_are_found_by_name_not_by_position(read):
    order = list(np.random.default_rng(1).permutation(17))
    labels, findings = read(content(categories=shuffled(order)))
    assert labels.skeleton == COCO17, "the same names: the built-in, with its sigmas"
    assert codes(findings) == {"NK422": sum(i != j for i, j in enumerate(order))}
    # Joint order[i] stands at position i, at x = 10 i.
    np.testing.assert_array_equal(labels.people[0].joints_k3[order, 0], 10 * np.arange(17))


def test_joints_that_one_side_does_not_have(read):
    names = [*COCO17.keypoints[:16], "tail"]
    labels, findings = read(content(categories=shuffled(range(17), names)), skeleton="coco17")
    assert codes(findings) == {"NK421": 1, "NK423": 1}
    assert "right_ankle" in findings.listed()[0].examples[0]
    joints = labels.people[0].joints_k3
    assert not joints[16].any() and joints[15].tolist() == [150, 151, 2]


def test_names_are_compared_as_names(read):
    spelt = [name.replace("left_", "L-").replace("right_", "R-") for name in COCO17.keypoints]
    labels, findings = read(content(categories=shuffled(range(17), spelt)))
    assert labels.skeleton == COCO17 and codes(findings) == {}


def test_unnamed_joints_are_taken_in_the_order_of_the_skeleton(read):
    category = drawn.category()
    del category["keypoints"]
    labels, findings = read(content(categories=[category]), skeleton="coco17")
    assert codes(findings) == {"NK424": 1} and labels.people[0].joints_k3[16, 0] == 160


def test_a_labs_own_joints_make_a_skeleton_without_sigmas(read):
    names = ["head", "left_paw", "right_paw"]
    category = {"id": 1, "name": "bear", "keypoints": names, "skeleton": [[1, 2], [1, 3]]}
    bear = entry(keypoints=[1, 2, 2] * 3, num_keypoints=3)
    labels, findings = read(content(bear, categories=[category]))
    assert labels.skeleton.keypoints == tuple(names) and labels.skeleton.limbs == ((0, 1), (0, 2))
    assert labels.skeleton.flip_indices == (0, 2, 1) and codes(findings) == {"NK401": 1}


def whole(**changes):
    parts = {"foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
    lists, at = {}, 17
    for key, count in parts.items():
        lists[key] = [float(v) for i in range(at, at + count) for v in (10 * i, 10 * i + 1, 2)]
        at += count
    return entry(**lists | changes)


def test_whole_body_lists_are_joined_in_the_order_of_wholebody133(read):
    labels, findings = read(content(whole()), skeleton="wholebody133")
    assert labels.skeleton == WHOLE and codes(findings) == {}
    np.testing.assert_array_equal(labels.people[0].joints_k3[:, 0], 10 * np.arange(133))


def test_whole_body_lists_are_told_of_when_not_used(read):
    labels, findings = read(content(whole(), entry(2)))
    assert labels.skeleton == COCO17 and codes(findings) == {"NK425": 1}


@pytest.mark.parametrize("change, code, count", [
    ({"righthand_kpts": [5, 6, 0.3] * 20 + [1, 2, 0.0]}, {"NK204": 20, "NK206": 1}, 132),
    ({"lefthand_valid": False}, {"NK205": 21}, 112),
    ({"face_kpts": [5, 6, 1.0] * 68}, {"NK207": 68}, 133),
    ({"foot_kpts": "gone", "face_kpts": None}, {}, 133 - 74),
])  # fmt: skip
def test_visibilities_of_whole_body_lists(read, change, code, count):
    labels, findings = read(content(whole(**change)), skeleton="wholebody133")
    assert codes(findings) == code
    v = labels.people[0].joints_k3[:, 2]
    assert (v > 0).sum() == count and (v[:17] == 2).all()
    if "NK204" in code:
        assert v[112:].tolist() == [1] * 20 + [0]


def test_a_whole_body_list_of_another_length_is_left_out(read):
    labels, findings = read(content(whole(foot_kpts=[1, 2, 2])), skeleton="wholebody133")
    assert labels.people == () and codes(findings) == {"NK402": 1}


def two(**second):
    return [drawn.category(), {"id": 2, "name": "adult", "keypoints": ["a"]} | second]


def test_which_category_is_people(read):
    for data, inputs in (
        (content(categories=two(keypoints=[])), {}),
        (content(categories=two()), {}),  # the other is called 'person'
        (content(categories=two(name="Person")), {"person_category": "1"}),
        (content(categories=two(name="Person")), {"person_category": "person"}),
    ):
        assert len(read(data, **inputs)[0].people) == 1


@pytest.mark.parametrize("data, inputs, words", [
    ("", {}, "not a JSON file"),
    ("[" * 100_000, {}, "not a JSON file"),
    ([], {}, "--detections"),
    (None, {}, "no 'images'"),
    ({"annotations": []}, {}, "no 'images'"),
    ({"images": [1]}, {}, "no 'annotations'"),
    (content(annotations=[]), {}, "CVAT"),
    (content(categories=[]), {}, "say which they are with --skeleton"),
    (content(categories={"id": 1}), {}, "say which they are with --skeleton"),
    (content(categories=shuffled([0, 0, 1])), {}, "names 'nose' twice"),
    (content(categories=two(name="person")), {}, "several categories"),
    (content(), {"person_category": "child"}, "no category 'child'"),
    (content(entry(category_id=2)), {}, "only of 2"),
    (content(categories=shuffled(range(3), "xyz")), {"skeleton": "coco17"}, "none of its joints"),
    (content(entry(), entry(2, category_id=2), categories=[]), {"skeleton": "coco17"}, "several"),
])  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused_in_one_line(read, tmp_path, data, inputs, words):
    with pytest.raises(BadAnnotations) as error:
        read(data, **inputs)
    message = str(error.value)
    assert words in message and "\n" not in message and len(message) < 500
    assert message.startswith(str(tmp_path / "labels.json"))


def test_a_skeleton_that_cannot_be_used_is_refused(read):
    with pytest.raises(BadSkeleton, match="nowhere"):
        read(content(), skeleton="nowhere")
    with pytest.raises(BadSkeleton, match="left_b"):
        category = {"id": 1, "name": "bear", "keypoints": ["a", "left_b"]}
        read(content(categories=[category]))


def test_no_json_value_anywhere_makes_it_fall(read):
    """Every value of a good file in turn becomes something else: read, or refused in one line."""
    odd = [None, True, -1, 1e308, 10**30, "x", [], [None], {}, {"a": []}, float("nan"), [[1]]]
    base = content(entry(), whole(id=2))
    spots = [(base, k) for k in base] + [(base["images"], 0), (base["annotations"], 1)]
    spots += [(base["images"][0], k) for k in base["images"][0]]
    spots += [(e, k) for e in base["annotations"] for k in e]
    spots += [(base["categories"], 0)] + [(base["categories"][0], k) for k in drawn.category()]
    spots += [(base["annotations"][0]["bbox"], 2), (base["annotations"][0]["keypoints"], 5)]
    for place, key in spots:
        kept = place[key]
        for i, value in enumerate(odd):
            place[key] = value
            try:
                read(base, skeleton=("", "wholebody133")[i % 2])
            except (BadAnnotations, BadSkeleton) as error:
                assert "\n" not in str(error)
        place[key] = kept
