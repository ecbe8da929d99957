"""The labelled poses that a developmental prior learns from, in memory, and batches of them.

In flows a packed folder, out {part: {points (B, J, 2) px, valid (B, J), diagonal (B,) px, context
(B, C), index (B,) uint32}} for every step; points are NaN where not valid. The order is that of
position = step x batch alone, so resume is exact on any number of processes. Source: notes method
2.1, 2.2.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from nkjax.data import records
from nkjax.data.records import BadData, Rows
from nkjax.data.streams import stream_seed
from nkjax.models import denoiser
from nkjax.prior import coordinates, gaussian
from nkjax.prior import people as peoples
from nkjax.prior.coordinates import CONTEXT, Part, Poses, Units
from nkjax.prior.diffusion import PartPrior
from nkjax.prior.people import People
from nkjax.prior_config import PriorConfig
from nkjax.skeleton import Skeleton
from nkjax.train.begin import BadStart


class Start(NamedTuple):
    """What a fit starts from.

    parts: what each part is, without parameters; learning, calibrating: people, of different
    subjects; train, val: their poses by part; weights, parent: {}, as nothing comes before a prior.
    """

    skeleton: Skeleton
    parts: dict[str, PartPrior]
    learning: People
    calibrating: People
    train: dict[str, Poses]
    val: dict[str, Poses]
    data_sha256: str
    weights: dict
    parent: dict


def begin(config: PriorConfig) -> Start:
    """Read the labelled people of the train split and divide them by subject.

    Raises BadStart, BadData or BadSkeleton, each in one line.
    """
    if not config.data:
        raise BadStart("data is '': name the folder that pack_data.py made, --data=DATA")
    manifest = records.read_manifest(config.data)
    people = peoples.read(Rows(manifest, "train"))
    held = peoples.held_out(people.subject_n, config.calibration, config.seed)
    if not len(held):
        raise BadData(f"{config.data}: no labelled people in train to learn from; pack more")
    if held.all():  # of a single subject, or few
        held = ~held
    learning, calibrating = people.chosen(~held), people.chosen(held)
    parts, train, val = {}, {}, {}
    for name, part in coordinates.parts(manifest.skeleton).items():
        poses, _ = coordinates.take(part, learning, manifest.skeleton)
        if not len(poses.points_bj2):  # a skeleton with hands, but nobody labelled any
            continue
        units = coordinates.fit_units(part, poses)
        network = denoiser.Spec(len(part.joints), CONTEXT, config.width, config.depth, config.heads)
        if config.control == "shuffled":
            poses = shuffled(part, units, poses, stream_seed(config.seed, f"shuffled {name}"))
        at = coordinates.frame(part, units, *poses[:3])
        u = coordinates.normalise(poses.points_bj2, poses.valid_bj, at, units)
        parts[name] = PartPrior(part, units, network, gaussian.fit(u, poses.valid_bj), {})
        train[name] = poses
        val[name], _ = coordinates.take(part, calibrating, manifest.skeleton)
    return Start(
        manifest.skeleton, parts, learning, calibrating, train, val, manifest.sha256, {}, {}
    )


def shuffled(part: Part, units: Units, poses: Poses, seed: int) -> Poses:
    """Return poses each of whose joints comes from another person, drawn for every joint anew.

    Joints keep their own distribution, about the root and in radii; what they have to do with each
    other is lost.
    """
    valid = poses.valid_bj
    at = coordinates.frame(part, units, *poses[:3])
    u_bj2 = np.array(coordinates.normalise(poses.points_bj2, valid, at, units))
    draw = np.random.default_rng(seed)
    for joint in range(u_bj2.shape[1]):
        whose = np.flatnonzero(valid[:, joint])
        u_bj2[whose, joint] = u_bj2[draw.permutation(whose), joint]
    points = np.asarray(coordinates.restore(u_bj2, at, units))
    return poses._replace(points_bj2=np.where(valid[..., None], points, np.nan))


def order(count: int, seed: int, positions: np.ndarray) -> np.ndarray:
    """Return who stands at these positions of an endless order: shuffled anew every time round.

    So any process finds its part of any batch from the position alone.
    """
    rounds, places = np.divmod(positions, count)
    found = np.empty(len(positions), int)
    for number in np.unique(rounds):
        here = rounds == number
        found[here] = _permutation(count, seed, int(number))[places[here]]
    return found


@functools.lru_cache(8)
def _permutation(count, seed, number):
    return np.random.default_rng((seed, number)).permutation(count)


def batches(start: Start, config: PriorConfig, step: int) -> Iterator[dict]:
    """Yield this process's part of every batch from a step on, for ever.

    Bodies and hands go round in orders of their own.
    """
    while True:
        first, end = step * config.batch, (step + 1) * config.batch
        positions = np.arange(first + jax.process_index(), end, jax.process_count())
        batch = {}
        for name, poses in start.train.items():
            numbers = order(len(poses.valid_bj), stream_seed(config.seed, name), positions)
            batch[name] = _rows(poses, numbers) | {"index": positions.astype(np.uint32)}
        yield batch
        step += 1


def _rows(poses: Poses, numbers) -> dict:
    return {
        "points": poses.points_bj2[numbers].astype(np.float32),
        "valid": poses.valid_bj[numbers],
        "diagonal": poses.diagonal_b[numbers].astype(np.float32),
        "context": poses.context_bc[numbers].astype(np.float32),
    }


def finite(poses: Poses, count: int) -> Iterator[dict]:
    """Yield this process's part of all poses, once and in order; the last batch has empty rows."""
    everybody = len(poses.valid_bj)
    for first in range(0, everybody, count):
        positions = np.arange(first + jax.process_index(), first + count, jax.process_count())
        rows = _rows(poses, np.minimum(positions, everybody - 1))
        rows["valid"] = rows["valid"] & (positions < everybody)[:, None]
        yield rows | {"index": positions.astype(np.uint32)}
