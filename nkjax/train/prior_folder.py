"""A prior folder, made step by step: statistics, the fit, parameters, calibration, pictures.

In flow a config and the folder's path; out the files that `prior.saved.load` reads. What is there
already, whole and of the same data and config, stays, so the same call goes on where an earlier one
was stopped, and mends what is damaged.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
from etils import epath

from nkjax import config as configs
from nkjax import journal, mesh, provenance, runs, snapshots
from nkjax.checkpoints import BadCheckpoint
from nkjax.evaluate import prior_pictures, prior_scores
from nkjax.kinematics import energies, plausibility, statistics
from nkjax.kinematics.statistics import BadStatistics
from nkjax.losses import developmental
from nkjax.prior import saved
from nkjax.prior.diffusion import PartPrior
from nkjax.prior_config import PriorConfig
from nkjax.snapshots import Snapshots
from nkjax.train import loop, prior, prior_data
from nkjax.train.begin import BadStart
from nkjax.train.loop import say
from nkjax.train.prior_data import Start

FEW = 200  # skeletons, below which the fit warns
FEWEST = 50  # poses, below which nothing is calibrated


def fit(
    config: PriorConfig,
    out: str,
    command: Sequence[str] = (),
    preempted: Callable[[int], bool] = mesh.preempted,
) -> bool:
    """Fit a prior into a new or a started folder; returns whether it is finished.

    command, preempted: as of `loop.train`, whose errors are raised too. Raises BadStart for several
    processes and for a folder of other data or of another config, BadCheckpoint for parameters that
    are damaged and not in training/ any more.
    """
    if jax.process_count() > 1:
        raise BadStart(
            f"{jax.process_count()} processes: a prior is small, start the line once, in one"
        )
    folder = runs.open_folder(out)
    start = prior_data.begin(config)
    people, others = (len(some.subject_n) for some in (start.learning, start.calibrating))
    say(f"{people:,} labelled people to learn from, {others:,} of other subjects to calibrate on")
    if people < FEW:
        say(f"warning: fewer than {FEW} people; the prior will know little beyond them")
    if not others:
        say("warning: nobody to calibrate on, so no pose will be judged; label a few more subjects")
    runs.check_same(folder / "training", configs.to_json(config), prior.check_model)
    parts = _saved_parts(folder, start, config)
    runs.check_writable(folder)
    measured = _statistics(folder, start)
    if parts is None:
        work = dataclasses.replace(prior.PRIOR, begin=lambda config: start)
        step = loop.train(work, config, str(folder / "training"), command, preempted)
        if step < config.steps:
            return False
        parts = averaged(folder / "training", start, step)
        saved.save(folder, start.skeleton, parts, _origin(start, config, step))
        say(f"wrote {folder}/model.json and params, the averaged parameters of step {step:,}")
    model, path = saved.read_model(folder), folder / "calibration.json"
    if _whole(path, lambda: saved.read_document(folder, "calibration", model)) is None:
        made = calibrate(start, parts, measured) | {"prior": saved.identity(model)}
        journal.write_once(path, made)
        say(f"wrote {path}")
    if not (folder / "pictures").exists():
        _draw(folder, start)
    return True


def _saved_parts(
    folder: epath.Path, start: Start, config: PriorConfig
) -> dict[str, PartPrior] | None:
    """Return the parts that an earlier call saved; None where training/ has yet to give them.

    Raises BadStart where they are of another fit, BadCheckpoint where they are damaged and
    training/ does not hold the finished run.
    """
    path = folder / "model.json"
    if not path.exists():
        return None
    try:
        origin = saved.read_model(folder)["origin"]
        if origin.get("data_sha256") != start.data_sha256:
            raise BadStart(f"{path} is of other data: give back that data, or name a new --out")
        if differs := runs.changed(origin.get("config", {}), configs.to_json(config)):
            raise BadStart(
                f"{path} was fitted with another config ({differs}): give back that one, or name a "
                "new --out"
            )
        return saved.load_parts(folder)[1]
    except BadCheckpoint as error:
        problem = str(error).removesuffix(f"; {saved.REMEDY}")
    if Snapshots(folder / "training", keep=1).latest() != config.steps:
        raise BadCheckpoint(
            f"{problem}; {folder}/training does not hold the finished run to write it again from: "
            "give that back, or name a new --out"
        )
    say(f"{problem}; written again from {folder}/training")
    return None


def _whole(path: epath.Path, read: Callable[[], dict]) -> dict | None:
    """Return what a file holds; None where it is missing or, which is said, damaged."""
    if not path.exists():
        return None
    try:
        return read()
    except (BadCheckpoint, BadStatistics) as error:
        say(f"{str(error).rpartition('; ')[0]}; written again")
        return None


def _draw(folder: epath.Path, start: Start) -> None:
    """Draw the prior beside people that it was not fitted on, where there are any."""
    whole = saved.load(folder)
    people = start.calibrating if len(start.calibrating.subject_n) else start.learning
    p = prior_scores.p_values(prior_scores.plausibility_of(whole), people)["p"]
    partial = folder / "pictures.partial"  # renamed when all are there
    if partial.exists():
        partial.rmtree()
    names = prior_pictures.write(partial, whole, people, p)
    partial.rename(folder / "pictures")
    say(f"wrote {folder}/pictures: {' '.join(names)}")


def calibrate(start: Start, parts: Mapping[str, PartPrior], measured: dict) -> dict:
    """Return the content of calibration.json, of the people that nothing else was fitted on.

    That of `plausibility.fit`, with limits: of `losses.developmental.residual` by part, null for
    fewer than FEWEST poses. measured: the content of statistics.json.
    """
    people, limits = start.calibrating, {}
    by = energies.measures(start.skeleton, measured, parts["body"])
    fitted = plausibility.fit(
        by, people.points_nk2, people.visible_nk > 0, people.diagonal_n, people.posture_n
    )
    for name, part in parts.items():
        poses = start.val[name]
        enough = poses.valid_bj.any(1).sum() >= FEWEST
        limits[name] = developmental.fit_limit(part, poses) if enough else None
    return fitted | {"data": start.data_sha256, "limits": limits}


def _statistics(folder: epath.Path, start: Start) -> dict:
    """Return statistics.json, measured where it is not there or damaged."""
    path = folder / "statistics.json"
    measured = _whole(path, lambda: statistics.read(path))
    if measured is None:
        folds = {"fit": start.learning.subject_n, "calibration": start.calibrating.subject_n}
        folds = {name: sorted(set(subjects.tolist())) for name, subjects in folds.items()}
        measured = statistics.fit(start.learning, start.skeleton, folds, start.data_sha256)
        statistics.write(path, measured)
        say(f"wrote {path}")
    if measured["data"] != start.data_sha256:
        raise BadStart(f"{path} is of other data: give back that data, or name a new --out")
    return measured


def averaged(run: epath.Path, start: Start, step: int) -> dict[str, PartPrior]:
    """Return the parts of a fit with the averaged parameters of a saved step, on the first device.

    Raises BadCheckpoint where the state is damaged.
    """
    single = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=single),
        prior.shapes(start.parts),
    )
    params = snapshots.restore_part(run, step, "ema", abstract)
    return {
        name: dataclasses.replace(part, params=params[name]) for name, part in start.parts.items()
    }


def _origin(start: Start, config: PriorConfig, step: int) -> dict:
    return {
        "data_sha256": start.data_sha256,
        "config": configs.to_json(config),
        "config_sha256": configs.sha256(config),
        "step": step,
        "people": len(start.learning.subject_n),
        "versions": provenance.versions(),
    }
