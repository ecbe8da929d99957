"""The `model` suite of benchmark.py: nkjax and a torch twin, each in a process of its own."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

# ---- one side, in its own process ------------------------------------------------------------


def jax_side(args):
    """Return (step, peak_bytes, facts) of nkjax."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from nkjax.models import sapiens
    from nkjax.precision import BF16, FP32

    spec = sapiens.make_spec(args.size, "pose", image_size=args.image_size)
    policy = BF16 if args.dtype == "bfloat16" else FP32
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), spec))
    params = jax.tree.map(
        lambda s: jax.device_put(0.02 * rng.standard_normal(s.shape, dtype=np.float32)), shapes
    )
    images = jnp.asarray(rng.standard_normal((args.batch, *spec.image_size, 3), dtype=np.float32))

    def forward(params, images):
        return sapiens.apply(
            params, spec, images, policy=policy, attention=args.attention, remat=args.remat
        )["pose"]

    def loss(params, images):
        return jnp.mean(jnp.square(forward(params, images).astype(jnp.float32)))

    start = time.perf_counter()
    step = jax.jit(jax.value_and_grad(loss) if args.backward else forward)
    step = step.lower(params, images).compile()
    facts = {
        "compile_s": time.perf_counter() - start,
        "device": jax.devices()[0].device_kind,
        "version": f"jax {jax.__version__}",
        "attention": args.attention,
        "remat": args.remat if args.backward else "-",
    }
    square = jnp.ones((4096, 4096), policy.compute)
    product = jax.jit(lambda x: x @ x)
    facts["peak_flops"] = _peak(lambda: jax.block_until_ready(product(square)))

    def peak():
        stats = jax.devices()[0].memory_stats()
        return stats["peak_bytes_in_use"] if stats else peak_rss()

    return lambda: jax.block_until_ready(step(params, images)), peak, facts


def torch_side(args):
    """Return (step, peak_bytes, facts) of the torch twin."""
    import torch
    from torch_twin import PoseTwin

    from nkjax.models import sapiens

    torch.set_num_threads(args.threads)
    spec = sapiens.make_spec(args.size, "pose", image_size=args.image_size)
    gpu = torch.cuda.is_available()
    device, dtype = "cuda" if gpu else "cpu", getattr(torch, args.dtype)
    twin = PoseTwin(spec).to(device, dtype)
    images = torch.randn(args.batch, 3, *spec.image_size, device=device, dtype=dtype)
    run = torch.compile(twin) if gpu else twin

    def step():
        if args.backward:
            twin.zero_grad(set_to_none=True)
            run(images).float().square().mean().backward()
        else:
            with torch.no_grad():
                run(images)
        if gpu:
            torch.cuda.synchronize()

    start = time.perf_counter()
    if gpu:
        step()
    square = torch.ones(4096, 4096, device=device, dtype=dtype)

    def product():
        square @ square
        if gpu:
            torch.cuda.synchronize()

    facts = {
        "compile_s": time.perf_counter() - start,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "version": f"torch {torch.__version__}",
        "attention": "SDPA",
        "remat": "-",
        "peak_flops": _peak(product),
    }
    return step, torch.cuda.max_memory_allocated if gpu else peak_rss, facts


def _peak(product) -> float:
    product()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        product()
        times.append(time.perf_counter() - start)
    return 2 * 4096**3 / min(times)


def peak_rss() -> int:
    """Return the most memory that this process has held, bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def serve(args) -> None:
    """Step when told to, and answer with the seconds it took; at the end with the peak memory."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    step, peak, facts = (jax_side if args.side == "nkjax" else torch_side)(args)
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        answer = {"s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        print(json.dumps(answer), flush=True)
    print(json.dumps({"peak_bytes": peak()}), flush=True)


# ---- both sides ------------------------------------------------------------------------------


class Side:
    """A worker process and its answers."""

    def __init__(self, name: str, argv: list[str]):
        benchmark = Path(__file__).with_name("benchmark.py")
        command = [sys.executable, str(benchmark), *argv, "--side", name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.facts = self._answer()
        self.steps: list[dict] = []

    def _answer(self) -> dict:
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"a side of the benchmark ended with code {self.process.wait()}")

    def step(self) -> dict:
        """Run one step; returns its wall and processor seconds."""
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return self._answer()

    def end(self) -> int:
        """End the process; returns its peak memory in bytes."""
        self.process.stdin.write("end\n")
        self.process.stdin.flush()
        peak = self._answer()["peak_bytes"]
        self.process.wait()
        return peak


def compare(args, argv: list[str]) -> None:
    """Time both sides in turn and print a table with the ratios."""
    from nkjax import costs
    from nkjax.models import sapiens

    spec = sapiens.make_spec(args.size, "pose", image_size=args.image_size)
    of_picture = costs.training_flops if args.backward else costs.forward_flops
    work = args.batch * of_picture(spec)
    what = "forward + backward" if args.backward else "forward"
    print(f"{args.size} pose {args.image_size[0]}x{args.image_size[1]}, {args.dtype}, "
          f"batch {args.batch}, {what}: {work / 1e12:.2f} TFLOP by formula")  # fmt: skip
    sides = {name: Side(name, argv) for name in ("nkjax", "torch")}
    for i in range(args.rounds + 1):
        for name, side in sides.items():
            answer = side.step()
            if i:  # the first step warms caches and allocators up
                side.steps.append(answer)
            print(f"  round {i} {name}: {answer['s']:.2f} s, processor {answer['cpu_s']:.2f} s",
                  file=sys.stderr)  # fmt: skip
    rows = {}
    for name, side in sides.items():
        rows[name] = row = {
            key: statistics.median(step[key] for step in side.steps) for key in ("s", "cpu_s")
        }
        row["peak"] = side.end()
        facts = side.facts
        print(
            f"{name:6} {facts['version']}, {facts['device']}, attention {facts['attention']}, "
            f"remat {facts['remat']}, compile {facts['compile_s']:.1f} s\n"
            f"       median {row['s']:.3f} s ({args.batch / row['s']:.3f} pictures/s), "
            f"processor {row['cpu_s']:.2f} s, peak memory {row['peak'] / 2**30:.2f} GiB\n"
            f"       {work / row['s'] / 1e9:.0f} GFLOP/s = "
            f"{work / row['s'] / facts['peak_flops']:.0%} of its own 4096^3 matrix product "
            f"({facts['peak_flops'] / 1e9:.0f} GFLOP/s), floor {work / facts['peak_flops']:.2f} s"
        )
    ours, theirs = rows["nkjax"], rows["torch"]
    print("nkjax / torch: " + ", ".join(
        f"{label} {ours[key] / theirs[key]:.2f}"
        for label, key in (("time", "s"), ("processor time", "cpu_s"), ("peak memory", "peak"))
    ))  # fmt: skip
