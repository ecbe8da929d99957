"""The planner through its command line, and its reading of programs, against written-out cases."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from nkjax import mesh as meshes
from nkjax import plan, trees
from nkjax.models import sapiens

ROOT = Path(__file__).parents[1]
needs_libtpu = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason="needs libtpu: pip install 'nkjax[plan]'"
)


def run(*arguments, **environment):
    """Run the command as a user does: libtpu's settings stay in that process."""
    return subprocess.run(
        [sys.executable, "scripts/plan.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}", **environment},
        capture_output=True,
        text=True,
        timeout=550,
    )


def figures(output: str) -> dict[str, float]:
    return {name: float(gib) for name, gib in re.findall(r"^  ([a-z]+) +([\d.]+)$", output, re.M)}


def largest_collective(output: str) -> float:
    return max(float(mib) for mib in re.findall(r"at most ([\d.]+) MiB", output))


def state_gib(size: str, chips: int) -> float:
    """Fp32 parameters, two moments and EMA, and a picture with its target, of one chip."""
    spec = sapiens.make_spec(size, "pose")
    params = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), spec))
    batch = 4 * (1024 * 768 * 3 + 256 * 192 * 17)
    return (4 * 4 * trees.count(params) / chips + batch) / 2**30


@needs_libtpu
def test_tiny_fits_a_host_of_v5e():
    done = run("--size", "tiny", "--topology", "v5e:2x2")
    assert done.returncode == 0, done.stderr
    assert "v5e:2x2: 4 chips of 16 GiB" in done.stdout and "\nfits, 15." in done.stdout
    found = figures(done.stdout)
    parts = found["arguments"] + found["outputs"] - found["aliased"]
    assert found["total"] == pytest.approx(parts + found["temporary"] + found["code"], abs=0.003)
    assert "Traceback" not in done.stderr


@needs_libtpu
def test_a_step_too_large_is_said_not_to_fit():
    done = run("--size", "tiny", "--topology", "v5e:2x2", "--batch_per_chip", "900")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1].startswith("does not fit")
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("size", ["0.6b", "2b"])
def test_training_fits_sixteen_chips_of_v5e(size):
    done = run("--size", size, "--topology", "v5e:4x4")
    assert done.returncode == 0, done.stdout + done.stderr
    found = figures(done.stdout)
    assert found["total"] < 16
    # The state is split over all chips, and reused in place.
    assert found["arguments"] == pytest.approx(state_gib(size, 16), rel=0.05)
    assert found["aliased"] > 0.95 * (found["arguments"] - 0.03)
    # No chip brings together more than one layer's weights, nor anyone else's activations.
    layer = float(re.search(r"of one layer has ([\d.]+) MiB", done.stdout)[1])
    assert 0 < largest_collective(done.stdout) <= layer


@pytest.mark.parametrize(("arguments", "words"), [
    (["--topology", "v7:2x2"], "no chip called 'v7'; known are v4, v5e, v5p, v6e"),
    (["--topology", "v5e"], "write chips as NxM"),
    (["--topology", "v5e:4x"], "write chips as NxM"),
    (["--topology", "v5e:2x2", "--keypoints", "17", "--task", "depth"], "--keypoints is for"),
    (["--topology", "v5e:2x2", "--keypoints", "0"], "not a number from 1"),
    (["--topology", "v5e:2x2", "--image_size", "1024"], "not HEIGHTxWIDTH"),
    (["--topology", "v5e:2x2", "--size", "3b"], "invalid choice: '3b'"),
    pytest.param(["--topology", "v5e:3x3"], "topology 'v5e:3x3'", marks=needs_libtpu),
])  # fmt: skip
def test_bad_usage_is_one_line(arguments, words):
    done = run("--size", "tiny", *arguments)
    assert done.returncode == 2 and words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and not done.stdout


def test_without_libtpu_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(plan.BadTopology, match=r"pip install 'nkjax\[plan\]'"):
        plan.topology_mesh("v5e:2x2")


@needs_libtpu
def test_installed_libtpu_leaves_cpu_runs_alone():
    code = "import jax; print(jax.numpy.ones(3).sum(), jax.default_backend())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.stdout.split() == ["3.0", "cpu"] and not done.stderr


def test_hbm_of_each_family():
    gib = {name: plan.hbm_bytes(f"{name}:2x2") / 2**30 for name in ("v4", "v5e", "v5p", "v6e")}
    assert gib == {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}


def test_total_counts_a_donated_argument_once():
    memory = plan.Memory(arguments=10, outputs=9, aliased=8, temporary=5, code=1)
    assert memory.total == 17


def test_collectives_are_counted_once_per_channel():
    hlo = """
  %a = bf16[2,768]{1,0:T(8,128)} all-gather(%x), channel_id=1, replica_groups={}
  %b = bf16[2,768]{1,0:T(8,128)} all-gather(%y), channel_id=1, replica_groups={}
  %c = (f32[4,8]{1,0}, f32[32,8]{1,0}) all-gather-start(%z), channel_id=2
  %d = f32[] all-reduce(%l), channel_id=3, to_apply=%add
  %e = f32[32,8]{1,0} all-gather-done(%c)
"""
    assert plan.collectives(hlo) == {"all-gather": (2, 3072), "all-reduce": (1, 4)}


@pytest.mark.skipif(len(jax.devices()) < 2, reason="needs 2 devices")
def test_the_planned_step_trains():
    spec = sapiens.make_spec("tiny", "pose", image_size=(32, 32))
    options = plan.Options(dtype="float32", attention="chunked")
    mesh = meshes.make_mesh(1, 2, jax.devices()[:2])
    compiled = plan.compile_step(spec, mesh, options)
    _, init = plan.training_step(spec, options)
    state = jax.jit(init, out_shardings=compiled.input_shardings[0][0])(jax.random.key(0))
    before = jax.device_get(state)
    images, targets = jnp.ones((2, 32, 32, 3)), jnp.ones((2, 8, 8, 17))
    batch = jax.device_put((images, targets), compiled.input_shardings[0][1])
    losses = []
    for _ in range(3):
        state, loss = compiled(state, *batch)
        losses.append(float(loss))
    assert losses[2] < losses[1] < losses[0]
    moved = jax.tree.map(lambda new, old: abs(new - old).max(), jax.device_get(state), before)
    for part in ("params", "ema"):
        assert max(jax.tree.leaves(moved[part])) > 0
    # Three steps of at most 1e-4 each, of which the EMA follows a thousandth.
    assert max(jax.tree.leaves(moved["ema"])) < 0.01 * max(jax.tree.leaves(moved["params"]))
