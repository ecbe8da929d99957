"""A pinhole camera: world in metres to pixels, and back along rays.

Camera frame: x right, y down, z forward (metres). Pixels: (x, y), pixel centres at integers, so
that the optical axis meets the picture at ((W - 1) / 2, (H - 1) / 2).
"""

from typing import NamedTuple

import numpy as np


class Camera(NamedTuple):
    """position_3: metres, world. axes_33: rows right, down, forward in the world. focal: px."""

    position_3: np.ndarray
    axes_33: np.ndarray
    focal: float
    size_wh: tuple[int, int]


def look_at(position_3, target_3, focal, size_wh, roll=0.0) -> Camera:
    """Aim a camera at a point of the world; roll in degrees turns the picture clockwise.

    Straight up or down there is no horizon to hold: the position must not be above the target.
    """
    position_3 = np.asarray(position_3, float)
    forward = np.asarray(target_3, float) - position_3
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    # The camera turned anticlockwise turns what it sees clockwise.
    axes = np.stack([cos * right - sin * down, sin * right + cos * down, forward])
    return Camera(position_3, axes, float(focal), (int(size_wh[0]), int(size_wh[1])))


def centre(size_wh) -> np.ndarray:
    """Return the pixel (x, y) on the optical axis."""
    return (np.asarray(size_wh, float) - 1) / 2


def to_camera(camera: Camera, points_n3) -> np.ndarray:
    """Return points (..., 3) of the world in the camera frame, metres."""
    return (np.asarray(points_n3, float) - camera.position_3) @ camera.axes_33.T


def project(camera: Camera, points_n3) -> tuple[np.ndarray, np.ndarray]:
    """Return px (..., 2) and depth along the optical axis (...,), metres, of points of the world.

    Points at or behind the camera have depth <= 0 and NaN as pixels.
    """
    own = to_camera(camera, points_n3)
    depth = own[..., 2]
    ahead = np.where(depth > 0, depth, np.nan)[..., None]
    return own[..., :2] / ahead * camera.focal + centre(camera.size_wh), depth


def rays(camera: Camera, pixels_n2) -> np.ndarray:
    """Return directions (..., 3) in the world through pixels; they advance 1 m in depth.

    position + t * ray is thus the point seen there at a depth of t metres.
    """
    flat = (np.asarray(pixels_n2, float) - centre(camera.size_wh)) / camera.focal
    own = np.concatenate([flat, np.ones_like(flat[..., :1])], -1)
    return own @ camera.axes_33
