"""Every row of the table of bad input (notes ecosystem 2.2): planted in a drawn lab, found under
its code, counted, nothing else lost, and no file of the lab changed."""

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from nkjax.skeleton import BadSkeleton
from tests.data_io import drawn
from tests.lab.planted import Planted

CMYK = Path(__file__).parents[1] / "data" / "images" / "cmyk.jpg"


@pytest.fixture
def lab(tmp_path):
    return Planted(tmp_path / "lab")


def turned(path, orientation):
    """Put an EXIF orientation into a JPEG file."""
    data = path.read_bytes()
    tiff = b"MM" + struct.pack(">HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])


def test_the_lab_without_a_fault(lab):
    read, codes = lab.read()
    assert codes == {}
    lab.still_right(read)


def test_exif_orientation(lab):
    for name in lab.names[:2]:
        turned(lab.images / name, 6)
    # The labels of the first are of the upright picture, 120 x 160; of the second as stored.
    lab.entries[0] |= {"width": 120, "height": 160}
    read, codes = lab.read()
    assert codes["NK124"] == 1 and codes["NK121"] == 1
    assert [p.size_wh for p in read.pictures[:2]] == [(120, 160), (160, 120)]
    assert [p.turn for p in read.pictures[:2]] == [6, 1]
    lab.still_right(read, without=[0])


def test_exif_orientation_in_doubt_is_refused_until_said(lab):
    turned(lab.images / lab.names[0], 6)
    del lab.entries[0]["width"]
    turned(lab.images / lab.names[1], 3)  # upside down: the size does not tell
    read, codes = lab.read()
    assert codes == {"NK122": 2, "NK126": 1, "NK245": 2}
    lab.still_right(read, without=[0, 1])
    read, codes = lab.read(exif="ignore")
    assert codes == {"NK121": 2, "NK126": 1} and [p.turn for p in read.pictures[:2]] == [1, 1]
    lab.still_right(read)
    read, codes = lab.read(exif="apply")
    assert codes["NK124"] == 2 and [p.turn for p in read.pictures[:2]] == [6, 3]


def test_another_size_than_the_json_says(lab):
    lab.entries[3] |= {"width": 161}
    read, codes = lab.read()
    assert codes == {"NK123": 1, "NK245": 1}
    assert "161 x 120" in lab.example(read, "NK123")
    lab.still_right(read, without=[3])


def test_video_with_a_rotation_flag(lab):
    clip = lab.folder / "clip.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for i in range(3):
        writer.write(noise(48, 64, 3, seed=i))
    writer.release()
    # The track's matrix (ISO 14496-12, 8.3.2): a quarter turn clockwise.
    data = bytearray(clip.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    clip.write_bytes(data)
    (lab.folder / "subjects.csv").write_text("file,subject\n*,a\n")
    read, codes = lab.read(unlabelled=(str(clip),))
    assert codes == {"NK125": 1}
    frames = [p for p in read.pictures if not p.labelled]
    assert [p.size_wh for p in frames] == [(48, 64)] * 3
    lab.still_right(read, without=[])


def test_truncated_jpeg(lab):
    for name, keep in zip(lab.names, (0.5, 0.98, 0), strict=False):
        path = lab.images / name
        data = path.read_bytes()
        path.write_bytes(data[: int(keep * len(data))] if keep else data[:-2])
    read, codes = lab.read()
    assert codes == {"NK101": 3, "NK245": 3}
    assert lab.names[0] in lab.example(read, "NK101") and "bytes" in lab.example(read, "NK101")
    lab.still_right(read, without=[0, 1, 2])


def png(name, image, lab):
    """Put a PNG in the place of a picture of the lab."""
    position = lab.names.index(name)
    (lab.images / name).unlink()
    lab.names[position] = lab.entries[position]["file_name"] = name.replace("jpg", "png")
    row = (lab.folder / "subjects.csv").read_text().replace(name, lab.names[position])
    (lab.folder / "subjects.csv").write_text(row)
    cv2.imwrite(str(lab.images / lab.names[position]), image)


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


def test_16_bit_png(lab):
    png(lab.names[2], noise(120, 160, 3, dtype=np.uint16), lab)
    read, codes = lab.read()
    assert codes == {"NK111": 1}
    # Read as 8 bits, the largest is 255: 16-bit noise of 57,600 values reaches the top.
    assert lab.example(read, "NK111").endswith("png: largest value about 65,535 of 65,535")
    lab.still_right(read)


def test_16_bit_png_of_few_low_values(lab):
    """A camera of 10 bits: 1023 / 257 is 4 of 255, which is almost black."""
    png(lab.names[2], noise(120, 160, 3, dtype=np.uint16) % 1024, lab)
    read, codes = lab.read()
    assert codes == {"NK111": 1} and "about 1,028 of 65,535" in lab.example(read, "NK111")
    (told,) = [f for f in read.findings.listed() if f.code == "NK111"]
    assert told.severity == "warning" and "almost black" in told.response


def test_kinds_of_pictures(lab):
    png(lab.names[0], noise(120, 160), lab)  # grey
    png(lab.names[1], np.dstack([noise(120, 160, 3), np.full((120, 160), 255, np.uint8)]), lab)
    clear = np.dstack([noise(120, 160, 3), np.full((120, 160), 9, np.uint8)])
    png(lab.names[2], clear, lab)
    (lab.images / lab.names[3]).write_bytes(CMYK.read_bytes())
    (lab.images / lab.names[4]).write_bytes(two_frames())
    read, codes = lab.read()
    assert codes == {"NK102": 1, "NK103": 2, "NK112": 2, "NK245": 3}
    assert "grey" in lab.example(read, "NK112") and "rgba" in lab.example(read, "NK112")
    lab.still_right(read, without=[2, 3, 4])


def two_frames():
    """Return a PNG whose header says that it is animated."""
    data = cv2.imencode(".png", noise(120, 160, 3))[1].tobytes()
    body = b"acTL" + struct.pack(">II", 2, 0)
    return data[:33] + struct.pack(">I", 8) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def joints_of(entry):
    """Return an entry's joints as a (17, 3) list to change in place, written back by `put`."""
    return np.array(entry["keypoints"]).reshape(17, 3)


def put(entry, joints):
    entry["keypoints"] = joints.reshape(-1).tolist()
    entry["num_keypoints"] = int((joints[:, 2] > 0).sum())


def test_joint_outside_the_picture(lab):
    joints = joints_of(lab.people[1])
    joints[5] = 165, 50, 2
    put(lab.people[1], joints)
    read, codes = lab.read()
    assert codes == {"NK214": 1}
    joints[5] = 0
    put(lab.people[1], joints)
    lab.still_right(read)


def test_most_joints_outside_the_picture(lab):
    joints = joints_of(lab.people[1])
    joints[:, :2] *= 10
    put(lab.people[1], joints)
    read, codes = lab.read()
    assert codes["NK215"] == 1 and "NK214" not in codes
    lab.still_right(read, without=[1])


def test_joints_labelled_at_the_corner(lab):
    joints = joints_of(lab.people[2])
    joints[6] = 0, 0, 2
    put(lab.people[2], joints)
    read, codes = lab.read()
    assert codes == {"NK203": 1}
    joints[6] = 0
    put(lab.people[2], joints)
    lab.still_right(read)


def test_joints_outside_the_box(lab):
    x, y, w, h = lab.people[0]["bbox"]
    lab.people[0]["bbox"] = [x, y, w, h / 2]
    read, codes = lab.read()
    assert codes == {"NK216": 1}
    lab.still_right(read)


@pytest.mark.parametrize("box, code", [
    ([30, 30, 0, 40], "NK221"), ([30, 30, -5, 40], "NK221"), ([], "NK223"), (None, "NK223"),
])  # fmt: skip
def test_box_empty_or_missing(lab, box, code):
    lab.people[4]["bbox"] = box
    read, codes = lab.read()
    assert codes == {code: 1}
    lab.still_right(read, without=[4])
    (person,) = [p for p in read.people if p.picture == lab.names[4]]
    known = joints_of(lab.people[4])[:, :2][joints_of(lab.people[4])[:, 2] > 0]
    low, high = known.min(0), known.max(0)
    middle, half = (low + high) / 2, 1.25 * (high - low) / 2
    low, high = np.maximum(middle - half, 0), np.minimum(middle + half, [160, 120])
    np.testing.assert_allclose(person.box_xywh, [*low, *(high - low)], atol=1e-3)
    assert person.box_source == "keypoints"


def test_neither_box_nor_joints(lab):
    put(lab.people[3], np.zeros((17, 3)))
    del lab.people[3]["bbox"]
    read, codes = lab.read()
    assert codes == {"NK224": 1, "NK240": 1}
    lab.still_right(read, without=[3])


def test_boxes_as_corners(lab):
    plain = [list(entry["bbox"]) for entry in lab.people]
    for entry, (x, y, w, h) in zip(lab.people, plain, strict=True):
        entry["bbox"] = [x, y, x + w, y + h]
    read, codes = lab.read()
    assert codes == {"NK222": 6, "NK240": 6, "NK247": 1} and read.people == ()
    read, codes = lab.read(box_format="xyxy")
    assert codes == {}
    np.testing.assert_allclose([p.box_xywh for p in read.people], plain, atol=1e-9)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity(lab, value):
    lab.people[0]["keypoints"][3] = value
    lab.people[2]["bbox"][1] = value
    read, codes = lab.read()
    assert codes == {"NK211": 2, "NK240": 2}
    lab.still_right(read, without=[0, 2])


def test_annotation_id_0(lab):
    lab.people[0]["id"] = 0
    read, codes = lab.read()
    assert codes == {"NK231": 1} and [p.id for p in read.people] == [1, 2, 3, 4, 5, 6]
    lab.still_right(read)


def test_duplicate_ids(lab):
    lab.people[1]["id"] = 1
    read, codes = lab.read()
    assert codes == {"NK232": 2, "NK240": 2}
    lab.still_right(read, without=[0, 1])


def test_num_keypoints_area_and_iscrowd_missing(lab):
    del lab.people[0]["num_keypoints"], lab.people[1]["area"], lab.people[2]["iscrowd"]
    read, codes = lab.read()
    assert codes == {"NK234": 1, "NK235": 2}
    w, h = lab.people[1]["bbox"][2:]
    assert read.people[1].area == pytest.approx(0.53 * w * h) and not read.people[2].ignore
    lab.still_right(read)


def test_text_ids(lab):
    for entry in lab.entries:
        entry["id"] = f"pic-{entry['id']}"
    for entry in lab.people:
        entry["image_id"] = f"pic-{entry['image_id']}"
    read, codes = lab.read()
    assert codes == {"NK236": 6}
    assert [p.image_id for p in read.pictures] == [f"pic-{i}" for i in range(1, 7)]
    assert [p.source_id for p in read.people] == [1, 2, 3, 4, 5, 6]


def test_no_detections(lab, tmp_path):
    drawn.write_lab(tmp_path / "b", pictures=2, seed=4)
    (lab.folder / "subjects.csv").write_text("file,subject\n*,a\n")
    (lab.folder / "boxes.json").write_text("[]")
    read, codes = lab.read(
        unlabelled=(str(tmp_path / "b" / "images"),), detections=str(lab.folder / "boxes.json")
    )
    assert codes == {"NK241": 1, "NK152": 2}
    lab.still_right(read)


def test_sigmas(lab):
    names = [f"joint{i}" for i in range(17)]
    lab.data["categories"][0]["keypoints"] = names
    read, codes = lab.read()
    assert codes == {"NK401": 1} and read.skeleton.keypoints == tuple(names)
    lab.still_right(read)
    own = {"name": "own", "keypoints": names, "sigmas": [0.05] * 16}
    (lab.folder / "own.json").write_text(json.dumps(own))
    with pytest.raises(BadSkeleton, match="16 numbers for 17 keypoints"):
        lab.read(skeleton=str(lab.folder / "own.json"))


def test_another_number_of_joints(lab):
    lab.people[5]["keypoints"] += [1, 1, 2]
    read, codes = lab.read()
    assert codes == {"NK402": 1, "NK240": 1}
    lab.still_right(read, without=[5])


def test_flip_pairs_that_contradict_the_names(lab):
    own = {"name": "own", "keypoints": ["left_eye", "right_eye", "left_ear", "right_ear"],
           "flip_pairs": [["left_eye", "right_ear"], ["left_ear", "right_eye"]]}  # fmt: skip
    (lab.folder / "own.json").write_text(json.dumps(own))
    with pytest.raises(BadSkeleton, match="contradicts"):
        lab.read(skeleton=str(lab.folder / "own.json"))
    own["keypoints"] = ["left_eye", "nose"]
    del own["flip_pairs"]
    (lab.folder / "own.json").write_text(json.dumps(own))
    with pytest.raises(BadSkeleton, match="no free partner"):
        lab.read(skeleton=str(lab.folder / "own.json"))
