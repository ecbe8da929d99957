"""Small runs for tests: toddlers packed once, a tiny network, the command as a process.

    python tests/train/small_run.py SECONDS ...   is scripts/train.py with so slow a disk:
                                                  every batch takes so long to come
"""

import atexit
import dataclasses
import functools
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nkjax import config as configs
from nkjax.config import Config, Evaluation, Heatmaps, Mesh, Optimizer
from nkjax.models import sapiens
from nkjax.train import job, loop

ROOT = Path(__file__).parents[2]
TRAIN = 16  # people; 8 more are in val, 8 in test


@functools.cache
def data() -> str:
    """Return a packed folder of simulated toddlers, 64 x 64 px, made once and gone at the end."""
    folder = _folder()
    lab = folder / "lab"
    counts = ("--labelled", "24", "--unlabelled", "0", "--test", "8")
    _run("simulate.py", "--out", lab, "--domain", "toddler", *counts, "--size", "64x64", "--seed",
         "3")  # fmt: skip
    (folder / "salt.txt").write_text("00" * 32 + "\n")
    _run("pack_data.py", "--annotations", lab / "labels.json", "--images", lab / "images",
         "--skeleton", lab / "skeleton.json", "--subjects", lab / "subjects.csv",
         "--out", folder / "packed", "--salt", folder / "salt.txt")  # fmt: skip
    return str(folder / "packed")


@functools.cache
def compile_cache() -> str:
    """Return a folder where processes find what others have compiled."""
    return os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(_folder())


def config(**changes) -> Config:
    """Return a run of 6 steps of 8 people, with an evaluation and two saves on its way.

    A change may name a key of a section, as optimizer__warmup=0.
    """
    small = Config(
        size="tiny",
        image_hw=(64, 48),
        data=changes.pop("data", "") or data(),
        steps=6,
        batch=8,
        compute="float32",
        remat="none",
        mesh=Mesh(-1, 1),
        optimizer=Optimizer(learning_rate=1e-3, warmup=2),
        heatmaps=Heatmaps(sigma=1.0),
        evaluation=Evaluation(every=4, batch=8),
        save_every=2,
        keep=3,
        log_every=1,
        threads=2,
    )
    sections = {}
    for key in [key for key in changes if "__" in key]:
        section, name = key.split("__")
        of_section = sections.get(section, getattr(small, section))
        sections[section] = dataclasses.replace(of_section, **{name: changes.pop(key)})
    return dataclasses.replace(small, **changes, **sections)


# XLA ends a process whose forced devices wait 40 s for each other, as on a busy machine.
PATIENCE = "--xla_cpu_collective_call_terminate_timeout_seconds=900"
# What no program of a run depends on.
_OUTSIDE = dict(data="", save_every=1, keep=1, log_every=1, profile=(0, 0), labels=0)


_compile, _compiled = job.compile_job, {}


def compile_once(start, config: Config, devices) -> job.Job:
    """Return the programs of a run, compiled once for all runs with the same ones."""
    same = configs.sha256(dataclasses.replace(config, **_OUTSIDE))
    key = (same, sapiens.spec_sha256(sapiens.to_json(start.spec)), devices)
    if key not in _compiled:
        _compiled[key] = _compile(start, config, devices)
    return _compiled[key]


def train(config: Config, workdir, preempted=lambda step: False, programs=compile_once) -> int:
    """Run `loop.train` in this process, with programs that an earlier run has compiled."""
    work = dataclasses.replace(job.POSE, compile=programs)
    return loop.train(work, config, str(workdir), preempted=preempted)


def command(config: Config, workdir, *more) -> list[str]:
    """Return the command line that trains this run, every setting spelled out."""
    words = []
    for key, value in configs.to_json(config).items():
        inside = value if isinstance(value, dict) else {"": value}
        for name, leaf in inside.items():
            text = ",".join(map(str, leaf)) if isinstance(leaf, list) else str(leaf)
            words.append(f"--config.{key}{'.' * bool(name)}{name}={text}")
    file = f"--config={ROOT / 'configs/stage0_warmup.py'}:tiny"
    return [file, *words, f"--workdir={workdir}", *more]


@functools.cache
def _no_torch() -> str:
    # tensorboardX loads it where it is there, which takes seconds; training never needs it.
    folder = _folder()
    (folder / "torch.py").write_text("raise ImportError('no torch in this test')\n")
    return str(folder)


def environment(devices: int = 1) -> dict[str, str]:
    """Return what a process of so many forced CPU devices needs, sharing the compile cache."""
    paths = os.pathsep.join([str(ROOT), _no_torch(), os.environ.get("PYTHONPATH", "")])
    return os.environ | {
        "PYTHONPATH": paths,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {PATIENCE}",
        "JAX_COMPILATION_CACHE_DIR": compile_cache(),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "OMP_NUM_THREADS": "1",
    }


def start(config: Config, workdir, *more, devices: int = 1, slow: float = 0) -> subprocess.Popen:
    """Start the command, with `slow` seconds to wait for a batch; stderr is a pipe of text."""
    return subprocess.Popen(
        [sys.executable, __file__, str(slow), *command(config, workdir, *more)],
        env=environment(devices), cwd=ROOT, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen, seconds: float = 300) -> tuple[int, str]:
    """Wait for a command and return its exit code and what it said; kill it if it hangs."""
    try:
        _, said = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, said


def run(config: Config, workdir, *more, **options) -> tuple[int, str]:
    """Run the command to its end: exit code and what it said."""
    return finish(start(config, workdir, *more, **options))


def wait_for(process: subprocess.Popen, words: str) -> str:
    """Read what a command says up to a line with these words; returns that line."""
    said = []
    for line in process.stderr:
        if words in line:
            return line
        said.append(line)
    ended = f"ended with {process.wait()} and never said {words!r}"
    raise AssertionError(f"{ended}, but:\n{''.join(said[-20:])}")


def terminate(process: subprocess.Popen) -> None:
    """Send SIGTERM while the process stands still: it is where it was when it is told."""
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT):
        process.send_signal(number)


def lines(workdir) -> list[dict]:
    """Return the lines of metrics.jsonl without what tells of time."""
    text = (Path(workdir) / "metrics.jsonl").read_text()
    return [
        {name: value for name, value in json.loads(line).items() if not name.startswith("time/")}
        for line in text.splitlines()
    ]


def record(workdir, step: int) -> dict:
    """Return the record of a saved state: fingerprint of every leaf, metrics, facts."""
    path = Path(workdir) / "checkpoints" / str(step) / "record.json"
    return json.loads(path.read_text())["record"]


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="nkjax-small-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _run(script, *words):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *map(str, words)],
        capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _slowly(batches, seconds):
    try:
        for batch in batches:
            time.sleep(seconds)
            yield batch
    finally:
        batches.close()


if __name__ == "__main__":
    slow, quick = float(sys.argv[1]), job.training_batches
    job.POSE = dataclasses.replace(job.POSE, batches=lambda *given: _slowly(quick(*given), slow))
    sys.argv = [str(ROOT / "scripts/train.py"), *sys.argv[2:]]
    sys.path.insert(0, str(ROOT / "scripts"))
    runpy.run_path(sys.argv[0], run_name="__main__")
