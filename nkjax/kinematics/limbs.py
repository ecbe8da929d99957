"""Bones and joint angles of a skeleton, measured in points; and how the body is held.

In: a `Skeleton`, any one, and points in px of the upright picture (y points down), which may be NaN
where a joint is not valid. Out: lengths, angles and posture clusters: of numpy arrays in numpy,
where nothing is compiled, of jax arrays in jnp, inside jit too. Source: notes 3.3, 4.2, 5.
"""

import collections
import dataclasses
import itertools

import numpy as np

from nkjax import skeleton as skeletons
from nkjax.skeleton import Skeleton

# name, joints from the body outwards; rigid: the spine bends, so the sides of the torso are not.
SIDED_BONES = (
    ("upper_arm", "shoulder", "elbow", True),
    ("forearm", "elbow", "wrist", True),
    ("thigh", "hip", "knee", True),
    ("shank", "knee", "ankle", True),
    ("torso", "shoulder", "hip", False),
)
LINES = (("shoulder_line", "shoulder"), ("hip_line", "hip"))
SIDED_ANGLES = (
    ("elbow", "shoulder", "elbow", "wrist"),
    ("knee", "hip", "knee", "ankle"),
    ("shoulder", "hip", "shoulder", "elbow"),
    ("hip", "shoulder", "hip", "knee"),
)
SIDES = ("left", "right")
JOINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
BODY = skeletons.parse(
    {"name": "body", "keypoints": [f"{s}_{j}" for s in SIDES for j in JOINTS]}, "body"
)
CLUSTERS = ("upright", "prone", "seated", "unknown")
# Heights in units of a long limb bone. Legs that reach less than this below the hips do not stand;
# shoulders less than this above the hips lie, or lean at the camera, over legs that do not stand
# and over legs that do, among them those of children on hands and knees.
STANDS, KNEES_STAND = 0.8, 0.35
LIES, LIES_ON_LEGS = 0.7, 1.0
LONG_LIMB, FEWEST_LIMBS = 0.75, 3  # the quantile of limb bones in the picture that is the unit


@dataclasses.dataclass(frozen=True)
class Bone:
    """Two joints a fixed length apart in the body.

    a, b: indices, a nearer to the trunk; mirror: index of the bone of the other side, or its own;
    rigid: False where the body bends in between; part: 'body', 'foot' or 'hand'.
    """

    name: str
    a: int
    b: int
    mirror: int
    rigid: bool
    part: str


@dataclasses.dataclass(frozen=True)
class Angle:
    """The bend at joint j on the way from a to b.

    mirror: index of the angle of the other side, or its own, and the sign is the other one there;
    part: 'body', 'foot' or 'hand'.
    """

    name: str
    a: int
    j: int
    b: int
    mirror: int
    part: str


def bones(skeleton: Skeleton) -> tuple[Bone, ...]:
    """Return the bones of a skeleton: those of the body by name, feet, hands, others by its limbs.

    Nothing of the face, and nothing between the head and the body. Source: notes 3.3.
    """
    found = [(name, a, b, rigid, "body") for name, (a, b), rigid in _of_body(skeleton)]
    known = {frozenset((a, b)) for _, a, b, _, _ in found}
    grouped = {i for group in skeleton.groups.values() for i in group}
    for a, b in _outwards(skeleton):
        if frozenset((a, b)) not in known:
            known.add(frozenset((a, b)))
            name = f"{skeleton.keypoints[a]}-{skeleton.keypoints[b]}"
            # A joint of no group (neck, mid-hip) is on the spine.
            found.append((name, a, b, {a, b} <= grouped, _part(skeleton, (a, b))))
    index = {frozenset((a, b)): i for i, (_, a, b, _, _) in enumerate(found)}
    flip = skeleton.flip_indices
    return tuple(
        Bone(name, a, b, index.get(frozenset((flip[a], flip[b])), i), rigid, part)
        for i, (name, a, b, rigid, part) in enumerate(found)
    )


def angles(skeleton: Skeleton) -> tuple[Angle, ...]:
    """Return the joint angles of a skeleton: elbows, knees, shoulders, hips; ankles and fingers.

    The last two where its limbs have feet and hands: at an ankle one angle per limb of the foot,
    within a hand one wherever one limb follows another. Source: notes 4.2 and 5.
    """
    at = named_joints(skeleton)
    found = []
    for side in SIDES:
        for name, *three in SIDED_ANGLES:
            joints = [at.get(f"{side}_{joint}") for joint in three]
            if None not in joints:
                found.append((f"{side}_{name}", *joints, "body"))
    known = bones(skeleton)
    for near, far in itertools.product(known, known):
        if near.b == far.a and (far.part == "foot" or near.part == far.part == "hand"):
            name = f"{skeleton.keypoints[far.a]}:{skeleton.keypoints[far.b]}"
            found.append((name, near.a, far.a, far.b, far.part))
    index = {(a, j, b): i for i, (_, a, j, b, _) in enumerate(found)}
    flip = skeleton.flip_indices
    return tuple(
        Angle(name, a, j, b, index.get((flip[a], flip[j], flip[b]), i), part)
        for i, (name, a, j, b, part) in enumerate(found)
    )


def log_lengths(points_nk2, valid_nk, bones: tuple[Bone, ...]):
    """Return the log lengths (N, B) of bones in px; NaN where an end is not valid, or both are one.

    points_nk2: px, anything where valid_nk is False. Gradients are finite (0) there.
    """
    xp = points_nk2.__array_namespace__()
    a, b = (np.array([getattr(bone, end) for bone in bones], int) for end in "ab")
    points = xp.where(valid_nk[..., None], points_nk2, 0.0)
    squares = xp.square(points[:, a] - points[:, b]).sum(-1)
    known = valid_nk[:, a] & valid_nk[:, b] & (squares > 0)
    return xp.where(known, 0.5 * xp.log(xp.where(known, squares, 1.0)), xp.nan)


def turns(points_nk2, valid_nk, angles: tuple[Angle, ...]):
    """Return the signed angles (N, A), rad in [-pi, pi]: by how much the way a-j-b turns at j.

    0 is straight, positive clockwise as seen in the picture; NaN where a joint is not valid or two
    coincide. A projection: it depends on where the camera stood. Gradients are finite (0) there.
    """
    xp = points_nk2.__array_namespace__()
    a, j, b = (np.array([getattr(angle, end) for angle in angles], int) for end in "ajb")
    points = xp.where(valid_nk[..., None], points_nk2, 0.0)
    before, after = points[:, j] - points[:, a], points[:, b] - points[:, j]
    apart = (xp.square(before).sum(-1) > 0) & (xp.square(after).sum(-1) > 0)
    known = valid_nk[:, a] & valid_nk[:, j] & valid_nk[:, b] & apart
    along = xp.where(known, (before * after).sum(-1), 1.0)
    across = xp.where(known, before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0], 0.0)
    return xp.where(known, xp.arctan2(across, along), xp.nan)


def posture_cluster(points_nk2, valid_nk, skeleton: Skeleton):
    """Tell how bodies are held, as int32 indices (N,) into CLUSTERS, from the picture alone.

    'prone': the shoulders are little above the hips, or below, as in crawling; else 'seated': the
    ankles (the knees where no ankle is known) are little below the hips, as in sitting, squatting
    or on an arm; else 'upright'. 'unknown' without a shoulder, a hip, a knee or an ankle, or
    FEWEST_LIMBS limb bones. points_nk2: px of the upright picture. Sides, shift and scale play no
    part. Source: notes 4.2.
    """
    xp = points_nk2.__array_namespace__()
    at = named_joints(skeleton)
    named = {f"{side}_{name}" for side in SIDES for name, _, _, rigid in SIDED_BONES if rigid}
    long = tuple(bone for bone in bones(skeleton) if bone.name in named)
    logs = log_lengths(points_nk2, valid_nk, long)
    enough = xp.isfinite(logs).sum(1) >= FEWEST_LIMBS
    unit = xp.where(enough, xp.exp(quantile(logs, LONG_LIMB)), xp.nan)

    def height(joint):
        """Return the mean y of the valid ones of a pair, in units; NaN without any."""
        pair = np.array([at[f"{s}_{joint}"] for s in SIDES if f"{s}_{joint}" in at], int)
        valid = valid_nk[:, pair]
        y = xp.where(valid, points_nk2[:, pair, 1], 0.0).sum(1)
        return xp.where(valid.any(1), y / xp.maximum(valid.sum(1), 1), xp.nan) / unit

    shoulders, hips, knees, ankles = map(height, ("shoulder", "hip", "knee", "ankle"))
    stands = xp.where(xp.isnan(ankles), knees - hips >= KNEES_STAND, ankles - hips >= STANDS)
    upright, prone, seated, unknown = range(len(CLUSTERS))
    lies = hips - shoulders < xp.where(stands, LIES_ON_LEGS, LIES)
    found = xp.where(lies, prone, xp.where(stands, upright, seated))
    told = xp.isfinite(hips - shoulders) & (xp.isfinite(knees) | xp.isfinite(ankles))
    return xp.where(told, found, unknown).astype(xp.int32)


def quantile(values_nb, q: float):
    """Return the quantile (N,) of the known values of every row, NaN where none is.

    As np.nanquantile, which takes a thousand times longer and has no jit.
    """
    xp = values_nb.__array_namespace__()
    padded = xp.pad(values_nb, ((0, 0), (0, 1)), constant_values=xp.nan)  # B may be 0
    ordered = xp.sort(padded, axis=1)  # NaN comes last
    place = q * xp.maximum(xp.isfinite(ordered).sum(1) - 1, 0)
    low, high = (
        xp.take_along_axis(ordered, edge(place).astype(int)[:, None], axis=1)[:, 0]
        for edge in (xp.floor, xp.ceil)
    )
    return low + (high - low) * (place - xp.floor(place))


def named_joints(skeleton: Skeleton) -> dict[str, int]:
    """Return the index of each of a skeleton's shoulders, elbows, ..., ankles: {'left_hip': 11}."""
    found = zip(BODY.keypoints, skeletons.match(skeleton, BODY), strict=True)
    return {name: i for name, i in found if i is not None}


def _of_body(skeleton):
    """Yield (name, (a, b), rigid) of the bones that follow from the names of the joints."""
    at = named_joints(skeleton)
    for side in SIDES:
        for name, a, b, rigid in SIDED_BONES:
            ends = at.get(f"{side}_{a}"), at.get(f"{side}_{b}")
            if None not in ends:
                yield f"{side}_{name}", ends, rigid
    for name, joint in LINES:
        ends = at.get(f"left_{joint}"), at.get(f"right_{joint}")
        if None not in ends:
            yield name, ends, True


def _outwards(skeleton):
    """Return the limbs off the head, in their order, each as the pair that leads outwards."""
    head = {*skeleton.groups["head"]}
    limbs = [limb for limb in skeleton.limbs if not head & {*limb}]
    steps = _steps_from_trunk(skeleton, limbs)
    return [tuple(sorted(limb, key=lambda i: (steps[i], i))) for limb in limbs]


def _steps_from_trunk(skeleton, limbs):
    """Return {joint: how many limbs it is away from shoulders and hips}.

    What is not connected to them, a hand with a root of its own, counts from its joint of most
    limbs.
    """
    neighbours = collections.defaultdict(list)
    for a, b in limbs:
        neighbours[a].append(b)
        neighbours[b].append(a)
    at = named_joints(skeleton)
    trunk = [i for name, i in at.items() if name.endswith(("shoulder", "hip")) and i in neighbours]
    starts = [*trunk, *sorted(neighbours, key=lambda i: (-len(neighbours[i]), i))]
    steps = {}
    for start in starts:
        if start in steps:
            continue
        fresh = trunk if start in trunk else [start]
        steps |= dict.fromkeys(fresh, 0)
        while fresh:
            fresh = [i for near in fresh for i in neighbours[near]
                     if i not in steps and not steps.update({i: steps[near] + 1})]  # fmt: skip
    return steps


def _part(skeleton, ends):
    hands = {*skeleton.groups["left_hand"], *skeleton.groups["right_hand"]}
    if hands & {*ends}:
        return "hand"
    return "foot" if {*skeleton.groups["feet"]} & {*ends} else "body"
