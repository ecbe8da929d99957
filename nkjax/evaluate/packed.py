"""Keypoints of the people of a packed split, by a network spread over a mesh.

Every process reads its own share of the pictures, and all of them have all the results.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nkjax import sharding
from nkjax.data import augment, crops, streams
from nkjax.data.samples import Look
from nkjax.data.streams import Stream
from nkjax.evaluate.scores import Found
from nkjax.geometry import affine
from nkjax.models.sapiens import Spec

# What reading a row raises: BadData and BadImage are ValueErrors, array_record has the others.
UNREADABLE = (ValueError, RuntimeError, OSError)


class Keypoints(NamedTuple):
    """Keypoints of N rows in their order; points: picture px; read: False where a row failed."""

    points_nk2: np.ndarray
    scores_nk: np.ndarray
    read_n: np.ndarray


def compile_network(spec: Spec, params, mesh: Mesh, batch: int, forward: Callable) -> Callable:
    """Compile (params, {'image', 'index', 'valid'}) -> (points, scores, index, valid) for a mesh.

    params: arrays or ShapeDtypeStructs with shardings; batch: people over all devices; forward: as
    of `topdown.make_forward`; crops are RGB uint8 of spec.image_size. The results are on every
    device. Raises ValueError where the devices cannot share the batch.
    """
    if batch % mesh.size:
        raise ValueError(
            f"a batch of {batch} people for {mesh.size} devices: evaluation needs a multiple"
        )

    def network(params, people):
        return *forward(params, people["image"]), people["index"], people["valid"]

    over_all = sharding.batch_sharding(mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())
    shapes = {
        "image": jax.ShapeDtypeStruct((batch, *spec.image_size, 3), jnp.uint8),
        "index": jax.ShapeDtypeStruct((batch,), jnp.uint32),
        "valid": jax.ShapeDtypeStruct((batch,), jnp.bool),
    }
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    with jax.set_mesh(mesh):
        jitted = jax.jit(network, in_shardings=(shardings, over_all), out_shardings=everywhere)
        return jitted.lower(params, shapes).compile()


def find(
    network: Callable,
    params,
    rows: Sequence,
    spec: Spec,
    mesh: Mesh,
    batch: int,
    threads: int,
    tick: Callable[[int], None] = lambda people: None,
) -> Keypoints:
    """Find the keypoints of every row, given its box; the same on every process.

    network: as of `compile_network`, for this batch; rows: `records.Rows` or what reads like it;
    tick: told how many people are done.
    """
    height, width = spec.image_size
    count, joints = len(rows), spec.head.outputs
    points, scores = np.zeros((count, joints, 2)), np.zeros((count, joints))
    read = np.zeros(count, bool)
    stream = Stream(rows, Look((width, height), (("whole", augment.PLAIN),)), batch)
    batches = streams.finite(
        stream, process=jax.process_index(), processes=jax.process_count(), threads=threads
    )
    for batch_of_people in batches:
        shared = sharding.share(
            {
                "image": batch_of_people["views"]["whole"]["image"],
                "index": batch_of_people["index"],
                "valid": batch_of_people["valid"],
            },
            mesh,
        )
        points_bk2, scores_bk, index, valid = jax.device_get(network(params, shared))
        filled = index < count  # the last batch is filled up
        at = index[filled]
        points[at], scores[at], read[at] = points_bk2[filled], scores_bk[filled], valid[filled]
        tick(int(filled.sum()))
    for i, who in enumerate(people(rows)):
        read[i] &= who is not None
        if not read[i]:
            continue
        center, scale = _crop(who, width, height)
        points[i] = affine.crop_to_picture(points[i], center, scale, (width, height))
    return Keypoints(points, scores, read)


def people(rows: Sequence) -> list[dict | None]:
    """Return the fields of every row but the picture, None where the record cannot be read."""
    return [_person(rows, i) for i in range(len(rows))]


def _person(rows, i):
    try:
        return rows.person(i)
    except UNREADABLE:
        return None


def found(rows: Sequence, keypoints: Keypoints, spec: Spec) -> Found:
    """Put what was found beside what was labelled; rows that could not be read are left out."""
    height, width = spec.image_size
    pairs = zip(people(rows), keypoints.read_n, strict=True)
    known = {i: person for i, (person, read) in enumerate(pairs) if person and read}
    kept, everybody = np.array(list(known), int), tuple(known.values())
    labels = np.array([person["keypoints"] for person in everybody], np.float64)
    labels = labels.reshape(len(kept), spec.head.outputs, 3)
    crop_px = [width / _crop(person, width, height)[1][0] for person in everybody]
    return Found(
        points_nk2=keypoints.points_nk2[kept],
        scores_nk=keypoints.scores_nk[kept],
        truth_nk2=labels[..., :2],
        visible_nk=labels[..., 2].astype(np.int8),
        box_n4=np.array([person["box"] for person in everybody], np.float64).reshape(-1, 4),
        box_score_n=np.array([person["box_score"] for person in everybody], np.float64),
        area_n=np.array([person["area"] for person in everybody], np.float64),
        people=everybody,
        crop_px_n=np.array(crop_px, np.float64),
    )


def _crop(person, width, height):
    return crops.center_scale(person["box"], width / height, crops.BODY_PADDING)
