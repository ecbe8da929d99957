"""List all files below a folder, through links too, and what cannot be opened."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from nkjax.data import images, videos


@dataclasses.dataclass(frozen=True)
class Folder:
    """What is below a folder.

    files: path by the path relative to the folder, with '/', sorted; unopened: folders and links
    that lead nowhere, as (path, why).
    """

    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unopened: tuple[tuple[str, str], ...] = ()


def read(top) -> Folder:
    """List a folder. Links to folders are followed, but to none twice and to none around the top.

    The latter are `unopened`, and so are broken links, but for those named like a picture or video:
    whoever opens these tells. Raises NotADirectoryError for another thing.
    """
    top = str(top)
    if not Path(top).is_dir():
        raise NotADirectoryError(f"{top}: no such folder")
    files, unopened, seen, waiting = {}, [], set(), [top]
    home = os.path.realpath(top)
    for start in waiting:  # links are put behind, so that a folder goes by its own name
        real = os.path.realpath(start)
        if real != home and Path(home).is_relative_to(real):
            unopened.append((start, "a link to a folder around it"))
            continue
        links = []
        for where, folders, names in os.walk(start, onerror=lambda e: unopened.append(_why(e))):
            real = os.path.realpath(where)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            links += [path for path in _paths(where, folders) if os.path.islink(path)]
            for path in _paths(where, names):
                if _is_broken(path):
                    unopened.append((path, "a broken link"))
                else:
                    files[os.path.relpath(path, top).replace(os.sep, "/")] = path
        waiting += sorted(links)
    return Folder(dict(sorted(files.items())), tuple(sorted(set(unopened))))


def _paths(where, names):
    return [os.path.join(where, name) for name in names]


def _why(error) -> tuple[str, str]:
    return str(error.filename), error.strerror or "cannot be opened"


def _is_broken(path) -> bool:
    named = path.lower().endswith(images.ENDINGS + videos.ENDINGS)
    return not named and os.path.islink(path) and not os.path.exists(path)
