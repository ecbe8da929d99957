"""The `train` suite of benchmark.py: real training steps on this machine's devices beside torch.

`nkjax` is the step that train.py runs, on batches that its stream makes from packed pictures, once
for each remat policy. `torch` is the twin's forward and backward, clipping and AdamW on fp32
parameters, under autocast where computing is in bfloat16; its pictures lie on the device, it has no
EMA, no views and no input, and it keeps all activations. Each has a process and the machine for
itself, one after the other: together they may not fit a device. A first step is not counted.
"""

import dataclasses
import functools
import json
import sys
import tempfile
import time
from pathlib import Path

import benchmark_input
from benchmark_model import Side, peak_rss

# Dense bf16 TFLOP/s of GPUs by the vendor's data sheets; the first name that fits is taken.
PEAKS = {"B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362,
         "L4": 121}  # fmt: skip
PICTURE_WH, PICTURES = (640, 480), 48


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one side took: seconds of a step, all and of waiting for input; processor; bytes."""

    seconds: float
    waited: float
    processor: float
    peak: int


def mfu(flops: float, seconds: float, device: str, devices: int) -> float | None:
    """Return the share of the devices' bf16 peak that a step reaches; None for unknown devices.

    flops: of the whole step by formula, nothing computed again counted. `cost_analysis` is no
    help: it counts the body of a loop, all blocks but one, only once.
    """
    peak = next((tflops for name, tflops in PEAKS.items() if name in device), None)
    return flops / seconds / (devices * peak * 1e12) if peak else None


# ---- one side, in its own process ------------------------------------------------------------


def serve(args) -> None:
    """Run one step, then as many as asked for each time when told to; answer with seconds."""
    run, peak, facts = (_nkjax if args.side == "nkjax" else _torch)(args)
    print(json.dumps(facts), flush=True)
    count = 1
    for line in sys.stdin:
        if line.strip() == "end":
            break
        wall, cpu = time.perf_counter(), time.process_time()
        waited, loss = run(count)
        answer = {"s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        print(json.dumps(answer | {"waited": waited, "loss": loss}), flush=True)
        count = args.steps
    print(json.dumps({"peak_bytes": peak()}), flush=True)


def _config(args):
    from nkjax.config import Config, Evaluation

    (remat,) = args.remat
    return Config(
        size=args.size, image_hw=args.image_hw, batch=args.batch, compute=args.dtype, remat=remat,
        evaluation=Evaluation(batch=args.batch), threads=args.threads,
    )  # fmt: skip


def _nkjax(args):
    """Return run(steps) -> (seconds waited for input, last loss), peak() -> bytes, facts."""
    import jax

    from nkjax import config as configs
    from nkjax import mesh as meshes
    from nkjax import sharding
    from nkjax.data import records
    from nkjax.models import sapiens
    from nkjax.train import begin, job, optimizer
    from nkjax.train import state as states

    config, devices = _config(args), jax.devices()
    mesh = meshes.make_mesh(*configs.check_devices(config, len(devices), 1))
    rows = records.Rows(records.read_manifest(args.data), "train")
    spec = sapiens.make_spec(args.size, "pose", image_size=args.image_hw)
    start = begin.Start(spec, rows, rows, "", {}, {})
    begun = time.perf_counter()
    step = job.lower_step(spec, config, mesh).compile()
    account = step.memory_analysis()
    placed = jax.tree.map(lambda leaf: leaf.sharding, job.abstract_state(spec, config, mesh))
    adamw = optimizer.make(config.optimizer, config.steps)
    first = jax.jit(
        functools.partial(states.init, optimizer=adamw), out_shardings=placed, donate_argnums=0
    )
    facts = {
        "compile_s": time.perf_counter() - begun,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "version": f"jax {jax.__version__}",
        "temporary": account.temp_size_in_bytes,
    }
    state = first(begin.first_params(start, config, mesh))
    batches = job.training_batches(start, config, 0)

    def run(steps):
        nonlocal state
        waited, late = 0.0, None
        for _ in range(steps):
            begun = time.perf_counter()
            batch = sharding.share(next(batches), mesh)
            waited += time.perf_counter() - begun
            state, metrics = step(state, batch)
            if late:  # as in train.py, numbers are read one step late
                jax.device_get(late)
            late = metrics
        return waited, float(jax.device_get(late)["train/loss"])

    def peak():
        stats = [device.memory_stats() for device in devices]
        return max(s["peak_bytes_in_use"] for s in stats) if all(stats) else peak_rss()

    return run, peak, facts


def _torch(args):
    """Return the same three of the torch twin, on one device."""
    import torch
    from torch_twin import PoseTwin

    from nkjax.models import sapiens

    spec = sapiens.make_spec(args.size, "pose", image_size=args.image_hw)
    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    twin = PoseTwin(spec).to(device)
    network = torch.compile(twin) if gpu else twin
    adamw = torch.optim.AdamW(twin.parameters(), lr=5e-4, weight_decay=0.1)
    (height, width), joints = args.image_hw, spec.head.outputs
    images = torch.randn(args.batch, 3, height, width, device=device)
    targets = torch.rand(args.batch, joints, height // 4, width // 4, device=device)
    autocast = torch.autocast(device, torch.bfloat16, enabled=args.dtype == "bfloat16")

    def run(steps):
        for _ in range(steps):
            adamw.zero_grad(set_to_none=True)
            with autocast:
                maps = network(images)
            loss = torch.nn.functional.mse_loss(maps.float(), targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
            adamw.step()
        return 0.0, float(loss.detach())

    facts = {
        "compile_s": 0.0,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "devices": 1,
        "version": f"torch {torch.__version__}",
        "temporary": None,
    }
    return run, torch.cuda.max_memory_allocated if gpu else peak_rss, facts


# ---- all sides -------------------------------------------------------------------------------


def compare(args) -> None:
    """Run nkjax with each remat policy and torch, one after the other; print figures and ratios."""
    from nkjax import costs
    from nkjax.models import sapiens

    spec = sapiens.make_spec(args.size, "pose", image_size=args.image_hw)
    flops = args.batch * costs.training_flops(spec)
    height, width = args.image_hw
    print(f"{args.size} pose {height}x{width}, {args.dtype}, batch {args.batch}, {args.steps} "
          f"steps of {flops / 1e12:.3g} TFLOP by formula", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        data = args.data or _packed(Path(scratch))
        ours = {remat: _measure(args, "nkjax", remat, data, flops) for remat in args.remat}
        theirs = _measure(args, "torch", "none", data, flops)
    for remat, figures in ours.items():
        print(f"nkjax / torch, remat {remat}: images per second "
              f"{theirs.seconds / figures.seconds:.2f}, processor time "
              f"{figures.processor / theirs.processor:.2f}, peak memory "
              f"{figures.peak / theirs.peak:.2f}")  # fmt: skip


def _packed(scratch: Path) -> str:
    benchmark_input.draw_lab(scratch / "lab", PICTURE_WH, PICTURES)
    benchmark_input.pack(scratch / "lab", scratch / "data")
    return str(scratch / "data")


def _measure(args, name: str, remat: str, data: str, flops: float) -> Figures:
    height, width = args.image_hw
    argv = ["train", "--size", args.size, "--image_hw", f"{height}x{width}", "--batch", args.batch,
            "--dtype", args.dtype, "--remat", remat, "--steps", args.steps, "--threads",
            args.threads, "--data", data]  # fmt: skip
    side = Side(name, [str(word) for word in argv])
    side.step()
    answer, facts = side.step(), side.facts
    figures = Figures(
        seconds=answer["s"] / args.steps,
        waited=answer["waited"] / args.steps,
        processor=answer["cpu_s"] / args.steps,
        peak=side.end(),
    )
    reached = mfu(flops, figures.seconds, facts["device"], facts["devices"])
    temporary = facts["temporary"]
    account = f" (compiler's temporary {temporary / 2**30:.2f})" if temporary is not None else ""
    waits = f", waiting for input {figures.waited / figures.seconds:.1%}" if account else ""
    print(
        f"{name:6} {facts['version']}, {facts['devices']} x {facts['device']}, remat {remat}, "
        f"compile {facts['compile_s']:.0f} s\n"
        f"       {args.batch / figures.seconds:.3g} images/s, {figures.seconds:.3g} s a step"
        f"{waits}, processor {figures.processor:.3g} s\n"
        f"       {flops / figures.seconds / 1e9:.3g} GFLOP/s, MFU "
        + (f"{reached:.1%}" if reached is not None else "not known for this device")
        + f", peak memory {figures.peak / 2**30:.2f} GiB{account}",
        flush=True,
    )
    return figures
