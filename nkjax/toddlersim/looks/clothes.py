"""Who wears what: skin, hair and clothes as paints and as the part each solid of a body becomes.

Clothes follow the segments of the body: a long sleeve covers upper arm and forearm, shorts cover
pelvis and thighs. Source: notes method 6.5 (textures differ between domains and between people
that are trained and tested on), sapiens A5 (parts).
"""

import colorsys
from typing import NamedTuple

import numpy as np

from nkjax.toddlersim.looks.paints import Paint
from nkjax.toddlersim.solids import BALL, PARTS, SEGMENTS, Solids

TRUNK = ("chest", "belly")
UPPER_ARMS = ("left_upper_arm", "right_upper_arm")
FOREARMS = ("left_forearm", "right_forearm")
THIGHS, SHANKS = ("left_thigh", "right_thigh"), ("left_shank", "right_shank")
FEET = ("left_foot", "right_foot")
TOPS = {
    "long": (*TRUNK, *UPPER_ARMS, *FOREARMS),
    "short": (*TRUNK, *UPPER_ARMS),
    "sleeveless": TRUNK,
    "bare": (),
}
BOTTOMS = {
    "trousers": ("pelvis", *THIGHS, *SHANKS),
    "leggings": ("pelvis", *THIGHS, *SHANKS),
    "shorts": ("pelvis", *THIGHS),
    "nappy": ("pelvis",),
}
SHOD = {"shoes": FEET, "socks": FEET, "bare": ()}
THICKNESS = {  # metres
    "long": (0.003, 0.008), "short": (0.002, 0.005), "sleeveless": (0.002, 0.004), "bare": (0, 0),
    "trousers": (0.003, 0.007), "leggings": (0.002, 0.002), "shorts": (0.003, 0.007),
    "nappy": (0.006, 0.008), "shoes": (0.004, 0.008), "socks": (0.002, 0.003),
}  # fmt: skip
# The paints of an outfit, in order.
MATERIALS = ("skin", "hair", "lips", "eye", "iris", "top", "bottom", "feet")
BARE = {
    "skull": ("face_neck", "skin"), "face": ("face_neck", "skin"), "nose": ("face_neck", "skin"),
    "ear": ("face_neck", "skin"), "neck": ("face_neck", "skin"), "eye": ("face_neck", "eye"),
    "iris": ("face_neck", "iris"), "upper_lip": ("upper_lip", "lips"),
    "lower_lip": ("lower_lip", "lips"), "hair": ("hair", "hair"),
    "chest": ("torso", "skin"), "belly": ("torso", "skin"), "pelvis": ("torso", "skin"),
}  # fmt: skip
LIMBS = {
    "upper_arm": "upper_arm", "forearm": "lower_arm", "hand": "hand", "thigh": "upper_leg",
    "shank": "lower_leg", "foot": "foot",
}  # fmt: skip


class Wardrobe(NamedTuple):
    """What clothes are drawn from: each pair is a range, each table holds odds.

    hue: in turns, may pass 1; saturation, value: of HSV; pitch: metres; patterns, tops, bottoms,
    feet: (name, odds).
    """

    hue: tuple
    saturation: tuple
    value: tuple
    pitch: tuple
    patterns: tuple
    tops: tuple
    bottoms: tuple
    feet: tuple


TODDLER_TOPS = (("long", 0.4), ("short", 0.35), ("sleeveless", 0.1), ("bare", 0.15))
TODDLER_BOTTOMS = (("trousers", 0.35), ("leggings", 0.2), ("shorts", 0.2), ("nappy", 0.25))
TODDLER_FEET = (("shoes", 0.3), ("socks", 0.3), ("bare", 0.4))
ADULT_TOPS = (("long", 0.55), ("short", 0.38), ("sleeveless", 0.07))
ADULT_BOTTOMS = (("trousers", 0.65), ("leggings", 0.15), ("shorts", 0.2))
ADULT_FEET = (("shoes", 0.7), ("socks", 0.15), ("bare", 0.15))
# Toddlers wear bright prints and stripes, adults muted plain cloth; (kind, held_out) of subjects.
WARDROBES = {
    ("toddler", False): Wardrobe(
        (0.95, 1.5), (0.55, 0.95), (0.65, 1.0), (0.03, 0.06),
        (("stripes", 0.4), ("print", 0.35), ("dots", 0.1), ("plain", 0.15)),
        TODDLER_TOPS, TODDLER_BOTTOMS, TODDLER_FEET,
    ),
    ("toddler", True): Wardrobe(
        (0.4, 0.98), (0.35, 0.8), (0.6, 0.95), (0.05, 0.11),
        (("print", 0.3), ("checks", 0.35), ("dots", 0.2), ("stripes", 0.15)),
        TODDLER_TOPS, TODDLER_BOTTOMS, TODDLER_FEET,
    ),
    ("adult", False): Wardrobe(
        (0.52, 0.72), (0.05, 0.4), (0.15, 0.7), (0.02, 0.05),
        (("plain", 0.75), ("stripes", 0.1), ("speckle", 0.15)),
        ADULT_TOPS, ADULT_BOTTOMS, ADULT_FEET,
    ),
    ("adult", True): Wardrobe(
        (0.92, 1.4), (0.1, 0.5), (0.25, 0.8), (0.06, 0.12),
        (("plain", 0.55), ("checks", 0.25), ("speckle", 0.2)),
        ADULT_TOPS, ADULT_BOTTOMS, ADULT_FEET,
    ),
}  # fmt: skip
# The ten tones of the Monk Skin Tone scale, lightest first; every domain and subject has them all.
SKINS = (
    "f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a",
    "292420",
)  # fmt: skip
HAIRS = ("15100e", "241a14", "3b2618", "5a3a22", "7d552f", "a97f4a", "cfae74", "8c3f1f", "9a948c")
IRISES = ("2e1a10", "4a2c16", "6b4a26", "5d6b3a", "4f6f86", "7d95a5")


class Outfit(NamedTuple):
    """What one person looks like in one session.

    top, bottom, feet: keys of TOPS, BOTTOMS, SHOD; thickness: of their cloth, metres; paints: in
    the order of MATERIALS.
    """

    top: str
    bottom: str
    feet: str
    thickness: tuple[float, float, float]
    paints: tuple[Paint, ...]


def draw_outfit(rng: np.random.Generator, kind: str, held_out: bool) -> Outfit:
    """Draw what somebody looks like: kind 'toddler' or 'adult', held_out for test subjects."""
    wardrobe = WARDROBES[kind, held_out]
    tone = _between(rng, SKINS)
    hair = _between(rng, HAIRS, mix=False)
    iris = _between(rng, IRISES, mix=False)
    top, bottom, feet = (choose(rng, odds)
                         for odds in (wardrobe.tops, wardrobe.bottoms, wardrobe.feet))  # fmt: skip
    thickness = tuple(float(rng.uniform(*THICKNESS[name])) for name in (top, bottom, feet))
    cloth = [_cloth(rng, wardrobe) for _ in range(3)]
    if bottom == "nappy":
        cloth[1] = Paint("print", ((0.95, 0.95, 0.94), *cloth[1].colours[:2]), 0.05)
    if feet == "shoes":
        cloth[2] = cloth[2]._replace(pattern="plain", gloss=0.35)
    if feet == "bare":
        cloth[2] = _skin(tone)
    paints = (
        _skin(tone),
        Paint("strands", (_scaled(hair, 0.6), _scaled(hair, 1.2)), 0.008, gloss=0.3),
        Paint("plain", (tuple(np.clip(tone * (0.92, 0.62, 0.62) + (0.03, 0, 0), 0, 1).tolist()),),
              gloss=0.3),
        Paint("plain", ((0.93, 0.92, 0.9),), gloss=0.6),
        Paint("plain", (tuple(iris.tolist()),), gloss=0.6),
        *cloth,
    )  # fmt: skip
    return Outfit(top, bottom, feet, thickness, paints)


def wear(solids: Solids, outfit: Outfit, person: int, first_paint: int):
    """Dress a bare body: returns its solids and the paints (tuple) that they use.

    solids: segment_p says what each is. Sets part_p, person_p and paint_p (first_paint + index of
    the returned paints); cloth makes radii and semi-axes greater by its thickness, lengths stay.
    """
    rows = np.array(_wearing(outfit))[solids.segment_p]
    grown = np.array((*outfit.thickness, 0.0))[rows[:, 2]][:, None]
    # The first size of a cone is its length.
    grown = grown * np.where((solids.kind_p == BALL)[:, None], 1, (0, 1, 1))
    dressed = solids._replace(
        part_p=rows[:, 0], paint_p=first_paint + rows[:, 1], size_p3=solids.size_p3 + grown,
        person_p=np.full(len(rows), person),
    )  # fmt: skip
    return dressed, outfit.paints


def same_person(looks: Outfit, outfit: Outfit) -> Outfit:
    """Return an outfit on somebody else: skin, hair, lips and eyes of the looks, clothes of it."""
    body = MATERIALS.index("top")
    paints = [*looks.paints[:body], *outfit.paints[body:]]
    if outfit.feet == "bare":
        paints[-1] = paints[0]
    return outfit._replace(paints=tuple(paints))


def choose(rng: np.random.Generator, odds):
    """Draw one name from (name, odds) pairs whose odds add up to 1."""
    at = np.searchsorted(np.cumsum([share for _, share in odds]), rng.random(), "right")
    return odds[min(at, len(odds) - 1)][0]


def colour(rng: np.random.Generator, hue, saturation, value) -> tuple:
    """Draw an RGB colour from ranges of HSV; hue in turns."""
    hsv = (rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))
    return colorsys.hsv_to_rgb(*(float(number) for number in hsv))


def _wearing(outfit):
    """Return for each of SEGMENTS: part, paint, and which thickness it gets (3: none)."""
    rows = []
    for segment in SEGMENTS:
        side, _, limb = segment.partition("_")
        if limb in LIMBS:
            part, material = f"{side}_{LIMBS[limb]}", "skin"
        else:
            part, material = BARE.get(segment, ("background", "skin"))
        thickness = 3
        if segment in TOPS[outfit.top]:
            part, material, thickness = "upper_clothing", "top", 0
        if segment in BOTTOMS[outfit.bottom]:
            part, material, thickness = "lower_clothing", "bottom", 1
        if segment in SHOD[outfit.feet]:
            part, material, thickness = f"{side}_{outfit.feet[:-1]}", "feet", 2
        rows.append((PARTS.index(part), MATERIALS.index(material), thickness))
    return rows


def _cloth(rng, wardrobe):
    pattern = choose(rng, wardrobe.patterns)
    hsv = wardrobe.hue, wardrobe.saturation, wardrobe.value
    first = colour(rng, *hsv)
    others = [colour(rng, *hsv) for _ in range(2)]
    if rng.random() < 0.4:
        others[0] = (0.95, 0.94, 0.92)  # with white, as much cloth has it
    turn = float(rng.choice((0.0, 0.0, 90.0, 45.0)))
    pitch = float(rng.uniform(*wardrobe.pitch))
    if pattern == "speckle":
        others = [_scaled(np.array(first), 0.75)] * 2
        pitch *= 0.4
    return Paint(pattern, (first, *others), pitch, turn, 0.03)


def _skin(tone):
    """Blotches of a somewhat redder and darker tone, and a little gloss."""
    redder = np.clip(tone * (0.97, 0.86, 0.84), 0, 1)
    return Paint("speckle", (tuple(tone.tolist()), tuple(redder.tolist())), 0.03, gloss=0.16)


def _between(rng, tones, mix=True):
    """Draw from a row of hex colours, between two neighbours of it where they mix."""
    rgb = np.array([[int(tone[i : i + 2], 16) / 255 for i in (0, 2, 4)] for tone in tones])
    at = rng.uniform(0, len(tones) - 1)
    low = min(int(at), len(tones) - 2)
    share = at - low if mix else float(round(at - low))
    return np.clip((rgb[low] * (1 - share) + rgb[low + 1] * share) * rng.uniform(0.96, 1.04), 0, 1)


def _scaled(rgb, factor):
    return tuple(np.clip(rgb * factor, 0, 1).tolist())
