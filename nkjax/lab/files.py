"""Find the picture files that an annotation file names."""

import collections
import posixpath
import unicodedata
from collections.abc import Callable, Iterable

from nkjax.data import images
from nkjax.data.coco import Image
from nkjax.lab.findings import Findings


def match(
    listed: Iterable[Image], names: Iterable[str], findings: Findings
) -> dict[int | str, str]:
    """Find the file of every image: {image id: name}, without those missing or in doubt.

    names: paths relative to --images, with '/'. A name is taken as it is, else without regard to
    case and Unicode form (NK132), else where only one of the two names a folder, or a longer one,
    by the part they share (NK135). Several files that fit (NK134), none (NK131) and a file that
    fits several images (NK136) leave the images out.
    """
    find = _finder(names)
    fitting = collections.defaultdict(list)
    for image in listed:
        code, fits = find(image.file_name)
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


def candidates(file_names: Iterable[str], names: Iterable[str]) -> set[str]:
    """Return all of the names that file names of the JSON may mean, as `match` takes them."""
    find = _finder(names)
    return {name for file_name in file_names for name in find(file_name)[1]}


def plain(file_name: str) -> str:
    """Return a file name of the JSON as a path with '/' and without '.' and '..' in it."""
    return posixpath.normpath(file_name.replace("\\", "/"))


def report_unnamed(names: Iterable[str], used: Iterable[str], findings: Findings) -> None:
    """Count the pictures, by their endings, that no image of the JSON is, as NK133."""
    used = set(used)
    for name in names:
        if name not in used and name.lower().endswith(images.ENDINGS):
            findings.add("NK133", name)


def _finder(names) -> Callable:
    """Return a function of a file name that gives (code, names that fit)."""
    names = list(names)
    exact, alike = set(names), collections.defaultdict(list)
    by_base = collections.defaultdict(list)
    for name in names:
        alike[_folded(name)].append(name)
        by_base[posixpath.basename(_folded(name))].append(name)

    def find(file_name):
        wanted = plain(file_name)
        if wanted in exact:
            return "", [wanted]
        if fits := alike.get(_folded(wanted), []):
            return "NK132", fits
        near = by_base.get(posixpath.basename(_folded(wanted)), [])
        return "NK135", [name for name in near if _one_ends_the_other(name, wanted)]

    return find


def _one_ends_the_other(name, wanted) -> bool:
    longer, shorter = sorted((_folded(name), _folded(wanted)), key=len, reverse=True)
    return longer.endswith("/" + shorter)


def _folded(name) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
