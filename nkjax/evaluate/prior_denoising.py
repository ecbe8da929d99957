"""What a prior does to poses it never saw: denoise, repair, complete, beside a Gaussian.

Poses of held-out people go in, plain numbers come out. Lengths and distances are data units, as
noise ratios are; the Gaussian that the prior starts from is "mean and covariance alone". Source:
notes method 2.3, 2.8; chapter 7, row 1.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nkjax.evaluate import bootstrap
from nkjax.kinematics import corruptions, limbs
from nkjax.prior import coordinates, diffusion, gaussian, refine
from nkjax.prior.coordinates import Poses
from nkjax.prior.diffusion import Given, PartPrior

RATIOS = (0.03, 0.06, 0.1, 0.2, 0.4, 0.8)
DRAWS = 8
SHIFT = 0.5  # data units that an ankle is moved by
HIDDEN = ("wrist", "elbow", "ankle")
BOOTSTRAP = 1000
SAMPLES, SAMPLE_STEPS = 32, 5


class Units(NamedTuple):
    """Poses of one part in data units: u (B, J, 2), which joints there are, what is known."""

    u_bj2: np.ndarray
    valid_bj: np.ndarray
    context_bc: np.ndarray


def in_units(prior: PartPrior, poses: Poses, frames_of: Poses | None = None) -> Units:
    """Return poses in data units; in the frames of other poses of the same people, if given."""
    of = frames_of or poses
    at = coordinates.frame(prior.part, prior.units, of.points_bj2, of.valid_bj, of.diagonal_b)
    u = coordinates.normalise(poses.points_bj2, poses.valid_bj, at, prior.units)
    return Units(np.asarray(u), np.asarray(poses.valid_bj), np.asarray(poses.context_bc))


def mean_denoised(prior: PartPrior, poses: Units, ratio: float, seed: int = 0) -> np.ndarray:
    """Return the mean of DRAWS one-step estimates of poses, (B, J, 2)."""
    given = diffusion.nothing_observed(poses.valid_bj, poses.context_bc)
    noise = refine.antithetic(jax.random.key(seed), DRAWS, poses.u_bj2.shape)
    ratios = jnp.full(DRAWS, ratio)
    return np.asarray(_mean_denoised(prior, jnp.asarray(poses.u_bj2), given, ratios, noise))


@jax.jit
def _mean_denoised(prior, u, given, ratios, noise):
    return refine.denoised(prior, u, given, ratios, noise).mean(0)


def gain(prior: PartPrior, poses: Units, ratio: float, seed: int = 0) -> dict:
    """Tell the error of removing noise from poses: RMS per coordinate of valid joints.

    {'identity', 'gaussian', 'prior', 'n'}: of leaving them, of the Gaussian's best estimate, of one
    step of the prior.
    """
    u, valid = jnp.asarray(poses.u_bj2), poses.valid_bj
    noise = jax.random.normal(jax.random.key(seed), u.shape)
    given = diffusion.nothing_observed(valid, poses.context_bc)
    estimate = _mean_denoised(prior, u, given, jnp.full(1, ratio), noise[None])
    step = jnp.full(len(u), diffusion.level(ratio))
    linear, _ = gaussian.posterior(
        prior.gaussian, diffusion.noised(u, step, noise), diffusion.ALPHA[step],
        diffusion.SIGMA[step], given.valid_bj, given.values_bj2, given.observed_bj,
    )  # fmt: skip
    found = {"identity": u + ratio * noise, "gaussian": linear, "prior": estimate}
    errors = {name: float(_rms(np.asarray(x - u)[valid])) for name, x in found.items()}
    return errors | {"n": len(u)}


def table(prior: PartPrior, poses: Poses, people_points_nk2, skeleton) -> list[dict]:
    """Return the table of notes method 2.3 for bodies: a row per noise ratio.

    moved: mean distance that a true joint is moved; forearm: repaired share of a forearm made 1.8
    times as long (of those that then are too long: corruptions.stretched_bone), |length error|
    after against before; ankle: repaired share of an ankle moved by SHIFT, along the shift;
    variance: kept by denoising. people_points_nk2: of the whole skeleton, as poses were taken from.
    """
    forearms = _forearms(prior, poses, people_points_nk2, skeleton)
    ankle = _places(prior, skeleton)["left_ankle"]
    true = in_units(prior, poses)
    shifted, direction = _shifted(true, ankle)
    rows = []
    for ratio in RATIOS:
        clean = mean_denoised(prior, true, ratio)
        known = true.valid_bj
        moved = np.linalg.norm(clean - true.u_bj2, axis=-1)[known].mean()
        back = (shifted.u_bj2 - mean_denoised(prior, shifted, ratio))[:, ankle]
        back = (back * direction).sum(-1)
        rows.append({
            "ratio": ratio,
            "moved": float(moved),
            "forearm": _repaired(prior, *forearms, ratio),
            "ankle": float((back / SHIFT)[known[:, ankle]].mean()),
            "variance": _variance(clean, known) / _variance(true.u_bj2, known),
        })  # fmt: skip
    return rows


def repaired_forearms(prior: PartPrior, poses: Poses, people_points_nk2, skeleton, ratio) -> float:
    """Return the repaired share of forearms made 1.8 times as long, as `table` has it."""
    forearms = _forearms(prior, poses, people_points_nk2, skeleton)
    return _repaired(prior, *forearms, ratio)


def forearms_of(prior: PartPrior, skeleton) -> np.ndarray:
    """Return elbow and wrist of the left and of the right arm, as joints of the part (2, 2)."""
    at = _places(prior, skeleton)
    return np.array([[at[f"{side}_{j}"] for j in ("elbow", "wrist")] for side in limbs.SIDES])


def _places(prior, skeleton):
    """Return the named joints of a body as joints of its part."""
    named = limbs.named_joints(skeleton).items()
    return {name: prior.part.joints.index(joint) for name, joint in named if joint is not None}


def _forearms(prior, poses: Poses, points_nk2, skeleton):
    """Return stretched and true poses in data units, of who has one, and its two joints (B, 2)."""
    stretched = corruptions.stretched_bone(points_nk2, skeleton, 0, ("forearm",))
    points = stretched.points_nk2[:, list(prior.part.joints)]
    valid = np.isfinite(points).all(-1)
    moved = stretched.moved_nk[:, list(prior.part.joints)]
    pairs = forearms_of(prior, skeleton)
    # Hands are no joints of the body: of the moved ones the wrist tells the side.
    side = np.where(moved[:, pairs[0, 1]], 0, 1)
    who = stretched.usable_n
    wrong = poses._replace(points_bj2=points, valid_bj=valid)
    chosen = [Poses(*(np.asarray(x)[who] for x in each)) for each in (wrong, poses)]
    return in_units(prior, chosen[0]), in_units(prior, chosen[1], chosen[0]), pairs[side[who]]


def _repaired(prior, wrong: Units, true: Units, ends_b2, ratio) -> float:
    clean = mean_denoised(prior, wrong, ratio)
    before, after, wanted = (_length(u, ends_b2) for u in (wrong.u_bj2, clean, true.u_bj2))
    return float((1 - np.abs(after - wanted) / np.abs(before - wanted)).mean())


def _length(u_bj2, ends_b2):
    everybody = np.arange(len(u_bj2))
    first, second = (u_bj2[everybody, ends_b2[:, end]] for end in (0, 1))
    return np.linalg.norm(second - first, axis=-1)


def _shifted(true: Units, joint):
    turn = np.random.default_rng(0).uniform(0, 2 * np.pi, len(true.u_bj2))
    direction = np.stack([np.cos(turn), np.sin(turn)], 1).astype(np.float32)
    u = true.u_bj2.copy()
    u[:, joint] += SHIFT * direction
    return true._replace(u_bj2=u), direction


def _variance(u_bj2, valid_bj) -> float:
    return float(np.nanvar(np.where(valid_bj[..., None], u_bj2, np.nan), 0).sum())


def completion(prior: PartPrior, poses: Poses, subject_b, skeleton) -> dict:
    """Hide one joint after the other, and tell the mean error of finding it again, data units.

    {'left_wrist': {'prior', 'sampled', 'gaussian', 'mean', 'spread', 'interval', 'n'}}: by
    `refine.complete`, by the same walk of the Gaussian alone, by its regression, and by the mean of
    the people fitted on; spread as the prior says it; interval: of 'gaussian' less 'prior', 95 %,
    subjects drawn. A foot is hidden with its ankle. Of those whose joint is labelled, in the frame
    of what is not hidden: the scale of all joints would give it away.
    """
    complete = jax.jit(lambda prior, given: refine.complete(
        jax.random.key(0), prior, given, SAMPLES, SAMPLE_STEPS))  # fmt: skip
    silent = dataclasses.replace(prior, params=prior.params | {
        "out": jax.tree.map(jnp.zeros_like, prior.params["out"])})  # fmt: skip
    means = np.asarray(prior.gaussian.mean_d).reshape(-1, 2)
    places, found = _places(prior, skeleton), {}
    for name in (f"{side}_{joint}" for joint in HIDDEN for side in limbs.SIDES):
        if name not in places or not poses.valid_bj[:, places[name]].any():
            continue
        joint = places[name]
        u, given = hide(prior, poses, joint, skeleton)
        (chosen, spread), (drawn, _) = (complete(each, given) for each in (prior, silent))
        step = np.full(len(u), diffusion.STEPS)
        linear, _ = gaussian.posterior(
            prior.gaussian, np.zeros_like(u), diffusion.ALPHA[step], diffusion.SIGMA[step],
            given.valid_bj, given.values_bj2, given.observed_bj,
        )  # fmt: skip
        guesses = {
            "prior": np.asarray(chosen)[:, joint],
            "sampled": np.asarray(drawn)[:, joint],
            "gaussian": np.asarray(linear)[:, joint],
            "mean": means[joint][None],
        }
        away = {who: np.linalg.norm(x - u[:, joint], axis=-1) for who, x in guesses.items()}
        errors = {who: float(distance.mean()) for who, distance in away.items()}
        votes = [{"error": away[who][:, None]} for who in ("gaussian", "prior")]
        shown = np.asarray(subject_b)[poses.valid_bj[:, joint]]
        (interval,) = bootstrap.intervals(votes, shown, 0, BOOTSTRAP, 0.95).values()
        found[name] = errors | {
            "spread": float(np.asarray(spread)[:, joint].mean()), "interval": interval, "n": len(u),
        }  # fmt: skip
    return found


def hide(prior: PartPrior, poses: Poses, joint: int, skeleton) -> tuple[np.ndarray, Given]:
    """Return the poses of those who show a joint, and what of them is observed without it.

    As `hiding`; without what hangs on it, too: a foot would give its ankle away.
    """
    hidden = np.zeros(poses.valid_bj.shape[1], bool)
    hidden[joint] = True
    whole = prior.part.joints[joint]
    for bone in limbs.bones(skeleton):
        if bone.part == "foot" and bone.a == whole:
            hidden[prior.part.joints.index(bone.b)] = True
    shown = Poses(*(np.asarray(array)[poses.valid_bj[:, joint]] for array in poses))
    return hiding(prior, shown, np.broadcast_to(hidden, shown.valid_bj.shape))


def hiding(prior: PartPrior, poses: Poses, hidden_bj) -> tuple[np.ndarray, Given]:
    """Return poses in data units (B, J, 2), and what of them is observed where joints are hidden.

    In the frame of what is observed, as the scale of all joints would give a hidden one away.
    """
    seen = poses.valid_bj & ~hidden_bj
    true = in_units(prior, poses, poses._replace(valid_bj=seen))
    # What is hidden is not handed over: its place is NaN.
    values = np.where(seen[..., None], true.u_bj2, np.float32(np.nan))
    return true.u_bj2, Given(true.valid_bj, seen, values, true.context_bc)


def _rms(x) -> float:
    return float(np.sqrt(np.square(x).mean()))
