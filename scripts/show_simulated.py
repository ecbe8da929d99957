"""The command: look at a simulated folder beside its truth, and measure it."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from nkjax.evaluate import draw, simulated, simulated_charts, simulated_sheets
from nkjax.skeleton import BadSkeleton
from nkjax.skeleton_formats import load
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
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("show_simulated.py", description=_ABOUT, formatter_class=raw)
    add = parser.add_argument
    add("--lab", required=True, metavar="DIR", help="folder made by scripts/simulate.py")
    add("--out", required=True, metavar="DIR", help="folder to make; must not exist")
    add("--count", type=int, default=24, help="pictures on a sheet (default 24)")
    options = parser.parse_args(argv)
    lab, out = Path(options.lab), Path(options.out)
    if options.count < 1:
        parser.error("--count must be at least 1")
    if out.exists():
        print(f"error: {out}: exists already; name another folder", file=sys.stderr)
        return 2
    try:
        skeleton = load(lab / "skeleton.json")
        found = simulated.read(lab, options.count)
        pictures = list(tqdm(found, "pictures", file=sys.stderr))
        if not pictures:
            raise BadTruth(f"{lab}: holds no labelled or test pictures")
        out.mkdir(parents=True)
        for role in simulated.LABELLED:
            shown = [picture for picture in pictures if picture.role == role][: options.count]
            if shown:
                sheet = simulated_sheets.sheet(shown, skeleton)
                (out / f"{role}.jpg").write_bytes(draw.encode_jpeg(sheet))
        (out / "measures.md").write_text(simulated_charts.table(pictures, skeleton))
        (out / "measures.png").write_bytes(simulated_charts.chart(pictures, skeleton))
    except (BadTruth, BadSkeleton) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        print(f"failed: {' '.join(str(error).split())[:500]}", file=sys.stderr)
        return 1
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
