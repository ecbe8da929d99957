"""Is the plausibility of poses (KPS) what it says? On people who neither fitted nor calibrated.

Rejected truth with its interval, overall and per posture; broken poses found; how much of it is the
network's confidence under another name. Source: notes method 4.2; chapter 7, rows 5 and 13.
"""

import jax
import numpy as np
from scipy import stats

from nkjax.kinematics import corruptions, energies, plausibility
from nkjax.kinematics.plausibility import Kps
from nkjax.prior.people import People
from nkjax.prior.saved import Prior

LEVEL = 0.05  # people of a p-value below it are rejected
AT_ONCE = 512
FEWEST = 20  # people of a posture, for a line of its own


def plausibility_of(prior: Prior) -> Kps:
    """Return the calibrated plausibility of a prior; raises ValueError where it is of another."""
    by = energies.measures(prior.skeleton, prior.statistics, prior.parts["body"])
    return plausibility.make(by, prior.calibration)


def p_values(kps: Kps, people: People) -> dict[str, np.ndarray]:
    """Return {'p': (N,), and the tail probability of every energy by its name}; NaN not judged."""
    points, count = people.points_nk2, len(people.points_nk2)
    found = []
    for at in range(0, count, AT_ONCE):
        # Always as many, so that the scores are compiled once.
        who = np.minimum(np.arange(at, at + AT_ONCE), count - 1)
        valid = np.isfinite(points[who]).all(-1)
        scored = _score(kps, points[who], valid, people.diagonal_n[who])
        found.append({"p": scored.p_b} | scored.parts)
    return {
        name: np.concatenate([np.asarray(part[name]) for part in found])[:count]
        for name in found[0]
    }


_score = jax.jit(plausibility.score)


def rejected(p_n, posture_n) -> dict:
    """Tell which share of annotated people is rejected at LEVEL, with a 95 % binomial interval.

    {'all': {'share', 'low', 'high', 'n'}, 'not_judged': n, 'postures': {name: the same}}; people of
    one child are not independent, which the interval does not know.
    """
    judged = np.isfinite(p_n)
    postures = {
        name: _share(p_n[judged & (posture_n == name)])
        for name in sorted(set(posture_n))
        if name and (judged & (posture_n == name)).sum() >= FEWEST
    }
    return {"all": _share(p_n[judged]), "not_judged": int((~judged).sum()), "postures": postures}


def _share(p_n) -> dict:
    test = stats.binomtest(int((p_n < LEVEL).sum()), len(p_n))
    interval = test.proportion_ci(method="exact")
    return {
        "share": test.statistic, "low": float(interval.low), "high": float(interval.high),
        "n": len(p_n),
    }  # fmt: skip


def found_broken(kps, people: People, skeleton, p_n, seed: int = 0) -> dict[str, dict]:
    """Tell how well broken poses are told from annotated ones: {mistake: {'auc', 'rejected', 'n'}}.

    auc: that the broken pose of somebody has a smaller p than the pose of anybody; rejected: share
    of broken poses at LEVEL. Who can carry a mistake, `corruptions` says.
    """
    found = {}
    for name, breaking in corruptions.ALL.items():
        broken = breaking(people.points_nk2, skeleton, seed)
        who = broken.usable_n
        if not who.any():
            continue
        p = p_values(kps, people.chosen(who)._replace(points_nk2=broken.points_nk2[who]))["p"]
        p, sound = p[np.isfinite(p)], p_n[np.isfinite(p_n)]
        found[name] = {
            "auc": area_under_curve(-p, -sound), "rejected": float((p < LEVEL).mean()),
            "n": len(p),
        }  # fmt: skip
    return found


def area_under_curve(higher_n, lower_m) -> float:
    """Return the probability that one of the first is larger than one of the second, ties half."""
    statistic = stats.mannwhitneyu(higher_n, lower_m).statistic
    return float(statistic / (len(higher_n) * len(lower_m)))


def correlations(p_n, confidence_n) -> dict:
    """Return the rank correlation of p with a network's mean confidence per person, and n."""
    known = np.isfinite(p_n) & np.isfinite(confidence_n)
    found = stats.spearmanr(p_n[known], confidence_n[known])
    return {"spearman": float(found.statistic), "n": int(known.sum())}

