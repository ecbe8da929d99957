"""The tiny prior of docs/prior.md, as fit_prior.py wrote it, on simulated toddlers of another seed.

Nothing is trained here. scripts/measure_prior.py gives all figures, with the controls; here are
those that do without, on fewer people.
"""

from pathlib import Path

import numpy as np
import pytest

from nkjax.evaluate import prior_denoising, prior_flattening, prior_scores
from nkjax.losses.developmental import Developmental
from nkjax.prior import coordinates, saved
from nkjax.prior.people import People
from nkjax.toddlersim import camera, world

FOLDER = Path(__file__).parents[1] / "data" / "prior"
SEED, SIZE = 11, (96, 128)  # the prior learned from seed 0


def draw(domain, role, count) -> People:
    """Draw people as the simulation would label them; nothing is rendered."""
    points, postures = [], []
    for index in range(count):
        _, act, scene, _ = world.draw(domain, role, index, SIZE, SEED)
        at = camera.project(scene.camera, scene.joints_k3)[0]
        inside = ((at >= 0) & (at <= np.array(SIZE) - 1)).all(-1, keepdims=True)
        points.append(np.where(inside, at, np.nan))
        postures.append(act.posture)
    points = np.array(points, np.float32)
    extent = np.nanmax(points, 1) - np.nanmin(points, 1)
    names = np.array([str(index) for index in range(count)])
    return People(
        points, np.where(np.isfinite(points[..., 0]), 2, 0).astype(np.int8),
        np.hypot(*extent.T).astype(np.float32), np.full(count, np.nan, np.float32),
        names, np.array(postures), np.full(count, ""), names,
    )  # fmt: skip


@pytest.fixture(scope="module")
def prior():
    return saved.load(FOLDER)


@pytest.fixture(scope="module")
def people():
    return draw("toddler", "labelled", 240)


@pytest.fixture(scope="module")
def bodies(prior, people):
    return coordinates.take(prior.parts["body"].part, people, prior.skeleton)[0]


@pytest.mark.parametrize("name", ["body", "hand"])
@pytest.mark.parametrize("ratio", [0.1, 0.2])
def test_it_denoises_better_than_leaving_alone_and_than_a_gaussian(prior, people, name, ratio):
    part = prior.parts[name]
    poses, _ = coordinates.take(part.part, people.chosen(slice(0, 120)), prior.skeleton)
    found = prior_denoising.gain(part, prior_denoising.in_units(part, poses), ratio)
    assert found["prior"] < found["gaussian"] < found["identity"]


def test_it_repairs_a_bone_and_keeps_the_variance(prior, people, bodies, monkeypatch):
    monkeypatch.setattr(prior_denoising, "RATIOS", (0.2,))
    body = prior.parts["body"]
    (row,) = prior_denoising.table(body, bodies, people.points_nk2, prior.skeleton)
    assert row["forearm"] >= 0.6 and row["variance"] >= 0.93


def test_it_finds_hidden_joints(prior, people, bodies, monkeypatch):
    monkeypatch.setattr(prior_denoising, "SAMPLES", 4)  # worse than the command's, and faster
    body = prior.parts["body"]
    few = coordinates.Poses(*(np.asarray(array)[:100] for array in bodies))
    found = prior_denoising.completion(body, few, people.subject_n[:100], prior.skeleton)
    assert len(found) == 6
    for name, errors in found.items():
        assert errors["prior"] <= 0.5 * errors["mean"], name


def test_plausibility_rejects_few_toddlers_and_most_mistakes(prior, people):
    kps = prior_scores.plausibility_of(prior)
    p = prior_scores.p_values(kps, people)["p"]
    rejected = prior_scores.rejected(p, people.posture_n)
    assert rejected["all"]["low"] <= 0.05 and rejected["all"]["n"] > 200
    for name, broken in prior_scores.found_broken(kps, people, prior.skeleton, p).items():
        assert broken["auc"] >= 0.9, name


@pytest.mark.slow
def test_atypical_people_are_not_bent(prior, people):
    body, skeleton = prior.parts["body"], prior.skeleton
    limit, settings = prior.calibration["limits"]["body"], Developmental()
    common = people.chosen(slice(0, 64))
    poses, _ = coordinates.take(body.part, common, skeleton)
    _, share = prior_flattening.repair(
        body, poses, common.points_nk2, skeleton, limit, settings
    )
    rate = list(prior_flattening.least_rate(share))[-1]
    odd = draw("atypical", "test", 120)
    poses, _ = coordinates.take(body.part, odd, skeleton)
    after, without = (
        prior_flattening.after_descent(body, poses, odd, skeleton, limit, each, rate)
        for each in (settings, Developmental(abstain=1.0))
    )
    assert after["step_width"] <= 0.03 and after["elevation"] <= 3
    assert without["step_width"] > after["step_width"]
    assert without["elevation"] > after["elevation"]
