"""Draws a small lab folder: pictures of stick people, their COCO labels, a subjects file."""

import csv
import json
import math
from pathlib import Path

import cv2
import numpy as np

from nkjax import skeleton as skeletons

COCO17 = skeletons.load("coco17")
# A person facing the camera, in units of height, x to the right; left is the person's left.
BODY = {
    "nose": (0, 0.1), "left_eye": (0.02, 0.08), "right_eye": (-0.02, 0.08),
    "left_ear": (0.045, 0.09), "right_ear": (-0.045, 0.09),
    "left_shoulder": (0.11, 0.24), "right_shoulder": (-0.11, 0.24),
    "left_elbow": (0.17, 0.38), "right_elbow": (-0.17, 0.38),
    "left_wrist": (0.19, 0.52), "right_wrist": (-0.19, 0.52),
    "left_hip": (0.07, 0.54), "right_hip": (-0.07, 0.54),
    "left_knee": (0.09, 0.74), "right_knee": (-0.09, 0.74),
    "left_ankle": (0.1, 0.94), "right_ankle": (-0.1, 0.94),
}  # fmt: skip


def person(rng, size_wh):
    """Return joints (17, 3) of a person somewhere in a picture: a few occluded or not labelled."""
    width, height = size_wh
    tall = min(height * rng.uniform(0.5, 0.9), 1.6 * width)
    middle, top = rng.uniform(0.3, 0.7) * width, rng.uniform(0.02, 0.08) * height
    points = np.array([BODY[name] for name in COCO17.keypoints]) * tall
    points += rng.normal(0, 0.01 * tall, points.shape) + [middle, top]
    v = rng.choice([2, 2, 2, 2, 1, 0], size=17)
    v[[5, 6, 11, 12]] = 2
    points = np.clip(points, 0, np.array(size_wh) - 1).round(2)
    points[v == 0] = 0
    return np.concatenate([points, v[:, None]], 1)


def box_around(joints_k3, size_wh, margin=0.1):
    """Return the box x, y, w, h around labelled joints, cut to the picture."""
    known = joints_k3[joints_k3[:, 2] > 0, :2]
    low, high = known.min(0), known.max(0)
    grown = margin * (high - low)
    low, high = np.maximum(low - grown, 0), np.minimum(high + grown, np.array(size_wh) - 1)
    return [round(float(v), 2) for v in (*low, *(high - low))]


def picture(rng, size_wh, people=()):
    """Draw people on a mottled background; RGB uint8."""
    width, height = size_wh
    small = rng.integers(40, 216, (math.ceil(height / 16), math.ceil(width / 16), 3), np.uint8)
    canvas = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    for joints in people:
        shown = joints[:, 2] > 0
        thick = max(2, height // 60)
        for a, b in COCO17.limbs:
            if shown[a] and shown[b]:
                ends = [tuple(int(round(v)) for v in joints[i, :2]) for i in (a, b)]
                cv2.line(canvas, *ends, (230, 180, 150), thick, cv2.LINE_AA)
    return canvas


def write_lab(folder, pictures=6, people=1, size_wh=(160, 120), seed=0, subjects=3) -> dict:
    """Write images/*.jpg, labels.json and subjects.csv below a folder; return the JSON's content.

    Picture i is of subject i % subjects. To plant faults, change the dict and write it again.
    """
    folder, rng = Path(folder), np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    data = {"images": [], "annotations": [], "categories": [category()]}
    rows = []
    for i in range(pictures):
        name = f"child{i % subjects}_{i:04d}.jpg"
        bodies = [person(rng, size_wh) for _ in range(people)]
        bgr = picture(rng, size_wh, bodies)[..., ::-1]
        cv2.imwrite(str(folder / "images" / name), bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])
        data["images"].append(
            {"id": i + 1, "file_name": name, "width": size_wh[0], "height": size_wh[1]}
        )
        for joints in bodies:
            box = box_around(joints, size_wh)
            data["annotations"].append({
                "id": len(data["annotations"]) + 1, "image_id": i + 1, "category_id": 1,
                "keypoints": [float(v) for v in joints.reshape(-1)],
                "num_keypoints": int((joints[:, 2] > 0).sum()),
                "bbox": box, "area": round(box[2] * box[3] * 0.53, 2), "iscrowd": 0,
            })  # fmt: skip
        rows.append([name, f"child{i % subjects}", "s1", "lab", 14 + 6 * (i % subjects), "walk"])
    (folder / "labels.json").write_text(json.dumps(data))
    with open(folder / "subjects.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "subject", "session", "site", "age_months", "posture"])
        writer.writerows(rows)
    return data


def category():
    """Return the COCO category of a person, with 1-based limbs as COCO has them."""
    return {
        "id": 1, "name": "person", "keypoints": list(COCO17.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in COCO17.limbs],
    }  # fmt: skip
