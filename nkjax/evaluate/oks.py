"""Object keypoint similarity and COCO's average precision, by pycocotools.

OKS is the mean over a person's labelled joints of exp(-d^2 / (2 area (2 sigma)^2)), d the error in
px, area the person's in px^2. As mmpose's CocoMetric does by default, a detection's score is that
of its box times the mean of its good joints' scores, and near-identical detections count once.
Source: the reference's eval goldens, notes sapiens A8.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence

import numpy as np

from nkjax.data.crops import BODY_PADDING
from nkjax.evaluate.scores import Found
from nkjax.lab.rows import AREA_OF_BOX

GOOD_SCORE = 0.2
SAME = 0.9
# pycocotools takes a joint at NaN for a match. Farther from all pictures than people are large,
# but near enough for the area of the detection to be one that counts.
NOWHERE_PX = -9e4
NAMES = ("AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")


def similarity(truth_k3, box_xywh, area: float, points_nk2, sigmas) -> np.ndarray:
    """Return the OKS (N) of N predictions of a person, all in px of one picture.

    truth_k3: x, y, v; area: px^2. Of somebody without a labelled joint (a crowd) a joint's error is
    its distance from the box three times as large.
    """
    truth, points = np.asarray(truth_k3, np.float64), np.asarray(points_nk2, np.float64)
    labelled = truth[:, 2] > 0
    if labelled.any():
        away, sigmas = points[:, labelled] - truth[labelled, :2], np.asarray(sigmas)[labelled]
    else:
        low = np.array(box_xywh[:2]) - box_xywh[2:]
        high = np.array(box_xywh[:2]) + 2 * np.array(box_xywh[2:])
        away = np.maximum(low - points, 0) + np.maximum(points - high, 0)
    return _kernel(away, area, sigmas)


def detections(raw: Sequence[Mapping], sigmas, threshold: float = SAME) -> list[dict]:
    """Turn raw predictions into COCO results, near-identical ones of a picture counted once.

    raw: dicts of img_id, keypoints (K, 2) px, keypoint_scores (K), bbox_score and bbox_scale, width
    and height in px of the padded box. Each result has image_id, category_id 1, keypoints (x, y,
    score of each joint, flat), score and area (of the padded box). threshold: see `nms`; 1 keeps
    everything.
    """
    by_picture = {}
    for one in raw:
        scores = np.asarray(one["keypoint_scores"], np.float64)
        good = scores[scores > GOOD_SCORE]
        triples = np.column_stack([np.asarray(one["keypoints"], np.float64), scores])
        by_picture.setdefault(one["img_id"], []).append({
            "image_id": one["img_id"], "category_id": 1, "keypoints": triples.ravel().tolist(),
            "score": float(one["bbox_score"]) * (float(good.mean()) if len(good) else 0.0),
            "area": float(np.prod(one["bbox_scale"])),
        })  # fmt: skip
    return [kept for found in by_picture.values() for kept in nms(found, sigmas, threshold)]


def nms(found: Sequence[Mapping], sigmas, threshold: float = SAME) -> list[dict]:
    """Keep, best score first, the detections of a picture that are like no better one.

    Alike: an OKS above the threshold, with the mean of both areas. found: as `detections` has them.
    """
    order = list(np.argsort([-one["score"] for one in found], kind="stable"))
    points = [np.reshape(one["keypoints"], (-1, 3))[:, :2] for one in found]
    points = [np.where(np.isfinite(each), each, np.nan) for each in points]
    kept = []
    while order:
        best = order.pop(0)
        kept.append(found[best])
        order = [
            i for i in order
            if _kernel((points[i] - points[best])[None], _mean_area(found, i, best), sigmas)[0]
            <= threshold
        ]  # fmt: skip
    return kept


def average_precision(
    ground_truth: Mapping, detections: Sequence[Mapping], sigmas
) -> dict[str, float]:
    """Return COCO's figures by name (NAMES), NaN where no person of that size is labelled.

    ground_truth: COCO keypoint JSON with images and annotations of one category; detections: COCO
    results. Neither is changed; ids may be anything that is unique. Raises ValueError, in one line,
    for a detection on an unknown picture or another number of joints than sigmas.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    content, results = _canonical(ground_truth, detections, len(sigmas))
    # It prints tables nobody asked for.
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset, found.dataset = content, {**content, "annotations": []}
        truth.createIndex()
        found.createIndex()
        if results:
            found = truth.loadRes(results)
        evaluation = COCOeval(truth, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # -1 is its word for nobody.
    figures = [float(value) if value > -1 else float("nan") for value in evaluation.stats]
    return dict(zip(NAMES, figures, strict=True))


def from_found(
    found: Found, ignore_boxes: Mapping[str, Sequence], sizes: Mapping[str, tuple[int, int]]
) -> tuple[dict, list[dict]]:
    """Return packed people as COCO's ground truth, and what was predicted as `detections` wants it.

    ignore_boxes: regions (x, y, w, h) px by picture_id, which become crowds: what is found there
    counts neither way. sizes: width and height of every picture by picture_id. Somebody without a
    labelled joint is ignored, as COCO has it.
    """
    numbers = {name: i for i, name in enumerate(sizes, 1)}
    joints = found.visible_nk.shape[1]
    people, raw = [], []
    for i, who in enumerate(found.people):
        number = numbers[who["picture_id"]]
        seen = np.asarray(found.visible_nk[i])
        triples = np.column_stack([np.asarray(found.truth_nk2[i], np.float64), seen])
        triples[seen == 0] = 0
        people.append(_annotation(number, triples, found.box_n4[i], float(found.area_n[i]), 0))
        padded = np.asarray(found.box_n4[i], np.float64)[2:] * BODY_PADDING
        raw.append({
            "img_id": number, "keypoints": found.points_nk2[i],
            "keypoint_scores": found.scores_nk[i], "bbox_score": float(found.box_score_n[i]),
            "bbox_scale": padded,
        })  # fmt: skip
    nobody = np.zeros((joints, 3))
    crowds = [
        _annotation(numbers[name], nobody, box, float(box[2] * box[3]), 1)
        for name, boxes in ignore_boxes.items() for box in np.reshape(boxes, (-1, 4))
    ]  # fmt: skip
    ground_truth = {
        "images": [
            {"id": number, "width": int(sizes[name][0]), "height": int(sizes[name][1])}
            for name, number in numbers.items()
        ],
        "annotations": [{"id": i, **one} for i, one in enumerate(people + crowds, 1)],
        "categories": [{"id": 1, "name": "person"}],
    }
    return ground_truth, raw


def _kernel(away_nk2, area, sigmas):
    variances = (2 * np.asarray(sigmas, np.float64)) ** 2
    errors = (away_nk2**2).sum(-1) / variances / (area + np.spacing(1)) / 2
    return np.exp(-np.where(np.isnan(errors), np.inf, errors)).mean(-1)


def _mean_area(found, i, j):
    return (found[i]["area"] + found[j]["area"]) / 2


def _annotation(image_id, triples_k3, box_xywh, area, crowd):
    return {
        "image_id": image_id, "category_id": 1, "keypoints": triples_k3.ravel().tolist(),
        "num_keypoints": int((triples_k3[:, 2] > 0).sum()), "iscrowd": crowd, "area": area,
        "bbox": np.asarray(box_xywh, np.float64).tolist(),
    }  # fmt: skip


def _canonical(ground_truth, detections, joints):
    """Return fresh copies with ids 1, 2, ...: pycocotools edits its input and misreads an id 0."""
    numbers = {image["id"]: i for i, image in enumerate(ground_truth["images"], 1)}
    people = []
    for i, one in enumerate(ground_truth["annotations"], 1):
        triples = np.reshape(np.asarray(one["keypoints"], np.float64), (-1, 3))
        _check(one, len(triples), numbers, joints, "annotation")
        box, crowd = one["bbox"], int(one.get("iscrowd", 0))
        area = one.get("area") or AREA_OF_BOX * box[2] * box[3]
        image_id = numbers[one["image_id"]]
        people.append({"id": i, **_annotation(image_id, triples, box, float(area), crowd)})
    results = []
    for one in detections:
        triples = np.reshape(np.asarray(one["keypoints"], np.float64), (-1, 3))
        _check(one, len(triples), numbers, joints, "detection")
        bad = ~np.isfinite(triples[:, :2]).all(1)
        triples[bad, :2] = NOWHERE_PX
        score = float(one["score"])
        results.append({
            "image_id": numbers[one["image_id"]], "category_id": 1, "score": score,
            "keypoints": triples.ravel().tolist(),
        })  # fmt: skip
    content = {
        "info": {}, "images": [{"id": i} for i in numbers.values()], "annotations": people,
        "categories": [{"id": 1, "name": "person"}],
    }  # fmt: skip
    return content, results


def _check(one, count, numbers, joints, what):
    if one["image_id"] not in numbers:
        raise ValueError(
            f"{what} on image {one['image_id']!r}, which the ground truth does not list; name the "
            "right files"
        )
    if count != joints:
        raise ValueError(f"{what} of {count} joints, but {joints} sigmas; use one skeleton")
