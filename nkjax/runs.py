"""Run folders: what training leaves, and how a network is taken out of one.

    config.json    every setting; enough to start the run again
    model.json     what the network is, as in a weights folder
    run.json       command, versions, devices, data, weights and their licence, sessions
    metrics.jsonl  the curves; tensorboard/ shows them too
    checkpoints/   training states by step
"""

import json
from collections.abc import Callable, Mapping

import jax
from etils import epath

from nkjax import sharding, snapshots
from nkjax.checkpoints import BadCheckpoint
from nkjax.config import BadConfig
from nkjax.models import sapiens
from nkjax.models.sapiens import Spec
from nkjax.snapshots import Snapshots

FORMAT = "nkjax run 1"
# What may differ between the sessions of one run: where and how fast it computes, not what; and
# where the data lies, as its hash is compared.
MAY_CHANGE = (
    "mesh.data", "mesh.fsdp", "threads", "keep", "profile", "log_every", "max_failed", "remat",
    "evaluation.batch", "optimizer.accumulate", "data",
)  # fmt: skip
_RESTORE = "restore the file, or name a new --workdir"


def is_higher_better(metric: str) -> bool:
    """Tell whether more of a metric of the validation split is better: not of losses and errors."""
    return "loss" not in metric and "error" not in metric


def is_run(folder) -> bool:
    """Tell whether a folder is that of a run: it has a config.json and a model.json."""
    folder = epath.Path(folder)
    return (folder / "config.json").exists() and (folder / "model.json").exists()


def model_document(spec: Spec, weights: Mapping) -> dict:
    """Return what model.json of a run holds; `sapiens.read_model` reads it back.

    weights: the model.json that the run starts from, whose source and licence go on; {} for none.
    """
    plain = sapiens.to_json(spec)
    return {
        "format": FORMAT,
        "spec": plain,
        "spec_sha256": sapiens.spec_sha256(plain),
        "source": weights.get("source"),
        "licence": weights.get("licence", ""),
    }


def read_config(folder) -> dict:
    """Read config.json of a run; raises BadCheckpoint where it is missing or damaged."""
    path = epath.Path(folder) / "config.json"
    try:
        plain = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadCheckpoint(f"{path}: cannot be read ({reason}); is this a run folder?") from None
    sections = plain.get("evaluation") if isinstance(plain, dict) else None
    if not isinstance(sections, dict):
        raise BadCheckpoint(f"{path}: holds no settings; is this a run folder?")
    return plain


def check_writable(folder) -> None:
    """Make the folder of a run and try to write there; raises BadConfig where that fails."""
    folder = epath.Path(folder)
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except Exception as error:  # a bucket's file system has errors of its own
        raise BadConfig(
            f"--workdir={folder}: cannot be written to ({type(error).__name__}: {error}); name "
            "another folder"
        ) from None


def open_folder(workdir: str) -> epath.Path:
    """Return the folder of a run, there or not; raises BadConfig where it cannot be reached."""
    try:
        folder = epath.Path(workdir).expanduser()
        folder.exists()
    except (KeyError, ImportError, OSError) as error:  # of paths that epath cannot reach
        raise BadConfig(
            f"--workdir={workdir}: cannot be reached ({error}); name a folder, or a bucket whose "
            "file system is installed (gs:// wants the package gcsfs)"
        ) from None
    return folder


def check_same(folder, now: Mapping, check_model: Callable) -> dict | None:
    """Return run.json of a run that was started here, None for a new folder.

    now: the run's config as JSON; check_model(folder): raises BadCheckpoint where model.json is
    damaged or of another kind of run. Raises BadConfig where the run was started with settings that
    make another run, BadCheckpoint where the folder does not say, or is damaged.
    """
    started = _read_started(folder, check_model)
    if started is None:
        return None
    if differs := changed(started[0], now):
        raise BadConfig(
            f"{folder} was started with another config ({differs}): go on with the same one, or "
            "name a new --workdir"
        )
    return started[1]


def changed(before: Mapping, now: Mapping) -> str:
    """Return up to three settings that make another run, as 'seed was 0 and is 1; ...', else ''.

    before, now: configs as JSON.
    """
    before, now = _by_path(before), _by_path(now)
    found = [
        f"{key} was {before.get(key)!r} and is {now[key]!r}"
        for key in now
        if key not in MAY_CHANGE and before.get(key) != now[key]
    ]
    return "; ".join(found[:3])


def _by_path(plain: Mapping) -> dict:
    """Return settings as {'optimizer.clip': 1.0}."""
    flat = {}
    for key, value in plain.items():
        inside = value if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{name}".rstrip("."): leaf for name, leaf in inside.items()}
    return flat


def _read_started(folder, check_model: Callable) -> tuple[dict, dict] | None:
    """Read config.json and run.json of a run to go on with; None where no run was started.

    Raises BadCheckpoint where states were saved, or config.json is there, which is written last,
    but not all of config.json, run.json and model.json, or one of them is damaged.
    """
    folder = epath.Path(folder)
    states = Snapshots(folder, keep=1).steps()
    if not states and not (folder / "config.json").exists():
        return None
    for name in ("config.json", "run.json", "model.json"):
        if not (folder / name).exists():
            what = f"holds states of step {states[-1]:,}" if states else "holds a run"
            raise BadCheckpoint(f"{folder}: {what}, but no {name}; {_RESTORE}")
    check_model(folder)
    return read_config(folder), _read_origin(folder / "run.json")


def _read_origin(path) -> dict:
    try:
        document = json.loads(path.read_text())
        if document["format"] == 1 and isinstance(document["sessions"], list):
            return document
    except (ValueError, KeyError, TypeError):
        pass
    raise BadCheckpoint(f"{path}: damaged, or not a run.json of nkjax; {_RESTORE}")


def choose_step(folder, which: str) -> int:
    """Return the step of a run's 'best' or 'last' state, or of the one whose number is given.

    Without any metric the best is the last. Raises BadCheckpoint where there is none.
    """
    best = read_config(folder)["evaluation"].get("best", "")
    states = Snapshots(folder, keep=1, best=best, higher_is_better=is_higher_better(best))
    kept = states.steps()
    if not kept:
        raise BadCheckpoint(f"{folder}: holds no saved state yet; train first: scripts/train.py")
    if which == "last":
        return kept[-1]
    if which == "best":
        best_step = states.best()
        return kept[-1] if best_step is None else best_step
    if not which.isdecimal() or int(which) not in kept:
        there = ", ".join(str(step) for step in kept)
        raise BadCheckpoint(f"{folder}: no saved state {which!r}; there are best, last, {there}")
    return int(which)


def load(folder, which: str = "best", mesh: jax.sharding.Mesh | None = None):
    """Load the averaged network of a run: (spec, parameters, step), verified leaf by leaf.

    which: as of `choose_step`. With a mesh the parameters are sharded by `sharding.RULES`, without
    on the first device. Raises BadCheckpoint, in one line.
    """
    spec, _ = sapiens.read_model(folder)
    step = choose_step(folder, which)
    shapes = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), spec))
    if mesh:
        placed = sharding.shardings(shapes, mesh)
    else:
        single = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        placed = jax.tree.map(lambda leaf: single, shapes)
    abstract = jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), shapes, placed
    )
    params = snapshots.restore_part(folder, step, "ema", abstract)
    return spec, params, step
