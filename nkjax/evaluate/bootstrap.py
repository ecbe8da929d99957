"""Percentile bootstrap of pooled means: whole subjects are drawn, never single joints or people.

Joints of one child are alike, so drawing them apart would make intervals far too narrow.
"""

from collections.abc import Mapping, Sequence

import numpy as np

AT_ONCE = 1 << 22  # numbers of a block of draws


def intervals(
    votes: Sequence[Mapping[str, np.ndarray]], subjects: Sequence[str], seed, draws, level
) -> dict[str, tuple[float, float]]:
    """Return {name: (low, high)} of pooled means, or with two sets of votes of their difference.

    votes: one or two of {name: (N, K), NaN where a joint has no say}; subjects: whose each of the N
    people is. A draw without any vote does not count. (NaN, NaN) for fewer than two subjects or
    where no draw counts.
    """
    names, unknown = list(votes[0]), (float("nan"), float("nan"))
    _, number, every = np.unique(np.array(subjects, str), return_inverse=True, return_counts=True)
    if len(every) < 2 or not names:
        return dict.fromkeys(names, unknown)
    sums = [_sums(of_names, number, len(every)) for of_names in votes]
    rng, drawn = np.random.default_rng(seed), []
    step = max(AT_ONCE // len(every), 1)
    for first in range(0, draws, step):
        times = _times(rng, min(step, draws - first), len(every))
        means = [_mean(times @ total, times @ count) for total, count in sums]
        drawn.append(means[0] - means[1] if len(means) == 2 else means[0])
    ends = ((1 - level) / 2, (1 + level) / 2)
    made = {}
    for name, values in zip(names, np.concatenate(drawn).T, strict=True):
        values = values[~np.isnan(values)]
        made[name] = tuple(np.quantile(values, ends).tolist()) if len(values) else unknown
    return made


def _sums(votes, number_n, subjects):
    """Return sums and counts of the votes, each (subjects, names)."""
    totals, counts = [], []
    for values in votes.values():
        counts.append(np.bincount(number_n, (~np.isnan(values)).sum(1), subjects))
        totals.append(np.bincount(number_n, np.nansum(values, 1), subjects))
    return np.stack(totals, 1), np.stack(counts, 1)


def _times(rng, draws, subjects):
    """How often each subject is drawn: (draws, subjects), each row as many as there are."""
    chosen = rng.integers(subjects, size=(draws, subjects))
    flat = chosen + np.arange(draws)[:, None] * subjects
    return np.bincount(flat.ravel(), minlength=draws * subjects).reshape(draws, subjects) * 1.0


def _mean(totals, counts):
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
