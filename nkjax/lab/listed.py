"""Open the pictures that an annotation file lists, and decide which way up each is."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from nkjax.data.coco import Image
from nkjax.lab import files, folders, scan
from nkjax.lab.annotations import Labels
from nkjax.lab.findings import Findings
from nkjax.lab.folders import Folder
from nkjax.lab.rows import Inputs, Picture
from nkjax.lab.scan import Scan


class BadInputs(ValueError):
    """Inputs that do not go together; the message is one line with the remedy."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of the JSON and what is below --images.

    pictures: usable ones that an annotation names, in the order of the JSON. bare: keys of usable
    ones that no annotation names. withheld: sha256, '' where not known, by the key of files whose
    image is left out because of an error. called: the JSON's own name by key; named: all names in
    the JSON, also of images left out. folder: all that is below --images.
    """

    pictures: tuple[Picture, ...] = ()
    bare: tuple[str, ...] = ()
    withheld: Mapping[str, str] = dataclasses.field(default_factory=dict)
    called: Mapping[str, str] = dataclasses.field(default_factory=dict)
    named: frozenset[str] = frozenset()
    folder: Folder = dataclasses.field(default_factory=Folder)


def read(
    inputs: Inputs,
    labels: Labels,
    findings: Findings,
    workers: int,
    progress: Callable,
    known: Mapping[str, Scan],
) -> Listing:
    """Match the images to files and scan these; what cannot be used is counted.

    workers, progress, known: of `scan.scan_files`. Raises BadInputs where no image has a file.
    """
    try:
        folder = folders.read(inputs.images)
    except NotADirectoryError as error:
        raise BadInputs(f"{error}; check --images") from None
    for path, why in folder.unopened:
        findings.add("NK156", f"{path}: {why}")
    names = files.match(labels.images, folder.files, findings)
    if not names:
        raise BadInputs(
            f"{inputs.images}: no picture that {inputs.annotations} names, such as "
            f"{labels.images[0].file_name if labels.images else 'any'}; check --images"
        )
    paths = {name: Path(folder.files[name]) for name in names.values()}
    scans = scan.scan_files(paths, workers, progress, known)
    pictures, called = {}, {}
    for image in labels.images:
        name = names.get(image.id)
        if name is not None:
            called[name] = files.plain(image.file_name)
            picture = _picture(image, name, paths[name], scans[name], inputs.exif, findings)
            pictures |= {name: picture} if picture else {}
    named = [*labels.left_out, *(image.file_name for image in labels.images)]
    doubtful = files.candidates(named, folder.files) - pictures.keys()
    withheld = {name: scans[name].sha256 if name in scans else "" for name in sorted(doubtful)}
    unnamed = _outside(folder.files, inputs.unlabelled)
    files.report_unnamed(unnamed, {*pictures, *withheld}, findings)
    return Listing(
        pictures=tuple(p for p in pictures.values() if p.image_id in labels.named),
        bare=tuple(p.key for p in pictures.values() if p.image_id not in labels.named),
        withheld=withheld,
        called=called,
        named=frozenset(map(files.plain, named)),
        folder=folder,
    )


def _picture(image: Image, name, path, seen: Scan, exif, findings) -> Picture | None:
    if seen.code:
        findings.add(seen.code, f"{name} ({seen.bytes:,} bytes): {seen.failure}")
        return None
    turn, code = scan.decide_turn(seen, image.size_wh, exif)
    stored = f"{seen.stored_wh[0]} x {seen.stored_wh[1]}"
    if code:
        said = "no size" if image.size_wh is None else "{:g} x {:g}".format(*image.size_wh)
        findings.add(code, f"{name}: stored {stored}, EXIF {seen.orientation}, JSON {said}")
    if code in ("NK122", "NK123"):
        return None
    scan.report_mode(name, seen, findings)
    return Picture(
        key=name,
        path=str(path),
        size_wh=tuple(reversed(seen.stored_wh)) if turn >= 5 else seen.stored_wh,
        turn=turn,
        sha256=seen.sha256,
        phash=seen.phash if turn == seen.orientation else seen.phash_stored,
        image_id=image.id,
    )


def _outside(paths: Mapping[str, str], sources) -> list[str]:
    """Return the names of files that lie in none of the sources."""
    tops = [Path(source).resolve() for source in sources]
    return [name for name, path in paths.items()
            if not any(Path(path).resolve().is_relative_to(top) for top in tops)]  # fmt: skip
