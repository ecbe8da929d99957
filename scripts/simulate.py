"""The command: simulated people, written as the folder that a lab would hand over."""

import argparse
import contextlib
import functools
import os
import re
import shlex
import signal
import sys

import std_streams
from option_types import new_folder, positive
from tqdm import tqdm

from nkjax.toddlersim import world
from nkjax.toddlersim.examples import DOMAINS
from nkjax.toddlersim.lab_folder import defects, folder
from nkjax.toddlersim.lab_folder.handed_over import BadDefects

_ABOUT = """Simulate people and write the folder that a lab would hand over. Nobody in it is real.

Three domains: adult (to learn from first), toddler (what nkjax is about), atypical (toddlers whose
gait or grasp is not typical; for tests alone, so it takes neither --labelled nor --unlabelled).

Written to --out, as real data comes:
  images/ labels.json         labelled and test pictures, COCO, 65 joints: body, feet, hands
  unlabelled/ detections.json pictures without labels, and a detector's boxes with its mistakes
  subjects.csv                who is on which picture, and the side of the split: test pictures are
                              of people of their own, of nine labelled ones one is for validation
  skeleton.json README.txt    the joints; the commands to go on with
  truth/                      what no lab has: depth, normals, body parts and joints in space of
                              every picture; who and what it shows, in people.csv
  simulation.json             the settings; written last: where it is, the folder is whole

Who may read truth/: evaluation; and, in an adult folder alone, configs that pre-train on adults.
Nothing may learn from the truth of toddlers. When it is deleted, checking, packing (with the same
--salt) and training give the same bytes.

The same seed gives the same bytes, with any number of --workers; more pictures leave those that are
there already as they are. Stopped, it leaves an unfinished folder: remove it and start again.

--defects plants mistakes that labs make, each in pictures of its own, for check_data.py to find.

Exit code: 0 done; 1 failed while running, such as a full disk; 2 an option is no good."""

# Of what is not asked for: few labels and many pictures without, as labs have them.
_COUNTS = {"labelled": 200, "unlabelled": 800, "test": 25}
_SIDES, _LONGEST = (64, 1024), 3  # px; times the other side: further out few people fit in
_LARGEST_SEED = 2**32 - 1


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < folder.lists.ROLE_IDS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 999999")
    return int(text)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= _LARGEST_SEED):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {_LARGEST_SEED}")
    return int(text)


def _size_wh(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"([0-9]{2,4})x([0-9]{2,4})", text)
    height_width = [int(side) for side in sides.groups()] if sides else [0]
    if not all(_SIDES[0] <= side <= _SIDES[1] for side in height_width):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no HEIGHTxWIDTH, each from {_SIDES[0]} to {_SIDES[1]} px, such as 128x96"
        )
    if max(height_width) > _LONGEST * min(height_width):
        raise argparse.ArgumentTypeError(
            f"{text!r} has a side more than {_LONGEST} times as long as the other"
        )
    return height_width[1], height_width[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "simulate.py", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", metavar="DIR", type=new_folder, help="folder to make; must not exist, or be empty")
    add("--domain", choices=DOMAINS, help="who to simulate")
    for role, count in _COUNTS.items():
        none = "" if role == "test" else "; atypical: 0"
        add(f"--{role}", metavar="N", type=_count, help=f"pictures (default {count}{none})")
    add("--size", metavar="HxW", type=_size_wh, default="128x96",
        help="height x width of the pictures in px, 64 to 1024 each, neither more than 3 times the"
        " other (default %(default)s)")
    add("--seed", metavar="S", type=_seed, default=0, help="another seed, other people (default 0)")
    add("--workers", type=positive, default=os.cpu_count() or 1,
        help="processes (default: one per core)")
    add("--defects", metavar="NAMES", help="mistakes to plant, by names separated by commas, or"
        " 'all' that go together; 'list' shows the table and does nothing else")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code, having printed one line for what went wrong."""
    std_streams.prepare()
    parser = _parser()
    options = parser.parse_args(argv)
    if options.defects == "list":
        _print_defects()
        return 0
    if options.out is None or options.domain is None:
        parser.error("--out and --domain are needed")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # The bar ends before the line that says what went wrong.
        with contextlib.ExitStack() as bars:
            return _simulate(options, functools.partial(_bar, bars))
    except (_BadOptions, BadDefects, folder.BadFolder) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, MemoryError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:500]
        print(f"failed: {type(error).__name__}: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; {options.out} is unfinished: remove it", file=sys.stderr)
        return 1


class _BadOptions(ValueError):
    """Options that do not go together; the message is one line."""


def _simulate(options, bar) -> int:
    counts, names = _counts(options), ()
    if options.defects is not None:
        names = defects.chosen(options.defects)
        defects.check_counts(names, counts, options.size)
    folder.check_place(options.out)
    summary = folder.write(options.out, options.domain, counts, options.size, options.seed,
                           world.example, world.SKELETON, options.workers, bar)  # fmt: skip
    if names:
        defects.plant(options.out, names)
        print(f"planted {len(names)} kinds of mistakes: {', '.join(names)}")
    told = ", ".join(f"{count:,} {role}" for role, count in summary.counts.items() if count)
    print(f"wrote {options.out}: {told} pictures of {summary.subjects:,} {options.domain} subjects")
    given = shlex.join(folder.options(counts, options.out))
    packed, look = (_beside(options.out, what) for what in ("packed", "look"))
    print(f"next:\n    python scripts/check_data.py {given}\n"
          f"    python scripts/pack_data.py {given} --out {packed}")  # fmt: skip
    if not names and counts["labelled"] + counts["test"]:
        print(f"    python scripts/show_simulated.py --lab {shlex.quote(options.out)} --out {look}")
    return 0


def _beside(out, what) -> str:
    """Return the path of another folder, named after this one, for a shell."""
    place = os.path.normpath(out)
    if os.path.basename(place) in (".", ".."):
        place = os.path.abspath(place)
    return shlex.quote(f"{place}_{what}")


def _counts(options) -> dict[str, int]:
    counts = {role: getattr(options, role) for role in _COUNTS}
    if options.domain == "atypical":
        if counts["labelled"] or counts["unlabelled"]:
            raise _BadOptions("atypical people are for tests alone; leave out --labelled and"
                              " --unlabelled")  # fmt: skip
        counts |= {"labelled": 0, "unlabelled": 0}
    counts = {role: _COUNTS[role] if n is None else n for role, n in counts.items()}
    if not any(counts.values()):
        raise _BadOptions("no picture to make; give --labelled, --unlabelled or --test")
    return counts


def _bar(bars, items, total, what):
    # Into a log file a line now and then; on a terminal one that moves.
    often = 0.1 if sys.stderr.isatty() else 30
    shown = tqdm(items, what, total, mininterval=often)
    bars.callback(shown.close)
    return shown


def _print_defects() -> None:
    for name, defect in defects.DEFECTS.items():
        alone = " (not in 'all': it is everywhere)" if defect.everywhere else ""
        print(f"{name:24} {' '.join(defect.codes):12} {defect.what}{alone}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
