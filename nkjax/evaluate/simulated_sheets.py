"""Sheets of simulated pictures beside their truth: skeleton, depth, normals, parts.

Nobody in them is real, so that faces are shown: eyes and ears are to be looked at too.
"""

import numpy as np

from nkjax.evaluate import draw
from nkjax.evaluate.simulated import Picture
from nkjax.skeleton import Skeleton
from nkjax.toddlersim import solids
from nkjax.toddlersim.truth import Truth

GAP, CAPTION = 3, 14
PAPER_RGB, INK_RGB, OTHERS_RGB = (28, 28, 30), (235, 235, 235), (120, 120, 120)


def sheet(pictures, skeleton: Skeleton, columns: int = 6, cell_wh=(96, 128)) -> np.ndarray:
    """Draw pictures in a grid, each as four panels: skeleton, depth, normals, parts.

    Rings mark hidden joints (v = 1). Depth: near is bright, of people and things alike. Normals: x,
    y, z of the camera frame as red, green, blue. Parts: of the target in colours, others in grey.
    columns: of pictures; cell_wh: px of a panel. Returns (H, W, 3) uint8 RGB.
    """
    wide, high = 2 * cell_wh[0] + GAP, 2 * cell_wh[1] + CAPTION + GAP
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * high + GAP, columns * wide + GAP, 3), PAPER_RGB, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = GAP + i // columns * high, GAP + i % columns * wide
        panels = [skeleton_panel(picture, skeleton, cell_wh)]
        panels += [draw.resized(panel, cell_wh) for panel in
                   (depth_panel(picture.truth), normals_panel(picture.truth),
                    parts_panel(picture.truth))]  # fmt: skip
        for k, panel in enumerate(panels):
            y, x = top + k // 2 * cell_wh[1], left + k % 2 * cell_wh[0]
            canvas[y : y + panel.shape[0], x : x + panel.shape[1]] = panel
        grasp = "" if picture.grasp == "none" else f", {picture.grasp}"
        text = f"{picture.posture}{grasp}"
        draw.write_text(canvas, text, (left + 1, top + 2 * cell_wh[1] + 10), INK_RGB, 0.33)
    return canvas


def skeleton_panel(picture: Picture, skeleton: Skeleton, size_wh) -> np.ndarray:
    """Draw labelled joints over a picture of size_wh px; hidden ones as rings."""
    height, width = picture.image_hw3.shape[:2]
    canvas = np.ascontiguousarray(draw.resized(picture.image_hw3, size_wh))
    scale = np.array(canvas.shape[1::-1]) / (width, height)
    points = (picture.keypoints_k3[:, :2] + 0.5) * scale - 0.5
    v = picture.keypoints_k3[:, 2]
    draw.draw_skeleton(canvas, picture.box_xywh * scale[0], points, np.where(v > 0, 1.0, 0.0),
                       skeleton, hollow=np.flatnonzero(v == 1))  # fmt: skip
    return canvas


def depth_panel(truth: Truth) -> np.ndarray:
    """Return depth as grey levels, near bright; from the nearest to the farthest of all pixels."""
    near = 1 / np.maximum(truth.depth_hw, 1e-3)
    low, high = np.percentile(near, (1, 99.5))
    grey = np.clip((near - low) / max(high - low, 1e-9), 0, 1) * 255
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, -1)


def normals_panel(truth: Truth) -> np.ndarray:
    """Return normals as colours: components -1 to 1 as 0 to 255; z towards the camera is bright."""
    towards = truth.normals_hw3 * (1, 1, -1)
    return np.round((towards + 1) / 2 * 255).astype(np.uint8)


def parts_panel(truth: Truth) -> np.ndarray:
    """Return parts as colours, left ones reddish, right ones greenish; people beside it in grey."""
    palette = np.array([_part_rgb(name) for name in solids.PARTS], np.uint8)
    panel = palette[truth.parts_hw]
    panel[truth.people_hw > solids.TARGET] = OTHERS_RGB
    return panel


def _part_rgb(name) -> tuple[int, int, int]:
    shared = {"background": (50, 50, 50), "face_neck": (120, 190, 255), "hair": (90, 60, 170),
              "torso": (250, 220, 90), "upper_clothing": (240, 170, 40),
              "lower_clothing": (70, 110, 210), "lower_lip": (240, 60, 130),
              "upper_lip": (240, 60, 130), "apparel": (255, 255, 255)}  # fmt: skip
    if name in shared:
        return shared[name]
    side, _, part = name.partition("_")
    level = {"foot": 110, "shoe": 90, "sock": 130, "hand": 255, "lower_arm": 200, "upper_arm": 160,
             "lower_leg": 190, "upper_leg": 140}.get(part, 60)  # fmt: skip
    return (level, 40, 60) if side == "left" else (40, level, 60)
