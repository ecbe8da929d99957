"""Plausibility: p-values of simulated people, by own formula too; the prior's network is random."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from nkjax.kinematics import calibration, corruptions, energies, limbs, plausibility
from tests.kinematics.stick_people import (
    COCO,
    FEW,
    LAB,
    WHOLE,
    lying,
    measure,
    measures,
    people,
    place,
)


@functools.cache
def fitted(skeleton):
    points, valid, diagonal = people(skeleton, 300, 1)
    content = plausibility.fit(measures(skeleton), points, valid, diagonal, np.full(300, ""))
    return json.loads(json.dumps(content))


def kps(skeleton):
    return plausibility.make(measures(skeleton), fitted(skeleton))


score = jax.jit(plausibility.score)


def test_a_joint_that_is_not_valid_plays_no_part():
    by, judge = measures(COCO), kps(COCO)
    points, valid, diagonal = people(COCO, FEW, 6)
    valid &= np.random.default_rng(0).uniform(size=valid.shape) < 0.8
    moved = [np.where(valid[..., None], points, points + 1e3),
             np.where(valid[..., None], points, np.nan)]  # fmt: skip

    def total(points):
        found = energies.energies(by, points, valid, diagonal)
        return sum(jnp.nansum(value) for value in found.values())

    gradient = jax.jit(jax.grad(total))
    wanted, slope = score(judge, points, valid, diagonal), gradient(points)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0
    assert not np.asarray(slope)[~valid].any()
    for other in moved:
        found = score(judge, other.astype(np.float32), valid, diagonal)
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
        np.testing.assert_array_equal(gradient(other.astype(np.float32)), slope)


@pytest.mark.parametrize("skeleton", [COCO, WHOLE, LAB], ids=lambda s: s.name)
def test_true_people_pass_and_planted_mistakes_do_not(skeleton):
    judge, (points, valid, diagonal) = kps(skeleton), people(skeleton, 401, 8)
    valid[400, list(judge.measures.prior.part.joints)[7:]] = False  # hands are no joints of a body
    found = score(judge, points, valid, diagonal)
    assert found.judged_b.tolist() == [True] * 400 + [False]
    assert set(found.parts) == {"length", "angle", "symmetry", "diffusion"}
    p = np.asarray(found.p_b)[:400]
    # Three standard deviations of 400 judged by 300.
    assert 0.01 < (p < 0.05).mean() < 0.105
    for name in ("stretched_bone", "collapsed_arm"):
        wrong = corruptions.ALL[name](points, skeleton, 0)
        usable = wrong.usable_n & (np.arange(401) < 400)
        with_it = score(judge, wrong.points_nk2, valid, diagonal).p_b[usable]
        assert (with_it[:, None] < p[None]).mean() > 0.9


def test_few_valid_joints_are_not_judged_and_said_so():
    points, valid, diagonal = people(COCO, FEW, 9)
    valid[0, 7:], valid[1, 8:] = False, False
    found = score(kps(COCO), points, valid, diagonal)
    assert found.judged_b.tolist() == [False] + [True] * (FEW - 1)
    assert np.isnan(found.p_b[0]) and 0 < found.p_b[1] <= 1


def test_with_fewer_than_fifty_nobody_is_judged():
    group = people(COCO, 49, 10)
    content = plausibility.fit(measures(COCO), *group, np.full(49, ""))
    assert content["conformal"] is None and set(content["energies"].values()) == {None}
    assert content["left_out"]["length"] == "49 people, 50 needed"
    found = score(plausibility.make(measures(COCO), content), *(a[:FEW] for a in group))
    assert not found.judged_b.any() and np.isnan(found.p_b).all()
    nobody = plausibility.fit(measures(COCO), *(a[:0] for a in group), [])
    assert nobody["people"] == 0 and nobody["conformal"] is None


def test_an_energy_that_too_few_show_is_left_out_and_the_rest_judges():
    points, valid, diagonal = people(COCO, 100, 11)
    valid[:60, [i for i, name in enumerate(COCO.keypoints) if "right_" in name]] = False
    content = plausibility.fit(measures(COCO), points, valid, diagonal, np.full(100, "walk"))
    assert content["left_out"] == {"symmetry": "40 people, 50 needed"}
    assert content["energies"]["symmetry"] is None
    found = score(plausibility.make(measures(COCO), content), points, valid, diagonal)
    assert found.judged_b.all() and np.isnan(found.parts["symmetry"]).all()
    assert not np.isnan(found.parts["length"][60:]).any()


def test_the_pull_is_told_by_people_with_as_many_joints():
    counts = np.array([10] * 60 + [17] * 80)
    pulls = np.where(counts == 10, 1.0, 3.0)
    usual = plausibility._usual_pull(pulls, counts, 17)
    assert usual[:14].tolist() == [1.0] * 14 and usual[14:].tolist() == [3.0] * 4
    # Fewer than fifty of a number are joined by their neighbours.
    usual = plausibility._usual_pull(pulls[20:], counts[20:], 17)
    np.testing.assert_allclose(usual[10], (40 * 1 + 80 * 3) / 120)


def test_parts_are_tail_probabilities_among_who_calibrated():
    points, valid, diagonal = people(COCO, FEW, 12)
    judge = kps(COCO)
    found = score(judge, points, valid, diagonal)
    lengths = np.asarray(measure(measures(COCO), points, valid, diagonal)["length"])
    table = np.array(fitted(COCO)["energies"]["length"], np.float32)
    wanted = [(1 + (table >= s).sum()) / 301 for s in lengths]
    np.testing.assert_allclose(found.parts["length"], wanted, atol=2 / 301)
    clusters = np.asarray(limbs.posture_cluster(points, valid, COCO))
    np.testing.assert_array_equal(found.cluster_b, clusters)


def quantiles(energies, tables, own_n):
    """Return the weighted normal quantiles (N, 4) of tails by own formula; own_n: in the tables."""
    found = []
    for name, weight in (("length", 1), ("angle", 0.5), ("symmetry", 1), ("diffusion", 1)):
        table, energy = np.float32(tables[name])[None], np.asarray(energies[name])[:, None]
        count = (table > energy).sum(1) + 0.5 * ((table == energy).sum(1) - own_n) + 0.5
        found.append(-weight * stats.norm.ppf(count / (table.size + 1)))
    return np.stack(found, 1)


def test_p_and_what_it_is_told_by_are_as_an_own_formula_has_them():
    by, (points, valid, diagonal) = measures(COCO), people(COCO, 300, 14)
    prone, fall = np.arange(300) % 2 == 1, np.arange(300) % 4 == 2
    points[prone] = lying(points[prone])
    wrist, elbow = place(COCO, "left_wrist"), place(COCO, "left_elbow")
    points[fall, wrist] += 0.4 * (points[fall, wrist] - points[fall, elbow])
    valid[:4, 7:] = False
    posture = np.where(prone, "crawl", np.where(fall, "fall", "walk"))
    content = plausibility.fit(by, points, valid, diagonal, posture)
    assert (content["people"], content["judged"]) == (300, 296)

    energy, _ = plausibility._in_batches(by, points, valid, diagonal)
    pull = np.array(content["usual_pull"], np.float32)
    energy["diffusion"] = energy["diffusion"] - pull[valid.sum(1)]
    for name, table in content["energies"].items():
        np.testing.assert_array_equal(np.float32(table), np.sort(energy[name][4:]))
    each = quantiles({n: e[4:] for n, e in energy.items()}, content["energies"], 1)
    scores = each.max(1)
    assert (np.bincount(each.argmax(1), minlength=4) > 5).all()  # every energy decides for some
    tables = content["conformal"]
    np.testing.assert_allclose(tables["pooled"], np.sort(scores), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        tables["clusters"]["prone"], np.sort(scores[prone[4:]]), rtol=1e-3, atol=1e-3
    )
    assert {n: p["clusters"] for n, p in tables["postures"].items()} == {
        "crawl": ["prone"], "fall": ["upright"], "walk": ["upright"]}  # fmt: skip

    # Others are compared with all of them, in the largest group that they may be of.
    points, valid, diagonal = people(COCO, 300, 15)
    points[prone] = lying(points[prone])
    energy, _ = plausibility._in_batches(by, points, valid, diagonal)
    energy["diffusion"] = energy["diffusion"] - pull[17]
    scores = quantiles(energy, content["energies"], 0).max(1)
    of_posture = {name: entry["scores"] for name, entry in tables["postures"].items()}
    groups = [
        [tables["clusters"]["upright"], of_posture["fall"], of_posture["walk"]],
        [tables["clusters"]["prone"], of_posture["crawl"]],
    ]
    wanted = [
        max((1 + (np.array(g) >= s).sum()) / (1 + len(g)) for g in groups[int(lies)])
        for s, lies in zip(scores, prone, strict=True)
    ]
    found = score(plausibility.make(by, content), points, valid, diagonal)
    assert found.cluster_b.tolist() == prone.astype(int).tolist()
    # Scores tie, and differ in the last bit: some are a place of a list off.
    np.testing.assert_allclose(found.p_b, wanted, atol=1.01 / 70)
    assert np.abs(np.asarray(found.p_b) - wanted).mean() < 4e-3


def test_a_calibration_of_other_noise_is_refused_in_one_line():
    by = measures(COCO)
    other = dataclasses.replace(by, seed=1)
    with pytest.raises(ValueError, match="'seed' is 0, not 1; fit the prior again") as error:
        plausibility.make(other, fitted(COCO))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="'draws' is 4, not 8"):
        plausibility.make(by, fitted(COCO) | {"draws": 4})
    with pytest.raises(ValueError, match=r"'ratios' is \[0.1\], not \[0.05, 0.1, 0.2\]"):
        plausibility.make(by, fitted(COCO) | {"ratios": [0.1]})
    assert calibration.FEWEST == 50
