"""Packs drawn people straight into a data folder, by the schemas of nkjax.data.records."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from nkjax import skeleton as skeletons
from nkjax.data import records
from nkjax.lab import shards as files
from tests.data_io import drawn

COCO17 = skeletons.load("coco17")


def jpeg(image_hwc, quality=92):
    """Encode RGB as a plain JPEG."""
    return cv2.imencode(".jpg", image_hwc[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]


def person_row(keypoints_k3, box_xywh, number=0, **fields):
    """Return the fields of a person, `picture` being its number in the shard."""
    row = {
        "person_id": f"{number:016x}", "picture_id": f"{number + 2**32:016x}",
        "subject": f"{number % 3:016x}", "session": "", "site": "lab", "posture": "walk",
        "grasp": "pincer",
        "box_source": "labels", "picture": number, "annotation_id": number + 1,
        "age_months": np.float32(18), "box_score": np.float32(1), "area": np.float32(500),
        "keypoints": np.asarray(keypoints_k3, np.float32), "box": np.asarray(box_xywh, np.float32),
    }  # fmt: skip
    return row | fields


def picture_row(data, size_wh, number=0, **fields):
    """Return the fields of a picture."""
    row = {
        "image": bytes(data), "picture_id": f"{number + 2**32:016x}", "sha256": "0" * 64,
        "encoded": "stripped", "video": "", "width": size_wh[0], "height": size_wh[1],
        "frame": -1, "time_s": np.float32(-1), "ignore_boxes": np.zeros((0, 4), np.float32),
    }  # fmt: skip
    return row | fields


def write(folder, splits, skeleton=COCO17, shards=2) -> records.Manifest:
    """Write {split: [(person fields, picture fields)]} as a data folder, one picture a person."""
    folder, entries = Path(folder), []
    serialise = {
        "people": files.writer(records.people_features(len(skeleton.keypoints))),
        "pictures": files.writer(records.picture_features()),
    }
    for split, rows in splits.items():
        for shard, part in enumerate(np.array_split(np.arange(len(rows)), shards)):
            for column, table in enumerate(records.TABLES):
                file = records.shard_file(table, split, shard, shards)
                (folder / table).mkdir(parents=True, exist_ok=True)
                writer = ArrayRecordWriter(str(folder / file), "group_size:1")
                for number, i in enumerate(part):
                    row = rows[i][column] | ({"picture": number} if table == "people" else {})
                    writer.write(serialise[table](row))
                writer.close()
                data = (folder / file).read_bytes()
                sha256 = hashlib.sha256(data).hexdigest()
                entries.append(
                    {"file": file, "sha256": sha256, "bytes": len(data), "records": len(part)}
                )
    content = {
        "format": records.FORMAT,
        "splits": {split: {"people": len(rows)} for split, rows in splits.items()},
        "shards": entries,
        "postures": ["crawl", "walk"],
    }
    (folder / "manifest.json").write_text(json.dumps(content))
    (folder / "skeleton.json").write_text(json.dumps(skeletons.to_json(skeleton)))
    return records.read_manifest(folder)


def drawn_rows(count, size_wh=(96, 72), seed=0):
    """Draw people, each in a picture of its own."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        joints = drawn.person(rng, size_wh)
        data = jpeg(drawn.picture(rng, size_wh, [joints]))
        box = drawn.box_around(joints, size_wh)
        rows.append((person_row(joints, box, number), picture_row(data, size_wh, number)))
    return rows
