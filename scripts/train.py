"""The command: train a run from a config, or go on with it."""

import os
import shlex
import sys
import threading

import jax
import run_config
import std_streams
from run_config import Option

from nkjax import mesh
from nkjax.checkpoints import BadCheckpoint
from nkjax.config import BadConfig
from nkjax.data.records import BadData
from nkjax.data.streams import TooManyFailures
from nkjax.skeleton import BadSkeleton
from nkjax.toddlersim.truth import BadTruth
from nkjax.train import job, loop
from nkjax.train.begin import BadStart
from nkjax.train.loop import Diverged

_ABOUT = """Train a run from a config, or go on with it: the same line does both, on every host.

    python scripts/train.py --config=configs/stage0_warmup.py:0.6b --workdir=RUN \\
        --config.data=DATA --config.init=WEIGHTS

Written to --workdir, a folder or a bucket path that all processes see: config.json, model.json,
run.json (command, versions, data, weights, licence), metrics.jsonl and tensorboard/, checkpoints/
(the last ones and the best). SIGTERM saves and stops with exit code 0; killed at any moment, the
same line goes on from the last state, with the same numbers. Another number of devices or
processes may go on with it.

On several hosts start the same line on each (scripts/launch/): SLURM, Kubernetes and TPU VMs are
found; elsewhere say --coordinator --processes --process.

Exit code: 0 done, or asked to stop and saved; 1 failed while running, such as a loss that stays
not finite; 2 an option, the config, data or weights are no good."""

_OPTIONS = {
    "workdir": Option(None, "folder of the run; a new one, or one to go on with"),
    "coordinator": Option("", "host:port of process 0, where no cluster is found"),
    "processes": Option(0, "number of processes, where no cluster is found"),
    "process": Option(-1, "which one this is, from 0, where no cluster is found"),
}
FAREWELL_S = 10
BAD_INPUT = (BadConfig, BadStart, BadData, BadTruth, BadSkeleton, BadCheckpoint)


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code, having printed one line for what went wrong."""
    config, options = run_config.parse(argv, _ABOUT, _OPTIONS)
    try:
        mesh.start(options["coordinator"], options["processes"], options["process"])
    except ValueError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (RuntimeError, OSError) as error:
        return _failed(error)
    try:
        loop.train(job.POSE, config, options["workdir"], ["scripts/train.py", *argv])
    except BAD_INPUT as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (Diverged, TooManyFailures, OSError, MemoryError, RuntimeError, ValueError) as error:
        return _failed(error)
    except KeyboardInterrupt:
        line = shlex.join(["python", "scripts/train.py", *argv])
        print(f"stopped; this goes on from the last saved state: {line}", file=sys.stderr)
        return 1
    return 0


def _failed(error: BaseException) -> int:
    reason = " ".join(str(error).split())[:500]
    print(f"failed: {type(error).__name__}: {reason}", file=sys.stderr)
    return 1


def leave(code: int) -> None:
    """End this process: with the others if they end too, else without them after FAREWELL_S.

    Else jax would wait minutes for processes that wait for this one; a launcher, seeing one end,
    ends and restarts them all.
    """
    if code and jax.distributed.is_initialized() and jax.process_count() > 1:
        farewell = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        farewell.start()
        farewell.join(FAREWELL_S)
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    std_streams.prepare()
    leave(main(sys.argv[1:]))
