"""Skeletons from a lab's files: JSON, YAML, COCO categories, mmpose dataset_info; good and bad."""

import json
import re
from pathlib import Path

import pytest

from nkjax import skeleton
from nkjax.skeleton import BadSkeleton
from nkjax.skeleton_formats import from_coco_category, from_dataset_info, load

NAMES = ["nose", "left_eye", "right_eye", "left_ear", "right_ear"]
CATEGORY = {"id": 1, "name": "child", "keypoints": NAMES, "skeleton": [[1, 2], [2, 4], [3, 5]]}
YAML = """
name: lab
keypoints: [nose, left_eye, right_eye, p, q]
limbs:
- [nose, left_eye]
sigmas: [.1, 2.0e-1, 0.3, 1, 1]
flip_pairs: [[p, q]]
"""
# Shaped like mmpose's files: ids out of order, arithmetic, entries nobody needs.
INFO = '''
"""A comment."""
import os
dataset_info = dict(
    dataset_name='child',
    paper_info=dict(author='A', year='2020', homepage=None),
    keypoint_info={
        0: dict(name='nose', id=0, color=[51, 153, 255], type='upper', swap=''),
        2: dict(name='right_eye', id=2, color=(51, 153, -255), type='upper', swap='left_eye'),
        1: dict(name='left_eye', id=1, color=[51, 153, 255], type='upper', swap='right_eye')},
    skeleton_info={0: dict(link=('nose', 'left_eye'), id=0, color=[1]), 1: {'link': ['right_eye',
        'nose']}},
    joint_weights=[1.5] * 3,
    sigmas=[0.026, 1 / 40, .05 - 0.025])
'''


def test_yaml_and_json_give_the_same_skeleton(tmp_path):
    (tmp_path / "lab.yaml").write_text(YAML)
    data = {
        "name": "lab", "keypoints": ["nose", "left_eye", "right_eye", "p", "q"],
        "limbs": [["nose", "left_eye"]], "sigmas": [0.1, 0.2, 0.3, 1, 1], "flip_pairs": [["p", "q"]]
    }  # fmt: skip
    (tmp_path / "lab.json").write_text(json.dumps(data), encoding="utf-8-sig")
    want = skeleton.parse(data, "lab")
    assert load(tmp_path / "lab.yaml") == load(str(tmp_path / "lab.json")) == want
    assert want.flip_indices == (0, 2, 1, 4, 3) and want.sigmas == (0.1, 0.2, 0.3, 1.0, 1.0)
    assert load("goliath308") == skeleton.load("goliath308")


def test_a_coco_category():
    joints = from_coco_category(CATEGORY, "labels.json")
    assert (joints.name, joints.keypoints) == ("child", tuple(NAMES))
    assert joints.limbs == ((0, 1), (1, 3), (2, 4))
    assert joints.flip_indices == (0, 2, 1, 4, 3)
    plain = {"name": "n", "keypoints": ["a", "b", "c"]}
    for more in ({"flip_idx": [0, 2, 1]}, {"flip_pairs": [[2, 1]]}):
        assert from_coco_category({**plain, **more}, "f").flip_indices == (0, 2, 1)
    both = {"flip_idx": [0, 2, 1], "flip_pairs": [[1, 2]]}
    assert from_coco_category({**plain, **both}, "f").flip_indices == (0, 2, 1)


def test_an_annotation_file_gives_its_person_category(tmp_path):
    path = tmp_path / "labels.json"
    other = {"id": 3, "name": "toy", "keypoints": []}
    path.write_text(json.dumps({"images": [], "categories": [other, CATEGORY]}))
    assert load(path) == from_coco_category(CATEGORY, "f")
    path.write_text(json.dumps({"categories": [CATEGORY, CATEGORY]}))
    with pytest.raises(BadSkeleton, match="2 categories with keypoints"):
        load(path)


def test_dataset_info_as_python_json_and_yaml(tmp_path):
    path = tmp_path / "child.py"
    path.write_text(INFO)
    joints = load(path)
    assert joints.name == "child" and joints.keypoints == ("nose", "left_eye", "right_eye")
    assert joints.limbs == ((0, 1), (2, 0)) and joints.flip_indices == (0, 2, 1)
    assert joints.joint_weights == (1.5, 1.5, 1.5) and joints.sigmas == (0.026, 0.025, 0.025)
    assert from_dataset_info(path, "f") == from_dataset_info(INFO, "f") == joints
    info = {
        "dataset_name": "child",
        "keypoint_info": {str(i): {"name": n} for i, n in enumerate(joints.keypoints)},
        "skeleton_info": {"0": {"link": ["nose", "left_eye"]}},
    }
    info["keypoint_info"]["1"]["swap"], info["keypoint_info"]["2"]["swap"] = NAMES[2], NAMES[1]
    (tmp_path / "child.json").write_text(json.dumps(info))
    (tmp_path / "child.yml").write_text(json.dumps(info))  # JSON is YAML too
    assert load(tmp_path / "child.json") == load(tmp_path / "child.yml")
    assert load(tmp_path / "child.json").flip_indices == (0, 2, 1)
    assert load(tmp_path / "child.json").limbs == ((0, 1),)


def test_nothing_in_a_python_file_is_executed(tmp_path):
    trap, path = tmp_path / "trap", tmp_path / "info.py"
    create = f"open({str(trap)!r}, 'w')"
    path.write_text(INFO.replace("import os", create))
    load(path)
    path.write_text(INFO.replace("'child'", create))
    with pytest.raises(BadSkeleton, match="is no plain value, and nothing in the file is executed"):
        load(path)
    assert not trap.exists()


def category(**changes):
    return json.dumps({"categories": [{**CATEGORY, **changes}]})


BAD = [
    ("a.json", b"", "not a JSON file"),
    ("a.json", b"{'a': 1}", "not a JSON file"),
    ("a.json", b"[" * 100_000, "not a JSON file"),
    ("a.json", b"\xff\xfe\x00", "nor a file of UTF-8 text"),
    ("a.json", b'{"name": "a", "name": "b"}', "the key 'name' stands twice"),
    ("a.json", b"null", "want one object with"),
    ("a.json", b'{"categories": 3}', "'categories' must be a list"),
    ("a.json", category(skeleton=[[0, 1]]), "COCO counts from 1 to 5; add 1 to all numbers"),
    ("a.json", category(skeleton=[[5, 6]]), "names joint [6] of 5"),
    ("a.json", category(skeleton=[["nose", "left_eye"]]), "'skeleton' must be a list of pairs"),
    ("a.json", category(skeleton=[[1, True]]), "'skeleton' must be a list of pairs"),
    ("a.json", category(skeleton={"a": 1}), "'skeleton' must be a list of pairs"),
    ("a.json", category(keypoints=[1, 2]), "'keypoints' must be a list of names"),
    ("a.json", category(keypoints="nose"), "'keypoints' must be a list of names"),
    ("a.json", category(name=None), "'name' is missing"),
    ("a.json", category(flip_idx=[0, 1, 2, 3, 4]), "'left_eye' is paired with 'left_eye'"),
    ("a.json", category(flip_idx=[0, 4, 3, 2, 1]), "'left_eye' is paired with 'right_ear'"),
    ("a.json", category(flip_idx=[0, 2, 3, 4, 1]), "each partner's partner"),
    ("a.json", category(flip_idx=[0, 2, 1]), "'flip_idx' must name each joint 0 to 4 once"),
    ("a.json", category(flip_idx=[10**30] * 5), "'flip_idx' must name each joint"),
    ("a.json", category(flip_pairs=[[1, 3]]), "'left_eye' is paired with 'left_ear'"),
    ("a.json", category(flip_pairs=[[1, 9]]), "counts 0 to 4"),
    ("a.json", category(flip_pairs=[[1, 2], [0, 1]]), "twice; want one partner"),
    ("a.yaml", YAML.replace("limbs:", "name: twice\nlimbs:"), "the key 'name' stands twice"),
    ("a.yaml", YAML.replace("[p, q]]", "[p, 7]]"), "'flip_pairs' must be a list of pairs"),
    ("a.yaml", YAML.replace("p, q]\n", "p, no]\n"), "'keypoints' must be a list of names"),
    ("a.yaml", YAML.replace("p, q]\n", "p, 2001-02-03]\n"), "'keypoints' must be a list"),
    ("a.yaml", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "line 2: YAML aliases"),
    ("a.yaml", "name: !!python/object/apply:os.system [ls]", "line 1: YAML aliases (*x) and tags"),
    ("a.yaml", "name: 2001-99-99", "not a YAML file"),
    ("a.yaml", "name: " + "9" * 5000, "not a YAML file"),
    ("a.yaml", "? [a]\n: b", "keys must be text"),
    ("a.yaml", "keypoints: [", "not a YAML file"),
    ("a.yaml", "a: 1\n---\nb: 2", "not a YAML file"),
    ("a.yaml", "[" * 20_000, "not a YAML file"),
    ("a.yaml", "", "want one object with"),
    ("a.yaml", "# " + "x" * 1_000_000, "longer than 1000000 characters"),
    ("a.py", "x = 1", "want one assignment dataset_info"),
    ("a.py", INFO + INFO, "want one assignment dataset_info"),
    ("a.py", "dataset_info = dict(", "not a Python file of plain values"),
    ("a.py", "dataset_info = 3\0", "not a Python file of plain values"),
    ("a.py", "dataset_info = 1 / 0", "not a Python file of plain values"),
    ("a.py", "dataset_info = " + "9" * 5000, "not a Python file of plain values"),
    ("a.py", "dataset_info = " + "1+" * 100_000 + "1", "not a Python file of plain values"),
    ("a.py", "dataset_info = " + "(" * 5000, "not a Python file of plain values"),
    ("a.py", "dataset_info = " + "-" * 50_000 + "1", "not a Python file of plain values"),
    ("a.py", "dataset_info = SHARED", "'SHARED' is no plain value"),
    ("a.py", "dataset_info = dict(**a)", "is no plain value"),
    ("a.py", "dataset_info = {**a}", "line 1: ** is not read"),
    ("a.py", "dataset_info = dict(a=1, a=2)", "the key 'a' stands twice"),
    ("a.py", "dataset_info = {'a': 1, 'a': 2}", "the key 'a' stands twice"),
    ("a.py", "dataset_info = {[]: 1}", "keys must be text or numbers"),
    ("a.py", "dataset_info = [1.0] * 10**9", "line 1: '10 ** 9' is no plain value"),
    ("a.py", "dataset_info = [1.0] * 1000000", "is no plain arithmetic"),
    ("a.py", "dataset_info = 'a' * 3", "is no plain arithmetic"),
    ("a.py", "dataset_info = b'x'", "is no plain value"),
    ("a.py", "dataset_info = [1]", "'keypoint_info' must map"),
    ("a.py", INFO.replace("id=2", "id=1"), "'keypoint_info' must map"),
    ("a.py", INFO.replace("id=2", "id=3"), "'keypoint_info' must map"),
    ("a.py", INFO.replace("swap='left_eye'", "swap=''"), "'left_eye' swaps with 'right_eye', but"),
    ("a.py", INFO.replace("swap='right_eye'", "swap='tail'"), "not among the keypoints"),
    ("a.py", INFO.replace("swap='left_eye'", "swap=[1]"), "'right_eye', but that with [1]"),
    (
        "a.py",
        INFO.replace("swap='left_eye'", "swap=''").replace("swap='right_eye'", "swap=''"),
        "is paired with 'left_eye', which its name contradicts",
    ),
    ("a.py", INFO.replace("link=('nose', ", "link=('tail', "), "limbs names 'tail'"),
    ("a.py", INFO.replace("link=('nose', 'left_eye')", "link=3"), "'skeleton_info' must map"),
    ("a.py", INFO.replace("sigmas=[0.026, ", "sigmas=["), "'sigmas' has 2 numbers"),
    ("a.py", INFO.replace("dataset_name='child',", ""), "'name' is missing"),
]


@pytest.mark.parametrize("name, content, rule", BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused_in_one_line(tmp_path, name, content, rule):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadSkeleton) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and rule in message
    assert "\n" not in message and len(re.sub(r"/\S*/", "", message)) < 400  # folders aside


def test_a_file_that_is_not_there_lists_the_built_in_ones(tmp_path):
    for name in ("coco18", tmp_path, Path(tmp_path, "a\0b")):
        with pytest.raises(BadSkeleton, match="coco17, wholebody133, goliath308") as caught:
            load(name)
        assert str(caught.value).startswith(f"{name}: ")
