"""The command: fit the developmental prior to labelled skeletons, or go on with it."""

import dataclasses
import shlex
import sys

import exit_codes
import run_config
import std_streams
from run_config import Option
from train import leave

from nkjax import mesh
from nkjax.checkpoints import BadCheckpoint
from nkjax.config import BadConfig
from nkjax.data.records import BadData
from nkjax.kinematics.statistics import BadStatistics
from nkjax.prior_config import PriorConfig
from nkjax.skeleton import BadSkeleton
from nkjax.train import prior_folder
from nkjax.train.begin import BadStart

_ABOUT = """Fit the developmental prior to the labelled skeletons of a data folder, not pictures.

    python scripts/fit_prior.py --config=configs/prior.py:tiny --data=DATA --out=PRIOR

Written to --out: statistics.json (what the bodies do), params/ and model.json (the denoiser),
calibration.json (how plausible a pose is, on subjects that nothing else was fitted on), pictures/
to look at, training/ (the run, with its curves). The same line goes on where it was stopped, and
writes what is missing of a fit that is done. One process does it: minutes on 2 cores for tiny.

Exit code: 0 done, or asked to stop and saved; 1 failed while running; 2 an option, the config or
the data are no good."""

_OPTIONS = {
    "data": Option(None, "packed folder, with labelled people in train"),
    "out": Option(None, "folder of the prior; a new one, or one to go on with"),
}
BAD_INPUT = (BadConfig, BadStart, BadData, BadSkeleton, BadStatistics, BadCheckpoint)


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code, having printed one line for what went wrong."""
    config, options = run_config.parse(argv, _ABOUT, _OPTIONS, PriorConfig)
    config = dataclasses.replace(config, data=options["data"])
    line = ["scripts/fit_prior.py", *argv]
    again = f"this goes on from the last saved state: {shlex.join(['python', *line])}"

    def work():
        mesh.start()
        prior_folder.fit(config, options["out"], line)

    # The run's own errors name the option of train.py.
    return exit_codes.run(work, BAD_INPUT, again, {"--workdir": "--out"})


if __name__ == "__main__":
    std_streams.prepare()
    leave(main(sys.argv[1:]))
