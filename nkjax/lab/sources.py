"""List the files that --unlabelled names, each under the key that it has in the lab."""

import dataclasses
import os
import posixpath
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from nkjax.data import images, videos
from nkjax.lab import folders
from nkjax.lab.findings import Findings
from nkjax.lab.folders import Folder
from nkjax.lab.listed import Listing


class BadUnlabelled(ValueError):
    """An --unlabelled source that cannot be used; the message is one line with the remedy."""


@dataclasses.dataclass(frozen=True)
class File:
    """A picture or video file: key in the lab, path relative to its source, path."""

    key: str
    name: str
    path: str


def find(sources: Iterable[str], listing: Listing, findings: Findings) -> list[File]:
    """List the picture and video files of all sources, but for those of the listing.

    A source is a folder (pictures and videos in it), a .txt list (a path a line, relative to the
    list's folder, '#' comments), a picture or a video. The key of a file below --images is its path
    relative to --images, whatever source it comes from; of another file, relative to its source,
    with the source's name before it where another file, or the JSON, has that key already. Left out
    are pictures with labels (NK144) or left out with an error (NK145), files that come twice
    (NK146) and other kinds of files (NK154). Raises BadUnlabelled for a source that is not there.
    """
    inside, seen = _inside(listing.folder), {}
    for key in listing.withheld:
        seen[os.path.realpath(listing.folder.files[key])] = "NK145"
    for picture in listing.pictures:
        seen[os.path.realpath(picture.path)] = "NK144"
    taken = {*inside.values(), *listing.named, *(picture.key for picture in listing.pictures)}
    taken = {_normal(_printable(key)) for key in taken}
    told = {_place(path) for path, _ in listing.folder.unopened}
    files = []
    for source in sources:
        for name, path in _source(source, told, findings):
            if not name.lower().endswith(images.ENDINGS + videos.ENDINGS):
                findings.add("NK154", name)
                continue
            real = os.path.realpath(path)
            if real in seen:
                findings.add(seen[real], f"{name}: the same file")
                continue
            seen[real] = "NK146"
            key = inside.get(real) or _free_key(name, Path(source).stem, taken)
            taken.add(_normal(key))
            files.append(File(key, name, path))
    return files


def _inside(folder: Folder) -> dict[str, str]:
    """Return the key of every file below --images by its real path."""
    # A file that has several names, by links, goes by the most open one.
    names = sorted(folder.files, key=lambda name: (
        "/." in f"/{name}", os.path.islink(folder.files[name]), name))  # fmt: skip
    found = {}
    for name in names:
        found.setdefault(os.path.realpath(folder.files[name]), _printable(name))
    return found


def _source(source, told, findings) -> list[tuple[str, str]]:
    """List (relative path with '/', path) of the files of one source, sorted by the former.

    told: places that cannot be opened and are counted already.
    """
    top = Path(source)
    if top.is_dir():
        return _below(top, told, findings)
    if not top.is_file():
        raise BadUnlabelled(f"{source}: no such file or folder; check --unlabelled")
    if top.suffix.lower() == ".txt":
        return _listed(top, findings)
    if top.name.lower().endswith(images.ENDINGS + videos.ENDINGS):
        return [(_printable(top.name), str(top))]
    raise BadUnlabelled(
        f"{source}: neither a folder, a list (.txt), a picture nor a video; check --unlabelled"
    )


def _below(top, told, findings):
    folder = folders.read(top)
    for path, why in folder.unopened:
        if _place(path) not in told:
            told.add(_place(path))
            findings.add("NK156", f"{path}: {why}")
    found = []
    for name, path in folder.files.items():
        # '.DS_Store' and '._a.jpg' are no pictures whatever they end in.
        if posixpath.basename(name).startswith("."):
            findings.add("NK154", _printable(name))
        else:
            found.append((_printable(name), path))
    return sorted(found)


def _listed(path: Path, findings) -> list[tuple[str, str]]:
    try:
        lines = path.read_bytes().decode("utf-8-sig", "surrogateescape").split("\n")
    except OSError as error:
        raise BadUnlabelled(f"{path}: cannot be opened ({error.strerror}); check it") from None
    found = []
    for line in lines:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        whole = os.path.join(path.parent, line)
        if not Path(whole).is_file():
            findings.add("NK155", f"{path.name}: {_printable(line)}")
            continue
        parts = Path(os.path.normpath(line)).parts
        found.append((_printable("/".join(p for p in parts if p not in ("/", ".."))), whole))
    return found


def _free_key(name, source, taken) -> str:
    key, number = name, 1
    while _normal(key) in taken:
        key = f"{_printable(source)}{'' if number == 1 else f'-{number}'}/{name}"
        number += 1
    return key


def _place(path) -> str:
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _normal(name) -> str:
    # Lines of the subjects file fit a name in any Unicode form.
    return unicodedata.normalize("NFC", name)


def _printable(path: str) -> str:
    """Return a path with '/' that can be written as UTF-8, whatever bytes the name holds."""
    return path.replace(os.sep, "/").encode("utf-8", "backslashreplace").decode()
