"""Decide where every picture goes: which shard, under which id, as which rows.

Nothing is read or written here. Pictures are ordered by their salted ids, so a shard is a mixture.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Mapping

import numpy as np

import nkjax
from nkjax import ids
from nkjax import skeleton as skeletons
from nkjax.data import records
from nkjax.lab.rows import Lab, Person, Picture
from nkjax.skeleton import Skeleton

PICTURES_PER_SHARD = 1024


class BadPlan(ValueError):
    """Data that cannot be packed; the message is one line with reason and remedy."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A picture with its people, (salted id, Person) each, and the boxes to ignore (xywh, px)."""

    id: str
    picture: Picture
    people: tuple[tuple[str, Person], ...]
    ignore: tuple[tuple[float, float, float, float], ...]


@dataclasses.dataclass(frozen=True)
class Shard:
    """The pictures of one shard, in its order, which is number `index` of `count` of a split."""

    split: str
    index: int
    count: int
    entries: tuple[Entry, ...]

    def file(self, table: str) -> str:
        """Return the path of the shard of a table within the data folder."""
        return records.shard_file(table, self.split, self.index, self.count)


@dataclasses.dataclass(frozen=True)
class Plan:
    """All shards, and all of the manifest that is known before a picture is read.

    sha256: of everything that decides the bytes of the data folder.
    """

    skeleton: Skeleton
    salt: bytes
    shards: tuple[Shard, ...]
    manifest: dict
    sha256: str


def plan(
    lab: Lab, splits: Mapping[str, str], salt: bytes, options: Mapping, inputs: Mapping[str, str],
    pictures_per_shard: int = PICTURES_PER_SHARD, skeleton_name: str = "",
) -> Plan:  # fmt: skip
    """Decide which shard every picture goes to; touches no file.

    splits: picture key -> name of its split; pictures without one are left out. options, inputs
    (option -> sha256 of its file): for the manifest. Pictures are ordered by their salted ids, so a
    shard is a mixture; frames of a video stay together, so that it is decoded in one go. Pictures
    without a person, regions to ignore aside, are left out: rows are people, nothing reads them.
    skeleton_name: to pack, if the user gave the skeleton one; the name of a category may be a
    patient's, so without it a skeleton that is not built in is called 'lab'.
    Raises BadPlan where two pictures or people have the same id, or nothing is left.
    """
    lab = dataclasses.replace(lab, skeleton=_named(lab.skeleton, skeleton_name))
    trained_on = {person.picture for person in lab.people if not person.ignore}
    chosen = [p for p in lab.pictures if p.key in splits and p.key in trained_on]
    people = collections.defaultdict(list)
    for person in lab.people:
        people[person.picture].append(person)
    if not chosen:
        raise BadPlan("no picture is left to pack; the findings say why")
    planned = []
    for split in records.SPLITS:
        mine = [p for p in chosen if splits[p.key] == split]
        mine.sort(key=lambda p: (ids.salted_id(salt, _file_key(p)), p.frame, p.key))
        entries = [_entry(picture, people[picture.key], salt) for picture in mine]
        count = math.ceil(len(entries) / pictures_per_shard)
        for i in range(count):
            first, last = (n * len(entries) // count for n in (i, i + 1))
            planned.append(Shard(split, i, count, tuple(entries[first:last])))
    _check_ids(planned)
    content = _manifest(lab, planned, salt, options, inputs)
    content["left_out"] = sum(p.key in splits for p in lab.pictures) - len(chosen)
    return Plan(lab.skeleton, salt, tuple(planned), content, _hash(planned, content))


def person_row(entry: Entry, number: int, person_id: str, person: Person, salt: bytes) -> dict:
    """Return the row of a person (`records.people_features`).

    number: of the picture in its shard.
    """
    subject, labelled = entry.picture.subject, entry.picture.labelled
    return {
        "person_id": person_id, "picture_id": entry.id, "picture": number,
        "subject": ids.salted_id(salt, subject.id) if subject.id else "",
        "session": session_id(entry.picture, salt), "site": _text(subject.site),
        "posture": _posture(entry, person), "grasp": _text(person.grasp or subject.grasp),
        "age_months": subject.age_months,
        "annotation_id": person.id if labelled else 0,
        "keypoints": np.asarray(person.keypoints_k3, np.float32),
        "box": np.asarray(person.box_xywh, np.float32), "box_source": person.box_source,
        "box_score": person.score, "area": person.area,
    }  # fmt: skip


def picture_row(entry: Entry, jpeg: bytes, encoded: str, salt: bytes) -> dict:
    """Return the row of a picture (`records.picture_features`) from its canonical JPEG."""
    picture = entry.picture
    return {
        "image": jpeg, "encoded": encoded, "picture_id": entry.id, "sha256": picture.sha256,
        "video": ids.salted_id(salt, _file_key(picture)) if picture.frame >= 0 else "",
        "frame": picture.frame, "time_s": picture.time_s,
        "width": picture.size_wh[0], "height": picture.size_wh[1],
        "ignore_boxes": np.asarray(entry.ignore, np.float32).reshape(-1, 4),
    }  # fmt: skip


def skeleton_json(skeleton: Skeleton) -> bytes:
    """Return the content of skeleton.json."""
    return (json.dumps(skeletons.to_json(skeleton), indent=1) + "\n").encode()


def session_id(picture: Picture, salt: bytes) -> str:
    """Return the salted id of a subject's session, '' where none is known."""
    subject = picture.subject
    return ids.salted_id(salt, f"{subject.id}/{subject.session}") if subject.session else ""


def _named(skeleton, name):
    if skeleton.name in skeletons.BUILT_IN and skeleton == skeletons.load(skeleton.name):
        return skeleton
    return dataclasses.replace(skeleton, name=name or "lab")


def _file_key(picture):
    return picture.key.rpartition("#")[0] if picture.frame >= 0 else picture.key


def _entry(picture, people, salt):
    named, unnamed = [], itertools.count()
    for person in people:
        # 1 and '1' are two ids.
        name = f"{person.source_id!r}" if person.source_id is not None else f"#{next(unnamed)}"
        if not person.ignore:
            named.append((ids.salted_id(salt, f"{picture.key}/{name}"), person))
    ignore = tuple(person.box_xywh for person in people if person.ignore)
    return Entry(ids.salted_id(salt, picture.key), picture, tuple(named), ignore)


def _check_ids(planned):
    entries = [entry for shard in planned for entry in shard.entries]
    named = {
        "pictures have the same name": [entry.id for entry in entries],
        "people have the same annotation id": [id for entry in entries for id, _ in entry.people],
    }
    for what, found in named.items():
        if len(set(found)) != len(found):
            raise BadPlan(f"two {what}; give each its own")


def _manifest(lab, planned, salt, options, inputs):
    splits = {}
    for name in records.SPLITS:
        entries = [e for shard in planned if shard.split == name for e in shard.entries]
        if entries:
            splits[name] = {
                "people": sum(len(entry.people) for entry in entries),
                "pictures": len(entries),
                "subjects": len({e.picture.subject.id for e in entries} - {""}),
            }
    people = [(e, p) for shard in planned for e in shard.entries for _, p in e.people]
    return {
        "format": records.FORMAT, "nkjax": nkjax.__version__, "licence": "",
        "skeleton": hashlib.sha256(skeleton_json(lab.skeleton)).hexdigest(),
        "salt": ids.fingerprint(salt),
        "options": dict(options), "inputs": dict(inputs), "splits": splits,
        "postures": sorted({_posture(entry, person) for entry, person in people} - {""}),
        # No examples: they name files.
        "findings": [{"code": f.code, "severity": f.severity, "count": f.count}
                     for f in lab.findings.listed()],
        "purged": [],
    }  # fmt: skip


def _hash(planned, content):
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for shard in planned:
        digest.update(repr((shard.split, shard.index, shard.count)).encode())
        for entry in shard.entries:
            picture = dataclasses.replace(entry.picture, key="", path="", phash=0, image_id=None)
            digest.update(repr((entry.id, picture, entry.ignore)).encode(errors="surrogateescape"))
            for person_id, person in entry.people:
                # The joints as bytes: repr shortens large arrays.
                row = dataclasses.replace(person, keypoints_k3=None, picture="", source_id=None)
                digest.update(repr((person_id, row)).encode(errors="surrogateescape"))
                digest.update(np.asarray(person.keypoints_k3, np.float32).tobytes())
    return digest.hexdigest()


def _posture(entry, person):
    return _text(person.posture or entry.picture.subject.posture)


def _text(value):
    # JSON can hold halves of characters, which nothing can store.
    return value.encode(errors="replace").decode()
