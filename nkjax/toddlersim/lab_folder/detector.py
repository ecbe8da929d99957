"""What a detector of people would say of a picture: boxes that are nearly right, and mistakes."""

import numpy as np

MISSED_TARGET, MISSED_OTHER, INVENTED = 0.05, 0.2, 0.08  # shares
SHIFT, STRETCH = 0.04, 0.06  # standard deviations, of the box's sides and of their logarithms
SEEN_FROM_PX = 4.0  # whoever is smaller is not found
LEAST_PX = 2.0  # of a box that reaches out of the picture, what is left of it
# A picture always has one box that check_data.py takes (--min_score 0.3).
SURE, UNSURE = (0.5, 1.0), (0.05, 0.6)


def boxes(people_n4, size_wh, rng: np.random.Generator) -> list[dict]:
    """Return COCO results without ids, {bbox, score}, for the boxes of people, the target's first.

    people_n4: xywh, picture px, true; the result is within the picture, rounded to 0.01 px. The
    target is missed only where somebody else is found.
    """
    target, *others = (np.asarray(box, float) for box in people_n4)
    missed = rng.random(len(others)) < MISSED_OTHER
    found = [box for box, gone in zip(others, missed, strict=True)
             if not gone and min(box[2:]) >= SEEN_FROM_PX]  # fmt: skip
    if rng.random() >= MISSED_TARGET or not found:
        found = [target, *found]
    made = [(_nearly(box, size_wh, rng), rng.uniform(*SURE)) for box in found]
    if rng.random() < INVENTED:
        middle, side = rng.uniform(0.2, 0.8, 2) * size_wh, rng.uniform(0.1, 0.4) * min(size_wh)
        made.append((_cut(middle - side / 2, middle + side / 2, size_wh), rng.uniform(*UNSURE)))
    # Boxes cut to the same edges are one.
    once = {box: score for box, score in reversed(made)}
    return [{"bbox": list(box), "score": round(score, 3)} for box, score in reversed(once.items())]


def _nearly(box_xywh, size_wh, rng):
    side = np.maximum(box_xywh[2:], LEAST_PX)
    middle = box_xywh[:2] + box_xywh[2:] / 2 + rng.normal(0, SHIFT, 2) * side
    side = side * np.exp(rng.normal(0, STRETCH, 2))
    return _cut(middle - side / 2, middle + side / 2, size_wh)


def _cut(low, high, size_wh):
    """Cut a box to the centres of the outermost pixels; x, y, w, h."""
    last = np.array(size_wh) - 1
    low = np.clip(low, 0, last - LEAST_PX)
    high = np.clip(high, low + LEAST_PX, last)
    return tuple(round(float(v), 2) for v in (*low, *(high - low)))
