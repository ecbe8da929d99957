"""Makes up pictures of the simulated world: random, but as consistent as the real ones, and fast.

A person facing the camera with all 65 joints, drawn as sticks on mottled ground, and maps of
nothing in particular, for tests of what happens to finished pictures.
"""

import numpy as np

from nkjax import skeleton as skeletons
from nkjax.toddlersim import camera, examples, solids
from tests.data_io import drawn

WHOLE = skeletons.load("wholebody133")
CHOSEN = (*range(23), *range(91, 133))
PICTURES_EACH = 3  # of a subject
POSTURES = ("walking", "sitting", "crawling")
FACE = {"big_toe": (0.1, 0.98), "small_toe": (0.12, 0.98), "heel": (0.1, 0.96)}


def skeleton():
    """Return the 65 joints of wholebody133 without its face."""
    plain = skeletons.to_json(WHOLE)
    names = [WHOLE.keypoints[i] for i in CHOSEN]
    for key in ("limbs", "flip_pairs"):
        plain[key] = [pair for pair in plain[key] if set(pair) <= set(names)]
    for key in ("sigmas", "joint_weights"):
        plain[key] = [plain[key][i] for i in CHOSEN]
    del plain["groups"]
    return skeletons.parse(plain | {"name": "imagined65", "keypoints": names}, "imagined")


SKELETON = skeleton()


def _body():
    """The 65 joints in units of height, x to the right of the picture."""
    body = dict(drawn.BODY)
    for side, sign in (("left", 1), ("right", -1)):
        body |= {f"{side}_{name}": (sign * x, y) for name, (x, y) in FACE.items()}
        body[f"{side}_hand_root"] = (sign * 0.19, 0.53)
        for f, finger in enumerate(("thumb", "forefinger", "middle_finger", "ring_finger",
                                    "pinky_finger")):  # fmt: skip
            for i in range(1, 5):
                body[f"{side}_{finger}{i}"] = (sign * (0.21 - 0.01 * f), 0.54 + 0.012 * i)
    return np.array([body[name] for name in SKELETON.keypoints])


BODY = _body()


def example(domain, role, index, size_wh, seed) -> examples.Example:
    """Make up one picture; the same arguments, the same arrays."""
    kinds = [examples.DOMAINS.index(domain), examples.ROLES.index(role)]
    rng = np.random.default_rng([seed, *kinds, index])
    width, height = size_wh
    tall = rng.uniform(0.6, 0.85) * min(height, 2 * width)
    points = [rng.uniform(0.35, 0.65) * width, 0.05 * height] + tall * BODY
    points += rng.normal(0, 0.004 * tall, points.shape)
    v = rng.choice([2, 2, 2, 2, 1, 0], size=65)
    v[:17] = np.maximum(v[:17], 1)
    v[[0, 1, 2, 5, 6, 11, 12]] = 2
    v[~((points > 0) & (points < [width - 1, height - 1])).all(1)] = 0
    keypoints = np.column_stack([points, v]) * (v > 0)[:, None]
    # As unlike each other as photographs, or near-identical ones would be found.
    image = drawn.picture(rng, (width, height), [keypoints])
    box = np.array(drawn.box_around(keypoints, size_wh, 0.02))
    left, top, right, bottom = (int(c) for c in (box[0], box[1], *(box[:2] + box[2:])))
    people = np.zeros((height, width), np.uint8)
    people[top : bottom + 1, left : right + 1] = solids.TARGET
    others = np.zeros((0, 4))
    if index % 3 == 1:
        people[:10, :12] = solids.TARGET + 1
        others = np.array([[0.0, 0.0, 11.0, 9.0]])
    normals = rng.normal(size=(height, width, 3)) - [0, 0, 2]
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    maps = examples.Maps(
        rng.uniform(1, 5, (height, width)).astype(np.float32), normals.astype(np.float32),
        rng.integers(0, len(solids.PARTS), (height, width), np.uint8), people,
    )  # fmt: skip
    view = camera.look_at((3, 0, 1), (0, 0, 0.5), 1.2 * max(size_wh), size_wh)
    flat = (points - camera.centre(size_wh)) / view.focal
    joints = np.column_stack([flat, np.ones(65)]) * rng.uniform(2, 3)
    ways = np.array([(1, 0, 0), (0, 0, 1)]) @ view.axes_33.T
    child = index // PICTURES_EACH
    labels = examples.Labels(
        domain, role, index, subject=f"{domain[0]}{role[0]}{child:03d}", session=f"s{index % 2}",
        site=f"site{child % 2}", age_months=12.0 + child % 24,
        posture=POSTURES[index % 3], grasp="pincer",
    )  # fmt: skip
    return examples.Example(image, maps, view, keypoints, joints, ways, box, others, labels)
