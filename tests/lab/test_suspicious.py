"""Label noise: planted faults are found, toddlers who move like toddlers are left in peace.

The population is drawn in three dimensions and projected, so that bones are foreshortened as in
pictures: walking, wide-based with raised hands, crawling, sitting, reaching across the mid-line,
seen from all sides, some with a turned camera.
"""

import collections

import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.lab import suspicious
from nkjax.lab.findings import Findings
from nkjax.lab.rows import Person, Picture

COCO = skeletons.load("coco17")
INDEX = {name: i for i, name in enumerate(COCO.keypoints)}
FLIP = list(COCO.flip_indices)
POSTURES = ("walk", "high guard", "crawl", "sit", "reach")
# From the neck: x to the child's left, y down, z to where the face looks; shares of the height.
HEAD = {"nose": (0, 0, 0.09),
        "left_eye": (0.025, -0.025, 0.08), "right_eye": (-0.025, -0.025, 0.08),
        "left_ear": (0.055, -0.01, 0), "right_ear": (-0.055, -0.01, 0)}  # fmt: skip
# Degrees: torso bent forward; arm and forearm, then thigh and shin: away from the middle, forward.
ANGLES = {
    "walk": ((-5, 15), (0, 35), (-35, 45), (-25, 30), (0, 80),
             (-8, 35), (-25, 45), (-5, 20), (-60, 5)),
    "high guard": ((-5, 10), (60, 110), (-20, 30), (90, 200), (-30, 60),
                   (10, 40), (-25, 45), (0, 25), (-60, 5)),
    "crawl": ((65, 95), (-5, 25), (-25, 35), (-10, 20), (-20, 40),
              (0, 25), (-20, 30), (0, 10), (-100, -70)),
    "sit": ((-10, 35), (0, 35), (-35, 45), (-25, 30), (0, 80),
            (10, 60), (60, 95), (-40, 40), (0, 90)),
    "reach": ((0, 40), (-40, 40), (40, 110), (-60, 20), (50, 110),
              (-8, 35), (-25, 45), (-5, 20), (-60, 5)),
}  # fmt: skip


def turned(vectors, axis, degrees):
    """Turn row vectors: 'x' bends forward, 'y' turns to the child's left, 'z' tilts."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    i, j = {"x": (2, 1), "y": (2, 0), "z": (0, 1)}[axis]
    out = np.array(vectors, float)
    out[..., i] = cos * out[..., i] - sin * np.asarray(vectors, float)[..., j]
    out[..., j] = sin * np.asarray(vectors, float)[..., i] + cos * np.asarray(vectors)[..., j]
    return out


def toddler(rng, posture, around=None):
    """Return joints (17, 3) of a child; around: degrees that it is turned from the camera."""
    draw = [rng.uniform(*limits) for limits in ANGLES[posture]]
    long = np.array([0.28, 0.1, 0.06, 0.15, 0.14, 0.19, 0.19]) * rng.normal(1, 0.05, 7)
    top = turned([0, -long[0], 0], "x", draw[0])
    joints = {}
    for side, sign in (("left", 1), ("right", -1)):

        def along(away, forward, sign=sign):
            away, forward = away + rng.uniform(-15, 15), forward + rng.uniform(-25, 25)
            return turned(turned([0, 1, 0], "z", -sign * away), "x", -forward)

        joints[f"{side}_shoulder"] = top + [sign * long[1], 0, 0]
        joints[f"{side}_elbow"] = joints[f"{side}_shoulder"] + long[3] * along(*draw[1:3])
        joints[f"{side}_wrist"] = joints[f"{side}_elbow"] + long[4] * along(*draw[3:5])
        joints[f"{side}_hip"] = np.array([sign * long[2], 0, 0])
        joints[f"{side}_knee"] = joints[f"{side}_hip"] + long[5] * along(*draw[5:7])
        joints[f"{side}_ankle"] = joints[f"{side}_knee"] + long[6] * along(*draw[7:9])
    neck = top + turned([0, -0.13, 0], "x", 0.6 * draw[0])
    yaw, nod = rng.uniform(-50, 50), rng.uniform(-25, 20)
    for name, offset in HEAD.items():
        joints[name] = neck + turned(turned(offset, "x", nod), "y", yaw)
    around = rng.uniform(-180, 180) if around is None else around
    away = turned(turned([joints[n] for n in COCO.keypoints], "y", around), "x", rng.uniform(0, 25))
    size = rng.uniform(100, 600)
    points = away[:, :2] * size + rng.normal(0, 0.012 * size, (17, 2)) + 900
    if rng.random() < 0.1:  # a child that lies, or a camera held askew
        spin = turned(np.pad(points - 900, ((0, 0), (0, 1))), "z", rng.uniform(0, 360))
        points = spin[:, :2] + 900
    v = rng.choice([2, 2, 2, 2, 2, 2, 1, 0], 17)
    v[[5, 6, 11, 12]] = rng.choice([2, 2, 1], 4)
    facing = np.cos(np.deg2rad(around + yaw))
    if facing < 0.4:  # no face from behind; one eye from the side
        v[[0, 1, 2] if facing < 0 else [1 if np.sin(np.deg2rad(around + yaw)) > 0 else 2]] = 0
    points[v == 0] = 0
    return np.concatenate([points, v[:, None]], 1).astype(np.float32)


def population(seed, count=500, around=None):
    rng = np.random.default_rng(seed)
    return [toddler(rng, POSTURES[i % 5], around) for i in range(count)]


def persons(joints):
    return [Person(i + 1, None, f"{i}.jpg", k3, (700, 700, 300, 400), "labels", 1.0)
            for i, k3 in enumerate(joints)]  # fmt: skip


def find(joints, pictures=(), skeleton=COCO):
    findings = Findings()
    found = suspicious.find(persons(joints), pictures, skeleton, findings)
    counts = collections.Counter(s.code for s in found)
    for code in ("NK251", "NK252", "NK253", "NK412"):
        assert findings.count(code) == counts[code]
    return found, findings


def plant(joints, fault, every=20):
    """Change some of the people; return the share found, and what else is said of them."""
    joints, rng = [k3.copy() for k3 in joints], np.random.default_rng(9)
    planted = [i for i in range(0, len(joints), every) if fault(joints[i], rng)]
    assert len(planted) >= 8
    found, _ = find(joints)
    of = {s.people[0] - 1: s for s in found}
    hits = [of[i] for i in planted if i in of]
    return len(hits) / len(planted), hits


def exchange(*names):
    def fault(k3, rng):
        pairs = [[INDEX[f"{side}_{name}"] for side in ("left", "right")] for name in names]
        good = all(k3[i, 2] > 0 for pair in pairs for i in pair)
        for pair in pairs if good else ():
            k3[pair] = k3[pair[::-1]]
        return good

    return fault


def visible_face(k3):
    return (k3[[0, 1, 2], 2] == 2).all()


def exchange_all(k3, rng):
    good = visible_face(k3)
    if good:
        k3[:] = k3[FLIP]
    return good


def exchange_body(k3, rng):
    good = visible_face(k3)
    if good:
        k3[5:] = k3[FLIP][5:]
    return good


def move_far(k3, rng):
    known = [i for i in (7, 8, 9, 10, 13, 14, 15, 16) if k3[i, 2] > 0]
    angle = rng.uniform(0, 2 * np.pi)
    size = np.ptp(k3[k3[:, 2] > 0][:, :2], axis=0).max()
    i = rng.choice(known)
    k3[i, :2] += 0.7 * size * np.array([np.cos(angle), np.sin(angle)])
    return True


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_toddlers_are_left_in_peace(seed):
    found, _ = find(population(seed, 1000))
    assert len(found) <= 10  # 1 %
    of_posture = collections.Counter(POSTURES[(s.people[0] - 1) % 5] for s in found)
    assert max(of_posture.values(), default=0) <= 4  # 2 % of the 200 in any one posture


def test_babies_with_large_heads_and_long_arms_are_measured_by_themselves():
    """No number of adults or of other children: other proportions for all change nothing."""
    joints = population(3)
    for k3 in joints:
        labelled = k3[:, 2] > 0
        middle = k3[[5, 6], :2].mean(0)
        k3[:5, :2] = middle + 3 * (k3[:5, :2] - middle)
        k3[[7, 8, 9, 10], :2] = middle + 2.5 * (k3[[7, 8, 9, 10], :2] - middle)
        k3[~labelled, :2] = 0
    assert len(find(joints)[0]) <= 10


@pytest.mark.parametrize("fault, code, least", [
    (move_far, "NK251", 0.75),
    (exchange("shoulder"), "NK252", 0.45),
    (exchange("hip"), "NK252", 0.4),
    (exchange("wrist"), None, 0.5),
    (exchange("elbow"), None, 0.3),
    (exchange("elbow", "wrist"), None, 0.4),
])  # fmt: skip
def test_planted_faults_are_found(fault, code, least):
    share, hits = plant(population(4, 1000), fault)
    assert share >= least
    if code:
        assert sum(s.code == code for s in hits) >= 0.9 * len(hits)


@pytest.mark.parametrize("fault, least", [
    (exchange_all, 0.6), (exchange_body, 0.6), (exchange("eye"), 0.4), (exchange("eye", "ear"), 0.4)
])  # fmt: skip
def test_sides_are_read_off_the_face(fault, least):
    share, hits = plant(population(5, 500, around=10), fault)
    assert share >= least and {s.code for s in hits} == {"NK252"}
    whole = sum("whole person" in s.why for s in hits)
    assert (whole > len(hits) / 2) == (fault is exchange_all)


def test_most_people_reversed_is_one_mistake_of_the_tool():
    joints = population(6, 300, around=10)
    right, findings = find(joints)
    assert not findings.count("NK412")
    found, findings = find([k3[FLIP] for k3 in joints])
    assert findings.count("NK412") > 50 and findings.count("NK252") <= 6
    # The body alone, the face right.
    found, findings = find([np.concatenate([k3[:5], k3[FLIP][5:]]) for k3 in joints])
    assert findings.count("NK412") > 50
    # Two in five are many mistakes, not one.
    mixed = [k3[FLIP] if i // 5 % 5 < 2 else k3 for i, k3 in enumerate(joints)]
    found, findings = find(mixed)
    assert not findings.count("NK412") and findings.count("NK252") > 15


def test_a_child_that_looks_over_its_shoulder_is_left_in_peace():
    """Eyes and shoulders are compared only where a neck would have to turn by 90 degrees."""
    joints = population(6, 300, around=10)
    rng = np.random.default_rng(1)
    for i in range(0, 300, 10):
        # Turned away by 130 degrees, the face to 20: bodies of one size.
        body, face = (toddler(rng, "walk", around) for around in (130, 20))
        shoulders = [k3[[5, 6], :2].mean(0) for k3 in (body, face)]
        sizes = [np.ptp(k3[k3[:, 2] > 0][:, :2], axis=0).max() for k3 in (body, face)]
        body[:5] = face[:5]
        body[:5, :2] = shoulders[0] + (face[:5, :2] - shoulders[1]) * sizes[0] / sizes[1]
        body[body[:, 2] == 0] = 0
        joints[i] = body
    found, _ = find(joints)
    assert sum(s.people[0] % 10 == 1 and s.code == "NK252" for s in found) <= 2


def test_a_moved_joint_is_named_with_its_bone():
    joints = population(7, 200)
    wrist = next(i for i, k3 in enumerate(joints) if k3[[5, 7, 9], 2].all())
    joints[wrist][9, :2] += 900
    found, _ = find(joints)
    first = found[0]
    assert first.people == (wrist + 1,) and first.joints == (7, 9) and first.code == "NK251"
    assert first.why.startswith("left_elbow - left_wrist ") and first.severity > 2
    assert [s.severity for s in found] == sorted((s.severity for s in found), reverse=True)


def test_a_short_bone_is_nothing():
    joints = population(8, 200)
    before = {s.people for s in find(joints)[0]}
    for k3 in joints[::10]:
        if k3[[7, 9], 2].all():
            k3[9, :2] = k3[7, :2] + 1
    assert len({s.people for s in find(joints)[0]} - before) <= 1


def test_few_people_are_not_judged():
    joints = population(9, 49)
    joints[0][9] = (9000, 9000, 2)
    found, findings = find(joints)
    assert found == () and findings.count("NK254") == 49
    found, findings = find([*joints, *population(10, 1)])
    assert found[0].people == (1,) and not findings.count("NK254")
    assert find([])[0] == () and not find([])[1].listed()


def frame(i, phash, size_wh=(1800, 1400)):
    return Picture(f"{i}.jpg", "", size_wh, 1, f"{i}", phash)


def test_far_apart_labels_on_near_identical_pictures():
    base = population(11, 1)[0]
    far, close, half, swapped = (base.copy() for _ in range(4))
    far[base[:, 2] > 0, :2] += 80  # 113 px of a diagonal of 500
    close[base[:, 2] > 0, :2] += 20
    half[:, :2] /= 2
    swapped[:, :2] = 0
    pictures = [frame(0, 0xF0F0), frame(1, 0xF0F1), frame(2, 0xF0F3), frame(3, 0xF0F0, (900, 700)),
                frame(4, 0xFFFF_FFFF_0000)]  # fmt: skip
    found, findings = find([base, far, close, half, far], pictures)
    assert findings.count("NK253") == 1
    assert found[0].people in ((1, 2), (2, 3)) and found[0].severity == pytest.approx(2.26, abs=0.4)
    share = np.hypot(80, 80) / 500 * 100
    assert f"labels {share:.0f} % of the box apart" in found[0].why or found[0].people == (2, 3)
    # Two people in a picture: who is who is not known.
    findings = Findings()
    people = persons([base, far]) + [Person(9, None, "1.jpg", base, (0, 0, 9, 9), "labels", 1.0)]
    assert suspicious.find(people, pictures, COCO, findings) == ()


def test_ignored_people_and_poor_skeletons_do_no_harm():
    legs = skeletons.parse({"name": "legs", "keypoints": ["left_knee", "right_knee"],
                            "limbs": [["left_knee", "right_knee"]]}, "legs")  # fmt: skip
    dots = skeletons.parse({"name": "dots", "keypoints": ["left_knee", "right_knee"]}, "dots")
    joints = [k3[13:15] for k3 in population(12, 60)]
    assert find(joints, skeleton=legs)[0] == () and find(joints, skeleton=dots)[0] == ()
    blank = [np.zeros((17, 3), np.float32)] * 60
    assert find(blank)[0] == ()
    point = [np.full((17, 3), 2, np.float32)] * 60
    assert find(point)[0] == ()


def test_wholebody_joints_are_judged_too():
    whole = skeletons.load("wholebody133")
    rng = np.random.default_rng(13)
    joints = []
    for k3 in population(13, 100):
        full = np.zeros((133, 3), np.float32)
        full[:17] = k3
        size = np.ptp(k3[k3[:, 2] > 0][:, :2], axis=0).max()
        if k3[9, 2]:
            full[91:112, :2] = k3[9, :2] + rng.normal(0, 0.02 * size, (21, 2))
            full[91:112, 2] = 2
        joints.append(full)
    clean, _ = find(joints, skeleton=whole)
    hand = next(i for i, k3 in enumerate(joints) if k3[95, 2] and k3[:17, 2].sum() > 20)
    joints[hand][95, :2] += 300
    found, _ = find(joints, skeleton=whole)
    assert len(clean) <= 4 and found[0].people == (hand + 1,) and 95 in found[0].joints


def test_a_face_seen_from_below_the_chin_tells_no_sides():
    """Its nose is level with the eyes, or a little above them; nothing is exchanged."""
    joints = population(6, 300, around=10)
    before = {s.people for s in find(joints)[0] if s.code == "NK252"}
    for k3 in filter(visible_face, joints):
        across = k3[1, :2] - k3[2, :2]  # from the right eye to the left one
        above = np.array([across[1], -across[0]])
        k3[0, :2] = k3[[1, 2], :2].mean(0) + 0.08 * above
    found, findings = find(joints)
    assert not findings.count("NK412")
    assert len({s.people for s in found if s.code == "NK252"} - before) <= 3
