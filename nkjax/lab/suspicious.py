"""Find labels that look wrong, to be shown and looked at: nothing is ever corrected.

Toddlers are not small adults, and this lab's toddlers not those of a paper: every bound is a robust
statistic of the data at hand. Raised hands, a wide base, crossed midlines and crawling make bones
look shorter, never longer than they are, so only bones that are too long are suspicious.
"""

import collections
import dataclasses
import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from nkjax import skeleton as skeletons
from nkjax.data import fingerprints
from nkjax.lab.findings import Findings
from nkjax.lab.rows import Person, Picture
from nkjax.skeleton import Skeleton

FEWEST_PEOPLE, FEWEST_BONES = 50, 5  # with fewer, medians mean little
# Where a person's scale is read among the bones: those less foreshortened than most.
SCALE_QUANTILE = 0.75
MAD = 1.4826  # from a median deviation to a standard deviation
MAD_EFFICIENCY = 0.37  # it is as good as a standard deviation of so many of the values
# Robust standard deviations above the median of the set at which a bone is an outlier, or is one
# for its counterpart, if it is longer than usual by so many and so many times: a limb in the plane
# of the picture, or nearer, beside one that points at the camera is no mistake.
BONE_BOUND = 3.9
UNEVEN_BOUND, UNEVEN_FROM, PERSPECTIVE = 5.85, 2.9, 1.45
LEAST_SPREAD = 0.05  # labelling twice differs by a few %; people all alike must not flag each other
# How wide a pair must look by the widest quarter of the set, which is seen from the front or from
# behind: 0.7 is turned by 45 degrees, so eyes and shoulders that disagree are 90 degrees apart.
WIDE, ALIGNED = 0.7, 0.5
LEVEL = 0.15  # a nose so near the line of the eyes is seen from below the chin
SWAP_BOUND, NO_LONGER = 2.5, 2.0
# From so many people on whose side is certain, most of them reversed is one mistake, not many.
FEWEST_DECIDED = 10
# Mean distance of the joints of near-identical pictures, as a share of the box's diagonal.
FAR_APART = 0.1
SIDED = ("eye", "ear", "shoulder", "elbow", "wrist", "hip")
NAMES = ["nose", *(f"{side}_{joint}" for joint in SIDED for side in ("left", "right"))]
BODY = skeletons.parse({"name": "body", "keypoints": NAMES}, "body")
PAIRS = ("eye", "ear", "shoulder", "hip")
ARM_SWAPS = (("wrist",), ("elbow",), ("elbow", "wrist"))


@dataclasses.dataclass(frozen=True)
class Suspicion:
    """A label, or two of near-identical pictures, that somebody should look at.

    code: NK251, NK252, NK253 or NK412; people: `Person.id`; why: one phrase without any file name;
    severity: how many times the bound it is, 1 and more; joints: the ones in question, by index.
    """

    code: str
    people: tuple[int, ...]
    why: str
    severity: float
    joints: tuple[int, ...] = ()


def find(
    people: Sequence[Person], pictures: Iterable[Picture], skeleton: Skeleton, findings: Findings
) -> tuple[Suspicion, ...]:
    """Return the labels that look wrong, the worst first, and count them in the findings.

    NK251: a bone far longer than in the rest of the set, against the person's other bones; NK252:
    left and right exchanged, in the whole person or in part; NK412 in place of it where that is so
    for most; NK253: near-identical pictures of one person each with labels far apart. Below
    FEWEST_PEOPLE people only NK253 is looked for (NK254). Legs are not asked about sides: they
    cross. Source: notes ecosystem 2.2.
    """
    judged = [person for person in people if not person.ignore]
    found = list(_far_apart(judged, pictures))
    if 0 < len(judged) < FEWEST_PEOPLE:
        findings.add("NK254", f"{len(judged)} of {FEWEST_PEOPLE}", len(judged))
    elif judged and skeleton.limbs:
        points = np.stack([person.keypoints_k3 for person in judged]).astype(np.float64)
        bones = _measure(points, skeleton)
        swapped = _swapped(points, bones, judged, skeleton)
        found += swapped
        # Exchanged sides make long bones: one reason is enough.
        already = {suspicion.people[0] for suspicion in swapped}
        found += [s for s in _long(bones, judged, skeleton) if s.people[0] not in already]
    for suspicion in found:
        who = " and ".join(f"person {i}" for i in suspicion.people)
        findings.add(suspicion.code, f"{who}: {suspicion.why}")
    return tuple(sorted(found, key=lambda s: (-s.severity, s.code, s.people)))


@dataclasses.dataclass(frozen=True)
class _Bones:
    """Limbs of P people by the statistics of the set; NaN where nothing can be told.

    limbs: B index pairs; logs_pb: of their lengths in px; scale_p: log px, how large a person's
    bones appear; usual_b: medians of log length - scale; spread_b: robust deviations above these.
    """

    limbs: tuple[tuple[int, int], ...]
    logs_pb: np.ndarray
    scale_p: np.ndarray
    usual_b: np.ndarray
    spread_b: np.ndarray

    def excess(self, logs_pn, bones):
        """Return by how many deviations log lengths exceed what is usual for the bones."""
        usual = self.scale_p[:, None] + self.usual_b[bones]
        return np.nan_to_num((logs_pn - usual) / self.spread_b[bones], nan=-np.inf)


def _measure(points_pk3, skeleton) -> _Bones:
    body = {*skeleton.groups["arms"], *skeleton.groups["legs"]}
    limbs = tuple(skeleton.limbs)
    of_body = np.array([set(limb) <= body for limb in limbs], bool)
    if of_body.sum() < FEWEST_BONES:
        of_body[:] = True
    logs = np.stack([_log_length(points_pk3, a, b) for a, b in limbs], 1)
    usual = np.zeros(len(limbs))
    # As in median polish: a person's scale and a bone's usual share of it explain each other.
    for _ in range(4):
        scale = _quantile(logs[:, of_body] - usual[of_body], SCALE_QUANTILE, 1)
        usual = _quantile(logs - scale[:, None], 0.5, 0)
    scale[np.isfinite(logs[:, of_body]).sum(1) < FEWEST_BONES] = np.nan
    return _Bones(limbs, logs, scale, usual, _spread(logs - scale[:, None] - usual))


def _spread(over_pb):
    """Return robust deviations (B,) of what is above 0, larger where there is little of it.

    How far few deviate is uncertain, and so many deviations too tight a bound: by Student's
    distribution by a factor of 1 + (z^2 + 1) / 4 / degrees of freedom, to first order.
    """
    above = np.where(over_pb > 0, over_pb, np.nan)
    freedom = MAD_EFFICIENCY * np.isfinite(above).sum(0)
    few = 1 + (BONE_BOUND**2 + 1) / (4 * np.maximum(freedom, 1))
    return np.fmax(few * MAD * _quantile(above, 0.5, 0), LEAST_SPREAD)


def _long(bones: _Bones, people, skeleton):
    """Yield NK251: the longest bone of a person, or one far longer than that on the other side."""
    every = np.arange(len(bones.limbs))
    excess = bones.excess(bones.logs_pb, every)
    mirror = _mirrored(bones.limbs, skeleton)
    uneven = np.nan_to_num(bones.logs_pb - bones.logs_pb[:, mirror])
    longer = bones.logs_pb - bones.scale_p[:, None] - bones.usual_b > np.log(PERSPECTIVE)
    one_sided = np.where((excess > UNEVEN_FROM) & longer, uneven / _spread(uneven), 0)
    severity = np.maximum(excess / BONE_BOUND, one_sided / UNEVEN_BOUND)
    for p in np.flatnonzero(severity.max(1, initial=0) > 1):
        b = int(severity[p].argmax())
        usual = np.exp(bones.logs_pb[p, b] - bones.scale_p[p] - bones.usual_b[b])
        name = " - ".join(skeleton.keypoints[i] for i in bones.limbs[b])
        why = f"{name} {usual:.1f} x as long as usual"
        if excess[p, b] <= BONE_BOUND:
            why += f", {np.exp(uneven[p, b]):.1f} x the other side"
        yield Suspicion("NK251", (people[p].id,), why, float(severity[p, b]), bones.limbs[b])


def _swapped(points_pk3, bones: _Bones, people, skeleton):
    """Return NK252, or NK412 where most of the people who can be judged are reversed."""
    found, decided, reversed_people = {}, 0, set()
    for p, sides in enumerate(_votes(points_pk3, bones, skeleton)):
        wrong = [pair for pair, side in sides.items() if side < 0]
        if "eye" in sides and len(sides) > 1:
            decided += 1
            body = [side for pair, side in sides.items() if pair in ("shoulder", "hip")]
            if "eye" in wrong or (body and max(body) < 0):
                reversed_people.add(p)
        if wrong:
            what = "s and ".join(wrong) + "s" if "eye" in sides else "shoulders or hips"
            what = "whole person" if len(wrong) == len(sides) > 1 else what
            pairs = wrong if "eye" in sides else ("shoulder", "hip")
            joints = tuple(i for pair in pairs for i in _joints(skeleton, pair))
            severity = float(1 - min(sides.values()))
            found[p] = (f"left and right exchanged: {what}", severity, joints)
    for names in ARM_SWAPS:
        for p, severity in _crossed(points_pk3, bones, skeleton, names):
            if p not in found or (p not in reversed_people and severity > found[p][1]):
                joints = tuple(i for name in names for i in _joints(skeleton, name))
                why = f"left and right exchanged: {'s and '.join(names)}s"
                found[p] = (why, severity, joints)
    most = decided >= FEWEST_DECIDED and len(reversed_people) > decided / 2
    return [
        Suspicion("NK412" if most and p in reversed_people else "NK252", (people[p].id,), *rest)
        for p, rest in found.items()
    ]


def _votes(points_pk3, bones: _Bones, skeleton) -> list[dict[str, float]]:
    """Tell for each person which pairs lie the right way round (> 0) and which do not (< 0).

    Who shows both eyes and the nose is seen from the front: going from the right eye to the left
    one, the nose lies to the right hand. Ears and shoulders must point along the eyes, hips along
    the shoulders. Pairs that look narrow are left out.
    """
    vectors, widths = {}, {}
    for pair in PAIRS:
        left, right = _joints(skeleton, pair) or (0, 0)
        vectors[pair] = points_pk3[:, left, :2] - points_pk3[:, right, :2]
        relative = np.exp(_log_length(points_pk3, left, right) - bones.scale_p)
        widths[pair] = relative / _quantile(relative, SCALE_QUANTILE, 0)
    eyes, nose = _joints(skeleton, "eye"), skeletons.match(skeleton, BODY)[0]
    votes = []
    for p, joints in enumerate(points_pk3):
        # Of a pair seen from the side nothing can be told; NaN compares as false.
        towards = {pair: vectors[pair][p] for pair in PAIRS if widths[pair][p] > WIDE}
        sides = {}
        # A face that was guessed from behind, v = 1, has the sides of a back.
        if "eye" in towards and nose is not None and (joints[[nose, *eyes], 2] == 2).all():
            x, y = towards["eye"]
            down = joints[nose, :2] - joints[list(eyes), :2].mean(0)
            if np.hypot(*down) > LEVEL * np.hypot(x, y):
                sides["eye"] = _cosine(np.array([-y, x]), down)
        for pair, other in (("ear", "eye"), ("shoulder", "eye"), ("hip", "shoulder")):
            known = sides.get(other, 1.0 if other == "shoulder" and "eye" not in sides else 0.0)
            if pair in towards and other in towards and abs(known) > ALIGNED:
                sides[pair] = np.sign(known) * _cosine(towards[pair], towards[other])
        votes.append({pair: side for pair, side in sides.items() if abs(side) > ALIGNED})
    return votes


def _crossed(points_pk3, bones: _Bones, skeleton, names):
    """Yield (p, severity) where exchanging joints of the arms makes bones that are too long usual.

    Bones count that run from an exchanged joint to one that is not, on both sides.
    """
    moved = [_joints(skeleton, name) for name in names]
    if not all(moved):
        return
    partner = {i: j for left, right in moved for i, j in ((left, right), (right, left))}
    arms = set(skeleton.groups["arms"])
    touched = [b for b, limb in enumerate(bones.limbs)
               if set(limb) <= arms and len(set(limb) & partner.keys()) == 1]  # fmt: skip
    if len(touched) < 2:
        return
    swapped = [[partner.get(i, i) for i in bones.limbs[b]] for b in touched]
    logs = np.stack([_log_length(points_pk3, *limb) for limb in swapped], 1)
    before = bones.excess(bones.logs_pb[:, touched], touched)
    after = bones.excess(logs, touched)
    mean = before.mean(1)
    good = (before.min(1) > 0) & (mean > SWAP_BOUND) & (after.max(1) < NO_LONGER)
    for p in np.flatnonzero(good & np.isfinite(after).all(1)):
        yield p, float(mean[p] / SWAP_BOUND)


def _far_apart(people, pictures):
    """Yield NK253: two near-identical pictures, each of one person, with labels far apart."""
    by_picture = collections.defaultdict(list)
    for person in people:
        by_picture[person.picture].append(person)
    alone = [p for p in pictures if len(by_picture[p.key]) == 1]
    found = []
    for i, j in fingerprints.near_pairs([p.phash for p in alone], fingerprints.NEAR):
        a, b = (by_picture[alone[k].key][0] for k in (i, j))
        first, second = a.keypoints_k3.astype(np.float64), b.keypoints_k3.astype(np.float64)
        both = (first[:, 2] > 0) & (second[:, 2] > 0)
        if both.sum() < FEWEST_BONES:
            continue
        # The same picture in another size is compared in the size of the first.
        zoom = np.array(alone[i].size_wh) / alone[j].size_wh
        apart = np.hypot(*(first[both, :2] - second[both, :2] * zoom).T).mean()
        share = apart / np.hypot(*a.box_xywh[2:])
        if share > FAR_APART:
            found.append((share, a.id, b.id))
    named = set()
    for share, a, b in sorted(found, reverse=True):
        # Each label once, in its worst pair, or one bad frame of a video would fill the sheet.
        if not named & {a, b}:
            named |= {a, b}
            why = f"labels {100 * share:.0f} % of the box apart on near-identical pictures"
            yield Suspicion("NK253", (a, b), why, float(share / FAR_APART))


def _joints(skeleton, name):
    """Return the indices of a left and a right joint, or () where the skeleton lacks one."""
    index = dict(zip(BODY.keypoints, skeletons.match(skeleton, BODY), strict=True))
    pair = (index[f"left_{name}"], index[f"right_{name}"])
    return () if None in pair else pair


def _mirrored(limbs, skeleton) -> list[int]:
    index = {frozenset(limb): b for b, limb in enumerate(limbs)}
    flip = skeleton.flip_indices
    return [index.get(frozenset(flip[i] for i in limb), b) for b, limb in enumerate(limbs)]


def _log_length(points_pk3, a, b):
    known = (points_pk3[:, [a, b], 2] > 0).all(1)
    length = np.hypot(*(points_pk3[:, a, :2] - points_pk3[:, b, :2]).T)
    return np.log(np.where(known & (length > 0), length, np.nan))


def _quantile(values, q, axis):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return np.nanquantile(values, q, axis=axis)


def _cosine(a, b):
    return float(a @ b / max(np.hypot(*a) * np.hypot(*b), 1e-9))
