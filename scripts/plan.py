"""The command: will a training step fit a TPU pod? Compiles it without the pod."""

import argparse
import re
import sys

import jax
from option_types import positive

from nkjax import plan
from nkjax.models import sapiens, vit

_ABOUT = f"""Compile a training step of a Sapiens network for a TPU topology, without the hardware.

The step is forward, backward, AdamW and EMA on fp32 state, all of it and the batch sharded over
all chips (FSDP). Printed are the memory of one chip against its HBM, the collectives, and on the
last line whether it fits. Nothing is run: a compile takes about a minute on two CPU cores, and
needs libtpu (pip install 'nkjax[plan]').

Known chips, with GiB of HBM: {", ".join(f"{k} {v}" for k, v in plan.HBM_GIB.items())}.
A loss other than the mean squared error of this step changes little.

Exit code: 0 it fits; 1 it does not, or compiling failed; 2 an option is no good, the topology is
unknown, or libtpu is missing."""


def _image_size(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"[1-9]\d{1,3}x[1-9]\d{1,3}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH in px, such as 1024x768")
    height, width = text.split("x")
    return int(height), int(width)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "plan.py", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--size", required=True, choices=list(sapiens.SIZES))
    add("--topology", required=True, metavar="CHIP:NxM", help="such as v5e:4x4 or v5p:2x2x1")
    add("--task", choices=sapiens.TASKS, default="pose")
    add("--keypoints", type=positive, help="of a pose network (default 17)")
    add("--image_size", type=_image_size, metavar="HxW", help="px (default: the task's own)")
    add("--batch_per_chip", type=positive, default=1, help="pictures (default 1)")
    add("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="to compute in")
    add("--remat", choices=list(vit.REMAT), default="light",
        help="what the backward pass recomputes (default light); full is slowest and smallest")
    add("--forward_only", action="store_true", help="prediction: no gradient, no optimiser state")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code, having printed one line for what went wrong."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.keypoints and args.task != "pose":
        parser.error(f"--keypoints is for --task pose, not {args.task}")
    # The machine at hand only compiles: a GPU or TPU in it stays free.
    jax.config.update("jax_platforms", "cpu")
    options = plan.Options(
        dtype=args.dtype,
        remat=args.remat,
        batch_per_chip=args.batch_per_chip,
        forward_only=args.forward_only,
    )
    try:
        spec = sapiens.make_spec(args.size, args.task, args.keypoints or 0, args.image_size)
        plan.hbm_bytes(args.topology)
        print(f"compiling {args.size} {args.task}; about a minute", file=sys.stderr)
        result = plan.make_plan(spec, args.topology, options)
    except (plan.BadTopology, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (OSError, MemoryError, RuntimeError, NotImplementedError) as error:
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
