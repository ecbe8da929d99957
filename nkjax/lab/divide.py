"""Divide units, such as children, into splits, each with its share of the people of every stratum.

Source: greedy stratification as in Sechidis et al. 2011, with children in place of examples.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from nkjax.lab.findings import Findings
from nkjax.lab.subjects import SPLITS

# While units are placed one by one, the number of people counts as much as this many kinds of
# strata (age, posture, site); more, and large labs get less even strata.
PEOPLE_WEIGHT = 10.0
# In the steps afterwards: enough that 20 equal children become 16, 2 and 2 whatever their strata.
SHARES_WEIGHT = 50.0
# A step that lowers the distance from the quotas by less is not worth another division: a share of
# 10 % that is 0.14 % off is about as much.
LEAST_GAIN = 1e-3
MOST_STEPS = 200
# All pairs of units are compared. More than these come near to their quota without.
MOST_UNITS = 1000
# The largest are looked at: a lab may write something else for each picture.
MOST_STRATA = 100


@dataclasses.dataclass(frozen=True)
class Unit:
    """Pictures that stay together: their names, and people per stratum ('' for all people)."""

    name: str
    keys: tuple[str, ...]
    strata: Mapping[str, int]


def divide(
    free: Sequence[Unit],
    have: Mapping[str, collections.Counter],
    shares: Mapping[str, float],
    seed: int,
    findings: Findings,
) -> dict[str, str]:
    """Choose a split for every unit; {unit name: split}.

    have: people per split and stratum that are placed already, to which all units are added; shares
    of all people by split. Large units first, each goes where its strata fill their quota least;
    then single ones are moved or swapped while that brings the splits nearer to their quotas. Each
    split gets somebody if there are enough units (else NK309). Ties are decided by a hash of seed
    and name.
    """
    totals = sum((collections.Counter(unit.strata) for unit in free), collections.Counter())
    for counts in have.values():
        totals.update(counts)
    chosen = _greedy(free, totals, have, shares, seed)
    _fill_empty(free, chosen, have, shares, seed, findings)
    _improve(free, chosen, totals, have, shares, seed)
    return chosen


def _greedy(free, totals, have, shares, seed) -> dict[str, str]:
    seen = collections.Counter(stratum for unit in free for stratum in unit.strata)

    def fullness(unit, split):
        """How full the split is of what the unit has, when half of the unit is in it."""
        full = 0.0
        for stratum, count in unit.strata.items():
            if stratum and seen[stratum] == 1:
                continue  # it cannot be divided, and would draw all such units to the largest split
            weight = count if stratum else PEOPLE_WEIGHT * count
            full += weight * (have[split][stratum] + count / 2) / (shares[split] * totals[stratum])
        return full

    def size_class(unit):
        # Powers of two: one picture more seldom changes whose turn it is.
        return unit.strata.get("", 0).bit_length()

    chosen = {}
    open_splits = [split for split in SPLITS if shares[split] > 0]
    for unit in sorted(free, key=lambda u: (-size_class(u), _draw(seed, u.name))):
        best = min(open_splits, key=lambda s: (fullness(unit, s), _draw(seed, unit.name, s)))
        chosen[unit.name] = best
        have[best].update(unit.strata)
    return chosen


def _fill_empty(free, chosen, have, shares, seed, findings) -> None:
    """Give a split without people the unit that fits its share best, from one that has several."""
    for split in SPLITS:
        if not shares[split] or have[split][""]:
            continue
        filled = [u for u in free if u.strata.get("")]
        left = collections.Counter(chosen[unit.name] for unit in filled)
        spare = [u for u in filled if left[chosen[u.name]] > 1]
        if not spare:
            # Without labels at all there is nothing to split.
            if filled:
                findings.add("NK309", split)
            continue
        want = shares[split] * sum(counts[""] for counts in have.values())
        unit = min(spare, key=lambda u: (abs(u.strata[""] - want), _draw(seed, u.name)))
        _move(unit, split, chosen, have)


def _improve(free, chosen, totals, have, shares, seed) -> None:
    """Move or swap the units by which the distance from the quotas falls most, one after another.

    The distance is the sum over splits and strata of weight x (found - wanted)^2 / wanted, both as
    shares of the stratum; a stratum weighs as much as its part of all people.
    """
    units = sorted((u for u in free if u.strata.get("")), key=lambda u: _draw(seed, u.name))
    open_splits = [split for split in SPLITS if shares[split] > 0]
    if not 2 <= len(units) <= MOST_UNITS or len(open_splits) < 2:
        return
    # '' comes first.
    strata = sorted(+totals, key=lambda s: (-totals[s], s))[:MOST_STRATA]
    weight_s = [totals[s] / totals[""] if s else SHARES_WEIGHT for s in strata]
    scale_s = np.array([w**0.5 / totals[s] for w, s in zip(weight_s, strata, strict=True)])
    units_us = np.array([[u.strata.get(s, 0) for s in strata] for u in units]) * scale_s
    totals_s = np.array([totals[s] for s in strata]) * scale_s
    quota_p = np.array([shares[split] for split in open_splits])
    for _ in range(MOST_STEPS):
        have_ps = np.array([[have[p][s] for s in strata] for p in open_splits]) * scale_s
        in_u = np.array([open_splits.index(chosen[unit.name]) for unit in units])
        may_leave_u = [have[chosen[unit.name]][""] > unit.strata[""] for unit in units]
        off_ps = have_ps - quota_p[:, None] * totals_s
        step = _best_step(units_us, off_ps, quota_p, in_u, np.array(may_leave_u))
        if step is None:
            return
        for u, p in step:
            _move(units[u], open_splits[p], chosen, have)


def _best_step(units_us, off_ps, quota_p, in_u, may_leave_u) -> list[tuple[int, int]] | None:
    """Return the best move, [(unit, split)], or swap, [(unit, split), (other, its split)].

    off_ps: how much too much each split has; None where no step gains enough.
    """
    dots_pu, squares_u = off_ps @ units_us.T, (units_us**2).sum(1)
    best, step = LEAST_GAIN, None
    for a in range(len(quota_p)):
        for b in range(len(quota_p)):
            here, there = np.flatnonzero(in_u == a), np.flatnonzero(in_u == b)
            movable = here[may_leave_u[here]]
            if a == b or not len(here):
                continue
            gain_u = (2 * dots_pu[a] - squares_u) / quota_p[a]
            gain_u = gain_u - (2 * dots_pu[b] + squares_u) / quota_p[b]
            if len(movable):
                # Rounded, so that no machine's arithmetic decides between equal children.
                gains = gain_u[movable].round(9)
                if gains.max() > best:
                    best, step = gains.max(), [(movable[gains.argmax()], b)]
            if a < b and len(there):
                back_u = (2 * dots_pu[b] - squares_u) / quota_p[b]
                back_u = back_u - (2 * dots_pu[a] + squares_u) / quota_p[a]
                # What each gains alone, and that they take each other's place.
                both = 2 * (1 / quota_p[a] + 1 / quota_p[b]) * units_us[here] @ units_us[there].T
                gains = (gain_u[here, None] + back_u[there] + both).round(9)
                i, j = np.unravel_index(gains.argmax(), gains.shape)
                if gains[i, j] > best:
                    best, step = gains[i, j], [(here[i], b), (there[j], a)]
    return step


def _move(unit, split, chosen, have) -> None:
    have[chosen[unit.name]].subtract(unit.strata)
    have[split].update(unit.strata)
    chosen[unit.name] = split


def _draw(seed, *names) -> str:
    text = "\0".join(map(str, (seed, *names)))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
