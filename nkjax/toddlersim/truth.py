"""The truth about simulated pictures, in side files of its own beside the lab's files.

Below a simulated folder: truth/<name>.npz holds what every pixel sees and where every joint is,
truth/people.csv who and what each picture is of. Neither checking nor packing nor training on
toddlers opens them: `read_adult` is for the configs that pre-train on adults, `read` for evaluation
alone (notes method 6.5).
"""

import csv
import functools
import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nkjax.toddlersim import camera, solids
from nkjax.toddlersim.examples import Example, Labels

FOLDER = "truth"
PEOPLE = "people.csv"
SETTINGS = "simulation.json"
COLUMNS = ("file", "domain", "role", "subject", "posture", "grasp", "age_months")
DEPTH_STEP = 0.0002  # metres; 16 bits of it reach 13.1 m
NORMAL_STEPS = 127
# The fastest: the usual 6 takes twice as long for an eighth less.
ZIP_LEVEL = 1
FIRST_DAY = (1980, 1, 1, 0, 0, 0)
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile,
           zlib.error)  # fmt: skip


class BadTruth(ValueError):
    """Truth that is not there, damaged, or not to be read; the message is one line."""


class Truth(NamedTuple):
    """The truth about one picture.

    depth_hw: metres along the optical axis, float32, 0 for none (beyond 13.1 m). normals_hw3: unit,
    camera frame, float32, 0 for none. parts_hw: index into solids.PARTS. people_hw: NOBODY, TARGET
    or from 2 on somebody else. joints_k3: metres, camera frame, float32. camera_33: pinhole matrix,
    metres to px, float32. ways_23: unit vectors, camera frame, float32: where the target walks or
    faces, along the floor, and up.
    """

    depth_hw: np.ndarray
    normals_hw3: np.ndarray
    parts_hw: np.ndarray
    people_hw: np.ndarray
    joints_k3: np.ndarray
    camera_33: np.ndarray
    ways_23: np.ndarray


def write(folder, name: str, example: Example) -> None:
    """Write truth/<name>.npz below a simulated folder; name with or without ending.

    The same example, the same bytes: depth in steps of 0.2 mm, normals in steps of 1/127 as planes,
    joints and camera in float32, which hides the last bits in which versions of numpy differ.
    Raises BadTruth for a name that is a path.
    """
    maps = example.maps
    depth = np.nan_to_num(maps.depth_hw / DEPTH_STEP, nan=0.0, posinf=0.0, neginf=0.0).round()
    depth = np.where((depth > 0) & (depth < 2**16), depth, 0)
    focal, (x, y) = example.camera.focal, camera.centre(example.camera.size_wh)
    arrays = {
        "depth_hw": depth.astype(np.uint16),
        # A plane per axis: neighbours are alike, which packs to a third.
        "normals_3hw": np.moveaxis((maps.normals_hw3 * NORMAL_STEPS).round().astype(np.int8), 2, 0),
        "parts_hw": maps.parts_hw.astype(np.uint8),
        "people_hw": maps.people_hw.astype(np.uint8),
        "joints_k3": example.joints_k3.astype(np.float32),
        "ways_23": example.ways_23.astype(np.float32),
        "camera_33": np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]], np.float32),
    }
    _path(folder, name).write_bytes(_zipped(arrays))


def read(folder, name: str) -> Truth:
    """Read the truth about the picture of this name, with or without ending, for evaluation alone.

    Raises BadTruth where it is missing or damaged, or where its arrays do not fit each other.
    """
    path = _path(folder, name)
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            normals = np.moveaxis(arrays["normals_3hw"], 0, 2).astype(np.float32)
            depth, joints = arrays["depth_hw"].astype(np.float32), arrays["joints_k3"]
            parts, people = arrays["parts_hw"], arrays["people_hw"]
            matrix, ways = arrays["camera_33"], arrays["ways_23"]
        found = Truth(depth * np.float32(DEPTH_STEP), normals, parts, people, joints, matrix, ways)
        _check(found)
    except FileNotFoundError:
        raise BadTruth(f"{path}: not there; simulate the folder again, with its truth") from None
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:200]
        raise BadTruth(f"{path}: damaged ({reason}); simulate the folder again") from None
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    return found._replace(normals_hw3=normals / np.where(length > 0, length, 1))


def read_adult(folder, name: str) -> Truth:
    """Read truth to pre-train on: `read`, where simulation.json and truth/people.csv say adult.

    Raises BadTruth for any other domain: the truth of toddlers is for evaluation alone. This guards
    against accidents, such as a wrong folder in a config; who edits both files gets past it.
    """
    path = Path(folder) / SETTINGS
    try:
        domain = json.loads(path.read_text(encoding="utf-8"))["domain"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BadTruth(f"{path}: not there or damaged; not a whole simulated folder") from None
    listed = _domains(folder).get(name.removesuffix(".jpg"), "unknown")
    if (domain, listed) != ("adult", "adult"):
        who = repr(domain if domain != "adult" else listed)
        raise BadTruth(f"{folder}: holds {who} people; only adults' truth may be learned from")
    return read(folder, name)


def row(file: str, labels: Labels) -> list[str]:
    """Return the line of people.csv (COLUMNS) about a picture."""
    who = [labels.domain, labels.role, labels.subject, labels.posture, labels.grasp]
    return [file, *who, months(labels)]


def months(labels: Labels) -> str:
    """Write an age in months, to a tenth; '' where it is NaN."""
    return "" if labels.age_months != labels.age_months else f"{labels.age_months:.1f}"


def _path(folder, name):
    if not name or {"/", "\\", "\0"}.intersection(name):
        raise BadTruth(f"{name!r} is not the name of a picture")
    return Path(folder) / FOLDER / f"{name.removesuffix('.jpg')}.npz"


def _check(found: Truth) -> None:
    """Raise ValueError where arrays have shapes, or parts and joints values, that cannot be."""
    height_width, count = found.depth_hw.shape, len(found.joints_k3)
    shapes = [height_width, (*height_width, 3), height_width, height_width, (count, 3), (3, 3),
              (2, 3)]  # fmt: skip
    if len(height_width) != 2 or [array.shape for array in found] != shapes:
        raise ValueError("maps of different sizes, or arrays of other shapes")
    if found.parts_hw.dtype != np.uint8 or found.people_hw.dtype != np.uint8:
        raise ValueError("parts and people are not 8 bit")
    if found.parts_hw.max(initial=0) >= len(solids.PARTS):
        raise ValueError("a part that is none")
    if not all(np.isfinite(array).all() for array in found[4:]):
        raise ValueError("a joint, camera or way that is not finite")


def _domains(folder) -> dict[str, str]:
    """Return the domain that people.csv gives to every picture, by name without ending."""
    path = Path(folder) / FOLDER / PEOPLE
    try:
        changed = path.stat()
        return _read_domains(path, changed.st_mtime_ns, changed.st_size)
    except (OSError, ValueError, KeyError, AttributeError, csv.Error):
        raise BadTruth(f"{path}: not there or damaged; not a whole simulated folder") from None


@functools.lru_cache(maxsize=4)
def _read_domains(path, changed_ns, size):
    # Once for all pictures of a folder, again where the file has changed.
    with open(path, newline="", encoding="utf-8") as file:
        return {row["file"].removesuffix(".jpg"): row["domain"] for row in csv.DictReader(file)}


def _zipped(arrays) -> bytes:
    """Pack arrays as `np.savez_compressed` does, without the time of day."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", FIRST_DAY)
            entry.create_system, entry.external_attr = 3, 0o600 << 16
            file.writestr(entry, data.getvalue(), zipfile.ZIP_DEFLATED, ZIP_LEVEL)
    return packed.getvalue()
