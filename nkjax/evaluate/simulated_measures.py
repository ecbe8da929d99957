"""Measures of simulated people, read off their 3D joints: proportions, base, likeness of poses.

Nothing here knows what the generator meant to draw; the tables are what it drew.
"""

from collections.abc import Sequence

import numpy as np

from nkjax.evaluate.simulated import Picture

# Segments between joint centres whose length no pose may change (notes method 3.3, bone set).
BONES = {
    "upper arm": ("shoulder", "elbow"), "forearm": ("elbow", "wrist"), "thigh": ("hip", "knee"),
    "shank": ("knee", "ankle"), "heel to toe": ("heel", "big_toe"),
    "wrist to knuckle": ("hand_root", "middle_finger1"),
    "first phalanx": ("middle_finger1", "middle_finger2"), "thumb tip": ("thumb3", "thumb4"),
}  # fmt: skip
BODY_JOINTS = 17
WALKS = ("high_guard_walk", "medium_guard_walk", "walk", "toe_walking", "scissor_gait",
         "hemiplegic_arm")  # fmt: skip


def bone_lengths(joints_k3, names: Sequence[str]) -> dict[str, float]:
    """Return metres of the bones of both sides and of hip and shoulder line; joints_k3: metres."""
    at = dict(zip(names, np.asarray(joints_k3, float), strict=True))

    def apart(a, b):
        return float(np.linalg.norm(at[a] - at[b]))

    lengths = {"hip line": apart("left_hip", "right_hip")}
    for bone, (a, b) in BONES.items():
        for side in ("left", "right"):
            lengths[f"{side} {bone}"] = apart(f"{side}_{a}", f"{side}_{b}")
    return lengths


def largest_change(pictures: Sequence[Picture], names) -> float:
    """Return the largest change of a bone within a subject, as a share of its mean length."""
    by_subject = {}
    for picture in pictures:
        lengths = bone_lengths(picture.joints_k3, names)
        by_subject.setdefault(picture.subject, []).append(list(lengths.values()))
    changes = [np.ptp(rows, axis=0) / np.mean(rows, axis=0) for rows in by_subject.values()]
    return float(np.max(changes))


def step_ratio(joints_k3, names, forward_3, up_3) -> float:
    """Return the lateral distance of the ankles over that of the hip joints (notes method 6.6).

    joints_k3: metres; forward_3, up_3: of the walk and of the world, in the same frame. Signed: a
    left ankle on the right of the other is negative.
    """
    at = dict(zip(names, np.asarray(joints_k3, float), strict=True))
    left = np.cross(up_3, forward_3)
    between = (at["left_ankle"] - at["right_ankle"]) @ (left / np.linalg.norm(left))
    return float(between / np.linalg.norm(at["left_hip"] - at["right_hip"]))


def normal_pose(joints_k3, names) -> np.ndarray:
    """Return body joints (17, 3) in the frame of the trunk and in trunk lengths.

    Origin: middle of the hip joints; z along the trunk, y along the hip line. Two people in one
    posture, seen from anywhere, have one normal pose.
    """
    at = dict(zip(names, np.asarray(joints_k3, float), strict=True))
    root = (at["left_hip"] + at["right_hip"]) / 2
    up = (at["left_shoulder"] + at["right_shoulder"]) / 2 - root
    trunk = np.linalg.norm(up)
    z = up / trunk
    y = at["left_hip"] - at["right_hip"]
    y = y - (y @ z) * z
    y /= np.linalg.norm(y)
    axes = np.stack([np.cross(y, z), y, z])
    return (np.asarray(joints_k3, float)[:BODY_JOINTS] - root) @ axes.T / trunk


def nearest(poses_n, others_m, same_nm=None) -> np.ndarray:
    """Return for each of N normal poses the mean distance of its joints to the nearest of M others.

    poses_n: (N, 17, 3); others_m: (M, 17, 3); same_nm: True where a pair is not to be compared.
    """
    found = np.empty(len(poses_n))
    for i, pose in enumerate(poses_n):
        apart = np.linalg.norm(others_m - pose, axis=-1).mean(-1)
        if same_nm is not None:
            apart = np.where(same_nm[i], np.inf, apart)
        found[i] = apart.min()
    return found


def proportions(pictures: Sequence[Picture], names) -> dict[str, tuple[float, float]]:
    """Return mean and standard deviation over subjects of bones over the length of thigh + shank.

    Stature cannot be seen in joints; the leg can. Left and right are averaged.
    """
    by_subject = {}
    for picture in pictures:
        lengths = bone_lengths(picture.joints_k3, names)
        by_subject.setdefault(picture.subject, lengths)
    found = {}
    for bone in ("hip line", *BONES):
        shares = []
        for lengths in by_subject.values():
            pair = [length for name, length in lengths.items() if name.endswith(bone)]
            legs = [length for name, length in lengths.items() if name.endswith(("thigh", "shank"))]
            shares.append(2 * np.mean(pair) / np.sum(legs))
        found[bone] = (float(np.mean(shares)), float(np.std(shares)))
    return found


def visibility(pictures: Sequence[Picture], skeleton) -> dict[str, list[float]]:
    """Return the shares of v = 0, 1, 2 among the joints of each group of the skeleton."""
    points = np.stack([picture.keypoints_k3 for picture in pictures])
    found = {}
    for group, joints in skeleton.groups.items():
        v = points[:, list(joints), 2]
        found[group] = [float((v == value).mean()) for value in (0, 1, 2)]
    return found


def nearest_histogram(
    pictures: Sequence[Picture], names, bins_b
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return how near the pose of another person is: test to others, and others to each other.

    Distances of normal poses, trunk lengths, counted in bins: two arrays (len(bins_b) - 1,) of
    shares, and the smallest distance from a test person to anybody else.
    """
    poses = np.stack([normal_pose(picture.joints_k3, names) for picture in pictures])
    who = np.array([picture.subject for picture in pictures])
    test = np.array([picture.role == "test" for picture in pictures])
    same = who[~test, None] == who[None, ~test]
    found = [nearest(poses[test], poses[~test]), nearest(poses[~test], poses[~test], same)]
    shares = [np.histogram(np.minimum(each, bins_b[-1]), bins_b)[0] / len(each) for each in found]
    return *shares, float(found[0].min())
