"""The labelled people of a packed split as arrays, pictures left aside: what a prior learns from.

A joint that nobody labelled is NaN here, so that nothing can take its (0, 0) for a place.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class People(NamedTuple):
    """N people of K joints.

    points_nk2: float32 px of the upright picture, NaN where not labelled; visible_nk: int8 0 not
    labelled, 1 occluded, 2 visible; diagonal_n: of the person's box, px; age_n: months, NaN where
    unknown; the rest texts, subjects and ids salted, '' where unknown.
    """

    points_nk2: np.ndarray
    visible_nk: np.ndarray
    diagonal_n: np.ndarray
    age_n: np.ndarray
    subject_n: np.ndarray
    posture_n: np.ndarray
    grasp_n: np.ndarray
    person_n: np.ndarray

    def chosen(self, which) -> "People":
        """Return some of the people, by mask or by numbers."""
        return People(*(array[which] for array in self))


def read(
    rows, progress: Callable[[Iterable, int], Iterable] = lambda numbers, total: numbers
) -> People:
    """Read the people of `records.Rows` with at least one labelled joint, in their order.

    Opens no picture. progress(iterable, total) shows how far it is.
    """
    found = [rows.person(number) for number in progress(range(len(rows)), len(rows))]
    found = [person for person in found if (person["keypoints"][:, 2] > 0).any()]
    return gather(found, len(rows.manifest.skeleton.keypoints))


def gather(persons: Sequence[Mapping], joints: int = -1) -> People:
    """Return people from the fields of `Rows.person`; joints: K, where there may be nobody."""
    keypoints = np.array([person["keypoints"] for person in persons], np.float32)
    keypoints = keypoints.reshape(len(persons), joints, 3)
    boxes = np.array([person["box"] for person in persons], np.float32).reshape(-1, 4)
    texts = (
        np.array([person[name] for person in persons], str)
        for name in ("subject", "posture", "grasp", "person_id")
    )
    return People(
        np.where(keypoints[:, :, 2:] > 0, keypoints[:, :, :2], np.nan).astype(np.float32),
        keypoints[:, :, 2].astype(np.int8),
        np.hypot(boxes[:, 2], boxes[:, 3]),
        np.array([person["age_months"] for person in persons], np.float32),
        *texts,
    )


def held_out(subject_n: Sequence[str], share: float, seed: int) -> np.ndarray:
    """Choose the people whose subjects calibrate: a mask (N,), all of a subject or none of it.

    Each subject is drawn by (seed, its name) alone, so that no other child changes where it is;
    who has no subject ('') never calibrates.
    """
    chosen = {
        subject: int.from_bytes(hashlib.sha256(f"{seed}:{subject}".encode()).digest()[:8], "big")
        < share * 2**64
        for subject in set(subject_n)
    }
    return np.array([bool(subject) and chosen[subject] for subject in subject_n], bool)
