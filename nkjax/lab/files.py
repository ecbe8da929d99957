"""Find the picture files that an annotation file names."""

import collections
import os
import posixpath
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from nkjax.data import images
from nkjax.data.coco import Image
from nkjax.lab.findings import Findings


def below(folder) -> dict[str, Path]:
    """Return all files below a folder by their path relative to it, with '/', sorted.

    Raises NotADirectoryError for another thing. Links to folders are not followed.
    """
    top = Path(folder)
    if not top.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder; check --images")
    found = {}
    for where, _, names in os.walk(top):
        for name in names:
            path = Path(where) / name
            found[path.relative_to(top).as_posix()] = path
    return dict(sorted(found.items()))


def match(
    listed: Iterable[Image], names: Iterable[str], findings: Findings
) -> dict[int | str, str]:
    """Find the file of every image: {image id: name}, without those missing or in doubt.

    names: as `below` gives them. A name is taken as it is, else without regard to case and Unicode
    form (NK132), else where only one of the two names a folder, or a longer one, by the part they
    share (NK135). Several files that fit (NK134), none (NK131) and a file that fits several images
    (NK136) leave the images out.
    """
    names = list(names)
    exact, alike = set(names), collections.defaultdict(list)
    by_base = collections.defaultdict(list)
    for name in names:
        alike[_plain(name)].append(name)
        by_base[posixpath.basename(_plain(name))].append(name)
    fitting = collections.defaultdict(list)
    for image in listed:
        wanted = posixpath.normpath(image.file_name.replace("\\", "/"))
        code, fits = "", [wanted] if wanted in exact else alike.get(_plain(wanted), [])
        if fits and fits != [wanted]:
            code = "NK132"
        elif not fits:
            near = by_base.get(posixpath.basename(_plain(wanted)), [])
            code, fits = "NK135", [name for name in near if _one_ends_the_other(name, wanted)]
        if not fits:
            findings.add("NK131", image.file_name)
        elif len(fits) > 1:
            findings.add("NK134", f"{image.file_name}: {' or '.join(fits[:3])}")
        else:
            fitting[fits[0]].append((image, code))
    matched = {}
    for name, claims in fitting.items():
        for image, code in claims:
            if len(claims) > 1:
                findings.add("NK136", f"image {image.id!r}: {name}")
                continue
            if code:
                findings.add(code, f"{image.file_name} is {name}")
            matched[image.id] = name
    return matched


def report_unnamed(names: Iterable[str], used: Iterable[str], findings: Findings) -> None:
    """Count the pictures, by their endings, that no image of the JSON is, as NK133."""
    used = set(used)
    for name in names:
        if name not in used and name.lower().endswith(images.ENDINGS):
            findings.add("NK133", name)


def _one_ends_the_other(name, wanted) -> bool:
    longer, shorter = sorted((_plain(name), _plain(wanted)), key=len, reverse=True)
    return longer.endswith("/" + shorter)


def _plain(name) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
