"""Top-down pose estimation: boxes to crops to keypoints in picture px, a batch at a time."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from nkjax import views
from nkjax.data import images
from nkjax.data.coco import Box
from nkjax.data.images import BadImage
from nkjax.evaluate.pictures import Picture
from nkjax.geometry import affine, heatmaps
from nkjax.models import sapiens
from nkjax.models.sapiens import Spec
from nkjax.precision import Policy


@dataclasses.dataclass(frozen=True)
class Person:
    """A person as found: the box given, and K keypoints in picture px with their scores."""

    box_xywh: tuple[float, float, float, float]
    box_score: float
    points_k2: np.ndarray
    scores_k: np.ndarray


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The people of a picture in the order of its boxes.

    image_hwc: RGB uint8, None where it was not read; outside: boxes that do not touch the picture;
    failure: why it could not be read, else ''.
    """

    picture: Picture
    image_hwc: np.ndarray | None
    people: list[Person]
    outside: int = 0
    failure: str = ""


def make_forward(spec: Spec, policy: Policy, flip_test: bool) -> Callable:
    """Return the pure function (params, crops_u8_bhwc) -> (points_bk2, scores_bk).

    Crops are RGB of spec.image_size; points are those of `heatmaps.decode`. The flip test averages
    with the maps of the mirrored crops. Source: notes sapiens A4, A5.
    """
    height, width = spec.image_size

    def maps_of(images_bhwc, params):
        return sapiens.apply(params, spec, images_bhwc, policy=policy)["pose"]

    def forward(params, crops_u8_bhwc):
        images_bhwc = views.normalise(crops_u8_bhwc)
        if not flip_test:
            return heatmaps.decode(maps_of(images_bhwc, params), (width, height))
        # One after the other: compiled once, and in the memory of one batch.
        pair = jnp.stack([images_bhwc, images_bhwc[:, :, ::-1]])
        plain, mirrored = jax.lax.map(lambda images_bhwc: maps_of(images_bhwc, params), pair)
        maps = heatmaps.flip_average(plain, mirrored, spec.skeleton.flip_indices)
        return heatmaps.decode(maps, (width, height))

    return forward


def make_network(params, spec: Spec, policy: Policy, flip_test: bool) -> Callable:
    """Return crops_u8_bhwc -> (points_bk2, scores_bk), `make_forward` compiled per shape."""
    forward = jax.jit(make_forward(spec, policy, flip_test))
    return lambda crops_u8_bhwc: forward(params, crops_u8_bhwc)


def crop(image_hwc, box_xywh, size_hw):
    """Cut a box out of a picture as the reference does.

    Returns the crop (h, w, 3) uint8, and its center (2,) and scale (2,) in picture px.
    """
    height, width = size_hw
    x, y, box_width, box_height = box_xywh
    box = (x, y, x + box_width, y + box_height)
    center, scale = affine.box_to_center_scale(box, width / height)
    matrix = affine.udp_matrix(center, scale, 0.0, (width, height))
    return images.warp_affine(image_hwc, matrix, (width, height)), center, scale


def predict(
    pictures: Iterable[Picture], network: Callable, size_hw, batch: int
) -> Iterator[Prediction]:
    """Find the keypoints of all people, picture by picture in the order given.

    network: as of `make_network`; always called with `batch` crops, the last ones padded. At most
    `batch` + 1 pictures are held at a time. A picture without boxes is not opened.
    """
    height, width = size_hw
    crops = np.zeros((batch, height, width, 3), np.uint8)
    filled: list[tuple[Prediction, Box, np.ndarray, np.ndarray]] = []
    waiting: collections.deque[tuple[Prediction, int]] = collections.deque()

    def flush():
        if filled:
            points, scores = jax.device_get(network(crops))
        for i, (prediction, box, center, scale) in enumerate(filled):
            points_k2 = affine.crop_to_picture(points[i], center, scale, (width, height))
            prediction.people.append(Person(box.xywh, box.score, points_k2, scores[i]))
        filled.clear()
        crops[:] = 0

    for picture in pictures:
        prediction, boxes = _open(picture)
        waiting.append((prediction, len(boxes)))
        for box in boxes:
            crops[len(filled)], center, scale = crop(prediction.image_hwc, box.xywh, size_hw)
            filled.append((prediction, box, center, scale))
            if len(filled) == batch:
                flush()
        if len(waiting) > batch:
            flush()
        while waiting and len(waiting[0][0].people) == waiting[0][1]:
            yield waiting.popleft()[0]
    flush()
    yield from (prediction for prediction, _ in waiting)


def _open(picture: Picture) -> tuple[Prediction, tuple[Box, ...]]:
    """Read a picture, and tell which of its boxes can be cropped."""
    if picture.boxes == ():
        return Prediction(picture, None, []), ()
    try:
        image = images.read_rgb(picture.path)
    except BadImage as error:
        # What identifies the picture is up to the caller, who may have to keep its path private.
        reason = str(error).replace(f"{picture.path}: ", "")
        return Prediction(picture, None, [], failure=reason), ()
    height, width = image.shape[:2]
    if picture.size_wh and picture.size_wh != (width, height):
        reason = (
            f"is {width}x{height} px upright, the annotation file says "
            "{}x{}: its boxes would be misplaced".format(*picture.size_wh)
        )
        return Prediction(picture, None, [], failure=reason), ()
    boxes = picture.boxes
    if boxes is None:
        boxes = (Box((0.0, 0.0, float(width), float(height)), 1.0),)
    inside = tuple(box for box in boxes if _touches(box, width, height))
    return Prediction(picture, image, [], outside=len(boxes) - len(inside)), inside


def _touches(box: Box, width, height):
    x, y, box_width, box_height = box.xywh
    return x < width and y < height and x + box_width > 0 and y + box_height > 0
