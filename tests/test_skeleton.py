"""Built-in keypoint sets against the reference's tables; a lab's own file, good and bad."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from nkjax import skeleton
from nkjax.skeleton import BadSkeleton, load, match, parse

REFERENCE = json.loads(
    (Path(__file__).parent / "data" / "skeletons" / "reference.json").read_text()
)
SMALL = {
    "name": "lab",
    "keypoints": ["Nose", "L-Eye", "R-Eye", "left shoulder", "rightShoulder", "wrist_l", "wrist_r"],
    "limbs": [["nose", "left_eye"], ["left_shoulder", "right_shoulder"]],
}


def small(**changes):
    return {**SMALL, **changes}


@pytest.mark.parametrize("name", skeleton.BUILT_IN)
def test_built_in_tables_are_the_reference_s(name):
    got, want = load(name), REFERENCE[name]
    assert got.name == name
    assert hashlib.sha256("\n".join(got.keypoints).encode()).hexdigest() == want["names_sha256"]
    assert list(got.flip_indices) == want["flip_indices"]
    assert [list(limb) for limb in got.limbs] == want["limbs"]
    np.testing.assert_array_equal(got.sigmas, want["sigmas"])
    np.testing.assert_array_equal(got.joint_weights, want["joint_weights"])


@pytest.mark.parametrize("name, alone", [("coco17", 1), ("wholebody133", 11), ("goliath308", 16)])
def test_mirroring_twice_is_nothing_and_keeps_the_limbs(name, alone):
    joints = load(name)
    flip = np.array(joints.flip_indices)
    np.testing.assert_array_equal(flip[flip], np.arange(len(flip)))
    assert (flip == np.arange(len(flip))).sum() == alone
    undirected = {frozenset(limb) for limb in joints.limbs}
    assert {frozenset((flip[a], flip[b])) for a, b in joints.limbs} == undirected


@pytest.mark.parametrize(
    "name, sizes",
    [
        ("coco17", (5, 6, 6, 0, 0, 0)),
        ("wholebody133", (73, 6, 6, 6, 21, 21)),
        ("goliath308", (243, 12, 6, 6, 20, 20)),
    ],
)
def test_groups(name, sizes):
    joints = load(name)
    groups = joints.groups
    assert tuple(groups) == skeleton.GROUPS
    assert tuple(len(groups[group]) for group in skeleton.GROUPS) == sizes
    everyone = [i for group in groups.values() for i in group]
    assert len(everyone) == len(set(everyone))
    left_over = {joints.keypoints[i] for i in set(range(len(joints.keypoints))) - set(everyone)}
    assert left_over == ({"neck"} if name == "goliath308" else set())
    # Face masking rests on these.
    head = {joints.keypoints[i] for i in groups["head"]}
    assert {"nose", "left_eye", "right_eye", "left_ear", "right_ear"} <= head
    for words in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "toe", "thumb", "finger"):
        assert not any(words in joint for joint in head)
    # A mirrored group is the same group, or the other hand.
    for group, members in groups.items():
        other = {"left_hand": "right_hand", "right_hand": "left_hand"}.get(group, group)
        assert {joints.flip_indices[i] for i in members} == set(groups[other])


def test_wholebody_to_goliath_by_name_is_the_reference_s_mapping():
    found = match(load("wholebody133"), load("goliath308"))
    pairs = {(j, i) for i, j in enumerate(found) if j is not None}
    assert pairs == {tuple(pair) for pair in REFERENCE["wholebody133_to_goliath308"]}


def test_match_ignores_spelling_and_names_what_is_missing():
    assert match(load("coco17"), parse(SMALL, "lab")) == (0, 1, 2, 5, 6, None, None)
    assert match(parse(SMALL, "lab"), load("coco17"))[:7] == (0, 1, 2, None, None, 3, 4)


def test_a_lab_s_joints():
    joints = parse(SMALL, "lab")
    assert joints.keypoints == tuple(SMALL["keypoints"])
    assert joints.flip_indices == (0, 2, 1, 4, 3, 6, 5)
    assert joints.limbs == ((0, 1), (3, 4))
    assert joints.sigmas == () and joints.joint_weights == (1.0,) * 7
    assert joints.groups["head"] == (0, 1, 2) and joints.groups["arms"] == (3, 4, 5, 6)
    assert hash(joints) == hash(parse(SMALL, "lab")) and joints == parse(SMALL, "lab")
    assert load("coco17") != joints


def test_pairs_and_groups_that_names_do_not_tell():
    names = ["p1", "p2", "p3", "left_foot_index", "right_foot_index", "middle_of_forehead"]
    data = {"name": "n", "keypoints": names, "flip_pairs": [["p1", "P3"]], "groups": {}}
    joints = parse(data, "f")
    assert joints.flip_indices == (2, 1, 0, 4, 3, 5)
    assert joints.groups["feet"] == (3, 4) and joints.groups["head"] == (5,)
    data["groups"] = {"head": ["p1"], "legs": ["middle-of-forehead"]}
    joints = parse(data, "f")
    assert joints.groups["head"] == (0,) and joints.groups["legs"] == (5,)
    one_sided = {"name": "n", "keypoints": ["left_x", "y"], "flip_pairs": [["left_x", "y"]]}
    assert parse(one_sided, "f").flip_indices == (1, 0)


@pytest.mark.parametrize(
    "data, rule",
    [
        ([], "want one object with"),
        ({"keypoints": ["a"]}, "'name' is missing"),
        ({"name": "n"}, "'keypoints' must be a list"),
        (small(keypoints=[]), "'keypoints' must be a list"),
        (small(keypoints=["a", 3]), "'keypoints' must be a list"),
        (small(keypoints=["a", "--"]), "keypoint 1 has no letter"),
        (
            small(keypoints=["left_eye", "right_eye", "L-Eye"]),
            "'left_eye' and 'L-Eye' are one name",
        ),
        (small(keypoint=["a"]), "unknown key 'keypoint'"),
        (small(keypoints=SMALL["keypoints"][:-1]), "'wrist_l' has no free partner"),
        (small(limbs=[["nose", "left_ey"]]), "did you mean 'left_eye'?"),
        (small(limbs=[["nose", "tail"]]), "limbs names 'tail', which is not among"),
        (small(limbs=[["nose", "NOSE"]]), "limb from 'Nose' to itself"),
        (small(limbs=[["nose"]]), "'limbs' must be a list of pairs"),
        (small(limbs=[[0, 1]]), "'limbs' must be a list of pairs"),
        (small(limbs=3), "'limbs' must be a list of pairs"),
        (small(sigmas=[0.1] * 6), "'sigmas' has 6 numbers for 7 keypoints"),
        (small(sigmas=[0.1] * 6 + [0]), "'sigmas' must all be above 0"),
        (small(sigmas=[0.1] * 6 + [float("nan")]), "'sigmas' must all be above 0"),
        (small(sigmas=[0.1] * 6 + [10**400]), "'sigmas' must all be above 0"),
        (small(sigmas=["0.1"] * 7), "'sigmas' must be a list of numbers"),
        (small(joint_weights=[True] * 7), "'joint_weights' must be a list of numbers"),
        (small(flip_pairs=[["nose", "wrist_l"]]), "'wrist_r' has no free partner"),
        (small(flip_pairs=[["nose", "wrist_l"], ["nose", "wrist_r"]]), "names 'Nose' twice"),
        (small(flip_pairs=[["nose", "nase"]]), "flip_pairs names 'nase'"),
        (small(flip_pairs=[["L-Eye", "rightShoulder"]]), "'L-Eye' is paired with 'rightShoulder'"),
        (small(flip_pairs=[["L-Eye", "wrist_l"]]), "'L-Eye' is paired with 'wrist_l'"),
        (small(flip_pairs=[["L-Eye", "l_eye"]]), "'L-Eye' is paired with 'L-Eye', which its name"),
        (small(groups={"tail": []}), "unknown group 'tail'"),
        (small(groups={"head": ["hat"]}), "group 'head' names 'hat'"),
        (small(groups=["head"]), "'groups' must map"),
        (small(groups={"head": "nose"}), "group 'head' must be a list"),
    ],
)
def test_a_bad_skeleton_is_refused_in_one_line(data, rule):
    with pytest.raises(BadSkeleton) as caught:
        parse(data, "lab.json")
    message = str(caught.value)
    assert message.startswith("lab.json: ") and rule in message and "\n" not in message


def test_an_unknown_name_lists_the_built_in_ones():
    with pytest.raises(BadSkeleton, match="^coco18: .*coco17, wholebody133, goliath308"):
        load("coco18")
