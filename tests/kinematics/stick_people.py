"""Stick figures as people, statistics of them, and a prior whose network is of random numbers."""

import functools

import jax
import numpy as np

from nkjax import skeleton as skeletons
from nkjax.kinematics import energies, limbs, statistics
from nkjax.models import denoiser
from nkjax.prior import coordinates, diffusion, gaussian
from nkjax.prior.people import People

COCO = skeletons.load("coco17")
WHOLE = skeletons.load("wholebody133")
LAB = skeletons.parse({"name": "lab27", "keypoints": ["Nose", "Neck", "MidHip", *(
    f"{side}-{joint}" for joint in ("Eye", "Ear", "Shoulder", "Elbow", "Wrist", "Hip", "Knee",
    "Ankle", "BigToe", "Heel", "Thumb1", "Thumb2") for side in "LR")]}, "lab27")  # fmt: skip
TREE = {  # joint: parent, length, mean direction (0 is right, pi / 2 down), its spread
    "knee": ("hip", 30, 1.4, 0.2), "ankle": ("knee", 28, 1.7, 0.2),
    "elbow": ("shoulder", 20, 0.8, 0.5), "wrist": ("elbow", 18, 0.4, 0.5),
}  # fmt: skip
SIDED = [f"{side}_{joint}" for joint in ("shoulder", "hip", *TREE) for side in ("left", "right")]
BODY = skeletons.parse({"name": "body", "keypoints": SIDED}, "body")
PRONE = limbs.CLUSTERS.index("prone")
FEW = 20  # one size of batch, one compilation


def joints(skeleton):
    return dict(zip(SIDED, skeletons.match(skeleton, BODY), strict=True))


def place(skeleton, name):
    return joints(skeleton)[name]


def people(skeleton, count, seed):
    """Stick figures from the front, mirrored or not, sizes from 1 to 3, bones good to 4 %."""
    rng = np.random.default_rng(seed)
    points = np.zeros((count, len(skeleton.keypoints), 2))
    flip = list(skeleton.flip_indices)
    at = {}
    for name, index in joints(skeleton).items():
        side, joint = name.split("_")
        sign = 1 if side == "left" else -1
        if joint in ("shoulder", "hip"):
            x, y = {"shoulder": (10, -40), "hip": (7, 0)}[joint]
            place = np.array([sign * x, y]) + rng.normal(size=(count, 2)) * 0.4
        else:
            parent, length, way, spread = TREE[joint]
            angle = way + spread * rng.normal(size=count)
            step = length * np.exp(0.04 * rng.normal(size=count))
            offset = np.stack([sign * np.cos(angle), np.sin(angle)], 1) * step[:, None]
            place = at[f"{side}_{parent}"] + offset
        at[name] = points[:, index] = place
    for index in sorted({*range(len(skeleton.keypoints))} - {*joints(skeleton).values()}):
        points[:, index] = np.array([index - flip[index], -55]) + rng.normal(size=(count, 2))
    points = points * rng.uniform(1, 3, (count, 1, 1)) + rng.uniform(100, 500, (count, 1, 2))
    diagonal = np.hypot(*(points.max(1) - points.min(1)).T)
    return points.astype(np.float32), np.ones(points.shape[:2], bool), diagonal.astype(np.float32)


def lying(points):
    """Return points turned by a quarter: shoulders beside the hips, and no angle changed."""
    return points[..., ::-1] * np.float32([-1, 1])


def prior_of(skeleton, points, valid, diagonal):
    part = coordinates.parts(skeleton)["body"]
    joints = list(part.joints)
    context = np.zeros((len(points), coordinates.CONTEXT), np.float32)
    poses = coordinates.Poses(points[:, joints], valid[:, joints], diagonal, context)
    units = coordinates.Units(0.7, 0.25, (0.0, 1.0))
    u = jax.jit(lambda *a: coordinates.normalise(*a[:2], coordinates.frame(part, units, *a), units))
    found = gaussian.fit(u(*poses[:3]), poses.valid_bj)
    spec = denoiser.Spec(len(joints), coordinates.CONTEXT, 16, 1, 2)
    params = jax.jit(denoiser.init, static_argnums=1)(jax.random.key(0), spec)
    # Initialised to say nothing; it must say something here.
    rng = np.random.default_rng(1)
    noisy = jax.tree.map(lambda x: np.float32(x + 0.1 * rng.normal(size=x.shape)), params)
    return diffusion.PartPrior(part, units, spec, found, noisy)


@functools.cache
def statistics_of(skeleton):
    """Statistics of people and of the same mirrored, so that left and right are alike."""
    points, _, diagonal = people(skeleton, 400, 0)
    mirrored = (points * [-1, 1])[:, list(skeleton.flip_indices)]
    both = np.concatenate([points, mirrored]).astype(np.float32)
    text = np.full(len(both), "")
    group = People(
        both, np.full(both.shape[:2], 2, np.int8), np.tile(diagonal, 2),
        np.full(len(both), np.nan), np.full(len(both), "s"), text, text, text,
    )  # fmt: skip
    return statistics.fit(group, skeleton, {"fit": ["s"]}, "")


@functools.cache
def measures(skeleton):
    prior = prior_of(skeleton, *people(skeleton, 400, 0))
    return energies.measures(skeleton, statistics_of(skeleton), prior)


measure = jax.jit(energies.energies)
