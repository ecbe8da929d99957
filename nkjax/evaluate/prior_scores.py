"""Is the plausibility of poses (KPS) what it says? On people who neither fitted nor calibrated.

Rejected truth with its interval, overall and per posture; broken poses found; how much of it is the
network's confidence under another name. Source: notes method 4.2; chapter 7, rows 5 and 13.
"""

from collections.abc import Mapping

import numpy as np
from scipy import stats

from nkjax.kinematics import corruptions, plausibility
from nkjax.prior.people import People

LEVEL = 0.05  # people of a p-value below it are rejected
AT_ONCE = 512
FEWEST = 20  # people of a posture, for a line of its own


def p_values(kps, points_nk2, diagonal_n) -> dict[str, np.ndarray]:
    """Return {'p': (N,), and the tail probability of every part by its name}; NaN not judged.

    points_nk2: px of the whole skeleton, NaN where not known.
    """
    found = []
    for at in range(0, len(points_nk2), AT_ONCE):
        some = _padded(points_nk2[at : at + AT_ONCE], diagonal_n[at : at + AT_ONCE])
        scored = plausibility.score(kps, some[0], np.isfinite(some[0]).all(-1), some[1])
        whole = {"p": scored.p_b} | dict(scored.parts)
        count = min(AT_ONCE, len(points_nk2) - at)
        found.append({name: np.asarray(x)[:count] for name, x in whole.items()})
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _padded(points_nk2, diagonal_n):
    """Fill a chunk up to AT_ONCE people, so that the scores are compiled once."""
    missing = AT_ONCE - len(points_nk2)
    points = np.concatenate([points_nk2, np.full((missing, *points_nk2.shape[1:]), np.nan)])
    return points.astype(np.float32), np.append(diagonal_n, np.ones(missing)).astype(np.float32)


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
        p = p_values(kps, broken.points_nk2[who], people.diagonal_n[who])["p"]
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


def lines(found: Mapping) -> list[str]:
    """Say a `rejected` in lines: posture, share, interval, n."""
    everybody = {"all": found["all"], **found["postures"]}
    return [
        f"{name}: {x['share']:.1%} ({x['low']:.1%} to {x['high']:.1%}), n {x['n']}"
        for name, x in everybody.items()
    ]
