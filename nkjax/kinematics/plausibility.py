"""How plausible a pose is (KPS): its energies, calibrated on labelled people, and one p-value.

`kinematics.energies` of labelled people who were used for nothing else go in once (`fit`, the
content of `calibration.json`); poses go in, and p-values come out (`score`). p < 0.05 means: at
most one in twenty labelled people is as implausible. `score` runs inside jit in fp32. Source: notes
method 4.2.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nkjax.kinematics import calibration, limbs
from nkjax.kinematics.energies import DRAWS, RATIOS, Measures, energies

FORMAT = 1
# What the normal quantiles of the energies count: angles alone say little, as either way of facing
# the camera makes them the range of both.
WEIGHTS = {"length": 1.0, "angle": 0.5, "symmetry": 1.0, "diffusion": 1.0}
FEWEST_JOINTS = 8  # of a body, to judge it
BATCH = 256


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kps:
    """A calibrated plausibility; a pytree that goes through jit as an argument.

    tails: sorted scores of the people who calibrated, per energy that enough of them show;
    pull_j: what denoising usually moves, by the number of valid joints; conformal: the rest.
    """

    measures: Measures
    tails: dict[str, jax.Array]
    pull_j: jax.Array
    conformal: calibration.Conformal | None


class Plausibility(NamedTuple):
    """How plausible B poses are.

    p_b: conformal p-value, NaN where not judged; judged_b: whether a pose has FEWEST_JOINTS valid
    joints of the body and enough people calibrated; parts: per energy the tail probability (B,),
    NaN where unknown; cluster_b: index into `limbs.CLUSTERS`.
    """

    p_b: jax.Array
    judged_b: jax.Array
    parts: dict[str, jax.Array]
    cluster_b: jax.Array


def fit(by: Measures, points_nk2, valid_nk, diagonal_n, posture_n) -> dict:
    """Calibrate on labelled people who were used for nothing else; plain JSON comes out.

    Arrays as in `energies`, numpy; posture_n: labels, '' where unknown. Energies that fewer than
    `calibration.FEWEST` people show are null, take no part, and are named in 'left_out'; with fewer
    people than that nobody is judged.
    """
    found, clusters_n = _in_batches(by, points_nk2, valid_nk, diagonal_n)
    counts_n = _joints(by, valid_nk)
    judged = counts_n >= FEWEST_JOINTS
    found = {name: np.where(judged, energy, np.nan) for name, energy in found.items()}
    pull_j = _usual_pull(found["diffusion"], counts_n, len(by.prior.part.joints))
    found["diffusion"] = found["diffusion"] - pull_j[counts_n]
    tables = {name: calibration.table(energy) for name, energy in found.items()}
    known = [name for name in WEIGHTS if tables[name] is not None]
    left_out = {
        name: f"{int(np.isfinite(found[name]).sum())} people, {calibration.FEWEST} needed"
        for name in WEIGHTS if name not in known
    }  # fmt: skip
    conformal = None
    if known:
        tails = [calibration.middle_tail_of_others(found[name]) for name in known]
        weights = [WEIGHTS[name] for name in known]
        scores = np.asarray(calibration.most_unusual(np.stack(tails, 1), weights))
        conformal = calibration.conformal(scores, clusters_n, limbs.CLUSTERS, posture_n)
    return {
        "format": FORMAT,
        "people": len(counts_n),
        "judged": int(judged.sum()),
        "seed": by.seed,
        "weights": WEIGHTS,
        "ratios": list(RATIOS),
        "draws": DRAWS,
        "energies": tables,
        "left_out": left_out,
        "usual_pull": [float(value) for value in pull_j],
        "conformal": conformal,
    }


@jax.jit
def _measured(by, points_bk2, valid_bk, diagonal_b):
    found = energies(by, points_bk2, valid_bk, diagonal_b)
    return found, limbs.posture_cluster(points_bk2, valid_bk, by.skeleton)


def _in_batches(by, points_nk2, valid_nk, diagonal_n):
    """Return energies and clusters of N people, always as many at a time: one compilation."""
    arrays = (points_nk2, valid_nk, np.asarray(diagonal_n, np.float32))
    found = []
    for start in range(0, len(valid_nk), BATCH):
        which = np.arange(start, start + BATCH) % len(valid_nk)
        found.append(_measured(by, *(jnp.asarray(array[which]) for array in arrays)))
    if not found:
        return {name: np.zeros(0, np.float32) for name in WEIGHTS}, np.zeros(0, int)
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(valid_nk)], *found)


def _joints(by, valid_bk):
    return valid_bk[:, np.array(by.prior.part.joints)].sum(1)


def _usual_pull(pull_n, counts_n, joints):
    """Return the mean pull of FEWEST people or more by number of valid joints (joints + 1,).

    Of those whose numbers are nearest, so that a rare number is told by its neighbours.
    """
    known = np.isfinite(pull_n)
    if not known.any():
        return np.zeros(joints + 1, np.float32)
    pulls, counts = pull_n[known].astype(np.float64), counts_n[known]
    usual = []
    for number in range(joints + 1):
        away = np.abs(counts - number)
        reach = np.sort(away)[min(calibration.FEWEST, len(away)) - 1]
        usual.append(pulls[away <= reach].mean())
    return np.array(usual, np.float32)


def make(by: Measures, fitted: dict) -> Kps:
    """Make a plausibility of measures and of what `fit` returned for them.

    Raises ValueError where it was fitted for other measures.
    """
    here = {"format": FORMAT, "seed": by.seed, "ratios": list(RATIOS), "draws": DRAWS}
    for key, value in here.items():
        if fitted.get(key) != value:
            raise ValueError(
                f"calibration: {key!r} is {fitted.get(key)}, not {value}; fit the prior again: "
                "scripts/fit_prior.py"
            )
    tails = {n: jnp.asarray(s, jnp.float32) for n, s in fitted["energies"].items() if s is not None}
    conformal = fitted["conformal"]
    if conformal is not None:
        conformal = calibration.read_conformal(conformal, limbs.CLUSTERS)
    return Kps(by, tails, jnp.asarray(fitted["usual_pull"], jnp.float32), conformal)


def score(kps: Kps, points_bk2, valid_bk, diagonal_b) -> Plausibility:
    """Judge poses. points_bk2: px, all joints of the skeleton; diagonal_b: of the box, px."""
    by = kps.measures
    cluster_b = limbs.posture_cluster(points_bk2, valid_bk, by.skeleton)
    count_b = _joints(by, valid_bk)
    found = energies(by, points_bk2, valid_bk, diagonal_b)
    found["diffusion"] = found["diffusion"] - kps.pull_j[count_b]
    parts = {name: calibration.tail(kps.tails[name], found[name]) for name in kps.tails}
    nothing = jnp.full(count_b.shape, jnp.nan)
    parts = {name: parts.get(name, nothing) for name in WEIGHTS}
    if kps.conformal is None:
        return Plausibility(nothing, jnp.zeros(count_b.shape, bool), parts, cluster_b)
    known = [name for name in WEIGHTS if name in kps.tails]
    tails = [calibration.middle_tail(kps.tails[name], found[name]) for name in known]
    scores = calibration.most_unusual(jnp.stack(tails, -1), [WEIGHTS[name] for name in known])
    judged = (count_b >= FEWEST_JOINTS) & ~jnp.isnan(scores)
    p_b = calibration.p_value(kps.conformal, scores, cluster_b)
    return Plausibility(jnp.where(judged, p_b, jnp.nan), judged, parts, cluster_b)
