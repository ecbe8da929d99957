"""The command: `python -m convert_weights FILE --out DIR`, or `verify DIR`."""

import argparse
import re
import sys
from pathlib import Path

from convert_weights import convert
from convert_weights.detect import Overrides
from convert_weights.files import BadFile
from nkjax.checkpoints import BadCheckpoint
from nkjax.models import sapiens
from nkjax.skeleton import BadSkeleton

_ABOUT = """Convert a Sapiens-1 checkpoint to an orbax weights folder.

FILE is a .pth, TorchScript or torch.export .pt2, or .safetensors file: the layout is told by its
content, and nothing in it is executed. Task, size and number of keypoints are read from its keys;
patch padding, head count and token grid, which no key shows, are looked up by task and size. All
of it is printed. The exit code is 0 when done, 2 when the file or an option is no good (one line
says which and what to do), 1 when something failed while running, such as a full disk.

'python -m convert_weights verify DIR' recomputes every checksum of a weights folder."""


def _input_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not HxW, such as 1024x768")
    return int(match[1]), int(match[2])


def _patch_padding(text: str) -> int | str:
    if text != "corner" and not re.fullmatch(r"\d|1[0-5]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither 0 to 15 nor 'corner'")
    return text if text == "corner" else int(text)


def _heads(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of attention heads")
    return int(text)


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a sha256 of 64 hex digits")
    return text.lower()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m convert_weights",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", help="the checkpoint file")
    add("--out", help="the weights folder to make; must not exist, or be empty")
    add("--dry_run", action="store_true", help="print the whole mapping, write nothing")
    add("--sha256", type=_sha256, help="refuse the file unless its sha256 is this")
    add("--dtype", choices=("float32", "bfloat16"), help="of the weights (default: the file's)")
    add("--keypoints", metavar="FILE", help="skeleton (JSON, or coco17, wholebody133, goliath308) "
        "for a new pose head: joints that the model knows keep their filters, by name")
    add("--skeleton", metavar="FILE", help="what the file's own keypoints are, in its order, where "
        "they are not those of the released 17, 133 or 308")
    add("--task", choices=sapiens.TASKS, help="refuse the file unless it is this")
    add("--size", choices=(*sapiens.SIZES, "custom"), help="refuse the file unless it is this")
    add("--heads", type=_heads, metavar="N", help="number of attention heads")
    add("--input_size", type=_input_size, metavar="HxW", help="picture size it was trained on, px")
    add("--patch_padding", type=_patch_padding, metavar="N|corner", help="of the patch embedding")
    return parser


def _convert(args) -> None:
    said = Overrides(
        args.task, args.size, args.heads, args.input_size, args.patch_padding, args.skeleton
    )
    if not args.dry_run:
        if not args.out:
            raise BadFile("--out is missing: name the weights folder to make, or use --dry_run")
        convert.check_free(Path(args.out).expanduser().resolve())
    conversion = convert.plan(args.file, said, args.dtype, args.keypoints)
    if args.dry_run:
        print(*convert.table(conversion), sep="\n")
    print(*convert.report(conversion), sep="\n")
    sha256 = None
    if args.sha256 or not args.dry_run:
        sha256 = convert.file_sha256(args.file)
        print(f"sha256 {sha256}")
    if args.sha256 and args.sha256 != sha256:
        raise BadFile(f"{args.file} has sha256 {sha256}, not the one given; fetch the file again")
    if args.dry_run:
        print("dry run: nothing written")
        return
    convert.write(conversion, args.out, sha256)
    print(f"wrote {args.out}\n{convert.LICENCE['notice']}")


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code, having printed one line for what went wrong."""
    try:
        if argv[:1] == ["verify"]:
            parser = argparse.ArgumentParser("python -m convert_weights verify")
            parser.add_argument("folder", help="a weights folder")
            folder = parser.parse_args(argv[1:]).folder
            print(f"{folder}: {convert.verify(folder)} parameters, every checksum as converted")
        else:
            _convert(_parser().parse_args(argv))
        return 0
    except (BadFile, BadCheckpoint, BadSkeleton) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, MemoryError) as error:
        print(f"failed: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    sys.stderr.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:]))
