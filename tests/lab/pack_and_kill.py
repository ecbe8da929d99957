"""Packs drawn labs for the tests; as a program, packs or purges and is killed at many moments.

    python pack_and_kill.py pack LAB OUT WAY      WAY: 'events' or a seed
    python pack_and_kill.py purge DATA OUT WAY    DATA: a packed folder, of which OUT is made a copy

'events' kills before every writing, renaming, making and removing of a file in OUT, one after
another; a seed kills after random times. After each kill the same call is made again, and what it
leaves at last is compared by the tests with what an undisturbed call leaves.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from nkjax.data import records
from nkjax.lab import check, layout, pack, purge, scan
from nkjax.lab.rows import Inputs, Lab, Picture

ROOT = Path(__file__).parents[2]
SALT = bytes(range(32))
SECRET = b"GPS 47.3769 N 8.5417 E"
SPLITS = {"child0": "train", "child1": "train", "child2": "val"}


def segment(marker: int, content: bytes) -> bytes:
    """Return a JPEG segment."""
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def plant_metadata(path) -> None:
    """Put EXIF, a comment and a maker's block with a secret place into a JPEG file."""
    data = Path(path).read_bytes()
    planted = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + SECRET)
    planted += segment(0xE5, b"maker" + SECRET) + segment(0xFE, SECRET)
    Path(path).write_bytes(data[:2] + planted + data[2:] + SECRET)


def read_lab(folder) -> Lab:
    """Read a lab that `drawn.write_lab` drew."""
    folder = Path(folder)
    return check.read_lab(Inputs(
        str(folder / "labels.json"), str(folder / "images"), subjects=str(folder / "subjects.csv")
    ))  # fmt: skip


def plan_of(lab: Lab, per_shard=2, salt=SALT) -> layout.Plan:
    """Plan a drawn lab: subjects child0 and child1 train, child2 val, the rest unlabelled."""
    splits = {p.key: SPLITS.get(p.subject.id, "unlabelled") for p in lab.pictures}
    return layout.plan(lab, splits, salt, {"exif": "auto"}, {"annotations": "00"}, per_shard)


def content(folder) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in sorted(Path(folder).rglob("*")) if p.is_file()}  # fmt: skip


def rows_of(folder, *splits) -> list[dict]:
    """Return the people of some splits, or of all, with their pictures."""
    manifest = records.read_manifest(folder)
    return [rows[i] for split in splits or manifest.content["splits"]
            for rows in [records.Rows(manifest, split)] for i in range(len(rows))]  # fmt: skip


def run_python(*command) -> str:
    """Run Python with these arguments, to the end; returns what it printed."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def kill_and_repeat(what: str, source, out, way: str) -> int:
    """Run this file as a program; returns how often it killed."""
    return int(run_python(__file__, what, source, out, way))


def picture_of(path, key, size_wh=None, **more) -> Picture:
    """Return the row of a picture file, as a check finds it."""
    found = scan.scan_file(path)
    return Picture(key, str(path), size_wh or found.stored_wh, 1, found.sha256, 0, **more)


def write_noise(path, size_wh, seed=0) -> None:
    """Write a JPEG that does not compress."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)


def _killed(call, out: Path, event: int = 0, seconds: float = 0.0) -> bool:
    """Make a call in a child process, kill it; tells whether it was killed before its end."""
    child = os.fork()
    if child == 0:
        if event:
            _kill_at(out, event)
        call()
        os._exit(0)
    if seconds:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(3)
    return os.WIFSIGNALED(status)


def _kill_at(out: Path, event: int) -> None:
    left = [event]

    def hook(name, arguments):
        writes = name == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or name in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            if str(out) in str(arguments[0]):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _main(what: str, source: str, out: str, way: str) -> None:
    out = Path(out)
    os.fsync = lambda _: None  # slow, and of use only when the power fails
    if what == "pack":
        plan = plan_of(read_lab(source))

        def call():
            pack.write(plan, out, workers=2)

        def reset():
            shutil.rmtree(out, ignore_errors=True)
    else:

        def call():
            purge.purge(out, "child0")

        def reset():
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(source, out)

    kills = 0
    if way == "events":
        reference, event = None, 1
        while True:
            reset()
            if not _killed(call, out, event=event):
                break
            kills += 1
            assert not _killed(call, out)
            found = content(out)
            reference = reference or found
            assert found == reference, [k for k in found if found[k] != reference.get(k)]
            event += 1
    else:
        draws = random.Random(int(way))
        reset()
        start = time.monotonic()
        assert not _killed(call, out)
        whole = time.monotonic() - start
        reset()
        while kills < 5:
            if _killed(call, out, seconds=draws.uniform(0.02, 0.6) * whole):
                kills += 1
            else:
                reset()
                whole *= 0.7
        assert not _killed(call, out)
    print(kills)


if __name__ == "__main__":
    _main(*sys.argv[1:])
