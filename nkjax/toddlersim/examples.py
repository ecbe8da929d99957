"""What one picture of the simulated world is: pixels, labels and truth."""

from typing import NamedTuple

import numpy as np

from nkjax.toddlersim.camera import Camera

DOMAINS = ("adult", "toddler", "atypical")
ROLES = ("labelled", "unlabelled", "test")


class Maps(NamedTuple):
    """What each pixel centre sees. depth_hw: metres along the optical axis, float32.

    normals_hw3: unit, of the surface, in the camera frame (x right, y down, z forward), float32;
    a surface that faces the camera has z near -1. parts_hw: index into solids.PARTS, uint8.
    people_hw: solids.NOBODY, solids.TARGET or from 2 on somebody else, uint8.
    """

    depth_hw: np.ndarray
    normals_hw3: np.ndarray
    parts_hw: np.ndarray
    people_hw: np.ndarray


class Labels(NamedTuple):
    """Who and what a picture is of; index counts within domain and role.

    grasp: of the hand that holds something, 'none' where nothing is held; 'persistent_palmar' is a
    hand that stays closed beside the bead it reaches for.
    """

    domain: str
    role: str
    index: int
    subject: str
    session: str
    site: str
    age_months: float
    posture: str
    grasp: str


class Example(NamedTuple):
    """One picture. image_hw3: RGB uint8 as a camera gave it (blur, noise), not yet JPEG.

    keypoints_k3: (K, 3) x, y (px of the picture) and v (2 seen, 1 hidden, 0 outside the picture,
    then x = y = 0), in the order of world.SKELETON. joints_k3: (K, 3) metres, camera frame, all of
    them wherever they are. ways_23: unit vectors, camera frame: where the target walks or faces,
    along the floor, and up. box_xywh: px, around the centres of the pixels where the target is seen
    and its labelled keypoints, so within (0, 0, W - 1, H - 1). other_boxes_n4: the same around what
    is seen of every other person of whom something is.
    """

    image_hw3: np.ndarray
    maps: Maps
    camera: Camera
    keypoints_k3: np.ndarray
    joints_k3: np.ndarray
    ways_23: np.ndarray
    box_xywh: np.ndarray
    other_boxes_n4: np.ndarray
    labels: Labels
