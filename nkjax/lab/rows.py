"""What a lab hands over, as plain rows: pictures, people, and what was found wrong with them.

`check.read_lab` makes it from files, `split` and `pack` take it from there. Frames of videos are
pictures too.
"""

import dataclasses

import numpy as np

from nkjax.lab.findings import Findings
from nkjax.skeleton import Skeleton

AREA_OF_BOX = 0.53  # what mmpose takes where COCO's area is missing
EXIF_MODES = ("auto", "apply", "ignore")
BOX_FORMATS = ("xywh", "xyxy")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The files a lab names on the command line; '' where it named none.

    annotations: COCO JSON; images: the folder its file names are relative to; skeleton: built-in
    name or file, '' for the joints of the JSON's category; subjects: CSV; unlabelled: folders, list
    files (.txt) and videos; detections: COCO results for the unlabelled pictures; exif: one of
    EXIF_MODES; box_format: one of BOX_FORMATS; person_category: id or name where there are several;
    min_score: of a detection to be a person.
    """

    annotations: str = ""
    images: str = ""
    skeleton: str = ""
    subjects: str = ""
    unlabelled: tuple[str, ...] = ()
    detections: str = ""
    exif: str = "auto"
    box_format: str = "xywh"
    person_category: str = ""
    min_score: float = 0.3


@dataclasses.dataclass(frozen=True)
class Subject:
    """Who a picture is of, as the lab's CSV says; '' and NaN where it says nothing."""

    id: str = ""
    session: str = ""
    site: str = ""
    age_months: float = float("nan")
    posture: str = ""
    grasp: str = ""
    split: str = ""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture that decodes, or a frame of a video.

    key: path relative to --images, elsewhere to the folder it was found in, with '/', and
    '#<frame>' for a frame; unique.
    path: the file. size_wh: px of the upright frame, in which all coordinates are. turn: the EXIF
    orientation (1 ... 8) to bake into the pixels, 1 for none. sha256: of the file (of the frame's
    pixels for a video); phash: 64-bit perceptual hash of the pixels after the turn. frame, time_s:
    -1 for a picture. image_id: of the COCO JSON, None for unlabelled ones.
    """

    key: str
    path: str
    size_wh: tuple[int, int]
    turn: int
    sha256: str
    phash: int
    image_id: int | str | None = None
    subject: Subject = Subject()
    labelled: bool = True
    frame: int = -1
    time_s: float = -1.0


@dataclasses.dataclass(frozen=True)
class Person:
    """A person, or a region to ignore, in a picture.

    id: 1, 2, ... in the order of the file; source_id: of the JSON. picture: `Picture.key`.
    keypoints_k3: float32 x, y in upright picture px and v; v = 0 not labelled (then x = y = 0),
    1 occluded but placed, 2 visible. box_xywh: upright picture px, at least 1 px each way;
    box_source: 'labels', 'keypoints', 'detector' or 'picture'. area: px^2 (OKS). ignore: a crowd,
    marked ignore, or without a labelled joint: never trained on, kept for evaluation.
    """

    id: int
    source_id: int | str | None
    picture: str
    keypoints_k3: np.ndarray
    box_xywh: tuple[float, float, float, float]
    box_source: str
    area: float
    score: float = 1.0
    ignore: bool = False
    posture: str = ""
    grasp: str = ""


@dataclasses.dataclass(frozen=True)
class Lab:
    """Everything that can be used, and the findings about all the rest.

    pictures: labelled ones in the order of the JSON, then unlabelled ones sorted by key; people in
    the order of pictures, then of the file; at last the boxes of labelled people who are left out,
    as regions to ignore without a source_id.
    """

    skeleton: Skeleton
    pictures: tuple[Picture, ...]
    people: tuple[Person, ...]
    findings: Findings
