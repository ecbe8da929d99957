"""What a run starts from: its people, its network, its first parameters."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from nkjax import runs, sharding
from nkjax.config import Config
from nkjax.data import records
from nkjax.data.records import BadData, Rows
from nkjax.models import sapiens
from nkjax.models.sapiens import Spec
from nkjax.precision import cast
from nkjax.skeleton import Skeleton
from nkjax.toddlersim.lab_folder.adults import AdultRows


class BadStart(ValueError):
    """Weights, data and config that do not fit each other; the message is one line."""


class Start(NamedTuple):
    """What a run starts from.

    spec: of the network; train, val: rows; data_sha256: of the data; weights: the model.json that
    the parameters come from, {} for random ones; parent: run that they come from, {} for none.
    """

    spec: Spec
    train: Sequence
    val: Sequence
    data_sha256: str
    weights: dict
    parent: dict


class Chosen:
    """Some of the rows of a split, read like `records.Rows`."""

    def __init__(self, rows, numbers):
        self.rows, self.numbers, self.manifest = rows, numbers, rows.manifest

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> dict:
        return self.rows[int(self.numbers[number])]

    def person(self, number: int) -> dict:
        """Return the person's fields without the picture."""
        return self.rows.person(int(self.numbers[number]))


def choose(rows: Sequence, labels: int, seed: int) -> Sequence:
    """Return `labels` of the rows, drawn by seed; all for 0. More labels hold the fewer ones.

    Raises BadStart where there are not as many.
    """
    if not labels:
        return rows
    if labels > len(rows):
        raise BadStart(f"labels is {labels}, but the train split has {len(rows)} people: use fewer")
    return Chosen(rows, np.random.default_rng(seed).permutation(len(rows))[:labels])


def begin(config: Config) -> Start:
    """Open data and weights of a run and see that they fit each other; reads no arrays.

    Raises BadStart, BadData, BadTruth, BadSkeleton or BadCheckpoint, each in one line.
    """
    if not config.data:
        raise BadStart("data is '': name the folder that pack_data.py made, --config.data=DATA")
    if config.task == "pose":
        manifest = records.read_manifest(config.data)
        train, val = Rows(manifest, "train"), Rows(manifest, "val")
        skeleton, data_sha256 = manifest.skeleton, manifest.sha256
    else:
        train, val = (AdultRows(config.data, split, config.task) for split in ("train", "val"))
        skeleton, data_sha256 = None, train.manifest.sha256
    train = choose(train, config.labels, config.labels_seed)
    if not len(train) or not len(val):
        raise BadData(f"{config.data}: no people in train or in val; pack more subjects")
    if config.heatmaps.hardest and config.heatmaps.hardest > len(skeleton.keypoints):
        raise BadStart(
            f"heatmaps.hardest is {config.heatmaps.hardest}, but {config.data} has "
            f"{len(skeleton.keypoints)} joints: use fewer, or 0 for all"
        )
    spec, weights = _network(config, skeleton)
    parent = {}
    if config.init and runs.is_run(config.init):
        parent = {"folder": config.init, "step": runs.choose_step(config.init, "best")}
    return Start(spec, train, val, data_sha256, weights, parent)


def first_params(start: Start, config: Config, mesh: Mesh) -> dict:
    """Return the parameters before the first step, fp32, on the mesh.

    Random where config.init is '', and in the head where it is a backbone. Raises BadCheckpoint.
    """
    shapes = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), start.spec))
    placed = sharding.shardings(shapes, mesh)

    def random():
        return sapiens.init(jax.random.key(config.seed), start.spec)

    with jax.set_mesh(mesh):
        if not config.init:
            return jax.jit(random, out_shardings=placed)()
        if runs.is_run(config.init):
            _, loaded, _ = runs.load(config.init, str(start.parent["step"]), mesh)
        else:
            _, loaded = sapiens.load(config.init, mesh)
        if "head" not in loaded:
            backbone = {k: v for k, v in loaded["backbone"].items() if k != "class_token"}
            head = jax.jit(lambda: random()["head"], out_shardings=placed["head"])()
            loaded = {"backbone": backbone, "head": head}
        return jax.jit(lambda tree: cast(tree, "float32"), out_shardings=placed)(loaded)


def _network(config: Config, skeleton: Skeleton | None) -> tuple[Spec, dict]:
    outputs = len(skeleton.keypoints) if skeleton else 0
    new = sapiens.make_spec(config.size, config.task, outputs, config.image_hw)
    new = dataclasses.replace(new, skeleton=skeleton)
    if not config.init:
        return new, {}
    spec, document = sapiens.read_model(config.init)
    found, wanted = (
        (s.backbone.width, s.backbone.depth, s.backbone.heads) for s in (spec, new)
    )
    if found != wanted:
        known = spec.size in sapiens.SIZES
        remedy = f"take the config of its size ({spec.size})" if known else "name other weights"
        raise BadStart(
            f"{config.init}: width, depth and heads are {found}, but size {config.size} has "
            f"{wanted}: {remedy}"
        )
    if spec.task == "backbone":
        # Its class token is of pretraining alone; the features of dense tasks do without.
        backbone = dataclasses.replace(
            spec.backbone, class_token=False, patch_padding=new.backbone.patch_padding
        )
        return dataclasses.replace(new, backbone=backbone), document
    if spec.task != config.task:
        raise BadStart(
            f"{config.init}: weights for {spec.task}, but task is {config.task}: name others"
        )
    if skeleton and spec.skeleton is None:
        raise BadStart(
            f"{config.init}: nothing names its {spec.head.outputs} keypoints; convert again with "
            "--skeleton"
        )
    if skeleton and spec.skeleton.keypoints != skeleton.keypoints:
        raise BadStart(
            f"{config.init}: {_difference(spec.skeleton, skeleton, config.data)}; convert the "
            f"weights again with --keypoints {config.data}/skeleton.json"
        )
    return dataclasses.replace(spec, skeleton=skeleton, image_size=config.image_hw), document


def _difference(of_weights: Skeleton, of_data: Skeleton, data: str) -> str:
    ours, theirs = of_weights.keypoints, of_data.keypoints
    lines = [f"the weights know {len(ours)} keypoints, {data} has {len(theirs)}"]
    for words, names in (
        ("only the weights have", [n for n in ours if n not in theirs]),
        ("only the data has", [n for n in theirs if n not in ours]),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"{words} {', '.join(names[:3])}{more}")
    if len(lines) == 1:
        lines.append("the same ones in another order")
    return "; ".join(lines)
