"""The command: look at a lab's labels and pictures, and say what is wrong with them."""

import argparse
import collections
import csv
import json
import os
import shlex
import sys
from pathlib import Path

import lab_inputs
import std_streams
from tqdm import tqdm

from nkjax.evaluate import draw, sheets
from nkjax.lab import check, pack, suspicious
from nkjax.lab.findings import LEAVES_OUT, SEVERITIES, Findings

_ABOUT = """Look at labels and pictures before anything is learned from them.

Every picture is decoded, every label is checked, nothing is ever changed. A finding has a code that
never changes its meaning, a count and up to three examples:
  NK1xx  files: pictures, EXIF rotations, names, copies
  NK2xx  labels: visibility, joints, boxes, ids, and labels that look wrong
  NK3xx  subjects and splits
  NK4xx  the skeleton: joints, their order, their sides
and a severity:
  error    nkjax cannot know what is right. 'left out only when allowed' means that packing refuses,
           unless pack_data.py is told --allow_skip CODE: then it packs without these entries
  warning  packing goes on, with the response that stands behind the arrow
  note     worth knowing
Of ids that are used twice all entries count as wrong. Splitting is tried as pack_data.py does it
when told nothing else: by the splits of the subjects file, the rest 80 : 10 : 10.

Joints come in the order of --skeleton (coco17, wholebody133, goliath308, or a file), found by name,
not by position. COCO-WholeBody files give all their joints with --skeleton wholebody133.

--report DIR writes report.json, people.jpg (people with their joints, faces masked), suspicious.jpg
(labels to look at again, where there are any) and people.csv (the annotation and file of each
person in these pictures).
The lines printed, report.json and people.csv show names of files, which may be names of patients,
and masks do not make pictures anonymous: keep all of it in the lab.

Exit code: 0 nothing wrong, also with warnings; 1 failed while running, such as a full disk; 2 there
are errors (with --strict: or warnings), or an input or an option is no good."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "check_data.py", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    lab_inputs.add_options(parser)
    add = parser.add_argument
    add("--report", metavar="DIR", help="folder to make; must not exist, or be empty")
    add("--strict", action="store_true", help="take warnings for errors")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code, having printed one line for what went wrong."""
    std_streams.prepare()
    options = _parser().parse_args(argv)
    inputs, out = lab_inputs.read(options), options.report
    try:
        if out is not None and os.path.lexists(out) and not _is_empty_folder(out):
            raise check.BadInputs(f"{out}: exists and is not an empty folder; name another one")
        if out is not None:
            _check_place(out, inputs)
        lab = check.read_lab(inputs, options.workers, _progress)
        check.try_split(lab)
        report = check.report(lab, inputs)
        _print(report, inputs)
        if out is not None:
            _write(lab, report, Path(out))
    except check.UNUSABLE as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, MemoryError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:500]
        print(f"failed: {type(error).__name__}: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 1
    bad = ("error", "warning") if options.strict else ("error",)
    return 2 if any(finding["severity"] in bad for finding in report["findings"]) else 0


def _check_place(out, inputs):
    """Refuse a place in the inputs: a report there would be learned from by the next run."""
    try:
        pack.check_place(out, inputs)
    except pack.BadPack as error:
        raise check.BadInputs(str(error).replace("--out", "--report")) from None


def _progress(iterable, total, what):
    if not total:
        return iterable
    # Into a log file a line now and then; on a terminal one that moves.
    often = 0.1 if sys.stderr.isatty() else 30
    return tqdm(iterable, total=total, desc=what, mininterval=often, file=sys.stderr)


def _print(report, inputs):
    for name, count in report["counts"].items():
        if isinstance(count, int) and (count or name == "people"):
            print(f"{count:10,} {name}")
    print(f"{len(report['skeleton']['keypoints']):10,} joints, {report['skeleton']['name']}\n")
    for finding in report["findings"]:
        head = "{code} {severity:7} {count:8,} {what}".format(**finding)
        print(f"{head} -> {finding['response']}")
        for example in finding["examples"]:
            print(f"    {example}")
        for fix in (finding["fix"], check.mending_command(finding["code"], inputs)):
            if fix:
                print(f"    fix: {fix}")
    allowed = [
        f["code"]
        for f in report["findings"]
        if f["severity"] == "error" and f["code"] in LEAVES_OUT
    ]
    kinds = collections.Counter(finding["severity"] for finding in report["findings"])
    print("\nkinds of findings: " + ", ".join(f"{kinds[s]} {s}" for s in SEVERITIES))
    if allowed and len(allowed) == kinds["error"]:
        skip = " ".join(f"--allow_skip {code}" for code in allowed)
        print("to pack what is left, once you have seen what that leaves out:")
        print(f"    {check.command_line(inputs, 'pack_data.py')} --out DATA {skip}")


def _write(lab, report, out: Path):
    """Write report.json last: where it is, the report is whole."""
    out.mkdir(parents=True, exist_ok=True)
    names = ["report.json"]
    if any(picture.labelled for picture in lab.pictures):
        labelled = {picture.key for picture in lab.pictures if picture.labelled}
        people = [person for person in lab.people if person.picture in labelled]
        suspicions = suspicious.find(people, lab.pictures, lab.skeleton, Findings())
        sheet = draw.encode_jpeg(sheets.people_sheet(lab))
        (out / "people.jpg").write_bytes(sheet)
        if suspicions:
            sheet = draw.encode_jpeg(sheets.suspicious_sheet(lab, suspicions))
            (out / "suspicious.jpg").write_bytes(sheet)
            names.append("suspicious.jpg")
        with open(out / "people.csv", "w", newline="", encoding="utf-8", errors="replace") as file:
            csv.writer(file).writerows(check.worklist(lab, suspicions))
        names += ["people.jpg", "people.csv"]
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {shlex.quote(str(out))}: {', '.join(names)}")


def _is_empty_folder(path) -> bool:
    return os.path.isdir(path) and not os.listdir(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
