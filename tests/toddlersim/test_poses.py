"""Joint angles and lengths, against anatomy written out by hand."""

import numpy as np
import pytest

from nkjax.toddlersim.people import bodies, poses, reaching
from nkjax.toddlersim.people.poses import Arm, Hand, Leg, Pose

STRAIGHT = Hand(np.zeros((4, 3)), np.array([0, 40, 0, 0.0]))
BODY = bodies.draw(np.random.default_rng(0), "toddler", 18, False)
FORWARD, LEFT, UP = np.eye(3)


def pose(shoulder=(0, 0, 0), elbow=0.0, wrist=(0, 0, 0), hand=STRAIGHT, hip=(0, 0, 0), knee=0.0,
         ankle=(0, 0, 0), spine=(0, 0, 0), neck=(0, 0, 0), turn=None):  # fmt: skip
    arm = Arm(np.array(shoulder, float), elbow, np.array(wrist, float), hand)
    leg = Leg(np.array(hip, float), knee, np.array(ankle, float))
    turn = np.eye(3) if turn is None else turn
    return Pose(np.array([0, 0, 1.0]), turn, np.array(spine, float), np.array(neck, float),
                np.zeros(2), (arm, arm), (leg, leg))  # fmt: skip


def way(joints, start, end):
    step = joints[end] - joints[start]
    return step / np.linalg.norm(step)


def random_pose(rng):
    def arm():
        hand = Hand(rng.uniform(0, 60, (4, 3)), rng.uniform(10, 60, 4))
        return Arm(rng.uniform(-60, 80, 3), rng.uniform(5, 140), rng.uniform(-40, 40, 3), hand)

    def leg():
        return Leg(rng.uniform(-30, 80, 3), rng.uniform(5, 140), rng.uniform(-20, 20, 3))

    turn = poses.turn_z(rng.uniform(-180, 180)) @ poses.turn_y(rng.uniform(-80, 80))
    return Pose(rng.normal(size=3), turn, rng.uniform(-30, 30, 3), rng.uniform(-30, 30, 3),
                rng.uniform(0, 0.1, 2), (arm(), arm()), (leg(), leg()))  # fmt: skip


@pytest.mark.parametrize(("side", "out"), [("left", 1), ("right", -1)])
def test_every_angle_turns_the_way_a_clinician_says(side, out):
    def figure(**angles):
        return poses.pose_body(BODY, pose(**angles))

    def close(found, wanted):
        np.testing.assert_allclose(found, wanted, atol=1e-12)

    joints = figure(hip=(90, 0, 0)).joints
    close(way(joints, f"{side}_hip", f"{side}_knee"), FORWARD)  # flexion brings the knee forward
    joints = figure(hip=(0, 90, 0)).joints
    close(way(joints, f"{side}_hip", f"{side}_knee"), out * LEFT)  # abduction brings it outwards
    frames = figure(hip=(0, 0, 90)).frames
    close(frames[f"{side}_foot"][:, 0], out * LEFT)  # external rotation: toes outwards
    joints = figure(knee=90.0).joints
    close(way(joints, f"{side}_knee", f"{side}_ankle"), -FORWARD)  # a knee bends backwards
    assert figure(ankle=(20, 0, 0)).frames[f"{side}_foot"][2, 0] > 0.3  # dorsiflexion: toes up
    sole = figure(ankle=(0, 20, 0)).frames[f"{side}_foot"][:, 2]
    assert (sole * out * LEFT).sum() < -0.3  # inversion: the sole looks inwards, its back outwards
    joints = figure(shoulder=(90, 0, 0)).joints
    close(way(joints, f"{side}_shoulder", f"{side}_elbow"), FORWARD)
    joints = figure(shoulder=(0, 90, 0)).joints
    close(way(joints, f"{side}_shoulder", f"{side}_elbow"), out * LEFT)
    joints = figure(elbow=90.0).joints
    close(way(joints, f"{side}_elbow", f"{side}_wrist"), FORWARD)  # an elbow bends forwards
    joints = figure(elbow=90.0, shoulder=(0, 0, 90)).joints
    close(way(joints, f"{side}_elbow", f"{side}_wrist"), out * LEFT)  # external rotation: outwards
    # At rest the thumb is in front; bent by 90 degrees and pronated, the palm looks down.
    assert way(figure().joints, f"{side}_hand_root", f"{side}_thumb4") @ FORWARD > 0.3
    palm = -out * figure(elbow=90.0, wrist=(90, 0, 0)).frames[f"{side}_hand"][:, 1]
    close(palm, -UP)
    joints = figure(wrist=(0, 60, 0)).joints  # palmar flexion: fingers towards the thigh
    assert way(joints, f"{side}_hand_root", f"{side}_middle_finger1") @ (-out * LEFT) > 0.8
    joints = figure(wrist=(0, 0, 30)).joints  # radial: to the thumb's side, here forward
    assert way(joints, f"{side}_hand_root", f"{side}_middle_finger1") @ FORWARD > 0.4
    bent = Hand(np.tile([80.0, 0, 0], (4, 1)), STRAIGHT.thumb_4)
    joints = figure(hand=bent).joints  # fingers bend to the palm
    assert way(joints, f"{side}_forefinger1", f"{side}_forefinger4") @ (-out * LEFT) > 0.9
    opposed = Hand(STRAIGHT.fingers_43, np.array([90, 60, 0, 0.0]))
    joints = figure(hand=opposed).joints  # an opposed thumb stands in front of the palm
    assert way(joints, f"{side}_thumb1", f"{side}_thumb4") @ (-out * LEFT) > 0.8


def test_trunk_and_head_bend_the_way_they_say():
    for part, at in (("spine", "chest"), ("neck", "head")):
        bent = poses.pose_body(BODY, pose(**{part: (30, 0, 0)})).frames[at][:, 2]
        assert bent @ FORWARD == pytest.approx(0.5)
        bent = poses.pose_body(BODY, pose(**{part: (0, 30, 0)})).frames[at][:, 2]
        assert bent @ LEFT == pytest.approx(0.5)
        turned = poses.pose_body(BODY, pose(**{part: (0, 0, 30)})).frames[at][:, 0]
        assert turned @ LEFT == pytest.approx(0.5)


def test_left_is_left():
    joints = poses.pose_body(BODY, pose()).joints
    for name in ("eye", "ear", "shoulder", "hip", "ankle", "wrist", "pinky_finger4"):
        assert joints[f"left_{name}"][1] > 0.02 > -0.02 > joints[f"right_{name}"][1], name
    assert joints["left_small_toe"][1] > joints["left_big_toe"][1]
    assert joints["nose"][0] > joints["left_ear"][0]


def test_bones_keep_the_lengths_of_the_body_in_every_pose():
    rng, lengths = np.random.default_rng(3), []
    for _ in range(60):
        joints = poses.pose_body(BODY, random_pose(rng)).joints

        def bone(a, b, joints=joints):
            return np.linalg.norm(joints[a] - joints[b])

        for i, side in enumerate(("left", "right")):
            for a, b, name in (("shoulder", "elbow", "upper_arm"), ("elbow", "wrist", "forearm"),
                               ("hip", "knee", "thigh"), ("knee", "ankle", "shank")):  # fmt: skip
                found = bone(f"{side}_{a}", f"{side}_{b}")
                assert found == pytest.approx(getattr(BODY, name)[i], rel=1e-12)
        assert bone("left_hip", "right_hip") == pytest.approx(BODY.hips, rel=1e-12)
        fingers = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
        hands = [bone(f"{side}_{finger}{i}", f"{side}_{finger}{i + 1}")
                 for side in ("left", "right") for finger in fingers for i in (1, 2, 3)]
        rigid = [("nose", "left_eye"), ("left_ear", "right_ear"), ("nose", "right_ear")]
        for side in ("left", "right"):
            rigid += [(f"{side}_ankle", f"{side}_{part}") for part in ("big_toe", "heel")]
        lengths.append(hands + [bone(a, b) for a, b in rigid])
    assert np.ptp(lengths, axis=0).max() < 1e-12
    # An open hand is as long as the body says.
    joints = poses.pose_body(BODY, pose()).joints
    reach = np.linalg.norm(joints["left_middle_finger4"] - joints["left_wrist"])
    assert reach == pytest.approx(BODY.hand[0], rel=0.01)


def test_ranges_of_angles_come_back_from_their_turns():
    rng = np.random.default_rng(4)
    for angles in rng.uniform(-85, 85, (200, 3)):
        for sign in (1, -1):
            for turn, back in ((poses.ball_joint, poses.ball_angles),
                               (poses.wrist, poses.wrist_angles),
                               (poses.ankle, poses.ankle_angles)):  # fmt: skip
                np.testing.assert_allclose(back(turn(angles, sign), sign), angles, atol=1e-9)


@pytest.mark.parametrize("side", [0, 1])
def test_limbs_reach_the_place_they_are_told_with_the_middle_joint_as_told(side):
    rng, name = np.random.default_rng(5), ("left", "right")[side]
    for _ in range(40):
        start = random_pose(rng)
        goal = poses.pose_body(BODY, random_pose(rng)._replace(place_3=start.place_3,
                               turn_33=start.turn_33, spine_3=start.spine_3,
                               shrug_2=start.shrug_2))  # fmt: skip
        figure = poses.pose_body(BODY, start)
        knee = goal.joints[f"{name}_knee"] - figure.joints[f"{name}_hip"]
        elbow = goal.joints[f"{name}_elbow"] - figure.joints[f"{name}_shoulder"]
        leg = reaching.reach_leg(BODY, figure, side, goal.joints[f"{name}_ankle"], knee,
                                 goal.frames[f"{name}_foot"])  # fmt: skip
        arm = reaching.reach_arm(BODY, figure, side, goal.joints[f"{name}_wrist"], elbow, STRAIGHT,
                                 goal.frames[f"{name}_hand"])  # fmt: skip
        legs, arms = list(start.legs), list(start.arms)
        legs[side], arms[side] = leg, arm
        found = poses.pose_body(BODY, start._replace(legs=tuple(legs), arms=tuple(arms)))
        for joint in ("knee", "ankle", "elbow", "wrist", "heel", "big_toe"):
            np.testing.assert_allclose(found.joints[f"{name}_{joint}"],
                                       goal.joints[f"{name}_{joint}"], atol=1e-9)  # fmt: skip
        for frame in ("hand", "foot"):
            np.testing.assert_allclose(found.frames[f"{name}_{frame}"],
                                       goal.frames[f"{name}_{frame}"], atol=1e-9)  # fmt: skip


def test_a_place_out_of_reach_is_approached_in_a_straight_line():
    figure = poses.pose_body(BODY, pose())
    far = figure.joints["left_shoulder"] + np.array([3.0, 1.0, 0.5])
    arm = reaching.reach_arm(BODY, figure, 0, far, (0, 0, -1), STRAIGHT, None)
    found = poses.pose_body(BODY, pose()._replace(arms=(arm, pose().arms[1]))).joints
    assert arm.elbow < 10
    along = way(found, "left_shoulder", "left_wrist") @ (far - found["left_shoulder"])
    assert along == pytest.approx(np.linalg.norm(far - found["left_shoulder"]), rel=1e-9)
