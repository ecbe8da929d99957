"""Speed and memory of nkjax beside a peer, timed in turn in the same run.

    python scripts/benchmark.py model --size 0.3b
    python scripts/benchmark.py model --size 0.3b --backward
    python scripts/benchmark.py train --size 0.3b --batch 8 --dtype bfloat16
    python scripts/benchmark.py compile --size 0.6b
    python scripts/benchmark.py convert --size 0.6b
    python scripts/benchmark.py input --threads 1
    python scripts/benchmark.py scale
    python scripts/benchmark.py simulate

`model` times a pose network against a torch twin of the same shapes with torch's fused attention.
Each side lives in a process of its own, so that its peak memory is its own; the two take turns,
one step at a time, on the same cores. Figures are medians; the ratio is the claim, seconds depend
on the machine. Wants torch: pip install "nkjax[torch]". `train` takes real training steps with real
input, once for each remat policy, beside the twin with AdamW: images per second, MFU, peak memory,
share of waiting for input (benchmark_train.py). `compile` times compilation alone.
`convert` makes a checkpoint of random numbers, converts it through the command line, loads it
back, and gives peak memory (VmHWM) beside the file's size. `input` makes crops from packed pictures
beside a bare loop over the same OpenCV calls and a torch DataLoader (benchmark_input.py). `scale`
packs 20,000 labelled and 100,000 unlabelled pictures, opens and streams them: time, peak memory.
`simulate` writes simulated pictures with their truth, beside brute-force casting
(benchmark_simulate.py).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import benchmark_input
import benchmark_model
import benchmark_simulate
import benchmark_train
from option_types import positive

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


# ---- compilation -----------------------------------------------------------------------------


def compilation(args) -> None:
    """Time the compilation of forward plus backward, and count the equations of its jaxpr."""
    import jax
    import jax.numpy as jnp

    from nkjax.models import sapiens

    spec = sapiens.make_spec(args.size, "pose", image_size=args.image_size)
    params = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), spec))
    images = jax.ShapeDtypeStruct((args.batch, *spec.image_size, 3), jnp.float32)

    def loss(params, images):
        return jnp.square(sapiens.apply(params, spec, images, remat=args.remat)["pose"]).mean()

    step = jax.jit(jax.value_and_grad(loss))
    lines = len(str(jax.make_jaxpr(step)(params, images)).splitlines())
    start = time.perf_counter()
    step.lower(params, images).compile()
    seconds = time.perf_counter() - start
    print(f"{args.size}: forward + backward compiles in {seconds:.1f} s; jaxpr of {lines} lines")


# ---- conversion ------------------------------------------------------------------------------


def conversion(args) -> None:
    """Convert a full-size file of random numbers and load it back; print peak memory and time."""
    from nkjax.models import sapiens

    spec = sapiens.make_spec(args.size, "pose", image_size=args.image_size)
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        file, out = Path(scratch) / "random.safetensors", Path(scratch) / "weights"
        _write_random(file, _sapiens_keys(spec))
        size = file.stat().st_size
        load = f"from nkjax.models import sapiens; spec, params = sapiens.load({str(out)!r})"
        for name, command in (
            ("convert", ["-m", "convert_weights", str(file), "--out", str(out)]),
            ("load", ["-c", load]),
            ("verify", ["-m", "convert_weights", "verify", str(out)]),
        ):
            start = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL
            )
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"{name} failed")
            peak = usage.ru_maxrss * 1024
            print(
                f"{name:8} {args.size}: file {size / 2**30:.2f} GiB, peak {peak / 2**30:.2f} GiB = "
                f"{peak / size:.2f} x file, {time.perf_counter() - start:.0f} s"
            )


def _sapiens_keys(spec) -> dict[str, tuple[int, ...]]:
    d, (h, w) = spec.backbone.width, spec.backbone.grid
    keys: dict[str, tuple[int, ...]] = {
        "backbone.pos_embed": (1, h * w, d),
        "backbone.patch_embed.projection.weight": (d, 3, 16, 16),
        "backbone.patch_embed.projection.bias": (d,),
    }
    norms = ["backbone.ln1"]
    for i in range(spec.backbone.depth):
        block = f"backbone.layers.{i}"
        norms += [f"{block}.ln1", f"{block}.ln2"]
        for name, out, width in (
            ("attn.qkv", 3 * d, d),
            ("attn.proj", d, d),
            ("ffn.layers.0.0", 4 * d, d),
            ("ffn.layers.1", d, 4 * d),
        ):
            keys |= {f"{block}.{name}.weight": (out, width), f"{block}.{name}.bias": (out,)}
    for norm in norms:
        keys |= {f"{norm}.weight": (d,), f"{norm}.bias": (d,)}
    for i, out in enumerate(spec.head.deconvs):
        keys[f"head.deconv_layers.{3 * i}.weight"] = (d, out, 4, 4)
        d = out
    for i, out in enumerate((*spec.head.convs, spec.head.outputs)):
        last = i == len(spec.head.convs)
        layer = "head.final_layer" if last else f"head.conv_layers.{3 * i}"
        keys |= {f"{layer}.weight": (out, d, 1, 1), f"{layer}.bias": (out,)}
        d = out
    return keys


def _write_random(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    import numpy as np

    header, offset = {}, 0
    for key, shape in shapes.items():
        end = offset + 4 * int(np.prod(shape))
        header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(0)
    with open(file, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            stream.write(rng.standard_normal(shape, dtype=np.float32).data)


def image_size(text: str) -> tuple[int, int]:
    """Read HxW."""
    height, width = text.split("x")
    return int(height), int(width)


def main(argv: list[str]) -> None:
    """Parse the command and run the suite, or one side of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    suites = parser.add_subparsers(dest="suite", required=True)
    model, compiles, convert = (suites.add_parser(name) for name in ("model", "compile", "convert"))
    sizes = ("tiny", "0.3b", "0.6b", "1b", "2b")
    for suite in (model, compiles, convert):
        suite.add_argument("--size", choices=sizes, default="0.3b")
        suite.add_argument("--image_size", type=image_size, default="1024x768", help="HxW, px")
    for suite in (model, compiles):
        suite.add_argument("--batch", type=positive, default=1)
        suite.add_argument("--remat", choices=("none", "light", "full"), default="light")
    add = model.add_argument
    add("--dtype", choices=["float32", "bfloat16"], default="float32")
    add("--backward", action="store_true", help="time the gradient too")
    add("--attention", choices=("auto", "chunked", "cudnn", "splash"), default="auto")
    add("--rounds", type=positive, default=3)
    add("--threads", type=positive, default=2, help="processor threads for each side")
    add("--side", choices=["nkjax", "torch"], help=argparse.SUPPRESS)
    add = suites.add_parser("train").add_argument
    add("--size", choices=sizes, default="0.3b")
    add("--image_hw", type=image_size, default="1024x768", help="HxW, px")
    add("--batch", type=positive, default=1, help="over all devices")
    add("--dtype", choices=["float32", "bfloat16"], default="float32", help="to compute in")
    add("--remat", choices=("none", "light", "full"), nargs="+", default=["light"])
    add("--steps", type=positive, default=4, help="counted, after a first one")
    add("--threads", type=positive, default=16, help="that load pictures")
    add("--data", help="packed folder; default: 48 drawn pictures of 640x480")
    add("--scratch", help="folder for those; default: the system's")
    add("--side", choices=["nkjax", "torch"], help=argparse.SUPPRESS)
    convert.add_argument("--scratch", help="folder for the checkpoint; default: the system's")
    add = suites.add_parser("input").add_argument
    add("--threads", type=positive, default=1, help="cores that each side is pinned to")
    add("--rounds", type=positive, default=5)
    add("--pictures", type=positive, default=48, help="in each round, of each size")
    add("--scratch", help="folder for the pictures; default: the system's")
    add("--data", help=argparse.SUPPRESS)
    add("--side", choices=["bare", "nkjax", "torch"], help=argparse.SUPPRESS)
    add = suites.add_parser("scale").add_argument
    add("--labelled", type=positive, default=20_000)
    add("--unlabelled", type=positive, default=100_000)
    add("--scratch", help="folder for the pictures; default: the system's")
    add = suites.add_parser("simulate").add_argument
    add("--count", type=positive, default=48, help="pictures of each domain and size")
    args = parser.parse_args(argv)
    if args.suite == "model":
        benchmark_model.serve(args) if args.side else benchmark_model.compare(args, argv)
    elif args.suite == "train":
        benchmark_train.serve(args) if args.side else benchmark_train.compare(args)
    elif args.suite == "input":
        benchmark_input.serve(args) if args.side else benchmark_input.compare(args)
    else:
        suites = {"compile": compilation, "convert": conversion, "scale": benchmark_input.scale,
                  "simulate": benchmark_simulate.speed}  # fmt: skip
        suites[args.suite](args)


if __name__ == "__main__":
    main(sys.argv[1:])
