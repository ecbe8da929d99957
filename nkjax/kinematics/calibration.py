"""Turn scores into probabilities: tails, conformal p-values, calibrated keypoint confidence.

Scores of labelled people who were used for nothing else go in, tables come out: sorted lists and
dicts that JSON holds as they are. Reading a table is jnp and works inside jit.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

FEWEST = 50  # scores, for a table at all
FEWEST_IN_CLUSTER = 100  # people, for conformal scores of a cluster's own
COVERED = 0.95  # of a posture's people, that the clusters it is found in must hold


def table(scores_n) -> list[float] | None:
    """Sort the known scores (N,); None where fewer than FEWEST are known (not NaN)."""
    known = np.asarray(scores_n, np.float32)
    known = np.sort(known[~np.isnan(known)])
    return [float(score) for score in known] if len(known) >= FEWEST else None


def tail(table_n, scores_b):
    """Return (1 + the number of table scores that are >= s) / (n + 1), NaN for a NaN score.

    With a table of people exchangeable with the one judged this is at most p with probability p
    or less: the conformal p-value. Source: Vovk et al. 2005; notes method 4.2.
    """
    table_n, scores = jnp.asarray(table_n, jnp.float32), jnp.asarray(scores_b, jnp.float32)
    count = table_n.shape[0]
    above = count - jnp.searchsorted(table_n, scores, side="left")
    return jnp.where(jnp.isnan(scores), jnp.nan, (1.0 + above) / (count + 1.0))


def middle_tail(table_n, scores_b):
    """Return the tail with equal scores counted by half: (0.5 + above + equal / 2) / (n + 1).

    Always inside (0, 1), and symmetric about 0.5 for people like those of the table even where
    many scores are equal (a hinge is 0 for most): what a normal quantile needs.
    """
    table_n, scores = jnp.asarray(table_n, jnp.float32), jnp.asarray(scores_b, jnp.float32)
    count = table_n.shape[0]
    lower = jnp.searchsorted(table_n, scores, side="left")
    upper = jnp.searchsorted(table_n, scores, side="right")
    middle = (0.5 + count - 0.5 * (lower + upper)) / (count + 1.0)
    return jnp.where(jnp.isnan(scores), jnp.nan, middle)


def middle_tail_of_others(scores_n) -> np.ndarray:
    """Return `middle_tail` of every score among all others (N,), NaN where unknown.

    A person who is judged is not in the table; nor may be one who calibrates, or those who come
    after would look more unusual than they are. The count is the same, so that whoever is beyond
    everybody else has the same tail.
    """
    scores = np.asarray(scores_n, np.float32)
    known = np.sort(scores[~np.isnan(scores)])
    lower, upper = (np.searchsorted(known, scores, side=side) for side in ("left", "right"))
    middle = (len(known) - 0.5 * (lower + upper)) / (len(known) + 1)
    return np.where(np.isnan(scores), np.nan, middle).astype(np.float32)


def most_unusual(tails_bp, weights_p):
    """Combine tail probabilities by the largest weighted normal quantile (B,); larger is worse.

    Unknown tails (NaN) are left out; NaN where none is known. A mistake shows in one energy, and
    others that look better than usual say nothing against it: so Tippett (1931), not the sum of
    Stouffer that notes 4.2 propose.
    """
    tails = jnp.asarray(tails_bp, jnp.float32)
    known = ~jnp.isnan(tails)
    weights = jnp.asarray(weights_p, jnp.float32)[None]
    quantiles = -weights * jax.scipy.special.ndtri(jnp.where(known, tails, 0.5))
    largest = jnp.where(known, quantiles, -jnp.inf).max(-1)
    return jnp.where(known.any(-1), largest, jnp.nan)


def conformal(scores_n, clusters_n, names, posture_n) -> dict | None:
    """Make the tables of conformal p-values: pooled, per cluster and per labelled posture.

    scores_n: of people who calibrate, NaN not judged; clusters_n: index into `names`, told from
    the pose; posture_n: labels, '' unknown. Returns {'pooled': sorted scores, 'clusters': {name:
    sorted scores, None below FEWEST_IN_CLUSTER}, 'postures': {label: {'scores': sorted,
    'clusters': names of the fewest that hold COVERED of its people}}, of labels with FEWEST people
    or more}; None with fewer than FEWEST people in all.
    """
    scores, clusters, labels = (np.asarray(a) for a in (scores_n, clusters_n, posture_n))
    judged = ~np.isnan(scores)
    scores, clusters, labels = scores[judged], clusters[judged], labels[judged]
    pooled = table(scores)
    if pooled is None:
        return None
    own = {}
    for index, name in enumerate(names):
        inside = scores[clusters == index]
        own[name] = table(inside) if len(inside) >= FEWEST_IN_CLUSTER else None
    postures = {}
    for label in sorted({str(label) for label in labels} - {""}):
        of_label = labels == label
        if of_label.sum() >= FEWEST:
            share = np.bincount(clusters[of_label], minlength=len(names)) / of_label.sum()
            held = _largest(share, names)
            postures[label] = {"scores": table(scores[of_label]), "clusters": held}
    return {"pooled": pooled, "clusters": own, "postures": postures}


def _largest(share_c, names) -> list[str]:
    """Return the names, in their order, of the fewest clusters with COVERED of all shares."""
    order = np.argsort(-share_c, kind="stable")
    larger = np.cumsum(share_c[order]) - share_c[order]
    chosen = order[larger < COVERED - 1e-9]
    return [names[index] for index in sorted(chosen)]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Conformal:
    """The tables of `conformal` as arrays; a pytree.

    clusters: sorted scores per cluster, the pooled ones where it has too few; postures: sorted
    scores per label; holds: for each label, which clusters its people are in.
    """

    clusters: tuple[jax.Array, ...]
    postures: tuple[jax.Array, ...]
    holds: tuple[tuple[bool, ...], ...] = dataclasses.field(metadata={"static": True})


def read_conformal(content: dict, names) -> Conformal:
    """Make arrays of what `conformal` returned."""
    own = [content["clusters"][name] or content["pooled"] for name in names]
    labels = list(content["postures"].values())
    return Conformal(
        tuple(jnp.asarray(scores, jnp.float32) for scores in own),
        tuple(jnp.asarray(label["scores"], jnp.float32) for label in labels),
        tuple(tuple(name in label["clusters"] for name in names) for label in labels),
    )


def p_value(tables: Conformal, scores_b, clusters_b):
    """Return conformal p-values (B,) of scores; NaN for a NaN score.

    The largest of the p-values in the person's own cluster (Mondrian) and in every labelled posture
    found in the cluster: of the people of any posture at most a share p is rejected at p, and of
    those in clusters that hold next to none of it (1 - COVERED) perhaps more. Rare ones look
    unusual to a prior that saw few of them, and the cluster's others would outvote them.
    Source: notes method 4.2; Vovk et al. 2005.
    """
    by_cluster = jnp.stack([tail(scores, scores_b) for scores in tables.clusters], -1)
    p_b = jnp.take_along_axis(by_cluster, jnp.asarray(clusters_b)[:, None], 1)[:, 0]
    for scores, holds in zip(tables.postures, tables.holds, strict=True):
        within = jnp.where(jnp.array(holds)[clusters_b], tail(scores, scores_b), 0.0)
        p_b = jnp.maximum(p_b, within)
    return p_b


def raw_confidence(peak_bk, disagreement_px_bk, kappa_k, scale_b):
    """Weigh the heatmap's peak by how far the peaks of a picture and of its mirror lie apart.

    peak * exp(-d^2 / (2 (2 kappa)^2 s^2)). peak_bk: raw maximum, 1 for a perfect map;
    disagreement_px_bk and scale_b (root of the person's area): px of one frame; kappa_k: COCO's
    constants, `Skeleton.sigmas`. A joint whose disagreement is unknown (NaN) has none: 0. Source:
    notes method 4.1.
    """
    peak, apart = (jnp.asarray(a, jnp.float32) for a in (peak_bk, disagreement_px_bk))
    reach = 2 * jnp.asarray(kappa_k, jnp.float32)[None, :] * jnp.asarray(scale_b)[:, None]
    known = jnp.isfinite(apart) & jnp.isfinite(peak) & (reach > 0)
    apart = jnp.where(known, apart, 0.0) / jnp.where(known, reach, 1.0)
    return jnp.where(known, jnp.where(known, peak, 0.0) * jnp.exp(-0.5 * apart**2), 0.0)


def fit_confidence(raw_n, correct_n) -> dict | None:
    """Fit by isotonic regression how often a joint of a raw confidence is correct.

    raw_n: `raw_confidence` of labelled joints on pictures not trained on; correct_n: bool, error
    below the threshold. Returns {'raw': rising, 'confidence': not falling, same length}, or None
    with fewer than FEWEST joints. Source: notes method 4.1; Zadrozny and Elkan 2002.
    """
    raw, correct = np.asarray(raw_n, np.float32), np.asarray(correct_n, np.float64)
    known = np.isfinite(raw)
    if known.sum() < FEWEST:
        return None
    # Equal inputs must have one output: they enter as one value with their number as weight.
    values, which, counts = np.unique(raw[known], return_inverse=True, return_counts=True)
    means = np.bincount(which, correct[known]) / counts
    fitted = optimize.isotonic_regression(means, weights=counts).x
    # Both ends of every step hold all of it.
    step = np.diff(fitted) != 0
    keep = np.append(True, step) | np.append(step, True)
    return {
        "raw": [float(value) for value in values[keep]],
        "confidence": [float(value) for value in fitted[keep]],
    }


def confidence(fitted, raw_bk):
    """Read calibrated confidence in [0, 1] from `fit_confidence`; linear between its steps."""
    known = jnp.asarray(fitted["raw"], jnp.float32)
    return jnp.interp(raw_bk, known, jnp.asarray(fitted["confidence"], jnp.float32))


def calibration_error(confidence_n, correct_n, bins=15) -> float:
    """Return the expected calibration error: mean of |confidence - share correct| over bins.

    Bins are equally wide in [0, 1] and weighted by their number. Source: Guo et al., arXiv
    1706.04599. Raises ValueError for a confidence outside [0, 1].
    """
    values, correct = np.asarray(confidence_n, np.float64), np.asarray(correct_n, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("confidence must lie in [0, 1]; calibrate it with fit_confidence first")
    which = np.minimum((values * bins).astype(int), bins - 1)
    gaps = np.bincount(which, values - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(values))
