"""What the bodies of labelled people measure: the content of `statistics.json`.

In: the labelled people of a data set. Out: one plain dict: lengths of bones relative to the person,
left against right, angles of joints by how the body is held, how often joints are seen. All of it
is of projections, so it holds for pictures taken from where these were, and nothing is in px:
pictures have no common unit. Too few samples give null, never a constant that somebody made up.
Source: notes 5.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nkjax import journal
from nkjax.kinematics import limbs, scale
from nkjax.prior.people import People
from nkjax.skeleton import Skeleton

FORMAT = 1
FEWEST_SAMPLES = 50
LENGTH_PERCENT = (0.5, 1, 5, 25, 50, 75, 95, 99, 99.5)
ANGLE_PERCENT = (0.5, 2.5, 50, 97.5, 99.5)
UNEVEN_PERCENT = (95, 99)
DIGITS = 6
EVERYBODY = "all"
KEYS = ("skeleton", "keypoints", "data", "people", "subjects", "folds", "postures", "clusters",
        "bones", "symmetry", "angles", "visibility")  # fmt: skip


class BadStatistics(ValueError):
    """Statistics that cannot be made or read; the message is one line with rule and remedy."""


def fit(people: People, skeleton: Skeleton, folds: Mapping[str, Sequence[str]], data: str) -> dict:
    """Measure labelled people; the result is plain JSON, the same in whatever order they come.

    people: those who are measured and nobody else, all of them subjects of folds["fit"]; folds:
    {name: (salted) subjects}, no subject in two; data: hash of the data set. Lengths are shares of
    the person's scale (`scale.person_scale`) and called projected; angles are projected, in rad,
    their quantiles signed deviations from the circular mean of their posture cluster. Left and
    right stand apart. Entries of fewer than FEWEST_SAMPLES samples are null, their 'n' is given.
    Raises BadStatistics for nobody, for subjects in two folds, and for people of another fold.
    """
    _check_folds(people, folds)
    points_nk2, valid_nk = people.points_nk2.astype(np.float64), people.visible_nk > 0
    clusters_n = limbs.posture_cluster(points_nk2, valid_nk, skeleton)
    return {
        "format": FORMAT,
        "skeleton": skeleton.name,
        "keypoints": list(skeleton.keypoints),
        "data": data,
        "people": len(people.subject_n),
        "subjects": len(set(people.subject_n)),
        "folds": {name: sorted({str(s) for s in folds[name]}) for name in sorted(folds)},
        "postures": {str(p): int((people.posture_n == p).sum()) for p in _postures(people)},
        "clusters": {name: int((clusters_n == c).sum()) for c, name in enumerate(limbs.CLUSTERS)},
        **_lengths(points_nk2, valid_nk, limbs.bones(skeleton)),
        "angles": _angles(points_nk2, valid_nk, limbs.angles(skeleton), clusters_n),
        "visibility": _visibility(people, skeleton),
    }


def write(path, statistics: dict) -> None:
    """Write what `fit` returned, in one go."""
    journal.write_once(path, statistics)


def read(path) -> dict:
    """Read the statistics of a prior folder as `fit` returned them.

    Raises BadStatistics for a file that is not there, is damaged, or has another format.
    """
    remedy = "fit the prior again: scripts/fit_prior.py"
    content = journal.read_object(path, BadStatistics, remedy)
    if content.get("format") != FORMAT:
        raise BadStatistics(f"{path}: format {content.get('format')}, not {FORMAT}; {remedy}")
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise BadStatistics(f"{path}: {missing[0]!r} is missing; {remedy}")
    return content


def _check_folds(people, folds):
    if not len(people.subject_n):
        raise BadStatistics("no labelled people; statistics need a train split that has some")
    seen = {}
    for name in sorted(folds):
        for subject in folds[name]:
            other = seen.setdefault(subject, name)
            if other != name:
                rule = f"subject {subject} is in folds {other!r} and {name!r}"
                raise BadStatistics(f"{rule}; divide the people by subject")
    strangers = sorted({*people.subject_n} - {*folds["fit"]})
    if strangers:
        rule = f"{len(strangers)} subjects, {strangers[0]} first, are not in fold 'fit'"
        raise BadStatistics(f"{rule}; measure the people of that fold alone")


def _postures(people):
    """Return the labelled postures, sorted; '' of people without one is none."""
    return sorted({*people.posture_n} - {""})


def _lengths(points_nk2, valid_nk, bones):
    """Return {'bones', 'symmetry'}."""
    logs_nb = limbs.log_lengths(points_nk2, valid_nk, bones)
    usual_b = _usual(logs_nb, bones)
    scale_n = scale.person_scale(logs_nb, usual_b)
    relative_nb = np.exp(logs_nb - scale_n[:, None])
    of_bones, symmetry = {}, {}
    for i, bone in enumerate(bones):
        relative = relative_nb[:, i]
        relative = relative[np.isfinite(relative)]
        of_bones[bone.name] = {
            "mirror": bones[bone.mirror].name,
            "rigid": bone.rigid,
            "part": bone.part,
            "usual_log": _number(usual_b[i]) if np.isfinite(usual_b[i]) else None,
            "projected": _distribution(relative, LENGTH_PERCENT),
            "compensated": None,
        }
        if i < bone.mirror:
            uneven = logs_nb[:, i] - logs_nb[:, bone.mirror]
            symmetry[bone.name] = {
                "mirror": bones[bone.mirror].name,
                **_unevenness(uneven[np.isfinite(uneven)]),
            }
    return {"bones": of_bones, "symmetry": symmetry}


def _usual(logs_nb, bones):
    """Return the usual log lengths of bones that tell a person's scale, NaN for the others.

    Hands and feet bend in front of the camera and are many and small, so the body's bones do; all
    of them where there is no body.
    """
    enough_b = np.isfinite(logs_nb).sum(0) >= FEWEST_SAMPLES
    counts_b = enough_b & np.array([bone.part == "body" for bone in bones], bool)
    if counts_b.sum() < scale.FEWEST_BONES:
        counts_b = enough_b
    return scale.usual_lengths(np.where(counts_b[None], logs_nb, np.nan))


def _distribution(values, percent):
    entry = {"n": len(values), "quantiles": None, "mad": None}
    if len(values) >= FEWEST_SAMPLES:
        mad = np.median(np.abs(values - np.median(values)))
        entry |= {"quantiles": _quantiles(values, percent), "mad": _number(mad)}
    return entry


def _unevenness(log_ratios):
    entry = {"n": len(log_ratios), "median": None, "mad": None, "absolute": None}
    if len(log_ratios) >= FEWEST_SAMPLES:
        median = np.median(log_ratios)
        entry |= {
            "median": _number(median),
            "mad": _number(np.median(np.abs(log_ratios - median))),
            "absolute": _quantiles(np.abs(log_ratios), UNEVEN_PERCENT),
        }
    return entry


def _angles(points_nk2, valid_nk, angles, clusters_n):
    turns_na = limbs.turns(points_nk2, valid_nk, angles)
    held = {EVERYBODY: np.ones(len(clusters_n), bool)}
    held |= {name: clusters_n == c for c, name in enumerate(limbs.CLUSTERS)}
    return {
        angle.name: {
            "mirror": angles[angle.mirror].name,
            "part": angle.part,
            "projected_rad": {
                name: _circular(turns_na[chosen, i]) for name, chosen in held.items()
            },
        }
        for i, angle in enumerate(angles)
    }


def _circular(turns):
    turns = turns[np.isfinite(turns)]
    entry = {"n": len(turns), "mean": None, "quantiles": None}
    if len(turns) >= FEWEST_SAMPLES:
        # Exact sums, which do not depend on the order.
        mean = math.atan2(math.fsum(np.sin(turns)), math.fsum(np.cos(turns)))
        about = np.angle(np.exp(1j * (turns - mean)))
        entry |= {"mean": _number(mean), "quantiles": _quantiles(about, ANGLE_PERCENT)}
    return entry


def _quantiles(values, percent):
    # Weibull's positions: of new samples, the share beyond a quantile is the one it is named after.
    found = np.quantile(values, np.array(percent) / 100, method="weibull")
    return {f"{p:g}": _number(value) for p, value in zip(percent, found, strict=True)}


def _visibility(people, skeleton):
    """Return the shares of v = 0, 1, 2 per joint, of everybody and of every labelled posture."""
    chosen = {EVERYBODY: np.ones(len(people.posture_n), bool)}
    chosen |= {str(posture): people.posture_n == posture for posture in _postures(people)}
    return {name: _shares(people.visible_nk[mask], skeleton) for name, mask in chosen.items()}


def _shares(visible_nk, skeleton):
    if len(visible_nk) < FEWEST_SAMPLES:
        return {"n": len(visible_nk), "shares": None}
    shares_kv = (visible_nk[:, :, None] == np.arange(3)[None, None]).mean(0)
    joints = zip(skeleton.keypoints, shares_kv, strict=True)
    return {"n": len(visible_nk), "shares": {name: [_number(s) for s in v] for name, v in joints}}


def _number(value) -> float:
    return round(float(value), DIGITS)
