"""How near predicted keypoints are to labelled ones: PCK, AUC and pixel errors, and their splits.

Each labelled joint has one vote, whoever's it is. A share of correct keypoints (PCK) is in 0 ... 1
and its name tells what an error is measured by:

    box        longer side of the person's box
    torso      longer diagonal from a shoulder to the opposite hip, of the true pose: the same in a
               mirror, and shortened by perspective less than a single one
    hand_box   longer side of the box around the labelled joints of a hand

Without any vote a figure is NaN. A prediction that is not finite is wrong by WRONG_PX. Source:
notes method 6.1 (mmpose's own torso is right for JHMDB's order of joints alone).
"""

from typing import NamedTuple

import numpy as np

from nkjax import skeleton as skeletons
from nkjax.evaluate import bootstrap
from nkjax.lab.split import age_band
from nkjax.skeleton import Skeleton

SHARES = (0.05, 0.1, 0.2)
HAND_SHARES = (0.1, 0.2)
# The area under a PCK curve is taken from 0 to here, as a share of the curve that is always 1.
AUC_TO, HAND_AUC_TO = 0.2, 0.3
# Of the joints of a hand; with fewer labelled ones it does not show how large it is.
LABELLED_OF_HAND = 0.5
DIAGONALS = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))
HANDS = ("left_hand", "right_hand")
VISIBLE = ((1, "occluded"), (2, "visible"))
NOT_KNOWN = "not known"
# Farther than any picture is wide, and finite, so that means stay numbers.
WRONG_PX = 1e6


class Found(NamedTuple):
    """What was predicted for N people of K joints, beside the truth; px of the person's picture.

    points_nk2, scores_nk: predicted. truth_nk2, visible_nk: 0 not labelled, 1 occluded, 2 visible.
    box_n4: x, y, w, h; box_score_n; area_n: px^2. people: person_id, picture_id, subject, posture,
    grasp ('' unknown) and age_months (NaN unknown) of each, as packed. crop_px_n: how many px of
    the crop one px of the picture is.
    """

    points_nk2: np.ndarray
    scores_nk: np.ndarray
    truth_nk2: np.ndarray
    visible_nk: np.ndarray
    box_n4: np.ndarray
    box_score_n: np.ndarray
    area_n: np.ndarray
    people: tuple[dict, ...]
    crop_px_n: np.ndarray


def measure(found: Found, skeleton: Skeleton) -> dict[str, float]:
    """Return all figures of all people, by name.

    pck_box@0.05, ...@0.1, ...@0.2, the same of pck_torso, hand_pck_hand_box@0.1, ...@0.2: shares;
    auc_box: area under the curve of pck_box from 0 to 0.2, in 0 ... 1, and hand_auc_hand_box from
    0 to 0.3; pixel_error_mean, pixel_error_median: px of the crop; joints, people: how many are
    labelled; people_without_torso: of these, those that no torso figure counts because not all
    four of its joints are labelled.
    """
    votes = _votes(found, skeleton)
    someone = _labelled(found).any(1)
    lost = someone & ~(torso(found, skeleton) > 0)
    figures = _pooled(votes, np.ones((1, found.visible_nk.shape[1]), bool))
    return figures | {
        "joints": int(_labelled(found).sum()),
        "people": int(someone.sum()),
        "people_without_torso": int(lost.sum()),
    }


def tables(found: Found, skeleton: Skeleton) -> dict[str, list[dict]]:
    """Return the figures of `measure` for parts of the joints, a table of rows by what parts them.

    By joint, group (of the skeleton, and 'body': all but hands), visible, posture, grasp, subject
    and age band. A row names its part under the table's name; n: joints, people: with one of them.
    """
    votes, labelled = _votes(found, skeleton), _labelled(found)
    made = {}
    for name, parts in _parts(found, skeleton).items():
        made[name] = [
            {
                name: part,
                "n": int((labelled & chosen).sum()),
                "people": int((labelled & chosen).any(1).sum()),
                **_pooled(votes, chosen),
            }
            for part, chosen in parts
        ]
    return made


def intervals(
    found: Found, skeleton: Skeleton, names, *, seed: int = 0, draws: int = 1000, level=0.95
) -> dict[str, tuple[float, float]]:
    """Return the percentile bootstrap interval over subjects of each named figure.

    Subjects are drawn with replacement and their joints pooled; whoever has no subject is one
    alone. names: of shares, areas and pixel_error_mean; ValueError for others. (NaN, NaN) for
    fewer than two subjects, who tell nothing of others. Source: notes method 6.3.
    """
    votes = _of(names, _votes(found, skeleton))
    return bootstrap.intervals([votes], _subjects(found), seed, draws, level)


def paired_interval(
    first: Found, second: Found, skeleton: Skeleton, names, *, seed: int = 0, draws: int = 1000,
    level=0.95,
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Return the interval of each figure of `first` less that of `second`, over the same subjects.

    As `intervals`; both see the same draws, so what makes a subject hard for both cancels. Raises
    ValueError unless both are of the same people with the same labels, in the same order.
    """
    same = [p["person_id"] for p in first.people] == [p["person_id"] for p in second.people]
    if not same or not np.array_equal(first.visible_nk, second.visible_nk):
        raise ValueError("two predictions of different people or labels; predict the same split")
    votes = [_of(names, _votes(found, skeleton)) for found in (first, second)]
    return bootstrap.intervals(votes, _subjects(first), seed, draws, level)


def worst(found: Found, count: int) -> np.ndarray:
    """Return the indices of `count` people, the largest mean error over box side first.

    Of people with a labelled joint; equal ones in their order.
    """
    labelled = _labelled(found)
    joints = labelled.sum(1)
    total = np.where(labelled, _errors(found), 0).sum(1)
    mean = total / np.maximum(joints, 1) / np.nan_to_num(_side(found), nan=1.0)
    order = np.argsort(-mean, kind="stable")
    return order[joints[order] > 0][:count]


def _labelled(found):
    return np.asarray(found.visible_nk) > 0


def _errors(found):
    """Distances (N, K) in px of the picture."""
    points, truth = (np.asarray(p, np.float64) for p in (found.points_nk2, found.truth_nk2))
    known = np.isfinite(points).all(-1)
    away = np.where(known[..., None], points, 0) - truth
    return np.where(known, np.hypot(away[..., 0], away[..., 1]), WRONG_PX)


def _side(found):
    """Longer side (N) of the person's box, px, NaN for one without extent."""
    side = np.asarray(found.box_n4, np.float64)[:, 2:].max(1)
    return np.where(side > 0, side, np.nan)


def torso(found: Found, skeleton: Skeleton) -> np.ndarray:
    """Return the longer diagonal (N) of the true torso, px; NaN unless its joints are labelled."""
    truth, labelled = np.asarray(found.truth_nk2, np.float64), _labelled(found)
    coco = skeletons.load("coco17")
    index = dict(zip(coco.keypoints, skeletons.match(skeleton, coco), strict=True))
    ends = [(index[a], index[b]) for a, b in DIAGONALS]
    if any(i is None for pair in ends for i in pair):
        return np.full(len(truth), np.nan)
    length = np.max([np.hypot(*(truth[:, a] - truth[:, b]).T) for a, b in ends], 0)
    whole = labelled[:, [i for pair in ends for i in pair]].all(1)
    return np.where(whole & (length > 0), length, np.nan)


def _hands(found, skeleton):
    """Longer side (N, K) of the true hand that a joint belongs to, px; NaN for other joints."""
    truth, labelled = np.asarray(found.truth_nk2, np.float64), _labelled(found)
    sides = np.full(labelled.shape, np.nan)
    for hand in HANDS:
        joints = list(skeleton.groups[hand])
        if not joints:
            continue
        mine, points = labelled[:, joints], truth[:, joints]
        low = np.where(mine[..., None], points, np.inf).min(1)
        high = np.where(mine[..., None], points, -np.inf).max(1)
        enough = mine.sum(1) >= max(LABELLED_OF_HAND * len(joints), 2)
        side = np.where(enough[:, None], high - low, 0).max(1)
        sides[:, joints] = np.where(side > 0, side, np.nan)[:, None]
    return sides


def _votes(found, skeleton) -> dict[str, np.ndarray]:
    """Return what each joint (N, K) says to each figure that is a mean, NaN where it has no say."""
    labelled, errors = _labelled(found), _errors(found)
    by_box, by_torso = (errors / side[:, None] for side in (_side(found), torso(found, skeleton)))
    by_hand = errors / _hands(found, skeleton)
    votes = {f"pck_box@{share}": _within(by_box, share) for share in SHARES}
    votes |= {f"pck_torso@{share}": _within(by_torso, share) for share in SHARES}
    votes |= {f"hand_pck_hand_box@{share}": _within(by_hand, share) for share in HAND_SHARES}
    # The area under a step from 0 to 1 at the error.
    votes["auc_box"] = np.clip(1 - by_box / AUC_TO, 0, 1)
    votes["hand_auc_hand_box"] = np.clip(1 - by_hand / HAND_AUC_TO, 0, 1)
    votes["pixel_error_mean"] = errors * np.asarray(found.crop_px_n, np.float64)[:, None]
    return {name: np.where(labelled, values, np.nan) for name, values in votes.items()}


def _within(errors, share):
    return np.where(np.isnan(errors), np.nan, errors <= share)


def _pooled(votes, chosen) -> dict[str, float]:
    """Return the figures of a part; chosen: mask of joints (1, K), of people (N, 1) or both."""
    figures = {}
    for name, values in votes.items():
        mine = _choose(values, chosen)
        mine = mine[~np.isnan(mine)]
        figures[name] = float(mine.mean()) if len(mine) else float("nan")
        if name == "pixel_error_mean":
            figures["pixel_error_median"] = float(np.median(mine)) if len(mine) else float("nan")
    return figures


def _choose(values, chosen):
    # Whole columns and rows are much faster than a mask of everything: there may be 308 joints.
    if chosen.shape[0] == 1:
        return values[:, chosen[0]]
    return values[chosen[:, 0]] if chosen.shape[1] == 1 else values[chosen]


def _of(names, votes):
    for name in names:
        if name not in votes:
            raise ValueError(f"{name}: not a mean over joints; intervals are of {', '.join(votes)}")
    return {name: votes[name] for name in names}


def _subjects(found):
    return [who.get("subject") or f"person {i}" for i, who in enumerate(found.people)]


def _parts(found, skeleton):
    """Return {table: [(part, which of the joints; broadcasts to (N, K))]}."""
    numbers = np.arange(len(skeleton.keypoints))
    visible = np.asarray(found.visible_nk)
    hands = [i for hand in HANDS for i in skeleton.groups[hand]]
    groups = {"body": np.setdiff1d(numbers, hands), **skeleton.groups}
    parts = {
        "joint": [(name, (numbers == i)[None]) for i, name in enumerate(skeleton.keypoints)],
        "group": [(g, np.isin(numbers, i)[None]) for g, i in groups.items() if len(i)],
        "visible": [(name, visible == value) for value, name in VISIBLE],
    }
    told = {
        name: [who.get(name) or NOT_KNOWN for who in found.people]
        for name in ("posture", "grasp", "subject")
    }
    told["age"] = [age_band(who.get("age_months", float("nan"))) for who in found.people]
    for name, values in told.items():
        mine = np.array(values, object)
        parts[name] = [(value, (mine == value)[:, None]) for value in sorted(set(values))]
    return parts
