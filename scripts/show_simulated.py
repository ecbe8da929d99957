"""The command: look at a simulated folder beside its truth, and measure it."""

import argparse
import os
import sys
from pathlib import Path

import std_streams
from option_types import new_folder, positive
from tqdm import tqdm

from nkjax.evaluate import draw, simulated, simulated_charts, simulated_sheets
from nkjax.skeleton import BadSkeleton
from nkjax.toddlersim.lab_folder.folder import BadFolder
from nkjax.toddlersim.truth import BadTruth

_ABOUT = """Look at a folder that simulate.py wrote, with its truth, and measure the people in it.

Writes into --out:
  labelled.jpg, test.jpg  pictures with their skeleton (rings: hidden joints), depth, normals, parts
  measures.md             proportions, base of support, visibility, postures, grasps
  measures.png            likeness of poses between people, base of every kind of walk

Faces are shown: nobody here is real.

Exit code: 0 done; 1 failed while running, such as a full disk; 2 an input or an option is bad."""


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code, having printed one line for what went wrong."""
    std_streams.prepare()
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("show_simulated.py", description=_ABOUT, formatter_class=raw)
    add = parser.add_argument
    add("--lab", required=True, metavar="DIR", help="folder made by scripts/simulate.py")
    add("--out", required=True, metavar="DIR", type=new_folder,
        help="folder to make; must not exist")
    add("--count", metavar="N", type=positive, default=24, help="pictures on a sheet (default 24)")
    options = parser.parse_args(argv)
    lab, out = Path(options.lab), Path(options.out)
    if os.path.lexists(out):
        print(f"error: {out}: exists already; name another folder", file=sys.stderr)
        return 2
    try:
        files = _draw(lab, options.count)
        _make(out)
        for name, content in files.items():
            (out / name).write_bytes(content)
    except (BadTruth, BadFolder, BadSkeleton) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        print(f"failed: {' '.join(str(error).split())[:500]}", file=sys.stderr)
        return 1
    print(f"wrote {out}")
    return 0


def _make(out) -> None:
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise BadFolder(f"{out}: cannot be made ({error.strerror}); name another one") from None


def _draw(lab, count) -> dict[str, bytes]:
    """Return all that is to be written, by name, so that nothing is where something fails."""
    skeleton = simulated.skeleton_of(lab)
    found = simulated.read(lab, skeleton, count)
    pictures, files = list(tqdm(found, "pictures", file=sys.stderr)), {}
    for role in simulated.LABELLED:
        shown = [picture for picture in pictures if picture.role == role and picture.truth]
        if shown:
            sheet = simulated_sheets.sheet(shown, skeleton)
            files[f"{role}.jpg"] = draw.encode_jpeg(sheet, 75)
    files["measures.md"] = simulated_charts.table(pictures, skeleton).encode()
    files["measures.png"] = simulated_charts.chart(pictures, skeleton)
    return files


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
