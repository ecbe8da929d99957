"""How large a person appears in the picture, read off bones that point nowhere near the camera.

In: log lengths in px from `limbs.log_lengths`. Out: log px per unit; of jax arrays in jnp, inside
jit too. Raised hands, crawling and crossed limbs make bones look shorter, never longer than they
are, so the scale is a robust high quantile of what the bones say. Source: notes 3.3, 4.2.
"""

import numpy as np

from nkjax.kinematics import limbs

SCALE_QUANTILE = 0.75  # among the bones of a person
# Among the people at a bone: nearly its true length, which its median is not where it mostly points
# at the camera, as the line of the shoulders does in a child that walks past.
USUAL_QUANTILE = 0.9
FEWEST_BONES = 5
ROUNDS = 8


def person_scale(log_lengths_nb, usual_b):
    """Return the log scale (N,) of people, NaN with fewer than FEWEST_BONES bones known.

    log_lengths_nb: log px, NaN where unknown; usual_b: of `usual_lengths`, NaN for bones that shall
    not count. length / exp(scale) is a relative length, the same however large the person is.
    """
    xp = log_lengths_nb.__array_namespace__()
    excess_nb = log_lengths_nb - usual_b[None]
    enough_n = xp.isfinite(excess_nb).sum(1) >= FEWEST_BONES
    return xp.where(enough_n, limbs.quantile(excess_nb, SCALE_QUANTILE), xp.nan)


def usual_lengths(log_lengths_nb: np.ndarray) -> np.ndarray:
    """Return the usual log length (B,) of bones, of people at scale 1; NaN for one never seen.

    As in median polish, the scale of people and the usual share of a bone explain each other; both
    by high quantiles. The mean over bones is 0, which is what makes a scale of 1. numpy, in fp64.
    """
    logs_nb = np.asarray(log_lengths_nb, np.float64)
    usual_b = np.where(np.isfinite(logs_nb).any(0), 0.0, np.nan)
    for _ in range(ROUNDS if np.isfinite(usual_b).any() else 0):
        scale_n = limbs.quantile(logs_nb - usual_b[None], SCALE_QUANTILE)
        usual_b = limbs.quantile((logs_nb - scale_n[:, None]).T, USUAL_QUANTILE)
        usual_b -= np.nanmean(usual_b)
    return usual_b
