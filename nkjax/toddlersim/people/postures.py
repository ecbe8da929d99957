"""Which postures a domain shows and how often; draws one as an act.

Source: notes method 6.5. Young toddlers walk with high guard and cruise, older ones walk with
medium guard and squat; the shares of both together are those of the notes.
"""

import numpy as np

from nkjax.toddlersim.people import (
    adults,
    atypical,
    atypical_floor,
    floor,
    holding,
    standing,
    walking,
)
from nkjax.toddlersim.people.acts import Act
from nkjax.toddlersim.people.bodies import Body

YOUNG_SHARE, YOUNG_MONTHS, OLDER_MONTHS = 0.6, (10, 18), (18, 34)

# Share of the pictures of this age band. Weighted by YOUNG_SHARE they give: high guard 20 %,
# medium guard 15, cruising 10, crawling 20, sitting 15, held 10, squatting and falling 10.
SHARES = {
    "young": {"high_guard_walk": 0.20 / 0.6, "medium_guard_walk": 0.03 / 0.6, "cruise": 0.10 / 0.6,
              "crawl": 0.10 / 0.6, "bear_crawl": 0.05 / 0.6, "sit_reach": 0.06 / 0.6,
              "held": 0.05 / 0.6, "fall": 0.01 / 0.6},
    "older": {"medium_guard_walk": 0.12 / 0.4, "crawl": 0.03 / 0.4, "bear_crawl": 0.02 / 0.4,
              "sit_reach": 0.09 / 0.4, "held": 0.05 / 0.4, "squat": 0.05 / 0.4, "fall": 0.04 / 0.4},
    "adult": {"walk": 0.4, "stand": 0.2, "reach": 0.2, "sit": 0.2},
    "atypical": {"toe_walking": 1 / 6, "scissor_gait": 1 / 6, "hemiplegic_arm": 1 / 6,
                 "asymmetric_crawl": 1 / 6, "commando_drag": 1 / 6, "persistent_palmar": 1 / 6},
}  # fmt: skip

_DRAWN_BY = {
    name: getattr(place, name)
    for place, names in (
        (walking, "high_guard_walk medium_guard_walk"),
        (standing, "cruise squat fall"),
        (floor, "crawl bear_crawl sit_reach"),
        (adults, "walk stand reach sit"),
        (atypical, "toe_walking scissor_gait hemiplegic_arm"),
        (atypical_floor, "asymmetric_crawl commando_drag persistent_palmar"),
    )
    for name in names.split()
}


def draw_age(rng: np.random.Generator) -> float:
    """Draw the age of a toddler in months: more of them young."""
    low, high = YOUNG_MONTHS if rng.random() < YOUNG_SHARE else OLDER_MONTHS
    return float(rng.integers(low, high))


def draw_posture(rng: np.random.Generator, domain: str, age_months: float) -> str:
    """Draw the name of a posture of a domain ('adult', 'toddler', 'atypical') at an age."""
    band = domain
    if domain == "toddler":
        band = "young" if age_months < YOUNG_MONTHS[1] else "older"
    names, shares = zip(*SHARES[band].items(), strict=True)
    return names[rng.choice(len(names), p=np.array(shares) / sum(shares))]


def draw(rng: np.random.Generator, posture: str, body: Body, adult: Body) -> Act:
    """Draw an act of this posture; adult: who holds the child, where one does."""
    if posture == "held":
        return holding.held(rng, body, adult)
    return _DRAWN_BY[posture](rng, body)
