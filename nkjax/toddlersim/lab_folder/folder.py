"""Write simulated pictures as the folder a lab would hand over, and the truth beside it.

    images/       labelled and test pictures       labels.json      COCO, of both
    unlabelled/   pictures without labels          detections.json  a detector's boxes on them
    subjects.csv  which child is on which          skeleton.json    the joints
    README.txt    the commands to go on with       truth/           see `truth`
    simulation.json   the settings; written last: where it is, the folder is whole
"""

import collections
import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

import nkjax
from nkjax import skeleton as skeletons
from nkjax.data import images
from nkjax.skeleton import Skeleton
from nkjax.toddlersim import truth
from nkjax.toddlersim.examples import DOMAINS, ROLES, Example
from nkjax.toddlersim.lab_folder import lists
from nkjax.toddlersim.lab_folder.lists import Row, Summary

FORMAT = 1
SETTINGS = {"format", "nkjax", "domain", "seed", "size_wh", "counts", "subjects", "defects"}
WRITTEN = ("labelled", "test", "unlabelled")  # in this order
PLACES = {"labelled": "images", "test": "images", "unlabelled": "unlabelled"}
QUALITY = (75, 95)  # of JPEG, as phones and cameras save
DETECTOR, JPEG = 10, 11  # streams of random numbers; those of the world count from 0
AHEAD = 4  # pictures asked for beforehand, per worker

README = """Simulated pictures, made by nkjax as a lab would hand them over. Nobody is real.

images/ with labels.json      labelled and test pictures
unlabelled/, detections.json  pictures without labels, a detector's boxes
subjects.csv                  who is on which picture, and the side of the split
skeleton.json                 the joints
simulation.json               how it was made; without it the folder is not whole
truth/                        what a lab never has: depth, normals, parts, joints in space, and in
                              people.csv who and what each picture shows. It is for evaluation.
                              Adults' truth may be learned from too (truth.read_adult); nothing
                              may learn from that of toddlers. Checking, packing and training do
                              not need it: delete it, and with the same --salt they give the same
                              bytes.

From this folder, with NKJAX for where nkjax is:

    python NKJAX/scripts/check_data.py {options}
    python NKJAX/scripts/pack_data.py {options} \\
        --out ../packed
"""


class BadFolder(ValueError):
    """A folder that cannot be written to, or is not whole; the message is one line."""


class _Job(NamedTuple):
    out: str
    domain: str
    size_wh: tuple[int, int]
    seed: int
    make: Callable


def write(
    out,
    domain: str,
    counts: Mapping[str, int],
    size_wh: tuple[int, int],
    seed: int,
    make: Callable[..., Example],
    skeleton: Skeleton,
    workers: int = 1,
    progress: Callable = lambda iterable, total, what: iterable,
) -> Summary:
    """Write a folder of counts[role] pictures per role; the same bytes for any number of workers.

    make(domain, role, index, size_wh, seed) makes a picture; a function at the top of a module, as
    worker processes import it. Its keypoints are skeleton's. progress(iterable, total, what): shows
    it. Picture `index` of a role, its truth and its entries do not depend on the counts.

    Raises BadFolder where `out` is not empty or cannot be made. Halfway, with an unfinished folder
    left: OSError such as for a full disk, RuntimeError where `make` gives up or a worker dies.
    """
    check_place(out)
    out, counts = Path(out), {role: counts.get(role, 0) for role in ROLES}
    try:
        for place in sorted({truth.FOLDER, *(PLACES[role] for role in ROLES if counts[role])}):
            (out / place).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadFolder(f"{out}: cannot be made ({error.strerror}); name another one") from None
    _write_text(out / "skeleton.json", _json(skeletons.to_json(skeleton)))
    words = options(counts)
    lines = [" ".join(words[i : i + 4]) for i in range(0, len(words), 4)]
    _write_text(out / "README.txt", README.format(options=" \\\n        ".join(lines)))
    job = _Job(str(out), domain, tuple(size_wh), seed, make)
    which = [(role, i) for role in WRITTEN for i in range(counts[role])]
    with contextlib.closing(_rows(job, which, workers)) as rows:
        summary = lists.write(out, counts, skeleton, progress(rows, len(which), "pictures"))
    _write_text(out / truth.SETTINGS, _json({
        "format": FORMAT, "nkjax": nkjax.__version__, "domain": domain, "seed": seed,
        "size_wh": list(size_wh), "counts": counts, "subjects": summary.subjects, "defects": [],
    }))  # fmt: skip
    return summary


def check_place(out) -> None:
    """Raise BadFolder for a place with something in it; an unfinished folder is called so."""
    out = Path(out)
    if os.path.lexists(out / truth.SETTINGS):
        raise BadFolder(f"{out}: holds a simulated folder already; name another one")
    if os.path.isdir(out / truth.FOLDER):
        raise BadFolder(f"{out}: an unfinished simulated folder; remove it, or name another one")
    try:
        empty = not os.path.lexists(out) or not os.listdir(out)
    except OSError:
        empty = False
    if not empty:
        raise BadFolder(f"{out}: exists and is not an empty folder; name another one")


def settings(out) -> dict:
    """Return the content of simulation.json.

    Raises BadFolder where there is none, so that the folder is unfinished or no simulated one, and
    where it is damaged or of another format than this version writes.
    """
    path = Path(out) / truth.SETTINGS
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(known, dict) and known.keys() >= SETTINGS):
            raise ValueError("not all settings")
    except (FileNotFoundError, NotADirectoryError):
        if os.path.isdir(Path(out) / truth.FOLDER):
            raise BadFolder(f"{out}: an unfinished simulated folder; make it again") from None
        raise BadFolder(f"{out}: not a simulated folder") from None
    except (OSError, ValueError, RecursionError):
        raise BadFolder(f"{path}: damaged; simulate the folder again") from None
    if known["format"] != FORMAT:
        raise BadFolder(f"{path}: of another version of nkjax; simulate the folder again")
    if not _sound(known):
        raise BadFolder(f"{path}: damaged; simulate the folder again")
    return known


def note_defects(out, names) -> None:
    """Add the names of planted mistakes to simulation.json."""
    known = settings(out)
    known["defects"] = [*known["defects"], *names]
    _write_text(Path(out) / truth.SETTINGS, _json(known))


def options(counts: Mapping[str, int], place="") -> list[str]:
    """Return the options that check_data.py and pack_data.py take, for a folder at `place`."""
    named = [("skeleton", "skeleton.json"), ("subjects", "subjects.csv")]
    if counts["labelled"] + counts["test"]:
        named = [("annotations", "labels.json"), ("images", "images"), *named]
    if counts["unlabelled"]:
        named += [("unlabelled", "unlabelled"), ("detections", "detections.json")]
    return [word for name, file in named for word in (f"--{name}", os.path.join(place, file))]


def _rows(job: _Job, which, workers) -> Iterator[Row]:
    """Write the pictures, and yield their rows in the order of which: (role, index)."""
    if workers == 1:
        yield from (_picture(job, *one) for one in which)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker) as pool:
        ahead = collections.deque()
        try:
            for one in which:
                ahead.append(_submit(pool, job, *one))
                if len(ahead) > AHEAD * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _submit(pool, *which):
    # Ctrl-C is for the parent, which then ends its workers: started here, they inherit the mask.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_picture, *which)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker():
    # Whatever ends the parent, its workers end too.
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _picture(job: _Job, role, index) -> Row:
    """Make a picture, write it and its truth, and return what the lists say of it."""
    example = job.make(job.domain, role, index, job.size_wh, job.seed)
    key = [job.seed, DOMAINS.index(job.domain), ROLES.index(role)]
    row = lists.row(example, np.random.default_rng([*key, DETECTOR, index]))
    quality = np.random.default_rng([*key, JPEG, index]).integers(*QUALITY, endpoint=True)
    picture = images.encode_jpeg(example.image_hw3, row.file, int(quality))
    (Path(job.out) / PLACES[role] / row.file).write_bytes(picture)
    truth.write(job.out, row.file, example)
    return row


def _sound(known) -> bool:
    counts, size_wh, names = known["counts"], known["size_wh"], known["defects"]
    return (
        known["domain"] in DOMAINS
        and isinstance(counts, dict) and counts.keys() == set(ROLES) and _whole(counts.values())
        and isinstance(size_wh, list) and len(size_wh) == 2 and _whole(size_wh)
        and isinstance(names, list) and all(isinstance(name, str) for name in names)
    )  # fmt: skip


def _whole(numbers) -> bool:
    return all(type(number) is int and number >= 0 for number in numbers)


def _json(content) -> str:
    return json.dumps(content, indent=1) + "\n"


def _write_text(path, text):
    path.write_text(text, encoding="utf-8")
