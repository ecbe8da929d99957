"""The options that name what a lab hands over, for check_data.py and pack_data.py alike."""

import argparse
import dataclasses
import os

from option_types import finite, positive

from nkjax.lab.rows import BOX_FORMATS, EXIF_MODES, Inputs


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for every field of `Inputs`, and --workers."""
    add = parser.add_argument
    add("--annotations", metavar="JSON", default="", help="COCO keypoint annotations")
    add("--images", metavar="DIR", default="", help="folder that its file names are relative to")
    add("--skeleton", default="", help="coco17, wholebody133, goliath308 or a file (default: the"
        " joints that the JSON names)")
    add("--subjects", metavar="CSV", default="", help="which child each picture is of: file or"
        " pattern, subject, session, site, age_months, posture, grasp, split")
    add("--unlabelled", metavar="PATH", nargs="+", action="extend", default=[],
        help="folders, list files (.txt) and videos without labels")
    add("--detections", metavar="JSON", default="", help="COCO results: the people on them")
    add("--min_score", type=finite, default=Inputs.min_score,
        help="of a detection to be a person (default %(default)s)")
    add("--exif", choices=EXIF_MODES, default="auto", help="whether labels are of the upright"
        " picture, where width and height of the JSON do not tell; auto refuses those (default)")
    add("--box_format", choices=BOX_FORMATS, default="xywh", help="of bbox (default xywh)")
    add("--person_category", metavar="ID", default="", help="id or name, where there are several")
    add("--workers", type=positive, default=_cores(), help="threads (default: one per core)")


def read(options: argparse.Namespace) -> Inputs:
    """Return the inputs that the options name."""
    named = {field.name: getattr(options, field.name) for field in dataclasses.fields(Inputs)}
    return Inputs(**named | {"unlabelled": tuple(options.unlabelled)})


def _cores() -> int:
    # Not on every system can a process be kept to some cores.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1