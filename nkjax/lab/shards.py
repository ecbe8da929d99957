"""Write the files of a data folder so that each appears whole, or not at all.

A shard is an ArrayRecord file of serialised rows. The same rows give the same bytes, in every
process: a killed packing can go on, and a manifest can be compared.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.core import example_serializer, naming

from nkjax.data import records

# One row per chunk, for reading in random order; not compressed, because JPEG is already.
OPTIONS = "group_size:1,uncompressed"


@contextlib.contextmanager
def alone_in(folder) -> Iterator[None]:
    """Keep other processes from packing or purging a folder too; raises BadData where one does."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        raise records.BadData(
            f"{folder}: another process is packing or purging it; wait until it is done"
        ) from None
    except OSError:  # some network file systems have no locks
        pass
    try:
        yield
    finally:
        os.close(opened)


def check_name(folder) -> None:
    """Raise BadData for a folder whose name is no UTF-8: ArrayRecord opens no file there."""
    try:
        os.fspath(folder).encode()
    except UnicodeEncodeError:
        raise records.BadData(f"{folder}: the name is no UTF-8; give another folder") from None


def writer(features: tfds.features.FeaturesDict):
    """Return the function that turns a row (dict of the features) into the bytes of a record."""
    # `features.serialize_example` orders the fields differently in every process.
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())

    def serialize(row: Mapping) -> bytes:
        return serializer.get_tf_example(row).SerializeToString(deterministic=True)

    return serialize


def reader(features: tfds.features.FeaturesDict):
    """Return the function that turns a record into a row, texts and pictures as bytes."""
    decoders = {"image": tfds.decode.SkipDecoding()} if "image" in features else None
    return functools.partial(features.deserialize_example_np, decoders=decoders)


def write_shard(path, rows: Iterable[bytes]) -> int:
    """Write records to a file that appears when it is complete; returns how many there are.

    Until then they are in `<path>.partial`, one record in memory at a time.
    """
    partial, count = Path(f"{path}.partial"), 0
    partial.unlink(missing_ok=True)
    records_of = ArrayRecordWriter(os.fspath(partial), OPTIONS)
    try:
        for row in rows:
            records_of.write(row)
            count += 1
    finally:
        records_of.close()
    _flush(partial)
    os.replace(partial, path)
    _flush(Path(path).parent)
    return count


def read_shard(path) -> Iterable[bytes]:
    """Yield the records of a shard, one in memory at a time; raises BadData where it is damaged."""
    try:
        opened = ArrayRecordReader(os.fspath(path), "readahead_buffer_size:0,max_parallelism:0")
        try:
            for number in range(opened.num_records()):
                yield opened.read([number])[0]
        finally:
            opened.close()
    except (RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise records.BadData(f"{path}: a damaged shard ({reason}); restore it, or pack") from None


def describe(folder, file: str, count: int) -> dict:
    """Return what the manifest says of a shard; file: its path within the folder."""
    path = Path(folder) / file
    return {
        "file": file, "sha256": sha256(path), "bytes": path.stat().st_size, "records": count,
    }  # fmt: skip


def is_intact(folder, entry: Mapping) -> bool:
    """Tell whether a shard is the one that its entry describes."""
    path = Path(folder) / entry["file"]
    return (
        path.is_file()
        and path.stat().st_size == entry["bytes"]
        and sha256(path) == entry["sha256"]
    )


def sha256(path) -> str:
    """Return the SHA-256 of a file in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path, content: bytes) -> None:
    """Write a small file that appears when it is complete, in place of the one before."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    _flush(path.parent)


def write_json(path, content) -> None:
    """Write JSON as `write_file` does; the same content gives the same bytes."""
    write_file(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def write_metadata(folder, entries: Sequence[Mapping], joints: int) -> None:
    """Write what tensorflow-datasets needs beside the shards of both tables.

    folder: of the data; entries: of all shards, as in the manifest. `tfds.builder_from_directory`
    of DATA/people or DATA/pictures then reads them, without TensorFlow.
    """
    features = {"people": records.people_features(joints), "pictures": records.picture_features()}
    for table in records.TABLES:
        top = Path(folder) / table
        template = naming.ShardedFileTemplate(
            data_dir=top, template=records.TEMPLATE, dataset_name=table,
            filetype_suffix="array_record",
        )  # fmt: skip
        splits = []
        for split in records.SPLITS:
            prefix = f"{table}/{table}-{split}."
            mine = [e for e in entries if e["file"].startswith(prefix)]
            mine.sort(key=lambda e: e["file"])
            if mine:
                splits.append(tfds.core.SplitInfo(
                    name=split, shard_lengths=[e["records"] for e in mine],
                    num_bytes=sum(e["bytes"] for e in mine),
                    filename_template=template.replace(split=split),
                ))  # fmt: skip
        # The check reads a record through TensorFlow.
        tfds.folder_dataset.write_metadata(
            data_dir=top, features=features[table], split_infos=splits, check_data=False,
            filename_template=records.TEMPLATE,
        )  # fmt: skip


def _flush(path: Path) -> None:
    """Make a file, or the names in a folder, outlast a power failure."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
