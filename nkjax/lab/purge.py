"""Remove one child from a data folder: consent withdrawn, or never given.

Only the shards with the child's pictures are written again, beside the old ones (`.new`). Then
purge.json, which says what is left to do, appears in one step: before it the folder is as it was,
after it the same command finishes, and nkjax.data.records refuses to read until it has.
"""

import collections
import copy
import json
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from nkjax import ids
from nkjax.data import records
from nkjax.lab import private, shards


class BadPurge(ValueError):
    """A subject that cannot be purged; the message is one line with folder, reason and remedy."""


def purge(
    folder, subject: str, progress: Callable = lambda items, total, what: items,
    dry_run: bool = False,
) -> dict[str, int]:  # fmt: skip
    """Remove a subject's pictures, people and private rows; returns how many are gone.

    subject: the lab's own id in any spelling (`ids.tidy`), or the salted one. Returns 'pictures',
    'people', 'shards' (written again) and 'nameless' (pictures left that name no subject: the child
    may be on them). A purge that was interrupted is finished first. A subject purged before is 0 of
    everything. dry_run: only count; nothing is written, nor finished. Raises BadPurge for no
    subject, one without pictures and where geometry/ is cached, BadData for a folder that is not
    whole, BadSalt. Copies, and networks trained on the data, are beyond its reach.
    """
    folder = Path(folder)
    if not ids.tidy(subject):
        raise BadPurge("the subject to purge is empty; name one child")
    shards.check_name(folder)
    if not folder.is_dir():
        raise BadPurge(f"{folder}: no such folder; name the packed data with --out")
    with shards.alone_in(folder):
        return _purge(folder, subject, progress, dry_run)


def check_salt(path, subjects: Collection[str]) -> None:
    """Raise BadPurge where a subject to pack was purged from the data that a salt file belongs to.

    path: private/salt.txt of a data folder; one that was moved elsewhere tells nothing. subjects:
    the lab's ids. Raises BadData for a folder whose purge is not finished, BadSalt.
    """
    path = Path(path).resolve()
    folder = path.parent.parent
    if path.parent.name != "private" or not (folder / "manifest.json").exists():
        return
    salt, purged = ids.read_salt(path), set(records.read_manifest(folder).content["purged"])
    count = len(purged & {ids.salted_id(salt, subject) for subject in subjects})
    if count:
        raise BadPurge(f"{path}: {count} of the subjects to pack were purged from the data of this "
                       "salt; remove them from the inputs")  # fmt: skip


def _purge(folder, subject, progress, dry_run) -> dict[str, int]:
    salt = private.read_salt(folder)
    # Data that an earlier version packed may have the id as it was spelled.
    names = {subject, ids.tidy(subject)}
    names |= {ids.salted_id(salt, name) for name in names} if salt is not None else set()
    if (folder / records.PURGE_JOURNAL).exists() and not dry_run:
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
    counts = _count(folder, manifest, names, progress)
    if not counts["pictures"]:
        raise BadPurge(f"{folder}: no picture is of subject {subject!r}; private/subjects.csv "
                       "lists them all")  # fmt: skip
    if counts["people"] == sum(split["people"] for split in manifest.content["splits"].values()):
        raise BadPurge(f"{folder}: nobody but {subject!r} is in it; remove the whole folder")
    if dry_run:
        return counts
    _forget(folder)
    journal = _prepare(folder, manifest, names, progress) | {"counts": counts}
    shards.write_json(folder / records.PURGE_JOURNAL, journal)
    _finish(folder, journal)
    return journal["counts"]


def _forget(folder) -> None:
    """Remove new shards that no purge will need."""
    for table in records.TABLES:
        for left in (folder / table).glob("*.new*"):
            left.unlink()


def _people(folder, manifest, names, progress) -> Iterator[tuple[str, list[dict], list[dict]]]:
    """Yield (file, its rows, those of the child) for every shard of people."""
    read = shards.reader(records.people_features(len(manifest.skeleton.keypoints)))
    entries = [e for e in manifest.content["shards"] if e["file"].startswith("people/")]
    for entry in progress(entries, len(entries), "shards"):
        _check(folder, entry)
        rows = [read(record) for record in shards.read_shard(folder / entry["file"])]
        yield entry["file"], rows, [row for row in rows if row["subject"].decode() in names]


def _count(folder, manifest, names, progress) -> dict[str, int]:
    counts = dict.fromkeys(("pictures", "people", "shards", "nameless"), 0)
    for _, rows, theirs in _people(folder, manifest, names, progress):
        counts["pictures"] += len({int(row["picture"]) for row in theirs})
        counts["people"] += len(theirs)
        counts["shards"] += 2 * bool(theirs)
        counts["nameless"] += len({int(row["picture"]) for row in rows if not row["subject"]})
    return counts


def _prepare(folder, manifest, names, progress) -> dict:
    """Write the new shards beside the old ones; returns what is then left to do."""
    features = records.people_features(len(manifest.skeleton.keypoints))
    content = copy.deepcopy(manifest.content)
    entries = {entry["file"]: entry for entry in content["shards"]}
    subject, picture_ids, rewritten, splits = "", [], [], set()
    for file, rows, theirs in _people(folder, manifest, names, progress):
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
    return {"subject": subject, "picture_ids": picture_ids, "rewritten": rewritten,
            "emptied": emptied, "manifest": content}  # fmt: skip


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
