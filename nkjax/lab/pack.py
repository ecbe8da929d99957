"""Write the shards of a data folder, so that a killed packing goes on where it was.

    DATA/packing/  plan.json, done.jsonl (a line per finished shard): while packing goes on
    DATA/private/  the salt of the ids, and what they stand for: stays in the lab
    DATA/...       as nkjax.data.records reads it; manifest.json is the last file to appear
"""

import collections
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from nkjax.data import images, records, videos
from nkjax.lab import layout, private, scan, shards
from nkjax.lab.layout import Plan
from nkjax.lab.rows import Inputs

# What there is of a folder before plan.json, and until manifest.json, and within packing/.
BEGUN = ("packing", "private")
UNFINISHED = (*BEGUN, "people", "pictures", "skeleton.json", "skeleton.json.partial",
              "manifest.json.partial")  # fmt: skip
NOTES = ("scans.jsonl", "plan.json", "plan.json.partial", "done.jsonl", "done.jsonl.partial")


class BadPack(ValueError):
    """A folder or picture that packing cannot use; the message is one line with file and remedy."""


def check_place(out, inputs: Inputs) -> None:
    """Raise BadPack for a bucket, a folder in use, and one that lies in an input or around it.

    Raises BadData for a name that is no UTF-8.
    """
    shards.check_name(out)
    if "://" in os.fspath(out):
        raise BadPack(f"{out}: folders of this machine only; pack here, then copy the folder")
    folder, out = Path(out), Path(out).resolve()
    for name in filter(None, (inputs.images, *inputs.unlabelled)):
        top = Path(name).resolve()
        if out.is_relative_to(top) or top.is_relative_to(out):
            raise BadPack(f"{out}: lies in {name}, which is never written to, or around it; move "
                          "--out")  # fmt: skip
    for name in filter(None, (inputs.annotations, inputs.subjects, inputs.detections)):
        if Path(name).resolve().is_relative_to(out):
            raise BadPack(f"{out}: holds the input {name}; move --out")
    _refuse_others(folder)


def estimate_bytes(plan: Plan) -> int:
    """Return about how large the data folder becomes."""
    people = sum(len(entry.people) for shard in plan.shards for entry in shard.entries)
    total = people * (12 * len(plan.skeleton.keypoints) + 500)
    for shard in plan.shards:
        for entry in shard.entries:
            picture = entry.picture
            width, height = picture.size_wh
            as_it_is = picture.frame < 0 and picture.turn == 1 and _is_jpeg(picture.path)
            # A photograph at quality 95 takes about 3 bits a pixel.
            total += os.path.getsize(picture.path) if as_it_is else width * height * 3 // 8
    return total


def write(
    plan: Plan, out, workers: int = 1, progress: Callable = lambda items, total, what: items
) -> dict:
    """Write a plan's data folder, or what is missing of it; returns the manifest.

    workers: threads; one picture each is in memory, and the bytes written do not depend on them.
    progress(iterable, total, what): shows it. Stopped at any moment, the same call goes on, and
    ends with the same files. Raises BadPack for a folder with something else in it and for a
    picture that changed since it was checked, BadImage where one cannot be encoded.
    """
    out = Path(out)
    _refuse_others(out)
    out.mkdir(parents=True, exist_ok=True)
    with shards.alone_in(out):
        return _write(plan, out, workers, progress)


def _write(plan, out, workers, progress):
    content = _begin(plan, out)
    if content is None:
        done = _finished_shards(plan, out)
        todo = [shard for shard in plan.shards if (shard.split, shard.index) not in done]
        pictures = sum(len(shard.entries) for shard in todo)
        ticks = iter(progress(range(pictures), pictures, "pictures"))
        for shard in todo:
            line = _write_shard(plan, shard, out, workers, ticks)
            done[shard.split, shard.index] = line
            with open(out / "packing" / "done.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        next(ticks, None)  # so that the bar ends
        content = _finish(plan, out, done)
    if (out / "packing").is_dir():
        shutil.rmtree(out / "packing")
    return content


def verify(out) -> None:
    """Open every shard of a data folder again and read its last row; raises BadData."""
    manifest = records.read_manifest(out)
    for split, counts in manifest.content["splits"].items():
        rows = records.Rows(manifest, split)
        if len(rows) != counts["people"]:
            raise records.BadData(f"{out}: {split} has {len(rows)} people, not {counts['people']}")
        if len(rows):
            rows[len(rows) - 1]
    for entry in manifest.content["shards"]:
        count = sum(1 for _ in shards.read_shard(Path(out) / entry["file"]))
        if count != entry["records"]:
            raise records.BadData(f"{out}/{entry['file']}: {count} rows, not {entry['records']}")


def _refuse_others(out) -> None:
    """Raise BadPack where there is something that packing did not write."""
    if not out.exists():
        return
    if not out.is_dir():
        raise BadPack(f"{out}: is a file; name a new folder with --out")
    notes, others = out / "packing", []
    if not (out / "manifest.json").exists():
        ours = UNFINISHED if (notes / "plan.json").exists() else BEGUN
        others = sorted(p.name for p in out.iterdir() if p.name not in ours)
        if not private.is_ours(out):
            others.append("a private folder without nkjax's salt.txt")
    # It is removed with all that is in it.
    if notes.exists() and not notes.is_dir():
        others.append("packing")
    elif notes.exists():
        others += sorted(f"packing/{p.name}" for p in notes.iterdir() if p.name not in NOTES)
    if others:
        raise BadPack(f"{out}: is in use (there is {others[0]}); name a new folder with --out")


def _begin(plan, out) -> dict | None:
    """Make the folder ready, or give the manifest of one that is packed already."""
    if (out / "manifest.json").exists():
        content = records.read_manifest(out).content
        if content.get("plan") == plan.sha256 and not content["purged"]:
            return content
        raise BadPack(f"{out}: holds packed data already, of other inputs, options or salt, or with"
                      " a subject purged; name another folder with --out")  # fmt: skip
    (out / "packing").mkdir(mode=0o700, parents=True, exist_ok=True)
    note, mine = out / "packing" / "plan.json", {"plan": plan.sha256}
    if note.exists():
        try:
            found = json.loads(note.read_text(errors="replace"))
        except (ValueError, RecursionError):
            found = None
        if found != mine:
            raise BadPack(f"{out}: was begun with other inputs, options or salt; give the same, or "
                          "remove the folder and begin again")  # fmt: skip
    elif private.read_salt(out) not in (None, plan.salt):
        raise BadPack(f"{out}/private: holds the salt of other data; pack with --salt "
                      f"{out}/private/salt.txt, or name a new folder with --out")  # fmt: skip
    private.write_salt(out, plan.salt)
    shards.write_json(note, mine)
    return None


def _finished_shards(plan, out) -> dict[tuple[str, int], dict]:
    """Read the lines of shards that are there and intact; a last line may be torn."""
    path, done = out / "packing" / "done.jsonl", {}
    for text in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
            if all(shards.is_intact(out, entry) for entry in line["shards"]):
                done[line["split"], line["index"]] = line
        except (ValueError, KeyError, TypeError):
            continue
    shards.write_file(path, "".join(json.dumps(v) + "\n" for v in done.values()).encode())
    return done


def _write_shard(plan, shard, out, workers, ticks) -> dict:
    encoded = collections.Counter()
    pictures = shards.writer(records.picture_features())
    people = shards.writer(records.people_features(len(plan.skeleton.keypoints)))

    def picture_rows():
        for entry, (jpeg, how) in zip(shard.entries, _jpegs(shard, workers), strict=True):
            encoded[how] += 1
            yield pictures(layout.picture_row(entry, jpeg, how, plan.salt))
            next(ticks, None)

    def people_rows():
        for number, entry in enumerate(shard.entries):
            for person_id, person in entry.people:
                yield people(layout.person_row(entry, number, person_id, person, plan.salt))

    files = []
    for table, rows in (("people", people_rows()), ("pictures", picture_rows())):
        (out / table).mkdir(exist_ok=True)
        count = shards.write_shard(out / shard.file(table), rows)
        files.append(shards.describe(out, shard.file(table), count))
    return {"split": shard.split, "index": shard.index, "shards": files, "encoded": dict(encoded)}


def _jpegs(shard, workers) -> Iterator[tuple[bytes, str]]:
    """Yield the JPEGs of a shard in order, at most a picture per worker ahead."""
    return scan.in_threads(lambda task: task[0](*task[1:]), _tasks(shard), workers, workers)


def _tasks(shard) -> Iterable[tuple]:
    """Yield (function, arguments) for every picture; frames are decoded here, one after another."""
    for path, group in itertools.groupby(shard.entries, lambda e: e.picture.path):
        pictures = [entry.picture for entry in group]
        if pictures[0].frame < 0:
            yield from ((_read_jpeg, picture) for picture in pictures)
            continue
        wanted = collections.deque(pictures)
        for index, _, rgb in videos.frames(path):
            if index == wanted[0].frame:
                yield _encode_frame, wanted.popleft(), rgb
                if not wanted:
                    break
        if wanted:
            raise BadPack(f"{path}: has no frame {wanted[0].frame} any more; pack again")


def _is_jpeg(path):
    return os.fspath(path).lower().endswith((".jpg", ".jpeg"))


def _read_jpeg(picture):
    try:
        data = Path(picture.path).read_bytes()
    except OSError as error:
        raise BadPack(f"{picture.path}: cannot be opened ({error.strerror}); pack again") from None
    if hashlib.sha256(data).hexdigest() != picture.sha256:
        raise BadPack(f"{picture.path}: changed since it was checked; run the command again")
    return images.canonical_jpeg(data, picture.turn, picture.path)


def _encode_frame(picture, rgb):
    if hashlib.sha256(rgb).hexdigest() != picture.sha256:
        raise BadPack(f"{picture.path}: changed since it was checked; run the command again")
    return images.encode_jpeg(rgb, picture.path), "encoded"


def _finish(plan, out, done) -> dict:
    lines = [done[shard.split, shard.index] for shard in plan.shards]
    entries = sorted((e for line in lines for e in line["shards"]), key=lambda e: e["file"])
    encoded = collections.Counter()
    for line in lines:
        encoded.update(line["encoded"])
    shards.write_metadata(out, entries, len(plan.skeleton.keypoints))
    private.write_names(out, plan)
    shards.write_file(out / "skeleton.json", layout.skeleton_json(plan.skeleton))
    content = plan.manifest | {
        "plan": plan.sha256, "shards": entries, "pictures": dict(sorted(encoded.items())),
    }  # fmt: skip
    shards.write_json(out / "manifest.json", content)
    return content
