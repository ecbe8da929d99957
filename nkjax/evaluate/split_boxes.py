"""What a network makes of a packed split, in labelled boxes or in those of a detector."""

import math
import sys
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from nkjax.evaluate import detected, packed, topdown
from nkjax.evaluate.detected import Boxes, BoxRows
from nkjax.evaluate.packed import Keypoints
from nkjax.evaluate.scores import Found
from nkjax.models.sapiens import Spec
from nkjax.precision import Policy


class Predicted(NamedTuple):
    """What a network made of a split.

    found: the people that the measures are of, beside their labels; truth: all whose picture was
    read; by_box: what was predicted box by box, for labelled boxes `found` itself; person_ids:
    whose every box is, '' nobody's; unread: people whose picture could not be read; detector:
    counts of the boxes, {} for labelled ones.
    """

    found: Found
    truth: Found
    by_box: Found
    person_ids: tuple[str, ...]
    unread: int
    detector: dict


class Way(NamedTuple):
    """How to predict: spec and parameters on a mesh, dtype, people at a time, threads."""

    spec: Spec
    params: dict
    mesh: Mesh
    dtype: str
    flip_test: bool
    batch: int
    threads: int


def in_labelled_boxes(way: Way, rows) -> Predicted:
    """Find the joints of every row in its own box; progress goes to stderr."""
    keypoints = _find(way, rows)
    found = packed.found(rows, keypoints, way.spec)
    ids = tuple(who["person_id"] for who in found.people)
    return Predicted(found, found, found, ids, len(rows) - len(ids), {})


def in_detected_boxes(way: Way, rows, boxes: Boxes, readable) -> Predicted:
    """Find joints in every box of a detector, and whose box it is; progress goes to stderr.

    readable: ids of the pictures that can be read. Pictures of which the detector was not asked
    (`detected.read`) are left out.
    """
    of_boxes = BoxRows(rows, boxes.boxes)
    keypoints = _find(way, of_boxes)
    by_box = packed.found(of_boxes, keypoints, way.spec)
    pairs = zip(packed.people(of_boxes), keypoints.read_n, strict=True)
    failed = {who["picture_id"] for who, read in pairs if who and not read}
    here = [who and who["picture_id"] for who in packed.people(rows)]
    # Of whom the record cannot be read nobody knows the picture: they are unread, not unasked.
    asked = np.array([name is None or name in boxes.boxes for name in here])
    read = asked & [name in readable and name not in failed for name in here]
    shape = (len(here), way.spec.head.outputs)
    nothing = Keypoints(np.zeros((*shape, 2)), np.zeros(shape), read)
    truth = packed.found(rows, nothing, way.spec)
    matched = detected.match(truth, by_box)
    found = detected.of_people(truth, by_box, matched)
    ids = [""] * len(by_box.people)
    for person, box in enumerate(matched):
        if box >= 0:
            ids[box] = truth.people[person]["person_id"]
    counts = {
        "people": len(matched),
        "people_found": len(found.people),
        "recall": len(found.people) / len(matched) if len(matched) else math.nan,
        "same_box_iou": detected.SAME_BOX,
        "boxes": len(of_boxes),
        "boxes_of_nobody_labelled": ids.count(""),
        "not_used": boxes.counts,
    }
    return Predicted(found, truth, by_box, tuple(ids), int((asked & ~read).sum()), counts)


def _find(way: Way, rows) -> Keypoints:
    policy = Policy(compute=way.dtype)
    print(f"compiling for {way.mesh.size} device(s)", file=sys.stderr, flush=True)
    forward = topdown.make_forward(way.spec, policy, way.flip_test)
    network = packed.compile_network(way.spec, way.params, way.mesh, way.batch, forward)
    # Into a log file a line now and then; on a terminal one that moves.
    often = 0.1 if sys.stderr.isatty() else 30
    with tqdm(total=len(rows), unit="box", mininterval=often) as bar:
        return packed.find(
            network, way.params, rows, way.spec, way.mesh, way.batch, way.threads, bar.update
        )
