"""Whole pictures of the simulated world: labels that agree with truth, and what they depend on."""

import hashlib

import numpy as np
import pytest

from nkjax import skeleton
from nkjax.evaluate import simulated_measures as measures
from nkjax.toddlersim import solids, world
from nkjax.toddlersim.examples import DOMAINS
from nkjax.toddlersim.people import postures

SIZE = (96, 128)
ROLE_OF = {"adult": "labelled", "toddler": "labelled", "atypical": "test"}


@pytest.fixture(scope="module")
def examples():
    return {domain: [world.example(domain, ROLE_OF[domain], i, SIZE, 0) for i in range(40)]
            for domain in DOMAINS}  # fmt: skip


def digest(example):
    found = hashlib.sha256()
    for array in (example.image_hw3, *example.maps, example.keypoints_k3, example.joints_k3,
                  example.box_xywh, example.other_boxes_n4):  # fmt: skip
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest() + repr(example.labels)


def test_a_picture_depends_on_its_own_number_alone():
    alone = digest(world.example("toddler", "labelled", 13, SIZE, 5))
    world.draw_session.cache_clear()
    after = [digest(world.example("toddler", "labelled", i, SIZE, 5)) for i in (3, 12, 13)][-1]
    assert alone == after
    others = [world.example("toddler", "unlabelled", 13, SIZE, 5),
              world.example("toddler", "test", 13, SIZE, 5),
              world.example("toddler", "labelled", 14, SIZE, 5),
              world.example("toddler", "labelled", 13, SIZE, 6)]  # fmt: skip
    assert len({alone, *map(digest, others)}) == 5


def test_the_same_scene_at_two_sizes_has_the_same_joints():
    small, large = (world.example("toddler", "labelled", 2, (w, w * 4 // 3), 0) for w in (96, 192))
    np.testing.assert_allclose(small.joints_k3, large.joints_k3, atol=1e-9)
    both = (small.keypoints_k3[:, 2] > 0) & (large.keypoints_k3[:, 2] > 0)
    twice = (small.keypoints_k3[both, :2] + 0.5) * 2 - 0.5  # pixel centres at integers
    np.testing.assert_allclose(large.keypoints_k3[both, :2], twice, atol=1e-6)


def test_the_skeleton_is_that_of_wholebody_without_the_face():
    whole, ours = skeleton.load("wholebody133"), world.SKELETON
    assert ours.keypoints == whole.keypoints[:23] + whole.keypoints[91:]
    assert ours.sigmas == whole.sigmas[:23] + whole.sigmas[91:]
    assert len(ours.keypoints) == 65 and len(ours.limbs) == 65


@pytest.mark.parametrize("domain", DOMAINS)
def test_labels_agree_with_joints_in_space_and_with_what_is_seen(examples, domain):
    for example in examples[domain]:
        points, joints, camera = example.keypoints_k3, example.joints_k3, example.camera
        width, height = camera.size_wh
        assert example.image_hw3.shape == (height, width, 3) and example.image_hw3.dtype == np.uint8
        by_hand = joints[:, :2] / joints[:, 2:] * camera.focal
        by_hand += ((width - 1) / 2, (height - 1) / 2)
        within = (joints[:, 2] > 0) & (by_hand >= 0).all(1)
        within &= (by_hand <= (width - 1, height - 1)).all(1)
        np.testing.assert_array_equal(points[:, 2] > 0, within)
        np.testing.assert_allclose(points[within, :2], by_hand[within], atol=1e-6)
        assert not points[~within].any()
        x, y, w, h = example.box_xywh
        assert 0 <= x and 0 <= y and x + w <= width - 1 + 1e-9 and y + h <= height - 1 + 1e-9
        inside = (points[within, :2] >= (x - 1e-9, y - 1e-9)).all(1)
        inside &= (points[within, :2] <= (x + w + 1e-9, y + h + 1e-9)).all(1)
        assert inside.all()


@pytest.mark.parametrize("domain", DOMAINS)
def test_seen_joints_lie_just_under_the_target_and_hidden_ones_behind(examples, domain):
    on_target, before, behind = [], [], []
    for example in examples[domain]:
        for (x, y, v), joint in zip(example.keypoints_k3[:17], example.joints_k3, strict=False):
            if not v:
                continue
            row, column = int(round(y)), int(round(x))
            gap = joint[2] - example.maps.depth_hw[row, column]
            if v == 2:
                on_target.append(example.maps.people_hw[row, column] == solids.TARGET)
                before.append(gap)
            else:
                behind.append(gap)
    # The pixel nearest to a joint may just miss it, at the edge of a limb.
    assert np.mean(on_target) > 0.97
    assert np.quantile(np.abs(before), 0.95) < 0.16
    assert np.quantile(behind, 0.1) > 0.01 and len(behind) > 30


@pytest.mark.parametrize("domain", DOMAINS)
def test_maps_are_whole(examples, domain):
    for example in examples[domain]:
        depth, normals, parts, people = example.maps
        assert np.isfinite(depth).all() and depth.min() > 0.05 and depth.max() < 13
        np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)
        rays = np.moveaxis(np.indices(depth.shape)[::-1], 0, -1).astype(float)
        rays = (rays - (np.array(example.camera.size_wh) - 1) / 2) / example.camera.focal
        rays = np.concatenate([rays, np.ones_like(rays[..., :1])], -1)
        assert (normals * rays).sum(-1).max() < 1e-4  # what is seen faces the camera
        assert (people == solids.TARGET).sum() > 50
        assert not parts[people == solids.NOBODY].any() and parts[people > 0].all()


def test_subjects_and_sessions(examples):
    for domain in DOMAINS:
        labels = [example.labels for example in examples[domain]]
        assert len({label.subject for label in labels}) == 5
        for a, b in zip(labels, labels[1:], strict=False):
            assert (a.subject == b.subject) == (a.index // 8 == b.index // 8)
        assert {label.session for label in labels} == {"s1", "s2"}
        pictures = [_Seen(e) for e in examples[domain]]
        assert measures.largest_change(pictures, world.SKELETON.keypoints) < 1e-9
    names = [world.subject_of(d, r, i) for d in DOMAINS for r in ("labelled", "unlabelled", "test")
             for i in range(0, 32, 8)]  # fmt: skip
    assert len(set(names)) == len(names)


class _Seen:
    """What measures want of a picture."""

    def __init__(self, example):
        self.subject, self.joints_k3 = example.labels.subject, example.joints_k3


def test_shares_of_postures_are_those_of_the_notes():
    # notes method 6.5
    wanted = {"high_guard_walk": 0.20, "medium_guard_walk": 0.15, "cruise": 0.10, "crawl": 0.13,
              "bear_crawl": 0.07, "sit_reach": 0.15, "held": 0.10, "squat": 0.05, "fall": 0.05}
    rng, count = np.random.default_rng(0), 20000
    drawn = [postures.draw_posture(rng, "toddler", postures.draw_age(rng)) for _ in range(count)]
    for name, share in wanted.items():
        assert abs(drawn.count(name) / count - share) < 4 * np.sqrt(share / count), name
    assert set(drawn) == set(wanted)
    atypical = {postures.draw_posture(rng, "atypical", 20) for _ in range(200)}
    adult = {postures.draw_posture(rng, "adult", 400) for _ in range(200)}
    assert len(atypical) == 6 and not atypical & (set(wanted) | adult)
