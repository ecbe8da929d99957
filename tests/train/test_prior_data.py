"""What a prior learns from: who calibrates, the order of people, the shuffled control, bad data."""

import dataclasses

import jax
import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.data.records import BadData
from nkjax.prior import coordinates
from nkjax.train import prior_data
from nkjax.train.begin import BadStart
from tests.prior import small_prior
from tests.train.small_prior_run import PEOPLE, SKELETONS, config, pack, packer


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return packer(tmp_path_factory)


def test_a_skeleton_of_a_lab_has_a_network_of_its_size(data):
    parts = prior_data.begin(config(data("lab27"))).parts
    assert list(parts) == ["body"] and parts["body"].spec.joints == 27


def test_who_calibrates_is_of_other_subjects(data):
    start = prior_data.begin(config(data("coco17")))
    learning, calibrating = ({*people.subject_n} for people in (start.learning, start.calibrating))
    assert len(learning) + len(calibrating) == PEOPLE // 4
    assert calibrating and learning and not learning & calibrating
    assert len(start.train["body"].valid_bj) == 4 * len(learning)
    assert len(start.val["body"].valid_bj) == 4 * len(calibrating)


def test_an_order_goes_through_all_and_is_shared_by_processes():
    positions = np.arange(30)
    found = prior_data.order(10, 5, positions)
    for first in (0, 10, 20):
        assert sorted(found[first : first + 10]) == list(range(10))
    assert not np.array_equal(found[:10], found[10:20])
    for process in range(3):
        mine = prior_data.order(10, 5, positions[process::3])
        np.testing.assert_array_equal(mine, found[process::3])
    assert not np.array_equal(prior_data.order(10, 6, positions), found)


def test_a_batch_starts_where_the_step_is(data, monkeypatch):
    settings = config(data("toddlersim65"))
    start = prior_data.begin(settings)
    endless = prior_data.batches(start, settings, 0)
    steps = [next(endless) for _ in range(4)]
    later = next(prior_data.batches(start, settings, 3))
    jax.tree.map(np.testing.assert_array_equal, later, steps[3])
    np.testing.assert_array_equal(later["hand"]["index"], np.arange(24, 32))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    halves = []
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        halves.append(next(prior_data.batches(start, settings, 3)))
    for name in ("body", "hand"):
        for field, whole in later[name].items():
            for process in range(2):
                np.testing.assert_array_equal(halves[process][name][field], whole[process::2])


def bone_lengths(poses, pair=(5, 7)):
    a, b = (poses.points_bj2[:, joint] for joint in pair)
    return np.hypot(*(a - b).T)


def test_the_control_keeps_each_joint_and_breaks_what_joins_them(tmp_path):
    """A rod between two joints that lies anywhere: rigid in truth, of any length in the control."""
    skeleton = SKELETONS["coco17"]
    people = small_prior.people(skeleton, 400, missing=0.0)
    turn = np.random.default_rng(3).uniform(0, 2 * np.pi, 400)
    way = 15 * np.stack([np.cos(turn), np.sin(turn)], 1)
    points = people.points_nk2.copy()
    points[:, 7] = points[:, 5] + way
    people = people._replace(points_nk2=points.astype(np.float32))
    part = coordinates.parts(skeleton)["body"]
    poses, _ = coordinates.take(part, people, skeleton)
    units = coordinates.fit_units(part, poses)
    dealt = prior_data.shuffled(part, units, poses, seed=0)
    np.testing.assert_allclose(bone_lengths(poses), 15, rtol=1e-4)
    assert bone_lengths(dealt).std() > 3

    def in_units(which):  # both about the roots of the true ones
        at = coordinates.frame(part, units, *poses[:3])
        return np.asarray(coordinates.normalise(which.points_bj2, poses.valid_bj, at, units))

    before, after = np.sort(in_units(poses), 0), np.sort(in_units(dealt), 0)
    np.testing.assert_allclose(before, after, atol=1e-3)  # every joint's own distribution
    same = prior_data.shuffled(part, units, poses, seed=0)
    np.testing.assert_array_equal(same.points_bj2, dealt.points_bj2)
    other = prior_data.shuffled(part, units, poses, seed=1)
    assert not np.array_equal(other.points_bj2, dealt.points_bj2)


def test_the_control_moves_no_label(data):
    settings = config(data("toddlersim65"))
    true, dealt = (
        prior_data.begin(dataclasses.replace(settings, control=name)) for name in ("", "shuffled")
    )
    for name, poses in true.train.items():
        np.testing.assert_array_equal(dealt.train[name].valid_bj, poses.valid_bj)
        missing = np.isnan(dealt.train[name].points_bj2).any(-1)
        np.testing.assert_array_equal(missing, ~poses.valid_bj)
        np.testing.assert_array_equal(dealt.val[name].points_bj2, true.val[name].points_bj2)
        known = true.parts[name]
        at = coordinates.frame(known.part, known.units, *poses[:3])
        before, after = (
            np.asarray(coordinates.normalise(points, poses.valid_bj, at, known.units))
            for points in (poses.points_bj2, dealt.train[name].points_bj2)
        )
        # Places come from those who show the joint: none is the 0 of a joint that is missing.
        np.testing.assert_allclose(np.sort(before, 0), np.sort(after, 0), atol=1e-3)


def test_bad_data_is_one_line(tmp_path):
    with pytest.raises(BadStart, match="--data=DATA"):
        prior_data.begin(config(""))
    with pytest.raises(BadData) as caught:
        prior_data.begin(config(str(tmp_path)))
    assert "\n" not in str(caught.value)
    empty = pack(tmp_path / "nobody", SKELETONS["coco17"], 4, missing=1.0)
    with pytest.raises(BadData, match="no labelled people in train"):
        prior_data.begin(config(empty))


def test_hands_that_nobody_labelled_are_left_out(tmp_path):
    skeleton = skeletons.load("wholebody133")
    hands = [*skeleton.groups["left_hand"], *skeleton.groups["right_hand"]]
    folder = pack(tmp_path / "data", skeleton, 8, unlabelled=hands)
    assert list(prior_data.begin(config(folder, calibration=0.01)).parts) == ["body"]
