"""The command: a picture of what training will see of a packed data folder."""

import argparse
import sys
from pathlib import Path

from nkjax.data.records import SPLITS, BadData, read_manifest
from nkjax.evaluate import draw, training_views

_ABOUT = """Show people of a packed data folder as training will see them, a row each.

From left to right: the crop as packed, a weak view (teacher), a strong view (student, with
colours, blur and covers), the supervised view of the Sapiens recipe, and labelled hands, right
ones mirrored. Joints are drawn where the network is told they are: look whether they sit on the
child. Faces are masked in the picture before any view is cut from it; masking is not
anonymisation.

Exit code: 0 done; 1 failed while running, such as a full disk; 2 an input or an option is bad."""


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code, having printed one line for what went wrong."""
    parser = argparse.ArgumentParser(
        "show_data.py", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", required=True, help="folder made by scripts/pack_data.py")
    add("--split", choices=SPLITS, default="train")
    add("--count", type=int, default=6, help="people to show (default 6)")
    add("--seed", type=int, default=0, help="another seed, other views (default 0)")
    add("--out", required=True, metavar="JPEG", help="file to write; must not exist")
    options = parser.parse_args(argv)
    out = Path(options.out)
    if options.count < 1:
        parser.error("--count must be at least 1")
    if out.suffix.lower() not in (".jpg", ".jpeg"):
        parser.error("--out must end in .jpg")
    if out.exists():
        print(f"error: {out}: exists already; name another file", file=sys.stderr)
        return 2
    try:
        manifest = read_manifest(options.data)
        sheet = training_views.views_sheet(manifest, options.split, options.count, options.seed)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(draw.encode_jpeg(sheet))
    except BadData as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        print(f"failed: {' '.join(str(error).split())[:500]}", file=sys.stderr)
        return 1
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
