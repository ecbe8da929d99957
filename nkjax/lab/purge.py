"""Remove one child from a data folder: consent withdrawn, or never given.

Only the shards with the child's pictures are written again, beside the old ones (`.new`). Then
purge.json, which says what is left to do, appears in one step: before it the folder is as it was,
after it the same command finishes, and nkjax.data.records refuses to read until it has.
"""

import collections
import copy
import json
import os
from collections.abc import Callable
from pathlib import Path

from nkjax import ids
from nkjax.data import records
from nkjax.lab import private, shards


class BadPurge(ValueError):
    """A subject that cannot be purged; the message is one line with folder, reason and remedy."""


def purge(
    folder, subject: str, progress: Callable = lambda items, total, what: items
) -> dict[str, int]:
    """Remove a subject's pictures, people and private rows; returns how many are gone.

    subject: the lab's own id, or the salted one. Returns 'pictures', 'people', 'shards' (written
    again) and 'nameless' (pictures left that name no subject: the child may be on them). A purge
    that was interrupted is finished first. A subject purged before is 0 of everything. Raises
    BadPurge for one without pictures and where geometry/ is cached, BadData for a folder that is
    not whole, BadSalt. Copies, and networks trained on the data, are beyond its reach.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadPurge(f"{folder}: no such folder; name the packed data with --out")
    with shards.alone_in(folder):
        return _purge(folder, subject, progress)


def _purge(folder, subject, progress) -> dict[str, int]:
    salt = private.read_salt(folder)
    names = {subject} | ({ids.salted_id(salt, subject)} if salt is not None else set())
    if (folder / records.PURGE_JOURNAL).exists():
        journal = json.loads((folder / records.PURGE_JOURNAL).read_text())
        _finish(folder, journal)
        if journal["subject"] in names:
            return journal["counts"]
    manifest = records.read_manifest(folder)
    if names & set(manifest.content["purged"]):
        return dict.fromkeys(("pictures", "people", "shards", "nameless"), 0)
    if (folder / "geometry").exists():
        raise BadPurge(f"{folder}/geometry: holds depth and normals of the child too; remove that "
                       "folder, purge, and cache the geometry again")  # fmt: skip
    _forget(folder)
    journal = _prepare(folder, manifest, names, progress)
    if not journal["picture_ids"]:
        raise BadPurge(f"{folder}: no picture is of subject {subject!r}; private/subjects.csv "
                       "lists them all")  # fmt: skip
    if not journal["manifest"]["shards"]:
        _forget(folder)
        raise BadPurge(f"{folder}: nobody but {subject!r} is in it; remove the whole folder")
    shards.write_json(folder / records.PURGE_JOURNAL, journal)
    _finish(folder, journal)
    return journal["counts"]


def _forget(folder) -> None:
    """Remove new shards that no purge will need."""
    for table in records.TABLES:
        for left in (folder / table).glob("*.new*"):
            left.unlink()


def _prepare(folder, manifest, names, progress) -> dict:
    """Write the new shards beside the old ones; returns what is then left to do."""
    features = records.people_features(len(manifest.skeleton.keypoints))
    read = shards.reader(features)
    content, counts = copy.deepcopy(manifest.content), collections.Counter()
    entries = {entry["file"]: entry for entry in content["shards"]}
    files = [file for file in entries if file.startswith("people/")]
    subject, picture_ids, rewritten, splits = "", [], [], set()
    for file in progress(files, len(files), "shards"):
        _check(folder, entries[file])
        rows = [read(record) for record in shards.read_shard(folder / file)]
        theirs = [row for row in rows if row["subject"].decode() in names]
        counts["nameless"] += len({int(row["picture"]) for row in rows if not row["subject"]})
        if not theirs:
            continue
        subject = theirs[0]["subject"].decode()
        picture_ids += sorted({row["picture_id"].decode() for row in theirs})
        gone = {int(row["picture"]) for row in theirs}
        split = file.removeprefix("people/people-").partition(".")[0]
        splits.add(split)
        pictures_file = file.replace("people", "pictures")
        _check(folder, entries[pictures_file])
        encoded = _rewrite_pictures(folder / pictures_file, gone)
        for how, count in encoded.items():
            content["pictures"][how] -= count
        kept = _rewrite_people(folder / file, features, rows, gone)
        left = {file: kept, pictures_file: entries[pictures_file]["records"] - len(gone)}
        for name, count in left.items():
            table = name.partition("/")[0]
            lost = entries[name]["records"] - count
            counts[table] += lost
            content["splits"][split][table] -= lost
            entries[name] = shards.describe(folder, f"{name}.new", count) | {"file": name}
            rewritten.append(name)
    emptied = []
    for split in splits:
        content["splits"][split]["subjects"] -= 1
        if not content["splits"][split]["people"]:  # tensorflow-datasets has no empty splits
            del content["splits"][split]
            emptied += [file for file in entries if f"-{split}." in file]
    content["shards"] = [entries[file] for file in sorted(entries) if file not in emptied]
    content["purged"] = sorted([*content["purged"], subject])
    counts = {n: counts[n] for n in ("pictures", "people", "nameless")} | {"shards": len(rewritten)}
    return {"subject": subject, "picture_ids": picture_ids, "rewritten": rewritten,
            "emptied": emptied, "counts": counts, "manifest": content}  # fmt: skip


def _check(folder, entry) -> None:
    if not shards.is_intact(folder, entry):
        raise records.BadData(f"{folder / entry['file']}: not the shard of the manifest, it is "
                              "damaged; restore it first")  # fmt: skip


def _rewrite_pictures(path, gone: set[int]) -> dict[str, int]:
    """Write a shard of pictures again without some; returns how many of those were encoded how."""
    read, encoded = shards.reader(records.picture_features()), collections.Counter()

    def kept():
        for number, record in enumerate(shards.read_shard(path)):
            if number in gone:
                encoded[read(record)["encoded"].decode()] += 1
            else:
                yield record

    shards.write_shard(f"{path}.new", kept())
    return encoded


def _rewrite_people(path, features, rows, gone: set[int]) -> int:
    """Write a shard of people again without those of some pictures; the others move up."""
    serialize = shards.writer(features)

    def kept():
        for row in rows:
            number = int(row["picture"])
            if number not in gone:
                yield serialize(row | {"picture": number - sum(n < number for n in gone)})

    return shards.write_shard(f"{path}.new", kept())


def _finish(folder, journal) -> None:
    """Do what is left to do; everything here may be done twice."""
    for file in journal["rewritten"]:
        new = folder / f"{file}.new"
        if new.exists():
            os.replace(new, folder / file)
    for file in journal["emptied"]:
        (folder / file).unlink(missing_ok=True)
    gone = set(journal["picture_ids"])
    private.remove_rows(folder, "mapping.csv", lambda row: row["picture_id"] in gone)
    private.remove_rows(
        folder, "subjects.csv", lambda row: row["subject_id"] == journal["subject"]
    )
    content = journal["manifest"]
    joints = len(json.loads((folder / "skeleton.json").read_text())["keypoints"])
    shards.write_metadata(folder, content["shards"], joints)
    shards.write_json(folder / "manifest.json", content)
    (folder / records.PURGE_JOURNAL).unlink()
