"""Packed folders by number, damaged ones in one line, and folders in a bucket."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from etils.epath import backend, gpath

from nkjax.data import augment, records, samples, streams
from tests.data_io import packed


@pytest.fixture(scope="module")
def rows():
    return packed.drawn_rows(11)


@pytest.fixture
def folder(tmp_path, rows):
    packed.write(tmp_path / "data", {"train": rows[:8], "val": rows[8:]}, shards=3)
    return tmp_path / "data"


def test_rows_are_what_was_packed(folder, rows):
    manifest = records.read_manifest(folder)
    train = records.Rows(manifest, "train")
    assert len(train) == 8 and len(records.Rows(manifest, "val")) == 3
    for number in (7, 0, 4, 2):
        row, (person, picture) = train[number], rows[number]
        assert row["person_id"] == person["person_id"] and row["image"] == picture["image"]
        np.testing.assert_array_equal(row["keypoints"], person["keypoints"])
        assert row["keypoints"].dtype == np.float32
        assert (row["posture"], row["grasp"], row["width"]) == ("walk", "pincer", 96)
    with pytest.raises(IndexError):
        train[8]


def test_rows_are_read_as_tensorflow_datasets_reads_them(tmp_path):
    ((person, picture),) = packed.drawn_rows(1)
    picture["ignore_boxes"] = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    person["site"] = "Zürich"
    manifest = packed.write(tmp_path, {"val": [(person, picture)]}, shards=1)
    row = records.Rows(manifest, "val")[0]
    for table, features in zip(
        records.TABLES, (records.people_features(17), records.picture_features()), strict=True
    ):
        file = str(tmp_path / records.shard_file(table, "val", 0, 1))
        (record,) = ArrayRecordReader(file).read_all()
        raw = features.deserialize_example_np(
            record, decoders={"image": tfds.decode.SkipDecoding()} if table == "pictures" else None
        )
        for name, value in raw.items():
            if isinstance(value, bytes) and name != "image":
                value = value.decode()
            np.testing.assert_array_equal(row[name], value)
            assert type(row[name]) is type(value)
            assert getattr(row[name], "dtype", None) == getattr(value, "dtype", None)


def test_the_manifest_identifies_the_data(folder):
    before = records.read_manifest(folder).sha256
    assert before == records.read_manifest(folder).sha256
    content = json.loads((folder / "manifest.json").read_text())
    content["shards"][0]["sha256"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(content))
    assert records.read_manifest(folder).sha256 != before


@pytest.mark.parametrize(("file", "text", "rule"), [
    ("manifest.json", None, "cannot be opened"), ("manifest.json", "{", "not a JSON file"),
    ("manifest.json", "[]", "not a JSON object"), ("manifest.json", '{"format": 9}', "format 9"),
    # Before people had a grasp.
    ("manifest.json", '{"format": 1}', "format 1, not 2; pack the data again"),
    ("manifest.json", "[" * 100_000, "not a JSON file"),
    ("manifest.json", '{"format": 2, "splits": {}}', "'shards' is missing"),
    ("skeleton.json", None, "cannot be opened"), ("skeleton.json", "{}", "'name' is missing"),
    ("purge.json", "{}", "a purge was interrupted"),
])  # fmt: skip
def test_a_damaged_folder_is_refused_in_one_line(folder, file, text, rule):
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    with pytest.raises((records.BadData, ValueError), match=rule) as caught:
        records.read_manifest(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize(("change", "rule"), [
    (lambda shards: shards.__setitem__(0, {}), "a shard without file, sha256, bytes, records"),
    (lambda shards: shards.__setitem__(0, 3), "a shard without"),
    (lambda shards: shards[0].__setitem__("records", "5"), "a shard without"),
    (lambda shards: shards.pop(0), "2 shards of people, 3 of pictures of split 'train'"),
])  # fmt: skip
def test_a_manifest_whose_shards_do_not_fit_is_refused(folder, change, rule):
    content = json.loads((folder / "manifest.json").read_text())
    content["shards"].sort(key=lambda entry: entry["file"])
    change(content["shards"])
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(records.BadData, match=rule):
        records.read_manifest(folder)


def test_a_picture_beyond_the_shard_is_a_bad_row(tmp_path, rows):
    folder = tmp_path / "data"
    manifest = packed.write(folder, {"train": rows[:4]}, shards=1)
    read = records.Rows(manifest, "train")
    for number in (-1, 4):
        with pytest.raises(ValueError, match=f"pictures shard 0: record {number} of 4"):
            read._read("pictures", 0, number)


def test_a_split_that_is_not_there_is_named(folder):
    with pytest.raises(records.BadData, match="no split 'test'; it has train, val"):
        records.Rows(records.read_manifest(folder), "test")


# ---- buckets ---------------------------------------------------------------------------------


class Bucket(backend._OsPathBackend):
    """Serves gs:// paths from a local folder, and counts what is opened."""

    def __init__(self, top):
        self.top, self.opened = top, []

    def _local(self, path):
        assert os.fspath(path).startswith("gs://lab/")
        return self.top / os.fspath(path).removeprefix("gs://lab/")

    def open(self, path, mode):
        self.opened.append(os.fspath(path))
        return open(self._local(path), mode)

    def exists(self, path):
        return self._local(path).exists()


@pytest.fixture
def bucket(folder, monkeypatch):
    served = Bucket(folder)
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", served)
    return served


LOOK = samples.Look((24, 32), (("view", augment.SAPIENS),))


def steps(source, start_step, count, cache=""):
    rows = records.Rows(records.read_manifest(source), "train", cache)
    iterator = streams.endless(
        {"a": streams.Stream(rows, LOOK, 4)}, seed=0, start_step=start_step, threads=2
    )
    taken = [next(iterator)["a"] for _ in range(count)]
    iterator.close()
    return taken


def test_a_bucket_reads_and_resumes_like_a_folder(folder, bucket, tmp_path):
    cache = str(tmp_path / "cache")
    local = steps(folder, 0, 4)
    distant = steps("gs://lab", 0, 2, cache) + steps("gs://lab", 2, 2, cache)
    for a, b in zip(local, distant, strict=True):
        np.testing.assert_array_equal(a["views"]["view"]["image"], b["views"]["view"]["image"])
        np.testing.assert_array_equal(a["points"], b["points"])
        assert b["valid"].all()
    shards = [path for path in bucket.opened if "array_record" in path]
    assert len(shards) == len(set(shards)) == 6  # each copied once, for both runs


def test_a_copy_that_was_cut_short_is_fetched_again(folder, bucket, tmp_path):
    cache = tmp_path / "cache"
    steps("gs://lab", 0, 2, str(cache))
    for copy in [path for path in cache.rglob("*.array_record-*") if path.is_file()]:
        copy.write_bytes(copy.read_bytes()[:1000])
    assert all(batch["valid"].all() for batch in steps("gs://lab", 0, 2, str(cache)))


def test_a_shard_that_changed_in_the_bucket_is_not_used(folder, bucket, tmp_path):
    shard = folder / records.shard_file("pictures", "train", 0, 3)
    other = folder / records.shard_file("pictures", "train", 1, 3)
    shutil.copy(other, shard)
    rows = records.Rows(records.read_manifest("gs://lab"), "train", str(tmp_path / "cache"))
    with pytest.raises(records.BadData, match="not the shard of the manifest"):
        rows[0]
    assert not list((tmp_path / "cache").rglob("pictures-*"))
