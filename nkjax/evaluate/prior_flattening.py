"""Does the prior bend toddlers who are right into poses it knows better? And adults' prior?

Step width and elbow elevation are measured in the picture, before and after: after one denoising,
and after gradient descent on L_dev with the step size that repairs broken poses. Source: notes
method 2.3, 2.5, 2.8; issue: 'Flattening'.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nkjax.evaluate import prior_denoising
from nkjax.kinematics import corruptions, limbs, scale
from nkjax.losses import developmental
from nkjax.losses.developmental import Developmental
from nkjax.prior import coordinates
from nkjax.prior.coordinates import Frame, Poses
from nkjax.prior.diffusion import PartPrior
from nkjax.prior.people import People

STEPS = 200
ENOUGH = 0.6  # of a forearm: what the step size must repair in STEPS
LEAST_RATE, MOST_RATE, HALVINGS = 0.0125, 3.2, 4  # step sizes that are tried
SURE, UNSURE = 0.9, 0.1  # confidence of joints that are right, and of one that is not
FACING, LONG = 0.6, 0.5  # of the usual width of hips, length of upper arms: seen well enough


class Held(NamedTuple):
    """How people hold themselves in the picture, NaN where it cannot be seen well enough.

    step_width_n: ankles apart along the line of the hips, in widths of the hips, of who stands
    facing the camera or turned away;
    elevation_na: of the two upper arms from hanging down, degrees, 90 level, 180 straight up.
    """

    step_width_n: np.ndarray
    elevation_na: np.ndarray


def who_shows(points_nk2, skeleton) -> Held:
    """Return masks of who shows step width and elevation (as `Held`), by their true points."""
    bones = [bone for bone in limbs.bones(skeleton) if bone.part == "body"]
    valid = np.isfinite(points_nk2).all(-1)
    logs = limbs.log_lengths(points_nk2.astype(np.float64), valid, tuple(bones))
    usual = scale.usual_lengths(logs)
    shares = np.exp(logs - usual[None] - np.asarray(scale.person_scale(logs, usual))[:, None])
    by_name = dict(zip([bone.name for bone in bones], shares.T, strict=True))
    upright = np.asarray(limbs.posture_cluster(points_nk2, valid, skeleton)) == 0
    at = limbs.named_joints(skeleton)
    ankles = valid[:, [at["left_ankle"], at["right_ankle"]]].all(1)
    arms = np.stack([by_name[f"{side}_upper_arm"] >= LONG for side in ("left", "right")], 1)
    return Held((by_name["hip_line"] >= FACING) & upright & ankles, arms)


def held(points_nk2, skeleton) -> Held:
    """Measure how people hold themselves; points px, NaN where not known."""
    at = limbs.named_joints(skeleton)

    def across(joint):
        return points_nk2[:, at[f"left_{joint}"]] - points_nk2[:, at[f"right_{joint}"]]

    hips = across("hip")
    width = np.abs((across("ankle") * hips).sum(-1)) / np.maximum(np.square(hips).sum(-1), 1e-6)
    arms = []
    for side in ("left", "right"):
        arm = points_nk2[:, at[f"{side}_elbow"]] - points_nk2[:, at[f"{side}_shoulder"]]
        arms.append(np.degrees(np.arctan2(np.abs(arm[:, 0]), arm[:, 1])))
    return Held(width, np.stack(arms, 1))


def change(before_nk2, after_nk2, skeleton, seen: Held) -> dict:
    """Tell by how much people hold themselves otherwise: shares and degrees, of those who show it.

    step_width: mean |change| over the mean, kept: mean after over mean before; elevation: mean
    |change| in degrees, its signed mean, and numbers of people and arms.
    """
    then, now = held(before_nk2, skeleton), held(after_nk2, skeleton)
    width, arms = seen.step_width_n, seen.elevation_na
    known = width & np.isfinite(then.step_width_n)
    moved = now.elevation_na - then.elevation_na
    wider = now.step_width_n - then.step_width_n
    return {
        "step_width": _ratio(np.abs(wider), then.step_width_n, known),
        "kept": _ratio(now.step_width_n, then.step_width_n, known),
        "elevation": float(np.abs(moved)[arms].mean()),
        "elevation_signed": float(moved[arms].mean()),
        "people": int(known.sum()),
        "arms": int(arms.sum()),
    }


def _ratio(part_n, whole_n, known_n) -> float:
    return float(part_n[known_n].mean() / whole_n[known_n].mean())


def one_step(prior: PartPrior, poses: Poses, points_nk2, skeleton, ratio: float) -> dict:
    """Tell what one denoising changes in how people hold themselves, as `change`."""
    true = prior_denoising.in_units(prior, poses)
    at = coordinates.frame(prior.part, prior.units, *poses[:3])
    clean = coordinates.restore(prior_denoising.mean_denoised(prior, true, ratio), at, prior.units)
    after = _put_back(points_nk2, prior, np.asarray(clean), poses.valid_bj)
    return change(points_nk2, after, skeleton, who_shows(points_nk2, skeleton))


def _put_back(points_nk2, prior: PartPrior, of_part_bj2, valid_bj):
    points = np.array(points_nk2)
    joints = list(prior.part.joints)
    points[:, joints] = np.where(valid_bj[..., None], of_part_bj2, points[:, joints])
    return points


def descend(
    prior: PartPrior, poses: Poses, sure_bj, limit: float, settings: Developmental, rate: float,
    steps: int = STEPS,
) -> np.ndarray:  # fmt: skip
    """Return points px (B, J, 2) after gradient descent on L_dev alone, from where they are.

    sure_bj: confidence; the views agree for everybody. The step is `rate` times the gradient, all
    in data units of the first frame and of each person's own loss: the coordinates that a network
    would be pushed to.
    """
    at = coordinates.frame(prior.part, prior.units, *poses[:3])
    u = coordinates.normalise(poses.points_bj2, poses.valid_bj, at, prior.units)
    arrays = tuple(jnp.asarray(x) for x in (poses.valid_bj, poses.diagonal_b, poses.context_bc))
    u = _descend(prior, u, at, arrays, jnp.asarray(sure_bj), limit, settings, rate, steps)
    points = np.asarray(coordinates.restore(u, Frame(*at), prior.units))
    return np.where(np.asarray(poses.valid_bj)[..., None], points, np.nan)


@jax.jit(static_argnames="settings")
def _descend(prior, u, at, arrays, sure_bj, limit, settings, rate, steps):
    valid, diagonal, context = arrays
    agree = jnp.ones(len(u), bool)

    def loss(u, key):
        points = coordinates.restore(u, at, prior.units)
        value, _ = developmental.developmental(
            points, points, sure_bj, valid, diagonal, agree, context, prior, limit, key, settings
        )
        return value * len(u)  # the loss is a mean over people; each has a step of its own

    def step(i, u):
        return u - rate * jax.grad(loss)(u, jax.random.fold_in(jax.random.key(0), i))

    return jax.lax.fori_loop(0, steps, step, u)


def repair(
    prior: PartPrior, poses: Poses, points_nk2, skeleton, limit: float, settings: Developmental
) -> tuple[float, Callable]:
    """Return how many forearms there are to repair, and rate -> repaired share after STEPS.

    Common poses with a forearm made 1.8 times as long, whose wrist the picture is not sure of.
    """
    stretched = corruptions.stretched_bone(points_nk2, skeleton, 0, ("forearm",))
    who, joints = stretched.usable_n, list(prior.part.joints)
    wrong = stretched.points_nk2[who][:, joints]
    moved = stretched.moved_nk[who][:, joints]
    of_who = Poses(*(np.asarray(x)[who] for x in poses))._replace(points_bj2=wrong)
    sure = np.where(moved, UNSURE, SURE).astype(np.float32)
    true = np.asarray(poses.points_bj2)[who]
    ends = prior_denoising.forearms_of(prior, skeleton)
    elbows, wrists = ends[np.where(moved[:, ends[0, 1]], 0, 1)].T

    def length(points):
        everybody = np.arange(len(points))
        return np.linalg.norm(points[everybody, wrists] - points[everybody, elbows], axis=-1)

    def share(rate):
        after = descend(prior, of_who, sure, limit, settings, rate)
        off, was = np.abs(length(after) - length(true)), np.abs(length(wrong) - length(true))
        return float((1 - off / was).mean())

    return int(who.sum()), share


def least_rate(share: Callable[[float], float]) -> dict[float, float]:
    """Return the step sizes tried, with the share that each repaired; the last is the one to take.

    The smallest that repairs ENOUGH, to 5 %: doubled until it does, then halved in between. Where
    none does, the last is the largest.
    """
    tried, rate = {}, LEAST_RATE
    while rate <= MOST_RATE:
        tried[rate] = share(rate)
        if tried[rate] >= ENOUGH:
            break
        rate *= 2
    low, high = rate / 2, rate
    for _ in range(HALVINGS if tried[max(tried)] >= ENOUGH else 0):
        middle = (low * high) ** 0.5
        tried[middle] = share(middle)
        low, high = (low, middle) if tried[middle] >= ENOUGH else (middle, high)
    return tried | {high: tried.pop(high)} if high in tried else tried


def after_descent(
    prior: PartPrior, poses: Poses, people: People, skeleton, limit: float,
    settings: Developmental, rate: float,
) -> dict:  # fmt: skip
    """Tell what STEPS of descent on L_dev change in people who are right, as `change`.

    The picture is sure of every joint, and the views agree. Also 'abstained', the share of people
    that the loss abstains for where they are at first.
    """
    sure = np.full(poses.valid_bj.shape, SURE, np.float32)
    after = descend(prior, poses, sure, limit, settings, rate)
    points = _put_back(people.points_nk2, prior, after, poses.valid_bj)
    u = prior_denoising.in_units(prior, poses)
    pull = developmental.residual(prior, u.u_bj2, u.valid_bj, u.context_bc)
    found = change(people.points_nk2, points, skeleton, who_shows(people.points_nk2, skeleton))
    return found | {"abstained": float((np.asarray(pull) > limit).mean())}
