"""Tables of probabilities against hand-worked numbers and against simulated exchangeable people."""

import numpy as np
import pytest
from scipy import stats

from nkjax.kinematics import calibration

NAMES = ("upright", "prone")


def p_values(content, scores, clusters):
    tables = calibration.read_conformal(content, NAMES)
    return np.asarray(calibration.p_value(tables, np.float32(scores), np.asarray(clusters)))


def unlabelled(scores):
    return np.full(len(scores), "")


def test_a_table_is_sorted_without_what_is_unknown_and_needs_fifty():
    scores = [*range(49), np.nan]
    assert calibration.table(scores) is None
    assert calibration.table(scores[::-1] + [7.0]) == sorted([*map(float, range(49)), 7.0])


def test_tails_by_hand():
    tails = calibration.tail([1, 2, 2, 3], [0, 2, 2.5, 4, np.nan])
    np.testing.assert_allclose(tails, [1, 4 / 5, 2 / 5, 1 / 5, np.nan], rtol=1e-6)
    middle = calibration.middle_tail([1, 2, 2, 3], [0, 2, 2.5, 4, np.nan])
    np.testing.assert_allclose(middle, [0.9, 0.5, 0.3, 0.1, np.nan], rtol=1e-6)


def test_who_calibrates_is_not_among_the_others():
    scores = [1.0, 2.0, np.nan, 2.0, 3.0]
    # Above among the three others, plus half of the equal ones and a half; over 5.
    wanted = [3.5 / 5, (1 + 0.5 + 0.5) / 5, np.nan, (1 + 0.5 + 0.5) / 5, 0.5 / 5]
    np.testing.assert_allclose(calibration.middle_tail_of_others(scores), wanted, rtol=1e-6)


def test_the_most_unusual_tail_counts_and_unknown_ones_are_left_out():
    nan = np.nan
    tails = [[0.01, 0.9, 0.5], [0.2, 0.001, 0.5], [nan, 0.9, nan], [nan, nan, nan]]
    z = -stats.norm.ppf([0.01, 0.2, 0.9])
    wanted = [z[0], max(z[1], 0.5 * -stats.norm.ppf(0.001)), 0.5 * z[2], nan]
    found = calibration.most_unusual(tails, [1.0, 0.5, 1.0])
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_p_of_exchangeable_people_is_uniform():
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        people = rng.gamma(2.0, size=61)
        content = calibration.conformal(
            people[:60], np.zeros(60, int), NAMES, unlabelled(people[1:])
        )
        found.append(p_values(content, people[60:], [0])[0])
    # A rank, spread evenly over its step, is uniform.
    spread = np.array(found) - rng.uniform(size=400) / 61
    assert stats.kstest(spread, "uniform").pvalue > 0.05
    assert min(found) >= 1 / 61


def test_each_cluster_is_rejected_as_often_as_it_should():
    rng = np.random.default_rng(1)
    clusters = np.arange(20000) % 20 == 0  # one in twenty is prone, and looks unusual
    scores = rng.normal(size=20000) * np.where(clusters, 3, 1)
    fitted = slice(0, 10000)
    content = calibration.conformal(
        scores[fitted], clusters[fitted].astype(int), NAMES, unlabelled(scores[fitted])
    )
    p = p_values(content, scores[10000:], clusters[10000:].astype(int))
    assert abs((p[~clusters[10000:]] < 0.05).mean() - 0.05) < 0.01
    assert abs((p[clusters[10000:]] < 0.05).mean() - 0.05) < 0.03
    pooled = calibration.tail(content["pooled"], np.float32(scores[10000:][clusters[10000:]]))
    assert (np.asarray(pooled) < 0.05).mean() > 0.2


def test_a_cluster_of_few_is_judged_by_all():
    scores = np.append(np.arange(299.0), [np.nan] * 5)
    clusters = (np.arange(304) >= 200).astype(int)  # 99 of the second, and 5 not judged
    content = calibration.conformal(scores, clusters, NAMES, unlabelled(scores))
    assert content["clusters"]["prone"] is None and len(content["clusters"]["upright"]) == 200
    np.testing.assert_allclose(p_values(content, [289.5], [1]), 10 / 300, rtol=1e-6)
    np.testing.assert_allclose(p_values(content, [190.5], [0]), 10 / 201, rtol=1e-6)
    assert np.isnan(p_values(content, [np.nan], [1]))[0]


def test_a_rare_posture_is_rejected_little_more_often_than_others():
    rng = np.random.default_rng(2)
    posture = np.where(np.arange(40000) % 20 == 0, "fall", "walk")
    scores = rng.normal(size=40000) + 2 * (posture == "fall")
    clusters = np.zeros(20000, int)
    content = calibration.conformal(scores[:20000], clusters, NAMES, posture[:20000])
    assert content["postures"]["fall"]["clusters"] == ["upright"]
    rejected = p_values(content, scores[20000:], clusters) < 0.05
    fall = posture[20000:] == "fall"
    assert rejected[fall].mean() < 0.05 + 0.02
    assert rejected.mean() < 0.05
    without = calibration.conformal(scores[:20000], clusters, NAMES, unlabelled(clusters))
    assert (p_values(without, scores[20000:], clusters) < 0.05)[fall].mean() > 0.3


def test_postures_count_only_in_clusters_that_hold_them():
    scores = np.arange(400.0)
    clusters = (np.arange(400) >= 200).astype(int)
    posture = np.where(np.arange(400) >= 200, "crawl", "walk")
    posture[:10] = "crawl"  # 10 of 210 upright: a mistake of the rule, below a twentieth
    content = calibration.conformal(scores, clusters, NAMES, posture)
    assert content["postures"]["crawl"]["clusters"] == ["prone"]
    np.testing.assert_allclose(p_values(content, [195.5], [0]), 5 / 191, rtol=1e-6)  # walkers'
    posture[:30] = "crawl"
    content = calibration.conformal(scores, clusters, NAMES, posture)
    assert content["postures"]["crawl"]["clusters"] == ["upright", "prone"]
    by_crawl = (1 + 200) / (1 + 230)
    np.testing.assert_allclose(p_values(content, [195.5], [0]), by_crawl, rtol=1e-6)


def test_a_posture_is_found_in_the_fewest_clusters_that_hold_most_of_it():
    clusters = np.repeat([0, 1, 2], [10, 86, 4])
    for names, held in ((["a", "b", "c"], ["a", "b"]), (["c", "a", "b"], ["c", "a"])):
        content = calibration.conformal(np.arange(100.0), clusters, names, ["fall"] * 100)
        assert content["postures"]["fall"]["clusters"] == held  # 96 of 100; b alone has 86


def test_fewer_than_fifty_judge_nobody():
    assert calibration.conformal(np.arange(49.0), np.zeros(49, int), NAMES, [""] * 49) is None
    assert calibration.fit_confidence(np.arange(49.0), np.ones(49)) is None


def test_isotonic_confidence_by_hand():
    raw = np.repeat([1.0, 2.0, 3.0, 4.0, 5.0], [10, 30, 10, 10, 10])
    share = [2, 18, 4, 5, 9]  # correct: .2, .6, .4, .5, .9
    correct = np.concatenate([
        np.arange(count) < good for count, good in zip([10, 30, 10, 10, 10], share, strict=True)
    ])  # fmt: skip
    fitted = calibration.fit_confidence(np.append(raw, np.nan), np.append(correct, True))
    # .6 of 30, .4 of 10 and .5 of 10 fall: together (18 + 4 + 5) / 50.
    assert fitted["raw"] == [1, 2, 4, 5]
    np.testing.assert_allclose(fitted["confidence"], [0.2, 0.54, 0.54, 0.9])
    read = calibration.confidence(fitted, np.float32([[0, 1.5, 3], [4.5, 5, 9]]))
    np.testing.assert_allclose(read, [[0.2, 0.37, 0.54], [0.72, 0.9, 0.9]], rtol=1e-6)


def test_raw_confidence_by_hand():
    nan = np.nan
    found = calibration.raw_confidence(
        np.float32([[0.8, 0.8, 0.8]]), np.float32([[0, 4, nan]]), np.float32([0.1, 0.1, 0.1]),
        np.float32([20.0]),
    )  # fmt: skip
    # 2 kappa s = 4 px: one deviation away.
    np.testing.assert_allclose(found, [[0.8, 0.8 * np.exp(-0.5), 0]], rtol=1e-6)


def test_calibration_error_by_hand_and_after_fitting():
    error = calibration.calibration_error([0.1, 0.1, 0.9, 0.9], [0, 1, 1, 0], bins=2)
    assert error == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)  # too low here, too high there
    assert calibration.calibration_error([1.0, 0.0], [1, 0]) == 0
    assert calibration.calibration_error([1.0, 0.95], [0, 1]) == pytest.approx(0.95 / 2)  # one bin
    with pytest.raises(ValueError, match="fit_confidence"):
        calibration.calibration_error([1.2], [1])
    rng = np.random.default_rng(3)
    raw = rng.uniform(size=8000)
    correct = rng.uniform(size=8000) < raw**2
    fitted = calibration.fit_confidence(raw[:4000], correct[:4000])
    after = calibration.confidence(fitted, np.float32(raw[4000:]))
    assert calibration.calibration_error(raw[4000:], correct[4000:]) > 0.12
    assert calibration.calibration_error(after, correct[4000:]) < 0.03
