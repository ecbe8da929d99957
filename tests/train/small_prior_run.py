"""Small fits of a prior for tests: drawn people packed as data, a tiny network, compiled once."""

import dataclasses
import functools
import hashlib

import jax
import numpy as np

from nkjax.config import Mesh, Optimizer
from nkjax.mesh import make_mesh
from nkjax.prior_config import Evaluation, PriorConfig
from nkjax.train import loop, prior
from tests.data_io import packed
from tests.prior import small_prior

SKELETONS = small_prior.SKELETONS
PICTURE = packed.jpeg(np.zeros((16, 16, 3), np.uint8))
PEOPLE = 24


def pack(folder, skeleton, count=PEOPLE, missing=0.1, subject=None, unlabelled=()):
    """Write drawn people as a data folder, four of each subject, or all of the one given.

    unlabelled: joints that nobody labelled.
    """
    people = small_prior.people(skeleton, count, missing=missing)
    keypoints = np.concatenate([np.nan_to_num(people.points_nk2), people.visible_nk[..., None]], -1)
    keypoints[:, list(unlabelled)] = 0
    names = [f"{i // 4:016x}" if subject is None else subject for i in range(count)]
    rows = [
        (
            packed.person_row(k, (0, 0, 100, 100), i, subject=names[i]),
            packed.picture_row(PICTURE, (16, 16), i),
        )
        for i, k in enumerate(keypoints)
    ]
    packed.write(folder, {"train": rows}, skeleton, shards=1)
    return str(folder)


def packer(tmp_path_factory):
    """Return a function of a skeleton's name: its data folder, packed once."""

    @functools.cache
    def of(name):
        return pack(tmp_path_factory.mktemp(name) / "data", SKELETONS[name])

    return of


def config(data, **changes) -> PriorConfig:
    small = PriorConfig(
        data=data, width=16, depth=1, heads=2, steps=6, batch=8, calibration=0.3, seed=1,
        mesh=Mesh(-1, 1), optimizer=Optimizer(learning_rate=1e-2, layer_decay=1.0, warmup=2),
        evaluation=Evaluation(every=4, batch=8), save_every=2, keep=9, log_every=1,
    )  # fmt: skip
    return dataclasses.replace(small, **changes)


def use_devices(patch, count):
    """Let the loop find so many devices: it asks how many there are, and for a mesh of them."""
    patch.setattr(jax, "device_count", lambda: count)
    patch.setattr(loop.mesh, "make_mesh", lambda *sizes: make_mesh(*sizes, jax.devices()[:count]))


_compiled = {}


def compile_once(start, settings, devices):
    """Return the programs of a fit, compiled once for all runs with the same ones."""
    # Programs hold the Gaussian of their data as constants.
    gaussians = [leaf.tobytes() for leaf in jax.tree.leaves(start.parts)]
    fitted = hashlib.sha256(b"".join(gaussians)).hexdigest()
    key = (repr(dataclasses.replace(settings, data="")), fitted, devices)
    if key not in _compiled:
        _compiled[key] = prior.compile_job(start, settings, devices)
    return _compiled[key]
