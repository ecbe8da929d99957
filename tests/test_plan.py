"""The planner through its command line, and its arithmetic against figures worked out by hand."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import plan as command
import pytest

from nkjax import config as configs
from nkjax import costs, plan, trees
from nkjax.collectives import Collective
from nkjax.models import sapiens

ROOT = Path(__file__).parents[1]
needs_libtpu = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason="needs libtpu: pip install 'nkjax[plan]'"
)


def run(config, *arguments):
    """Run the command as a user does: libtpu's settings stay in that process."""
    return subprocess.run(
        [sys.executable, "scripts/plan.py", f"--config={config}", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}"},
        capture_output=True,
        text=True,
        timeout=1700,
    )


STAGE0 = "configs/stage0_warmup.py"
TINY = (f"{STAGE0}:tiny", "--config.evaluation.batch=4", "--config.compute=bfloat16")


def figures(output: str) -> dict[str, float]:
    return {name: float(gib) for name, gib in re.findall(r"^  ([a-z]+) +([\d.]+)$", output, re.M)}


def times_of(output: str, kind: str) -> int:
    return int(re.search(rf"^  {kind} +(\d+) times", output, re.M)[1])


def largest_array(output: str) -> float:
    return max(float(mib) for mib in re.findall(r"at most ([\d.]+) MiB", output))


def state_gib(size: str, chips: int, people: int) -> float:
    """Fp32 parameters, two moments and EMA of one chip, and its people: uint8 pictures, joints."""
    spec = sapiens.make_spec(size, "pose")
    params = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), spec))
    person = 1024 * 768 * 3 + 17 * 9
    return (4 * 4 * trees.count(params) / chips + people * person) / 2**30


@needs_libtpu
def test_tiny_fits_a_host_of_v5e():
    done = run(*TINY, "--topology=v5e:2x2", "--config.batch=4")
    assert done.returncode == 0, done.stderr
    assert "v5e:2x2: 4 chips of 16 GiB (v5e), mesh 1 x 4" in done.stdout
    assert "1 people at a time on each" in done.stdout and "\nfits, 15." in done.stdout
    found = figures(done.stdout)
    parts = found["arguments"] + found["outputs"] - found["aliased"]
    assert found["total"] == pytest.approx(parts + found["temporary"] + found["code"], abs=0.003)
    # Four matrices of each of the three blocks are gathered forward and again backward, and those
    # outside: patches, positions, two deconvolutions, two convolutions.
    assert times_of(done.stdout, "all-gather") == 2 * 3 * 4 + 6
    assert "predicted, not measured" in done.stdout
    assert "Traceback" not in done.stderr


@needs_libtpu
@pytest.mark.slow
def test_a_step_too_large_is_said_not_to_fit():
    done = run(*TINY, "--topology=v5e:2x2", "--config.batch=3600", "--config.image_hw=1024,768")
    assert done.returncode == 1, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("does not fit") and "--config.optimizer.accumulate" in last
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


@needs_libtpu
@pytest.mark.slow
def test_2b_trains_on_sixteen_chips_of_v5e():
    done = run(f"{STAGE0}:2b", "--topology=v5e:4x4")
    assert done.returncode == 0, done.stdout + done.stderr
    found = figures(done.stdout)
    # The state is split over all chips, and reused in place.
    assert found["arguments"] == pytest.approx(state_gib("2b", 16, 32), rel=0.05)
    assert found["aliased"] > 0.95 * (found["arguments"] - 32 * 0.0024)
    # No chip brings together more than one layer's weights, nor anyone else's activations.
    layer = float(re.search(r"of one layer has ([\d.]+) MiB", done.stdout)[1])
    assert 0 < largest_array(done.stdout) <= layer


@needs_libtpu
@pytest.mark.slow
def test_0_6b_trains_on_a_pod_of_v5e():
    mesh = ("--config.mesh.data=16", "--config.evaluation.batch=256")
    done = run(f"{STAGE0}:0.6b", "--topology=v5e:16x16", *mesh)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "256 chips" in done.stdout and "mesh 16 x 16" in done.stdout
    assert figures(done.stdout)["arguments"] == pytest.approx(state_gib("0.6b", 16, 2), rel=0.05)
    assert times_of(done.stdout, "all-gather") >= 2 * 32 * 4
    share = re.search(r"share of sending in a step: (\d+)% beside computing, (\d+)%", done.stdout)
    assert int(share[1]) <= int(share[2]) < 50


@pytest.mark.parametrize(("arguments", "words"), [
    (["--topology=v7:2x2"], "no chip called 'v7'; known are v4, v5e, v5p, v6e"),
    (["--topology=v5e"], "write chips as NxM"),
    (["--topology=v5e:4x"], "write chips as NxM"),
    ([], "--topology is missing"),
    (["--topology=v5e:2x2", "--keypoints=0"], "want a number from 1"),
    (["--topology=v5e:2x2", "--config.image_hw=1024"], "image_hw"),
    (["--topology=v5e:2x2", "--config.size=3b"], "size is '3b'"),
    (["--topology=v5e:2x2", "--size=tiny"], "'size'"),
])  # fmt: skip
def test_bad_usage_is_one_line(capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(ROOT)
    try:
        code = command.main([f"--config={TINY[0]}", *TINY[1:], *arguments])
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr()
    assert code == 2 and words in said.err and len(said.err.splitlines()) == 1, said.err
    assert not said.out


@needs_libtpu
@pytest.mark.parametrize(("arguments", "words"), [
    (["--topology=v5e:3x3"], "topology 'v5e:3x3'"),
    (["--topology=v5e:2x2", "--config.batch=6"], "use 4 or 8"),
    (["--topology=v5e:2x2", "--config.mesh.data=3"], "mesh is 3"),
])  # fmt: skip
def test_what_does_not_fit_the_topology_is_one_line(arguments, words):
    done = run(*TINY, *arguments)
    assert done.returncode == 2 and words in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr and not done.stdout


def test_without_libtpu_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(plan.BadTopology, match=r"pip install 'nkjax\[plan\]'"):
        plan.find_devices("v5e:2x2")


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


@pytest.mark.parametrize("keypoints", [17, 5])
def test_joints_of_any_number_have_weights(keypoints):
    spec = plan.make_spec(configs.Config(size="tiny"), keypoints)
    assert len(spec.skeleton.joint_weights) == spec.head.outputs == keypoints


def test_flops_of_tiny_by_hand():
    spec = sapiens.make_spec("tiny", "pose", image_size=(32, 32))
    # 4 tokens of width 64: in each of three blocks 12 x 64^2 weights meet every token, and scores
    # and values take 2 x 4 x 4 x 64 products; 768 inputs a patch.
    blocks = 2 * 3 * (4 * 12 * 64**2 + 2 * 4 * 4 * 64)
    # 4x4, then 8x8 pixels, each of which 4 taps meet; two 1x1 layers; 17 maps.
    head = 2 * (16 * 4 * 64 * 32 + 64 * 4 * 32 * 32 + 64 * (2 * 32 * 32 + 32 * 17))
    forward = blocks + 2 * 4 * 768 * 64 + head
    assert costs.forward_flops(spec) == forward
    assert costs.training_flops(spec, "light") == 3 * forward
    assert costs.training_flops(spec, "full") == 3 * forward + blocks


def test_prediction_by_hand():
    # v5e: 98.5e12 FLOP/s at half of its peak, 200e9 bytes/s over all links.
    sent = [Collective("all-gather", 10, 5, 25 * 10**9, 1), Collective("all-reduce", 1, 2, 0, 0)]
    found = costs.predict(98.5e12, sent, costs.CHIPS["v5e"])
    assert found == costs.Prediction(compute=1.0, sending=1.0, sending_slow=2.0)
    assert found.hidden == 0 and found.exposed == pytest.approx(2 / 3)
    assert costs.Prediction(compute=1.0, sending=4.0, sending_slow=8.0).hidden == 0.75


def test_report_says_what_was_counted():
    result = plan.Plan(
        topology="v5e:2x2", sizes=(2, 2), parameters=1234, people=3, layer_bytes=4 << 20,
        hbm=16 << 30, seconds=7.0, memory=plan.Memory(10 << 30, 9 << 30, 8 << 30, 4 << 30, 0),
        collectives=(Collective("all-gather", 3, 4, 4 << 20, 2 << 20),
                     Collective("all-gather", 1, 4, 4 << 20, 4 << 20)),
        prediction=costs.Prediction(0.3, 0.05, 0.1),
    )  # fmt: skip
    lines = plan.report(result).splitlines()
    assert "mesh 2 x 2 (data x fsdp), 3 people at a time" in lines[0]
    assert lines[-4].split() == (
        "all-gather 4 times, a chip sends 12.0 MiB, arrays of at most 4.0 MiB".split()
    )
    assert "computing 300 ms at 50%" in lines[-3] and "50 ms over all links" in lines[-3]
    assert "0% beside computing, 25% in turn" in lines[-2]
    assert lines[-1] == "fits, 1.00 GiB to spare"
