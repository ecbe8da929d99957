"""The same loss and gradient on any mesh, and on two processes (notes jax B3).

Compared before the optimiser: AdamW makes whole steps of the rounding noise of values whose true
gradient is zero.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from nkjax import mesh as meshes
from nkjax import sharding, trees
from nkjax.train import job
from tests.train import on_meshes

ROOT = Path(__file__).parents[2]
MESHES = [(8, 1), (1, 8), (2, 4), (4, 2)]
# Of all but two the gradient takes long; what they split is told below in no time.
COMPARED = [size if size in ((8, 1), (2, 4)) else pytest.param(size, marks=pytest.mark.slow)
            for size in MESHES]  # fmt: skip
SHARE = 5e-6  # of a tensor's largest value
# The kinds of parameters that `sharding.RULES` splits; all of these widths divide by 4.
SPLIT = (
    "qkv/kernel", "fc1/kernel", "proj/kernel", "fc2/kernel", "patch_embed/kernel", "pos_embed",
    "deconv_0/kernel", "deconv_1/kernel", "conv_0/kernel", "conv_1/kernel",
)  # fmt: skip

pytestmark = pytest.mark.skipif(len(jax.devices()) < 8, reason="wants eight devices")


@pytest.fixture(scope="module")
def alone():
    return on_host(*on_meshes.on(meshes.make_mesh(1, 1, jax.devices()[:1])))


def on_host(value, gradient):
    return float(value), {k: np.asarray(x) for k, x in trees.flatten(gradient).items()}


def assert_same(found, alone):
    """Compare to a share of each tensor's largest, or of the tree's where all of it is noise."""
    (value, gradient), (wanted_value, wanted) = found, alone
    np.testing.assert_allclose(value, wanted_value, rtol=1e-6)
    assert set(gradient) == set(wanted)
    of_tree = max(np.abs(x).max() for x in wanted.values())
    for name, values in wanted.items():
        largest = np.abs(values).max()
        atol = SHARE * (largest if largest > 1e-4 * of_tree else of_tree)
        np.testing.assert_allclose(gradient[name], values, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("sizes", COMPARED, ids=str)
def test_a_mesh_computes_what_one_device_does(sizes, alone):
    assert_same(on_host(*on_meshes.on(meshes.make_mesh(*sizes))), alone)


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_what_the_rules_split_is_split(sizes):
    """Of a state that the run's own first program made: parameters, average and both moments."""
    mesh, fsdp = meshes.make_mesh(*sizes), sizes[1]
    abstract = job.abstract_state(on_meshes.SPEC, on_meshes.CONFIG, mesh)
    with jax.set_mesh(mesh):
        made = jax.jit(
            lambda: jax.tree.map(lambda x: jax.numpy.ones(x.shape, x.dtype), abstract),
            out_shardings=jax.tree.map(lambda x: x.sharding, abstract),
        )()
    split = 0
    for name, leaf in trees.flatten(made).items():
        is_split = name.endswith(SPLIT)
        split += is_split
        parts = {shard.data.size for shard in leaf.addressable_shards}
        assert parts == {leaf.size // (fsdp if is_split else 1)}, name
    assert split == 4 * len(SPLIT)


def test_the_batch_is_split_over_all_devices():
    for sizes in MESHES:
        shared = sharding.share(on_meshes.batch(), meshes.make_mesh(*sizes))
        assert {s.data.shape[0] for s in shared["image"].addressable_shards} == {2}


def test_two_processes_compute_what_one_does(alone, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    flags = "--xla_force_host_platform_device_count=4"
    environment = os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.two_processes", address, str(i),
             str(tmp_path / "out.npz")],
            env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        told = [each.communicate(timeout=240) for each in both]
    finally:
        for each in both:
            each.kill()
    assert [each.returncode for each in both] == [0, 0], told
    with np.load(tmp_path / "out.npz") as arrays:
        found = dict(arrays)
    assert_same((float(found.pop("loss")), found), alone)
