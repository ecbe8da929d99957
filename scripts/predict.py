"""The command: keypoints of all people in pictures, from a run or converted weights."""

import argparse
import sys
import textwrap

import std_streams
from option_types import finite, positive

from nkjax.checkpoints import BadCheckpoint
from nkjax.data.coco import BadAnnotations
from nkjax.data.images import ENDINGS
from nkjax.evaluate import predict
from nkjax.evaluate.pictures import BadInput
from nkjax.ids import BadSalt

_ABOUT = f"""Find the keypoints of all people in a picture or a folder of pictures.

Pictures are files ending in {" ".join(ENDINGS)}, in subfolders
too; a picture given by its own path may end as it likes. They are turned upright by their EXIF
orientation, and boxes must be of the upright picture. No input is ever changed.

Boxes come from a COCO results file (--detections). Its image_id belongs to a picture when
 - --images_json, a COCO annotation file, gives that id to the picture's file_name, or without it
 - the id is the file's name without ending: 785 is 000000000785.jpg.
Without --detections the whole picture is the box of one person, and as nobody has looked for other
people the picture behind the skeleton is a coarse mosaic.

Written to --out:
  keypoints.csv   a row per person and joint: x, y in px of the upright picture, score
  results.json    COCO keypoint results. A numeric image_id of the COCO files is kept, because
                  evaluation needs it; score = box score x mean of the keypoint scores above 0.2
  overlays/       the skeletons on the pictures, every face masked. A box without certain head
                  joints has its top covered, also one below --min_score or of another category.
                  A picture without a person found has no overlay
  pictures.csv    a row per picture: predicted, failed and why, or without a box
  run.json        settings, versions, weights, counts; there only when all is done
  private/        which file each picture id stands for, and the salt that makes the ids: file names
                  may name patients. Keep it in the lab. With --show_paths there is none

{textwrap.fill(predict.MASKING_NOTE, 95)}
{predict.USE_NOTE}

Exit code: 0 done, also when some pictures failed; 1 failed while running, such as a full disk;
2 an input or an option is no good, or no picture could be read."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "predict.py", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--run", metavar="RUN", help="run folder made by train.py: its averaged"
        " parameters")
    network.add_argument("--weights", metavar="W",
        help="folder made by python -m convert_weights, pose")
    add("--state", default="best", help="of a run: best, last or the number of a saved step"
        " (default best)")
    add("--input", required=True, help="a picture, or a folder of pictures")
    add("--out", required=True, help="folder to make; must not exist, or be empty")
    add("--detections", metavar="JSON", help="COCO results: [{image_id, category_id, bbox, score}]")
    add("--images_json", metavar="JSON", help="COCO annotation file that names the image ids")
    add("--person_category", metavar="ID", help="the category_id of people, where there are more")
    add("--min_score", type=finite, default=0.3, help="of a box to be a person (default 0.3)")
    add("--batch", type=positive, default=1, help="people at a time on the device (default 1)")
    add("--flip_test", action=argparse.BooleanOptionalAction, default=True,
        help="average with the mirrored picture: better, twice the time (default on)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="to compute in")
    add("--faces", choices=("mask", "show"), default="mask",
        help="show leaves faces visible, and says so on every picture and in run.json")
    add("--salt", metavar="FILE", help="private/salt.txt of an earlier run, for the same ids")
    add("--show_paths", action="store_true", help="call pictures by their paths instead of ids")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code, having printed one line for what went wrong."""
    std_streams.prepare()
    settings = predict.Settings(**vars(_parser().parse_args(argv)))
    try:
        counts = predict.run(settings, ["python", "scripts/predict.py", *argv])
    except (BadInput, BadAnnotations, BadSalt, BadCheckpoint) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, MemoryError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:500]
        print(f"failed: {type(error).__name__}: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; {settings.out} is incomplete, so it has no run.json", file=sys.stderr)
        return 1
    for name, count in counts.items():
        print(f"{count:8,} {name}")
    print(f"wrote {settings.out}\n{predict.MASKING_NOTE}\n{predict.USE_NOTE}")
    if counts.get("pictures failed") and not counts.get("pictures read"):
        print("error: no picture could be read; the lines above say why", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
