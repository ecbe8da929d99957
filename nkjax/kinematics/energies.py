"""Measure what is unusual about poses: four energies, each larger the less usual.

Statistics of labelled people and the prior go in once (`measures`); poses in px of any one frame go
in, and energies come out (`energies`): bones that are too long, joint angles outside what labelled
people show, limbs of unequal length, and the pull of the prior. Shift and scale play no part. All
of it runs inside jit in fp32; points of joints that are not valid may be NaN. Source: notes method
4.2.
"""

import dataclasses

import einops
import jax
import jax.numpy as jnp
import numpy as np

from nkjax.kinematics import limbs, scale
from nkjax.prior import coordinates, diffusion, refine
from nkjax.prior.diffusion import PartPrior
from nkjax.skeleton import Skeleton

RATIOS = (0.05, 0.1, 0.2)  # of noise, in data units
DRAWS = 8
MAD = 1.4826  # from a median deviation to a standard deviation
BENDS = 2.0  # a bone that is none (the side of a torso) may be so many times further off
SHORTEST = 0.05  # of a bone's usual length; two joints on one place are so far apart


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Measures:
    """What energies are measured by: statistics of labelled people as arrays, the prior; a pytree.

    bones, angles: those of the body and feet; pairs: bones of the left, of the right. Per bone B:
    usual_b (log, NaN for one that tells no scale), middle_b, longest_b and spread_b of its relative
    length. uneven_p: per pair, the usual largest |log(left / right)|. Per cluster C and angle A:
    mean_ca, lowest_ca, highest_ca, rad, the latter about the mean. What too few people showed is
    NaN. noise_sj2: the fixed noise of the diffusion residual, of the seed.
    """

    skeleton: Skeleton = dataclasses.field(metadata={"static": True})
    bones: tuple[limbs.Bone, ...] = dataclasses.field(metadata={"static": True})
    angles: tuple[limbs.Angle, ...] = dataclasses.field(metadata={"static": True})
    pairs: tuple[tuple[int, int], ...] = dataclasses.field(metadata={"static": True})
    seed: int = dataclasses.field(metadata={"static": True})
    usual_b: jax.Array
    middle_b: jax.Array
    longest_b: jax.Array
    spread_b: jax.Array
    uneven_p: jax.Array
    mean_ca: jax.Array
    lowest_ca: jax.Array
    highest_ca: jax.Array
    noise_sj2: jax.Array
    prior: PartPrior


def measures(skeleton: Skeleton, statistics: dict, prior: PartPrior, seed: int = 0) -> Measures:
    """Make arrays of `kinematics.statistics` for a body's prior; seed: of the fixed noise."""
    everything = limbs.bones(skeleton)
    bones = tuple(bone for bone in everything if bone.part != "hand")
    angles = tuple(angle for angle in limbs.angles(skeleton) if angle.part != "hand")
    place = {bone.name: i for i, bone in enumerate(bones)}
    facts = [statistics["bones"][bone.name] for bone in bones]
    uneven = {name: fact["absolute"] for name, fact in statistics["symmetry"].items()}
    # Feet are short and turn every way, so their lengths as seen say nothing about the other's.
    pairs = {
        (place[name], place[statistics["symmetry"][name]["mirror"]]): most["95"]
        for name, most in uneven.items()
        if most and name in place and bones[place[name]].part == "body"
    }
    ranges = [[_range(statistics, angle, name) for angle in angles] for name in limbs.CLUSTERS]
    mean, lowest, highest = np.moveaxis(
        np.array(ranges, np.float32).reshape(-1, len(angles), 3), 2, 0
    )
    return Measures(
        skeleton, bones, angles, tuple(pairs), seed,
        usual_b=_numbers(fact["usual_log"] for fact in facts),
        middle_b=_numbers((fact["projected"]["quantiles"] or {}).get("50") for fact in facts),
        longest_b=_numbers((fact["projected"]["quantiles"] or {}).get("99") for fact in facts),
        spread_b=MAD * _numbers(fact["projected"]["mad"] for fact in facts),
        uneven_p=_numbers(pairs.values()),
        mean_ca=jnp.asarray(mean), lowest_ca=jnp.asarray(lowest), highest_ca=jnp.asarray(highest),
        noise_sj2=refine.antithetic(jax.random.key(seed), DRAWS, (len(prior.part.joints), 2)),
        prior=prior,
    )  # fmt: skip


def _range(statistics, angle, cluster):
    """Return mean, lowest and highest of an angle in a cluster, of everybody where it has few."""
    by_cluster = statistics["angles"][angle.name]["projected_rad"]
    for name in (cluster, "all"):
        if by_cluster[name]["quantiles"]:
            quantiles = by_cluster[name]["quantiles"]
            return by_cluster[name]["mean"], quantiles["0.5"], quantiles["99.5"]
    return np.nan, np.nan, np.nan


def _numbers(values):
    return jnp.array([np.nan if value is None else value for value in values], jnp.float32)


def energies(by: Measures, points_bk2, valid_bk, diagonal_b) -> dict[str, jax.Array]:
    """Measure poses: 'length', 'angle', 'symmetry', 'diffusion' (B,) each, larger is less usual.

    length: by how many deviations the bone that sticks out most is longer, against the person's
    others, than the usual 99 %; without depth nothing is too short. angle: mean rad outside the 0.5
    to 99.5 % of the posture cluster. symmetry: mean of what |log(left / right)| exceeds the usual
    95 % by. diffusion: `pull`. NaN where no bone, angle, pair or joint is known. points_bk2: px,
    all K joints of the skeleton; diagonal_b: of the box, px. Differentiable and finite in gradient.
    """
    points = jnp.where(valid_bk[..., None], jnp.asarray(points_bk2, jnp.float32), 0.0)
    cluster_b = limbs.posture_cluster(points, valid_bk, by.skeleton)
    logs = limbs.log_lengths(points, valid_bk, by.bones)
    # Without gradient, as every scale here: nothing is gained by growing the person.
    size_b = jax.lax.stop_gradient(scale.person_scale(logs, by.usual_b))
    shares = logs - size_b[:, None]
    told = ~jnp.isnan(shares)
    relative = jnp.exp(jnp.where(told, shares, 0.0))
    excess = jnp.maximum(relative - by.longest_b[None], 0.0) / by.spread_b[None]
    excess = jnp.where(told, excess, jnp.nan)
    tolerance = np.array([1.0 if bone.rigid else BENDS for bone in by.bones], np.float32)
    outside = _outside(by, limbs.turns(points, valid_bk, by.angles), cluster_b)
    return {
        "length": _largest(excess / tolerance[None]),
        "angle": _mean(outside),
        "symmetry": _mean(_uneven(by, shares, valid_bk, size_b)),
        "diffusion": pull(by, points, valid_bk, diagonal_b),
    }


def _uneven(by, shares, valid_bk, size_b):
    ends = np.array([(bone.a, bone.b) for bone in by.bones], int).reshape(-1, 2)
    # Without a size nothing is known of any: that is no reason to call two sides alike.
    known = valid_bk[:, ends].all(-1) & ~jnp.isnan(size_b)[:, None]
    # Joints that coincide have no logarithm of a length, yet are as uneven as can be.
    least = jnp.log(SHORTEST * by.middle_b)[None]
    shares = jnp.where(known & jnp.isnan(shares), least, jnp.maximum(shares, least))
    left, right = np.array(by.pairs, int).reshape(-1, 2).T
    return jnp.maximum(jnp.abs(shares[:, left] - shares[:, right]) - by.uneven_p[None], 0.0)


def _outside(by, turns_ba, cluster_b):
    mean, lowest, highest = (a[cluster_b] for a in (by.mean_ca, by.lowest_ca, by.highest_ca))
    about = jnp.mod(turns_ba - mean + jnp.pi, 2 * jnp.pi) - jnp.pi
    return jnp.maximum(jnp.maximum(lowest - about, about - highest), 0.0)


def pull(by: Measures, points_bk2, valid_bk, diagonal_b):
    """Return how far the prior pulls the joints of bodies (B,), NaN without any.

    Mean over joints and RATIOS of the square of ||u - E D(u + noise)||^2 / ratio^2, D averaged over
    DRAWS noises and opposites: the squared score of the density. Taken after the average, the noise
    itself does not count, and squared, one joint far off weighs more than all of them a little.
    """
    joints = np.array(by.prior.part.joints)
    points, valid = points_bk2[:, joints], valid_bk[:, joints]
    at = coordinates.frame(by.prior.part, by.prior.units, points, valid, diagonal_b)
    u = coordinates.normalise(points, valid, at, by.prior.units)
    given = diffusion.nothing_observed(valid, jnp.zeros((len(u), coordinates.CONTEXT)))
    # All ratios in one loop: the network is compiled once.
    noise = jnp.tile(by.noise_sj2, (len(RATIOS), 1, 1))[:, None]
    noise = jnp.broadcast_to(noise, (len(noise), *u.shape))
    clean = refine.denoised(by.prior, u, given, np.repeat(RATIOS, DRAWS), noise)
    clean = einops.reduce(clean, "(r s) b j c -> r b j c", "mean", s=DRAWS)
    away = jnp.square(jnp.where(valid[None, ..., None], clean - u[None], 0.0)).sum(-1)
    ratios = np.array(RATIOS, np.float32)[:, None, None]
    moved = jnp.square(away / (2 * ratios**2)).mean(0)
    return _mean(jnp.where(valid, moved, jnp.nan))


def _mean(values_bn):
    known = ~jnp.isnan(values_bn)
    total = jnp.where(known, values_bn, 0.0).sum(1) / jnp.maximum(known.sum(1), 1)
    return jnp.where(known.any(1), total, jnp.nan)


def _largest(values_bn):
    known = ~jnp.isnan(values_bn)
    return jnp.where(known.any(1), jnp.where(known, values_bn, 0.0).max(1, initial=0.0), jnp.nan)
