"""Look at every picture once: does it decode, what does it hold, which way up is it."""

import collections
import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nkjax.data import fingerprints, images, jpeg
from nkjax.lab.findings import Findings


@dataclasses.dataclass(frozen=True)
class Scan:
    """What a full decode of a picture file showed.

    bytes, mtime_ns, sha256: of the file; format: `images.format_of`; mode: as
    `images.mode`, '' where unknown; stored_wh: px before any turn, (0, 0) where unknown;
    orientation: EXIF, 1 ... 8; phash: 64 bits (`fingerprints.dhash`) of the pixels made upright by
    EXIF; phash_stored: of the pixels as stored; brightest: the largest 8-bit value; code: '' for a
    good picture, NK101 undecodable, NK102 several frames, NK103 colours undefined; failure: the
    reason in one line, '' for a good picture.
    """

    bytes: int
    mtime_ns: int
    sha256: str
    format: str
    mode: str
    stored_wh: tuple[int, int]
    orientation: int
    phash: int
    phash_stored: int
    brightest: int
    code: str
    failure: str


def scan_file(path) -> Scan:
    """Read and decode a picture file; a bad one has a code and a failure, nothing is raised."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):  # reading a pipe would wait for ever
            raise ValueError("no regular file")
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        failure = f"cannot be opened ({reason})"
        return Scan(0, 0, "", "other", "", (0, 0), 1, 0, 0, 0, "NK101", failure)
    blank = Scan(
        bytes=len(data),
        mtime_ns=about.st_mtime_ns,
        sha256=hashlib.sha256(data).hexdigest(),
        format=images.format_of(data),
        mode="",
        stored_wh=(0, 0),
        orientation=jpeg.orientation(data),
        phash=0,
        phash_stored=0,
        brightest=0,
        code="",
        failure="",
    )
    try:
        image = images.decode_rgb(data, "ignore", name="")
        mode = images.mode(data, name="")
    except images.BadImage as error:
        failure = str(error).removeprefix(": ")
        return dataclasses.replace(blank, code=_code(error), failure=failure)
    phash = stored = fingerprints.dhash(images.thumbnail(image, fingerprints.GRID_WH))
    if blank.orientation != 1:
        upright = images.turn(image, blank.orientation)
        phash = fingerprints.dhash(images.thumbnail(upright, fingerprints.GRID_WH))
    return dataclasses.replace(
        blank,
        mode=mode,
        stored_wh=(image.shape[1], image.shape[0]),
        phash=phash,
        phash_stored=stored,
        brightest=int(image.max()),
    )


def scan_files(
    paths: Mapping[str, Path],
    workers: int = 1,
    progress: Callable = lambda iterable, total, what: iterable,
    known: Mapping[str, Scan] | None = None,
) -> dict[str, Scan]:
    """Scan picture files in threads; the answer has the keys of `paths` in their order.

    workers: threads, and so the number of pictures in memory at once; the answer does not depend on
    it. progress: wraps an iterable of known length. known: scans of an earlier run, reused where
    size and time of change of the file are still the same.
    """
    known = known or {}

    def look(item):
        key, path = item
        return key, known[key] if _is_unchanged(path, known.get(key)) else scan_file(path)

    scanned = in_threads(look, paths.items(), workers, 4 * workers)
    return dict(progress(scanned, len(paths), "pictures"))


def to_json(scans: Mapping[str, Scan]) -> str:
    """Write scans as JSON lines, one a picture, for `from_json` in a later run."""
    rows = ({"key": key, **dataclasses.asdict(scan)} for key, scan in scans.items())
    return "".join(json.dumps(row) + "\n" for row in rows)


def from_json(text: str) -> dict[str, Scan]:
    """Read what `to_json` wrote; lines that are damaged are left out, so they are scanned again."""
    scans = {}
    for line in text.splitlines():
        try:
            row = json.loads(line)
            key, scan = row.pop("key"), Scan(**row)
            scan = dataclasses.replace(scan, stored_wh=tuple(scan.stored_wh))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
        if isinstance(key, str) and _is_sound(scan):
            scans[key] = scan
    return scans


def decide_turn(scan: Scan, json_wh: tuple[int, int] | None, mode: str) -> tuple[int, str]:
    """Decide which EXIF turn to bake into a picture so that its labels fit.

    json_wh: width and height that the labels name, None where they do not: they decide wherever
    turning changes the size. mode: 'apply' or 'ignore' is what the user says of the rest, 'auto'
    nothing. Returns the orientation to apply, 1 for none, and a code: '' nothing to say, NK121 not
    turned as the labels are not, NK122 undecidable, NK123 the size contradicts, NK124 turned as the
    labels are. Source: notes ecosystem 2.2.
    """
    upright_wh = images.turn_size(scan.stored_wh, scan.orientation)
    json_wh = None if json_wh is None else tuple(json_wh)
    if json_wh not in (None, upright_wh, scan.stored_wh):
        return 1, "NK123"
    if scan.orientation == 1:
        return 1, ""
    if json_wh is not None and upright_wh != scan.stored_wh:
        upright = json_wh == upright_wh
    elif mode == "auto":
        return 1, "NK122"
    else:
        upright = mode == "apply"
    return (scan.orientation, "NK124") if upright else (1, "NK121")


def report_mode(name: str, scan: Scan, findings: Findings) -> None:
    """Count a picture that is not plain 8-bit RGB (NK111, NK112)."""
    if scan.mode == "16 bit":
        findings.add("NK111", f"{name}: largest value about {257 * scan.brightest:,} of 65,535")
    elif scan.mode != "rgb":
        findings.add("NK112", f"{name}: {scan.mode}")


def in_threads(function, items: Iterable, workers: int, ahead: int):
    """Map in threads, yielding results in the order of the items, at most `ahead` of the reader."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        waiting = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _is_unchanged(path, scan: Scan | None) -> bool:
    try:
        now = os.stat(path) if scan is not None else None
    except (OSError, ValueError):
        return False
    return now is not None and (now.st_size, now.st_mtime_ns) == (scan.bytes, scan.mtime_ns)


def _is_sound(scan: Scan) -> bool:
    numbers = ("bytes", "mtime_ns", "orientation", "phash", "phash_stored", "brightest")
    kinds = {"stored_wh": tuple, **dict.fromkeys(numbers, int)}
    fields = dataclasses.fields(Scan)
    return (
        all(type(getattr(scan, field.name)) is kinds.get(field.name, str) for field in fields)
        and len(scan.stored_wh) == 2
        and all(type(side) is int for side in scan.stored_wh)
        and 1 <= scan.orientation <= 8
        and all(0 <= phash < 1 << 64 for phash in (scan.phash, scan.phash_stored))
    )


def _code(error: images.BadImage) -> str:
    if isinstance(error, images.SeveralFrames):
        return "NK102"
    return "NK103" if isinstance(error, images.UndefinedColours) else "NK101"
