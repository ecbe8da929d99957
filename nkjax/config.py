"""A run as typed, frozen data: every setting of training with its default.

A file of configs/ gives a ConfigDict; here it becomes a `Config`, once, and everything after that
reads plain attributes. Sizes are (height, width) in px, steps count optimiser steps.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import ClassVar

from ml_collections import ConfigDict

from nkjax import typed

SIZES = ("tiny", "0.3b", "0.6b", "1b", "2b")
TASKS = ("pose", "depth", "normal", "seg")
DTYPES = ("float32", "bfloat16")
REMATS = ("none", "light", "full")
AUGMENTS = ("plain", "weak", "sapiens", "dense")
SCHEDULES = ("constant", "steps", "polynomial", "cosine")
# The figures of evaluate/scores.py that tell a better state from a worse one.
FIGURES = (
    "pck_torso@0.05", "pck_torso@0.1", "pck_torso@0.2", "pck_box@0.05", "pck_box@0.1",
    "pck_box@0.2", "auc_box", "hand_pck_hand_box@0.1", "hand_pck_hand_box@0.2",
    "hand_auc_hand_box", "pixel_error_mean", "pixel_error_median",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Mesh:
    """How devices are arranged: data x fsdp; -1 is what the other one leaves."""

    data: int = 1
    fsdp: int = -1


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW as the Sapiens recipes use it (notes sapiens A7).

    schedule: after a linear warm-up from 1e-3 of the rate; 'steps' falls to a tenth at each
    milestone, a share of all steps; 'polynomial' falls to 0 in a line, 'cosine' in a half wave.
    layer_decay: factor on the rate per block below the head. clip: largest norm of the gradient.
    accumulate: parts that a batch is worked through in, one after the other.
    """

    learning_rate: float = 5e-4
    weight_decay: float = 0.1
    b1: float = 0.9
    b2: float = 0.999
    layer_decay: float = 0.85
    schedule: str = "steps"
    warmup: int = 500
    milestones: tuple[float, ...] = (170 / 210, 200 / 210)
    clip: float = 1.0
    accumulate: int = 1


@dataclasses.dataclass(frozen=True)
class Heatmaps:
    """What a pose network is taught: sigma in px of the maps; hardest: 0, or how many joints count.

    With `hardest` only so many joints of each person count, those with the largest error.
    """

    sigma: float = 6.0
    hardest: int = 0
    occluded_weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """When and how the validation split is looked at; best: the metric whose best state is kept."""

    every: int = 1000
    batch: int = 64
    flip_test: bool = False
    best: str = "pck_torso@0.1"


@dataclasses.dataclass(frozen=True)
class Config:
    """A run of training.

    data: packed folder, or for dense tasks a simulated adult folder; labels: use so many labelled
    people only, 0 all of them, chosen by labels_seed; init: weights or run folder to start from, ''
    for random numbers; prior, geometry: of later stages. batch: people of a step over all devices.
    compute: dtype of the network; remat: what the backward pass computes again; augment: how crops
    are varied. ema: decay of the averaged parameters. save_every, keep: states on disk; log_every:
    lines of metrics. threads: of each process that load pictures; max_failed: share of rows that
    may not be readable. abort_after: steps in a row that may be skipped as not finite. profile:
    first step and number of steps to trace, 0 for none.
    """

    EXAMPLE: ClassVar[str] = "configs/stage0_warmup.py:0.3b"

    task: str = "pose"
    size: str = "0.6b"
    image_hw: tuple[int, int] = (1024, 768)
    data: str = ""
    labels: int = 0
    labels_seed: int = 0
    init: str = ""
    prior: str = ""
    geometry: str = ""
    steps: int = 20000
    batch: int = 64
    seed: int = 0
    compute: str = "bfloat16"
    remat: str = "light"
    augment: str = "sapiens"
    ema: float = 0.999
    mesh: Mesh = Mesh()
    optimizer: Optimizer = Optimizer()
    heatmaps: Heatmaps = Heatmaps()
    evaluation: Evaluation = Evaluation()
    save_every: int = 1000
    keep: int = 2
    log_every: int = 50
    threads: int = 16
    max_failed: float = 0.001
    abort_after: int = 10
    profile: tuple[int, int] = (0, 0)

    def __post_init__(self):
        check(self)

    @staticmethod
    def rules() -> typed.Rules:
        """Return what each of its values must keep."""
        return _RULES

    def relations(self) -> list[tuple[bool, str]]:
        """Return whether values that are good one by one break with each other, and the words."""
        return [*shared_relations(self), *_relations(self)]


class BadConfig(ValueError):
    """A setting that cannot be used, in one line that names key, value and rule."""


def check(config) -> None:
    """Check the values of a run, one by one and against each other. Raises BadConfig."""
    broken = typed.broken_rules(config.rules(), dataclasses.asdict(config))
    broken = broken or [words for is_broken, words in config.relations() if is_broken]
    if broken:
        raise BadConfig(typed.one_line(broken))


def from_config_dict(plain: Mapping | ConfigDict, source: str, kind: type = Config):
    """Make the run that a ConfigDict, or nested dicts, describe in full; `source` names the file.

    kind: Config, or another dataclass of sections with `rules` and `relations`. A whole number may
    be written 1e3, any number as a whole one, a tuple as a list. Raises BadConfig, once, for every
    key that is unknown or missing, and every value of another type or that breaks a rule.
    """
    plain = plain.to_dict() if isinstance(plain, ConfigDict) else plain
    if not isinstance(plain, Mapping):
        raise BadConfig(
            f"{source}: want a ConfigDict or nested dicts, not {typed.shortened(plain)}"
        )
    problems: list[str] = []
    values = typed.read(kind, plain, problems)
    problems += typed.broken_rules(kind.rules(), values)
    if problems:
        raise BadConfig(f"{source}: {typed.one_line(problems)}")
    sections = {name: part(**values.pop(name)) for name, part in typed.sections(kind).items()}
    try:
        return kind(**values, **sections)
    except BadConfig as error:
        raise BadConfig(f"{source}: {error}") from None


def to_config_dict(config) -> ConfigDict:
    """Return a run as a ConfigDict to change, as the files of configs/ do; tuples stay tuples."""
    return ConfigDict(dataclasses.asdict(config))


def to_json(config) -> dict:
    """Return a run as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))


def from_json(plain: Mapping, source: str, kind: type = Config):
    """Rebuild the run that `to_json` wrote, exactly; `source` names the file. Raises BadConfig."""
    return from_config_dict(plain, source, kind)


def sha256(config) -> str:
    """Return the sha256 of a run's JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(to_json(config), sort_keys=True).encode()).hexdigest()


def check_devices(config, devices: int, processes: int) -> tuple[int, int]:
    """Return the sizes (data, fsdp) of the run's mesh on so many devices of all processes.

    Raises BadConfig where the mesh does not fit them, or a batch, of training or evaluation, does
    not divide among them.
    """
    data, fsdp = config.mesh.data, config.mesh.fsdp
    known = max(data, 1) * max(fsdp, 1)
    if devices % known or (-1 not in (data, fsdp) and known != devices):
        raise BadConfig(
            f"mesh is {data} x {fsdp} (data x fsdp), but there are {devices} devices: choose sizes "
            f"that multiply to {devices}, or -1 for one of them"
        )
    parts = config.optimizer.accumulate
    _check_batch(
        "batch", config.batch, f"{devices} devices in {parts} parts", parts * devices, processes
    )
    _check_batch(
        "evaluation.batch", config.evaluation.batch, f"{devices} devices", devices, processes
    )
    other = devices // known
    return (other if data == -1 else data), (other if fsdp == -1 else fsdp)


def _check_batch(key: str, batch: int, among: str, shares: int, processes: int):
    unit = math.lcm(shares, processes)
    below = batch // unit * unit
    if batch != below:
        nearest = f"{below} or {below + unit}" if below else f"{unit}"
        raise BadConfig(
            f"{key} is {batch}, but {among} and {processes} processes want a multiple of {unit}: "
            f"use {nearest}"
        )


# Keys, the rule in words, and whether a value keeps it: of every kind of run.
SHARED_RULES = (
    ("steps batch save_every keep log_every abort_after optimizer.accumulate evaluation.every"
     " evaluation.batch", "must be at least 1", lambda x: x >= 1),
    ("optimizer.warmup", "must be at least 0", lambda x: x >= 0),
    ("seed", "must be from 0 to 2147483647", lambda x: 0 <= x < 2**31),
    ("optimizer.learning_rate optimizer.clip", "must be above 0", lambda x: 0 < x < math.inf),
    ("optimizer.weight_decay", "must be at least 0", lambda x: 0 <= x < math.inf),
    ("optimizer.layer_decay", "must be above 0 and at most 1", lambda x: 0 < x <= 1),
    ("ema optimizer.b1 optimizer.b2", "must be at least 0 and below 1", lambda x: 0 <= x < 1),
    ("mesh.data mesh.fsdp", "must be at least 1, or -1 for what the other one leaves",
     lambda x: x >= 1 or x == -1),
    ("optimizer.milestones", "must be shares of all steps, ascending between 0 and 1",
     lambda x: list(x) == sorted(set(x)) and all(0 < share < 1 for share in x)),
    ("profile", "must be (first step, number of steps), neither below 0", lambda x: min(x) >= 0),
)  # fmt: skip
_RULES = typed.Rules(
    {"task": TASKS, "size": SIZES, "compute": DTYPES, "remat": REMATS, "augment": AUGMENTS,
     "optimizer.schedule": SCHEDULES, "evaluation.best": (*FIGURES, "loss")},
    (
        *SHARED_RULES,
        ("threads", "must be at least 1", lambda x: x >= 1),
        ("labels heatmaps.hardest", "must be at least 0", lambda x: x >= 0),
        ("labels_seed", "must be from 0 to 2147483647", lambda x: 0 <= x < 2**31),
        ("heatmaps.sigma", "must be above 0", lambda x: 0 < x < math.inf),
        ("max_failed heatmaps.occluded_weight", "must be from 0 to 1", lambda x: 0 <= x <= 1),
        ("image_hw", "must be (height, width) in px, each a multiple of 16 and at least 32",
         lambda x: all(side >= 32 and side % 16 == 0 for side in x)),
        ("prior geometry", "belongs to a later stage; leave it empty here", lambda x: x == ""),
    ),
)  # fmt: skip


def shared_relations(config) -> list[tuple[bool, str]]:
    """Return which relations between values are broken, with the words: of every kind of run."""
    optimizer, first, traced = config.optimizer, *config.profile
    return [
        (optimizer.warmup >= config.steps,
         f"optimizer.warmup is {optimizer.warmup}: must be below steps, {config.steps}"),
        (config.batch % optimizer.accumulate,
         f"batch is {config.batch}: must be a multiple of optimizer.accumulate,"
         f" {optimizer.accumulate}"),
        (config.mesh.data == config.mesh.fsdp == -1,
         "mesh.data and mesh.fsdp are both -1: give one of them a size"),
        (traced and first + traced > config.steps,
         f"profile is {config.profile}: must end before steps, {config.steps}"),
    ]  # fmt: skip


def _relations(config: Config) -> list[tuple[bool, str]]:
    dense, best = config.task != "pose", config.evaluation.best
    return [
        (dense and config.heatmaps.hardest,
         f"heatmaps.hardest is {config.heatmaps.hardest}: only for pose; 0 for {config.task}"),
        (dense and config.evaluation.flip_test,
         f"evaluation.flip_test is only for pose; false for {config.task}"),
        (dense and best != "loss",
         f"evaluation.best is {best!r}: only for pose; use 'loss' for {config.task}"),
        (not dense and best == "loss",
         f"evaluation.best is 'loss': not for pose; use one of {', '.join(FIGURES)}"),
        # Turning a picture turns its normals, and holes have no depth.
        (dense and config.augment not in ("plain", "dense"),
         f"augment is {config.augment!r}: only for pose; use dense or plain for {config.task}"),
    ]  # fmt: skip
