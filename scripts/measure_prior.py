"""The command: what a fitted prior knows, on people it never saw, beside its controls."""

import argparse
import sys

import exit_codes
import std_streams
from option_types import new_folder, positive

from nkjax.checkpoints import BadCheckpoint
from nkjax.data.records import BadData
from nkjax.evaluate import prior_study
from nkjax.evaluate.pictures import BadInput
from nkjax.skeleton import BadSkeleton

_ABOUT = """Measure a prior of fit_prior.py on people who neither fitted nor calibrated it.

    python scripts/measure_prior.py --prior PRIOR --data DATA --split val --out DIR \\
        --shuffled CONTROL --adult ADULTS --atypical ATYPICAL --run RUN

Only folders are read, nothing is trained. What is left out is not measured:
  --shuffled  a prior of configs/prior.py:tiny,shuffled, fitted to the same data: must be no use
  --adult     a prior fitted to adults: it must pull toddlers to a narrower base
  --atypical  a packed folder of postures absent from training (its split test): must survive L_dev
  --run       a run of train.py: whether plausibility says more than the network's own confidence

Written to --out: prior.md, the tables to read; prior.json, the same as numbers; pictures/.

Exit code: 0 done; 1 failed while running; 2 an input or an option is no good."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "measure_prior.py", description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--prior", required=True, help="folder made by fit_prior.py")
    add("--data", required=True, help="folder made by pack_data.py")
    add("--split", default="val", choices=("val", "test"), help="of the data (default val)")
    add("--out", required=True, type=new_folder, help="folder to make; must not exist, or be empty")
    add("--shuffled", metavar="PRIOR", help="control: fitted to shuffled skeletons")
    add("--adult", metavar="PRIOR", help="control: fitted to adults")
    add("--atypical", metavar="DATA", help="packed folder of postures absent from training")
    add("--run", metavar="RUN", help="run folder made by train.py, pose")
    add("--batch", type=positive, default=64, help="pictures at a time, with --run (default 64)")
    add("--threads", type=positive, default=4, help="that read pictures (default 4)")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code, having printed one line for what went wrong."""
    std_streams.prepare()
    settings = prior_study.Settings(**vars(_parser().parse_args(argv)))

    def work():
        print(prior_study.run(settings, ["python", "scripts/measure_prior.py", *argv]))
        print(f"wrote {settings.out}/prior.md")

    bad_input = (BadInput, BadData, BadSkeleton, BadCheckpoint)
    incomplete = f"{settings.out} is incomplete, so it has no prior.md"
    return exit_codes.run(work, bad_input, incomplete)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
