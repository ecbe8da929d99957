"""The command: how well a network finds the joints of a packed split."""

import argparse
import sys
import textwrap

import exit_codes
import std_streams
from option_types import new_folder, not_negative, positive, share

from nkjax.checkpoints import BadCheckpoint
from nkjax.data.coco import BadAnnotations
from nkjax.data.records import BadData
from nkjax.evaluate import evaluation, predict
from nkjax.evaluate.pictures import BadInput
from nkjax.skeleton import BadSkeleton

_ABOUT = f"""Evaluate a network on a split of a packed data folder.

    python scripts/evaluate.py --run RUN --data DATA --split test --out DIR

The network comes out of a run folder of train.py (--run: the averaged parameters of its best
state, or --state) or of a weights folder of convert_weights (--weights). Nothing but these folders
is needed. All devices of this machine share the work; it is done by one process, so do not start
it on every host as train.py is.

Without --detections every person is looked for in the labelled box. With it in the boxes of a COCO
results file, [{{image_id, category_id, bbox, score}}], and --pictures says which image_id each
packed picture is (private/mapping.csv of the data folder, which is never opened unasked): AP and
AR then count whom the detector missed, all other figures are of those whom it found.

Written to --out:
  report.html     the page to read first; needs no other file, no network and no script. Faces in
                  its pictures are masked
  metrics.json    every figure, 95 % intervals over subjects, what errors are measured by, hashes
                  and licence of network and data, versions; there only when all is done
  tables/         figures by joint, group, visible or occluded, posture, grasp, subject, age; OKS
  keypoints.csv   a row per box and joint, as of predict.py, px of the upright picture
  results.json    the same as COCO results; image_id is the packed picture id

{textwrap.fill(predict.MASKING_NOTE, 95)}
{predict.USE_NOTE}

Exit code: 0 done; 1 failed while running, such as a full disk or more than --max_failed unreadable
people; 2 an input or an option is no good."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "evaluate.py", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--run", metavar="RUN", help="run folder made by train.py")
    network.add_argument("--weights", metavar="W", help="folder made by convert_weights, pose")
    add("--state", default="best", help="of a run: best, last or the number of a saved step"
        " (default best)")
    add("--data", required=True, help="folder made by pack_data.py")
    add("--split", default="test", help="of the data: train, val or test (default test)")
    add("--out", required=True, type=new_folder, help="folder to make; must not exist, or be empty")
    add("--batch", type=positive, help="people at a time over all devices (default 32)")
    add("--flip_test", default=True, action=argparse.BooleanOptionalAction,
        help="average with the mirrored picture: better, twice the time (default on)")
    add("--no_flip_test", dest="flip_test", action="store_false", help="the same as --no-flip_test")
    add("--dtype", choices=("float32", "bfloat16"), help="to compute in (default: what the run was"
        " trained in, float32 for weights)")
    add("--detections", metavar="JSON", help="COCO results: boxes of a detector")
    add("--pictures", metavar="CSV", help="which image_id each picture_id is: private/mapping.csv")
    add("--person_category", metavar="ID", help="the category_id of people, where there are more")
    add("--threads", type=positive, default=4, help="that read pictures (default 4)")
    add("--seed", type=not_negative, default=0,
        help="of the intervals and of the pictures drawn at random")
    add("--max_failed", type=share, default=evaluation.MAX_FAILED, metavar="SHARE",
        help="of the people that may be unreadable, one at least (default"
        f" {evaluation.MAX_FAILED})")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code, having printed one line for what went wrong."""
    std_streams.prepare()
    settings = evaluation.Settings(**vars(_parser().parse_args(argv)))
    bad_input = (BadInput, BadData, BadSkeleton, BadAnnotations, BadCheckpoint)
    incomplete = f"{settings.out} is incomplete, so it has no metrics.json"
    return exit_codes.run(lambda: _evaluate(settings, argv), bad_input, incomplete)


def _evaluate(settings: evaluation.Settings, argv: list[str]) -> None:
    document = evaluation.run(settings, ["python", "scripts/evaluate.py", *argv])
    for name, value in {**document["metrics"], **document["oks"]}.items():
        ends = document["intervals"].get(name) or [None]
        interval = "" if None in ends else f"  ({ends[0]:.4g} to {ends[1]:.4g})"
        print(f"{name:24} {_number(value)}{interval}")
    unread = document["unread"]
    if unread:
        told = f"{unread} of {document['people']} people could not be read; they do not count"
        print(told, file=sys.stderr)
    print(f"wrote {settings.out}/report.html\n{predict.MASKING_NOTE}\n{predict.USE_NOTE}")


def _number(value) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
