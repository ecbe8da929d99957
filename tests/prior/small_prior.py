"""Small priors and people for tests: bodies on three skeletons, networks of random numbers."""

import jax
import numpy as np

from nkjax import skeleton as skeletons
from nkjax.models import denoiser
from nkjax.prior import coordinates, gaussian
from nkjax.prior.diffusion import PartPrior
from nkjax.prior.people import People
from nkjax.toddlersim import world

LAB27 = skeletons.parse({
    "name": "lab27",
    "keypoints": ["Pelvis", "Spine", "Neck", "HeadTop", *(
        f"{side}{joint}" for side in ("Left", "Right") for joint in
        ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "BigToe", "Heel", "Eye", "Ear",
         "Clavicle"))][:26] + ["Nose"],
}, "lab27")  # fmt: skip
SKELETONS = {"coco17": skeletons.load("coco17"), "toddlersim65": world.SKELETON, "lab27": LAB27}


def people(skeleton, count=12, seed=0, missing=0.1) -> People:
    """Draw people: every joint about a place of its own, some not labelled, boxes of 100 px."""
    rng = np.random.default_rng(seed)
    joints = len(skeleton.keypoints)
    middle = np.random.default_rng(1).uniform(20, 80, (joints, 2))
    points = (middle[None] + rng.normal(0, 4, (count, joints, 2))).astype(np.float32)
    visible = np.where(rng.random((count, joints)) < missing, 0, 2).astype(np.int8)
    points[visible == 0] = np.nan
    names = np.array([f"c{i // 4}" for i in range(count)])
    postures = np.array(["walk", "crawl"])[np.arange(count) % 2]
    return People(
        points, visible, np.full(count, 141.4, np.float32), np.full(count, 20.0, np.float32),
        names, postures, np.full(count, ""), np.array([f"p{i}" for i in range(count)]),
    )  # fmt: skip


def prior(skeleton, part="body", seed=0, width=16, depth=2) -> PartPrior:
    """Return a prior of random numbers whose output moves, on the units of `people`."""
    of_part = coordinates.parts(skeleton)[part]
    poses, _ = coordinates.take(of_part, people(skeleton, 40), skeleton)
    units = coordinates.fit_units(of_part, poses)
    at = coordinates.frame(of_part, units, *poses[:3])
    u = coordinates.normalise(poses.points_bj2, poses.valid_bj, at, units)
    spec = denoiser.Spec(len(of_part.joints), coordinates.CONTEXT, width, depth, 2)
    params = jax.jit(denoiser.init, static_argnums=1)(jax.random.key(seed), spec)
    # An untrained network says 0: numbers that any mask fault would show in.
    params["out"]["kernel"] = 0.3 * jax.random.normal(jax.random.key(seed + 1), (width, 2))
    return PartPrior(of_part, units, spec, gaussian.fit(u, poses.valid_bj), params)
