"""The command: a lab's data checked, split by child and packed; or one child removed again."""

import argparse
import contextlib
import functools
import hashlib
import os
import shlex
import signal
import sys
from pathlib import Path

import lab_inputs
import std_streams
from tqdm import tqdm

from nkjax import ids
from nkjax.data import records
from nkjax.data.images import BadImage
from nkjax.data.videos import BadVideo
from nkjax.lab import check, layout, pack, private, purge, scan, split
from nkjax.lab.findings import LEAVES_OUT, RULES

_ABOUT = """Check a lab's data, split it by child and pack it, once, for training and evaluation.

Takes what check_data.py takes; look at the data with it first. Inputs are never changed. Everything
check_data.py would say is said here too: errors stop the packing, unless --allow_skip names their
code; then those entries are left out.

Pictures are stored as upright JPEG without metadata; one that is JPEG already and needs no turn
keeps its coded pixels, byte for byte. Every child is on one side only of train, val and test.

Written to --out:
  people/ pictures/  ArrayRecord shards, which tensorflow-datasets reads too:
                     tfds.builder_from_directory("OUT/people").as_data_source("train")
                     They hold site, posture and grasp as the subjects file has them, word for
                     word: these must not hold names
  skeleton.json      the joints
  manifest.json      what there is, with the hash of every shard, and what was left out;
                     the last file to appear
  private/           which file and which child each id stands for, and the salt that makes the
                     ids. Keep it in the lab: never pass it on with the data
  packing/           while packing goes on

Packing may be stopped at any moment, with Ctrl-C, by kill or by a power failure: the same command
goes on, and ends with the same files. The same inputs, options and salt give the same bytes.

--purge removes one child from OUT: pictures, labels, ids. Only the shards with the child are
written again; interrupted, the same command finishes. It reaches neither copies of the data nor
backups nor networks that were trained on it. Of the other options it takes --dry_run alone: how
much would go, nothing is changed.

Exit code: 0 done, 1 failed while running, such as a full disk (the same command goes on); 2 an
input or an option is no good, or errors in the data are not allowed."""

_UNUSABLE = (
    *check.UNUSABLE, layout.BadPlan, pack.BadPack, purge.BadPurge, records.BadData, ids.BadSalt,
    BadImage, BadVideo,
)  # fmt: skip


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to below 1")
    return value


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 99999")
    return int(text)


def _codes(text: str) -> tuple[str, ...]:
    codes = tuple(code.strip().upper() for code in text.split(",") if code.strip())
    for code in codes:
        if code not in LEAVES_OUT or RULES[code].severity != "error":
            raise argparse.ArgumentTypeError(
                f"{code} is no error whose entries can be left out; check_data.py lists the codes"
            )
    return codes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "pack_data.py", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    lab_inputs.add_options(parser)
    add = parser.add_argument
    add("--out", metavar="DIR", required=True, help="folder to make; or one to --purge from")
    add("--val_share", type=_share, default=0.1, help="of the labelled people (default 0.1)")
    add("--test_share", type=_share, default=0.1, help="of the labelled people (default 0.1)")
    add("--seed", type=_number, default=0, help="of the split (default 0)")
    add("--allow_skip", metavar="CODE[,CODE]", type=_codes, action="extend", default=[],
        help="leave entries with these errors out")
    add("--salt", metavar="FILE", help="private/salt.txt of another folder, for the same ids")
    add("--dry_run", action="store_true", help="say what would be packed or purged; write"
        " nothing")
    add("--purge", metavar="SUBJECT", help="remove this child from --out: the lab's id or the"
        " salted one")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code, having printed one line for what went wrong."""
    std_streams.prepare()
    parser = _parser()
    options = parser.parse_args(argv)
    if options.val_share + options.test_share >= 1:
        parser.error("--val_share and --test_share leave nothing to train on")
    for name, value in vars(options).items():
        if options.purge is not None and name not in ("out", "purge", "dry_run"):
            if value != parser.get_default(name):
                parser.error(f"--purge works on --out alone; leave out --{name}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # The bars end before the line that says what went wrong.
        with contextlib.ExitStack() as bars:
            bar = functools.partial(_bar, bars)
            return _pack(options, bar) if options.purge is None else _purge(options, bar)
    except _UNUSABLE as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, MemoryError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:500]
        print(f"failed: {type(error).__name__}: {reason}; the same command goes on",
              file=sys.stderr)  # fmt: skip
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 1


def _pack(options, bar) -> int:
    inputs, workers = lab_inputs.read(options), options.workers
    out = Path(options.out)
    pack.check_place(options.out, inputs)
    salt = ids.read_salt(options.salt) if options.salt else private.read_salt(out)
    notes = out / "packing" / "scans.jsonl"
    known = scan.from_json(notes.read_text(errors="replace")) if notes.exists() else {}
    keep = None if options.dry_run or (out / "manifest.json").exists() else notes
    lab = check.read_lab(inputs, workers, _keeping(bar, keep, known), known)

    shares = {"val": options.val_share, "test": options.test_share}
    shares = {"train": 1 - sum(shares.values()), **shares}
    splits = split.assign(lab.pictures, lab.people, shares, options.seed, lab.findings)
    split.check_leaks(lab.pictures, splits, lab.findings)
    _print_findings(lab.findings, inputs)
    errors = lab.findings.errors(options.allow_skip)
    if errors:
        codes = ", ".join(finding.code for finding in errors)
        kept = f"; {notes} keeps what the pictures are like for the next try, it names files: keep"
        print(f"error: not packed because of {codes}; the lines above say how to mend them"
              + f"{kept} it in the lab" * notes.exists(), file=sys.stderr)  # fmt: skip
        return 2
    if options.salt:
        purge.check_salt(options.salt, {p.subject.id for p in lab.pictures if p.key in splits})
    chosen = {"exif": inputs.exif, "box_format": inputs.box_format,
              "min_score": inputs.min_score, "shares": shares,
              "seed": options.seed, "allow_skip": sorted(set(options.allow_skip))}  # fmt: skip
    plan = layout.plan(lab, splits, salt or ids.make_salt(), chosen, _hashes(inputs),
                       skeleton_name=_skeleton_name(inputs, lab))  # fmt: skip
    _print_table(split.summary(lab.pictures, lab.people, splits))
    if plan.manifest["left_out"]:
        print(f"{plan.manifest['left_out']:,} pictures without a person to learn from: left out")
    size = pack.estimate_bytes(plan)
    print(f"{len(plan.shards)} shards of each table, about {size / 1e6:,.0f} MB")
    if options.dry_run:
        print("nothing written (--dry_run)")
        return 0
    manifest = pack.write(plan, out, workers, bar)
    pack.verify(out)
    how = ", ".join(f"{count:,} {how}" for how, count in manifest["pictures"].items())
    print(f"wrote {out}: pictures {how}; keep {out / 'private'} in the lab\n"
          f"next: python scripts/show_data.py --data {shlex.quote(str(out))} "
          f"--split {next(iter(manifest['splits']))} --out views.jpg")  # fmt: skip
    return 0


def _purge(options, bar) -> int:
    counts = purge.purge(options.out, options.purge, bar, options.dry_run)
    done = ("would remove", "to write") if options.dry_run else ("removed", "written")
    print(f"{done[0]} {counts['pictures']:,} pictures and {counts['people']:,} people; "
          f"{counts['shards']:,} shards {done[1]} again")  # fmt: skip
    if counts["nameless"]:
        print(f"{counts['nameless']:,} pictures left name no subject: see in private/mapping.csv "
              "whether the child is on any of them")  # fmt: skip
    if options.dry_run:
        print("nothing written (--dry_run)")
        return 0
    print("copies, backups and networks trained on these pictures still hold them")
    return 0


def _bar(bars, items, total, what):
    if not total:
        return items
    # Into a log file a line now and then; on a terminal one that moves.
    often = 0.1 if sys.stderr.isatty() else 30
    shown = tqdm(items, what, total, mininterval=often, unit="")
    bars.callback(shown.close)
    return shown


def _keeping(bar, notes, known):
    """Return a progress bar that keeps what was found out about each picture, for a rerun."""

    def progress(items, total, what):
        if notes is not None:
            notes.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for item in bar(items, total, what):
            if notes is not None and isinstance(item, tuple) and isinstance(item[-1], scan.Scan):
                key, found = item
                if known.get(key) != found:
                    # It names files.
                    with open(notes, "a", opener=functools.partial(os.open, mode=0o600)) as file:
                        file.write(scan.to_json({key: found}))
            yield item

    return progress


def _hashes(inputs) -> dict[str, str]:
    names = ("annotations", "subjects", "detections", "skeleton")
    paths = {name: Path(getattr(inputs, name)) for name in names if getattr(inputs, name)}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in paths.items() if path.is_file()}  # fmt: skip


def _skeleton_name(inputs, lab) -> str:
    """Return the name of a --skeleton file's own, '' for one of a JSON's category."""
    if not Path(inputs.skeleton).is_file() or b"categories" in Path(inputs.skeleton).read_bytes():
        return ""
    return lab.skeleton.name


def _print_findings(findings, inputs) -> None:
    for found in findings.listed():
        print(f"{found.code} {found.severity:7} {found.count:8,} {found.what} -> {found.response}")
        for example in found.examples:
            print(f"    {example}")
        for fix in filter(None, (found.fix, check.mending_command(found.code, inputs))):
            print(f"    fix: {fix}")


def _print_table(rows) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
