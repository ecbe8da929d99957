"""Read a packed data folder: its manifest, and people with their pictures by number.

    manifest.json, skeleton.json    what is in it; `read_manifest`
    people/, pictures/              two tensorflow-datasets folders of ArrayRecord shards, one table
                                    each, splits train, val, test and unlabelled
    private/                        which id is which file: stays in the lab, never read from here

Shard i of people refers to pictures of shard i of the same split only: `picture` is the number of
the picture within it. A picture is stored once, whatever number of people is in it. The folder may
lie in a bucket: its shards are then copied to a local cache, each when it is first needed, and
checked against the manifest.
"""

import bisect
import dataclasses
import hashlib
import itertools
import json
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2

from nkjax import journal
from nkjax import skeleton as skeletons
from nkjax.skeleton import Skeleton

FORMAT = 2  # 2: people have a grasp
TABLES = ("people", "pictures")
SPLITS = ("train", "val", "test", "unlabelled")
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
# Written by a purge that is not finished: the shards and the manifest may disagree.
PURGE_JOURNAL = "purge.json"


class BadData(ValueError):
    """A data folder that cannot be used; the message is one line with file, rule and remedy."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a data folder holds.

    content: manifest.json, among it 'splits' {name: {'people', 'pictures', 'subjects'}}, 'shards'
    [{'file', 'sha256', 'bytes', 'records'}] and 'postures', the sorted names that occur.
    """

    folder: epath.Path
    content: dict
    skeleton: Skeleton

    @property
    def sha256(self) -> str:
        """Identify the data: the hash of the manifest, which holds the hash of every shard."""
        text = json.dumps(self.content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def people_features(joints: int) -> tfds.features.FeaturesDict:
    """Return the fields of a person: coordinates are px of the upright picture.

    keypoints: x, y, v (0 not labelled, 1 occluded, 2 visible); box: x, y, width, height; ids are
    salted; age_months NaN and texts '' where unknown; annotation_id 0 where nobody labelled.
    """
    text, number = tfds.features.Text, tfds.features.Tensor
    return tfds.features.FeaturesDict({
        "person_id": text(), "picture_id": text(), "subject": text(), "session": text(),
        "site": text(), "posture": text(), "grasp": text(), "box_source": text(),
        "picture": np.int64, "annotation_id": np.int64,
        "age_months": np.float32, "box_score": np.float32, "area": np.float32,
        "keypoints": number(shape=(joints, 3), dtype=np.float32),
        "box": number(shape=(4,), dtype=np.float32),
    })  # fmt: skip


def picture_features() -> tfds.features.FeaturesDict:
    """Return the fields of a picture: an upright JPEG without metadata.

    sha256: of the lab's file; encoded: 'stripped' (the lab's own pixels) or 'encoded' (again);
    video, frame, time_s: salted id of the video, or '' and -1; ignore_boxes: N regions x, y, width,
    height in px that neither train nor count.
    """
    text, number = tfds.features.Text, tfds.features.Tensor
    return tfds.features.FeaturesDict({
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
        "picture_id": text(), "sha256": text(), "encoded": text(), "video": text(),
        "width": np.int64, "height": np.int64, "frame": np.int64, "time_s": np.float32,
        "ignore_boxes": number(shape=(None, 4), dtype=np.float32),
    })  # fmt: skip


def shard_file(table: str, split: str, shard: int, shards: int) -> str:
    """Return the path of a shard within the data folder, named as TEMPLATE has it."""
    return f"{table}/{table}-{split}.array_record-{shard:05d}-of-{shards:05d}"


def read_manifest(folder) -> Manifest:
    """Read what a data folder holds; raises BadData unless it is whole."""
    folder = epath.Path(folder)
    if (folder / PURGE_JOURNAL).exists():
        raise BadData(f"{folder}: a purge was interrupted; run the same pack_data.py --purge again")
    content = journal.read_object(
        folder / "manifest.json", BadData, "pack the data: scripts/pack_data.py"
    )
    if (found := content.get("format")) != FORMAT:
        raise BadData(f"{folder}/manifest.json: format {found}, not {FORMAT}; pack the data again")
    for key, kind in (("splits", dict), ("shards", list), ("postures", list)):
        if not isinstance(content.get(key), kind):
            raise BadData(f"{folder}/manifest.json: {key!r} is missing; pack the data again")
    _check_shards(content, folder)
    data = journal.read_object(folder / "skeleton.json", BadData, "pack the data again")
    return Manifest(folder, content, skeletons.parse(data, f"{folder}/skeleton.json"))


class Rows:
    """The people of a split by number, each with its picture; for threads and worker processes.

    rows[i] is a dict of the fields of `people_features` and `picture_features`, texts as str, with
    the JPEG as bytes under 'image'. Raises BadData for a split that is not there; reading a damaged
    shard raises ValueError.
    """

    def __init__(self, manifest: Manifest, split: str, cache: str = ""):
        self.manifest, self.split, self.cache = manifest, split, cache
        if split not in manifest.content["splits"]:
            there = ", ".join(manifest.content["splits"])
            raise BadData(f"{manifest.folder}: no split {split!r}; it has {there}")
        entries = sorted(manifest.content["shards"], key=lambda entry: entry["file"])
        self._shards = {
            table: [e for e in entries if e["file"].startswith(f"{table}/{table}-{split}.")]
            for table in TABLES
        }
        counts = [entry["records"] for entry in self._shards["people"]]
        self._ends = list(itertools.accumulate(counts))
        self._open()

    def _open(self):
        self._readers, self._lock = {}, threading.Lock()
        features = people_features(len(self.manifest.skeleton.keypoints)), picture_features()
        self._fields = {
            table: {name: info.shape for name, info in of_table.get_tensor_info().items()}
            for table, of_table in zip(TABLES, features, strict=True)
        }

    def __getstate__(self):
        hidden = ("_readers", "_lock", "_fields")
        return {key: value for key, value in self.__dict__.items() if key not in hidden}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, row: int) -> dict:
        person = self.person(row)
        picture = self._read("pictures", person["shard"], person["picture"])
        return picture | person

    def person(self, row: int) -> dict:
        """Return the person's fields without the picture, and 'shard', where both lie."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        shard = bisect.bisect_right(self._ends, row)
        start = self._ends[shard - 1] if shard else 0
        return self._read("people", shard, row - start) | {"shard": shard}

    def _read(self, table, shard, number):
        reader, count = self._reader(table, shard), self._shards[table][shard]["records"]
        if not 0 <= number < count:
            raise ValueError(f"{table} shard {shard}: record {number} of {count}; pack again")
        return _parse(reader.read([int(number)])[0], self._fields[table])

    def _reader(self, table, shard):
        with self._lock:
            if (table, shard) not in self._readers:
                path = self._local(self._shards[table][shard])
                # Without read-ahead: rows are read in random order.
                options = "readahead_buffer_size:0,max_parallelism:0"
                self._readers[table, shard] = ArrayRecordReader(path, options=options)
            return self._readers[table, shard]

    def _local(self, entry) -> str:
        source = self.manifest.folder / entry["file"]
        if "://" not in os.fspath(source):
            return os.fspath(source)
        mine = f"nkjax-{os.getuid()}-{self.manifest.sha256[:16]}"
        top = Path(self.cache or tempfile.gettempdir()) / mine
        target = top / entry["file"]
        # A copy that was cut short is not taken for the shard.
        if not target.exists() or target.stat().st_size != entry["bytes"]:
            data = source.read_bytes()
            if hashlib.sha256(data).hexdigest() != entry["sha256"]:
                raise BadData(f"{source}: not the shard of the manifest; copy it again")
            target.parent.mkdir(parents=True, exist_ok=True)
            # Another process may be doing the same: whoever renames last wins, with the same bytes.
            with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
                file.write(data)
            os.replace(file.name, target)
        return os.fspath(target)


def _check_shards(content, folder):
    """Raise BadData unless every shard is described, and both tables have as many of each split."""
    kinds = {"file": str, "sha256": str, "bytes": int, "records": int}
    for entry in content["shards"]:
        good = isinstance(entry, dict) and all(
            isinstance(entry.get(key), kind) for key, kind in kinds.items()
        )
        if not good:
            raise BadData(f"{folder}/manifest.json: a shard without {', '.join(kinds)}; pack again")
    files = {entry["file"] for entry in content["shards"]}
    for split in content["splits"]:
        people, pictures = (
            sum(file.startswith(f"{table}/{table}-{split}.") for file in files) for table in TABLES
        )
        if not people == pictures > 0:
            raise BadData(
                f"{folder}/manifest.json: {people} shards of people, {pictures} of pictures of "
                f"split {split!r}; pack again"
            )


def _parse(record: bytes, shapes: dict) -> dict:
    """Read the fields of a record as `FeaturesDict.deserialize_example_np` does, 8 times faster."""
    features, fields = tf_example_pb2.Example.FromString(record).features.feature, {}
    if not features.keys() >= shapes.keys():
        raise ValueError("a record without its fields: the shard is damaged; pack or copy it again")
    for name, shape in shapes.items():
        values = getattr(features[name], features[name].WhichOneof("kind")).value
        if name == "image":
            fields[name] = values[0]
        elif shape:
            fields[name] = np.array(values, np.float32).reshape([-1, *shape[1:]])
        else:
            fields[name] = values[0].decode() if isinstance(values[0], bytes) else values[0]
    return fields
