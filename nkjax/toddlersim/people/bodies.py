"""Bodies: proportions drawn per person, and the solids a posed body is made of.

Source: notes method 6.6 (fractions of stature; toddlers 18-36 months our synthesis, adults
Drillis-Contini and de Leva).
"""

from typing import NamedTuple

import numpy as np

# The table of method 6.6: fractions of stature, joint centre to joint centre.
FRACTIONS = {
    "toddler": {
        "head": (0.19, 0.215), "neck": (0.02, 0.03), "shoulders": (0.19, 0.20),
        "hips": (0.10, 0.11), "upper_arm": (0.160, 0.170), "forearm": (0.130, 0.135),
        "hand": (0.11, 0.11), "thigh": (0.205, 0.215), "shank": (0.190, 0.200),
        "foot": (0.155, 0.155), "foot_height": (0.045, 0.045),
    },
    "adult": {
        "head": (0.13, 0.13), "neck": (0.05, 0.05), "shoulders": (0.20, 0.21),
        "hips": (0.10, 0.11), "upper_arm": (0.172, 0.186), "forearm": (0.146, 0.154),
        "hand": (0.108, 0.108), "thigh": (0.242, 0.245), "shank": (0.246, 0.250),
        "foot": (0.152, 0.152), "foot_height": (0.039, 0.039),
    },
}  # fmt: skip
# Radius over length of the segment; for a subject of the middle, thin to chubby.
GIRTHS = {
    "toddler": {"arm": (0.17, 0.20), "leg": (0.20, 0.24)},
    "adult": {"arm": (0.12, 0.14), "leg": (0.14, 0.17)},
}
SITTING_HEIGHT = {"toddler": (0.57, 0.60), "adult": (0.50, 0.53)}
SIDED = ("upper_arm", "forearm", "hand", "thigh", "shank", "foot")
VARIATION = 0.06  # of a segment between subjects, before LARGEST cuts it to 4 to 6 %
LARGEST = 0.08  # no further than this beyond the table
SIDES_DIFFER = 0.0125  # mean difference between left and right, of the length

# Stature in metres at an age in months: WHO growth standards, both sexes, rounded.
STATURE_BY_AGE = ((8, 0.70), (12, 0.75), (18, 0.815), (24, 0.87), (30, 0.915), (36, 0.955))


class Body(NamedTuple):
    """A person's measures, metres; pairs are (left, right). They never change.

    head: vertex to chin; neck: chin level to the root of the neck; trunk: root of the neck to the
    middle of the hip joints; foot_height: ankle joint over the sole. arm_girth, leg_girth: radius
    over length of upper arm and thigh. belly: 0 flat to 1 round. hair: 0 none to 1 long.
    """

    kind: str
    age_months: float
    stature: float
    head: float
    neck: float
    trunk: float
    shoulders: float
    hips: float
    upper_arm: tuple[float, float]
    forearm: tuple[float, float]
    hand: tuple[float, float]
    thigh: tuple[float, float]
    shank: tuple[float, float]
    foot: tuple[float, float]
    foot_height: float
    arm_girth: float
    leg_girth: float
    belly: float
    hair: float


def draw(rng: np.random.Generator, kind: str, age_months: float, held_out: bool) -> Body:
    """Draw a body; all of a subject's pictures share it.

    held_out: of a test subject, whose girth comes from the upper half of its range, others' from
    the lower, and whose lengths vary around another place of their row, so that test bodies are
    not copies of the training ones.
    """
    place = 0.65 if held_out else 0.35
    while True:
        part = {name: _vary(rng, low, high, place) for name, (low, high) in FRACTIONS[kind].items()}
        trunk = 1 - sum(part[name] for name in ("foot_height", "shank", "thigh", "neck", "head"))
        seat = trunk + part["neck"] + part["head"] + SEAT[kind]
        if _within(seat, *SITTING_HEIGHT[kind]) and _within(trunk, *TRUNK[kind]):
            break
    stature = _stature(rng, kind, age_months)
    girth = {name: _girth(rng, *GIRTHS[kind][name], held_out) for name in ("arm", "leg")}
    pairs = {name: _sides(rng, part[name] * stature) for name in SIDED}
    return Body(
        kind=kind, age_months=float(age_months), stature=stature, trunk=trunk * stature,
        **{name: part[name] * stature for name in part if name not in SIDED}, **pairs,
        arm_girth=girth["arm"], leg_girth=girth["leg"],
        belly=float(rng.uniform(0.3, 1.0) if kind == "toddler" else rng.uniform(0, 0.6)),
        hair=float(rng.uniform(0, 0.7) if kind == "toddler" else rng.uniform(0.1, 1)),
    )  # fmt: skip


# Flesh below the hip joints when seated, and the trunk that the table leaves.
SEAT = {"toddler": 0.04, "adult": 0.045}
TRUNK = {"toddler": (0.31, 0.34), "adult": (0.28, 0.30)}


def _within(value, low, high) -> bool:
    return low * (1 - LARGEST) <= value <= high * (1 + LARGEST)


def _vary(rng, low, high, place) -> float:
    """Draw a fraction around a place of its row (0 low, 1 high), not beyond it by over LARGEST."""
    middle = low + place * (high - low)
    while True:
        value = rng.normal(middle, VARIATION * middle)
        if _within(value, low, high):
            return value


def _girth(rng, low, high, held_out) -> float:
    shift = (high - low) / 4 * (1 if held_out else -1)
    middle, half = (low + high) / 2 + shift, (high - low) / 4
    return float(rng.uniform(middle - half, middle + half))


def _stature(rng, kind, age_months) -> float:
    if kind == "adult":
        return float(np.clip(rng.normal(1.69, 0.09), 1.48, 1.95))
    months, heights = zip(*STATURE_BY_AGE, strict=True)
    return float(np.interp(age_months, months, heights) * np.clip(rng.normal(1, 0.035), 0.92, 1.08))


def _sides(rng, length) -> tuple[float, float]:
    """Split a length into left and right, whose difference averages SIDES_DIFFER."""
    # |N(0, s)| has mean s sqrt(2 / pi); left and right move by half of it each.
    half = rng.normal(0, SIDES_DIFFER * np.sqrt(np.pi / 2)) / 2
    half = float(np.clip(half, -0.02, 0.02))
    return (length * (1 + half), length * (1 - half))


def radii(body: Body) -> dict[str, tuple[float, float]]:
    """Return the radius of the flesh around joints, metres, as (left, right)."""
    arm = np.array(body.upper_arm) * body.arm_girth
    leg = np.array(body.thigh) * body.leg_girth
    foot = np.full(2, 0.35 * body.foot_height)
    chubby = body.kind == "toddler"
    found = {
        "shoulder": 1.12 * arm, "elbow": 0.85 * arm, "wrist": (0.66 if chubby else 0.6) * arm,
        "hip": 1.25 * leg, "knee": 0.85 * leg, "ankle": (0.58 if chubby else 0.5) * leg,
        "big_toe": foot, "small_toe": foot, "heel": foot,
        "finger": (0.055 if chubby else 0.045) * np.array(body.hand),
        "thumb": (0.065 if chubby else 0.055) * np.array(body.hand),
    }  # fmt: skip
    return {name: (float(left), float(right)) for name, (left, right) in found.items()}


def trunk_axes(body: Body) -> dict[str, np.ndarray]:
    """Return the semi-axes (x depth, y width, z height) of chest, belly and pelvis, metres."""
    wide, high = body.shoulders, body.trunk
    if body.kind == "toddler":
        belly = 0.38 + 0.10 * body.belly
        fractions = {"chest": (0.38, 0.49), "belly": (belly, 0.46), "pelvis": (0.40, 0.46)}
    else:
        belly = 0.29 + 0.12 * body.belly
        fractions = {"chest": (0.32, 0.46), "belly": (belly, 0.41), "pelvis": (0.33, 0.44)}
    heights = {"chest": 0.45, "belly": 0.42, "pelvis": 0.34}
    return {name: np.array([depth * wide, width * wide, heights[name] * high])
            for name, (depth, width) in fractions.items()}  # fmt: skip
