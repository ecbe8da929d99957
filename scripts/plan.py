"""The command: will a run's training step fit a TPU pod? Compiles it without the pod."""

import sys

import jax
import run_config
from run_config import Option

from nkjax import plan
from nkjax.config import BadConfig
from nkjax.costs import CHIPS
from nkjax.skeleton_formats import MOST_JOINTS

_ABOUT = f"""Compile the training step of a config for a TPU topology, without the hardware.

    python scripts/plan.py --config=configs/stage0_warmup.py:2b --topology=v5e:4x4

The step is the one that train.py runs, with views, loss, AdamW, EMA and the config's mesh, batch
and remat. Printed are the memory of one chip against its HBM; the collectives of one step, those
in loops as often as the loops run, with the bytes that a chip sends; for bfloat16 a prediction of
the share of time they take, from formulas and the vendor's figures; on the last line whether it
fits. Nothing is run, no data or weights are read: a compile takes some minutes on two CPU cores,
and needs libtpu (pip install 'nkjax[plan]').

Known chips, with GiB of HBM: {", ".join(f"{k} {v.hbm_gib}" for k, v in CHIPS.items())}.

Exit code: 0 it fits; 1 it does not, or compiling failed; 2 an option is no good, mesh or batch do
not divide among the chips, the topology is unknown, or libtpu is missing."""

_OPTIONS = {
    "topology": Option(None, "chips, such as v5e:4x4 or v5p:2x2x1"),
    "keypoints": Option(17, "of the data, for a pose network"),
}


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code, having printed one line for what went wrong."""
    config, options = run_config.parse(argv, _ABOUT, _OPTIONS)
    topology, keypoints = options["topology"], options["keypoints"]
    try:
        if not 1 <= keypoints <= MOST_JOINTS:
            raise BadConfig(f"--keypoints={keypoints}: want a number from 1 to {MOST_JOINTS}")
        plan.hbm_bytes(topology)
        # The machine at hand only compiles: a GPU or TPU in it stays free.
        jax.config.update("jax_platforms", "cpu")
        print(f"compiling {config.size} {config.task}; some minutes", file=sys.stderr)
        result = plan.make_plan(config, topology, keypoints)
    except (plan.BadTopology, BadConfig) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (OSError, MemoryError, RuntimeError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:500]
        print(f"failed: {type(error).__name__}: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 1
    print(plan.report(result))
    return 0 if result.fits else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
