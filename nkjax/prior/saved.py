"""Prior folders: what fitting leaves, read by losses, teachers and scores.

    model.json        what the prior is: parts, units, networks; a checksum for every parameter
    params/           its averaged parameters, an orbax checkpoint
    statistics.json   what the labelled bodies do
    calibration.json  how plausible a pose is, on people that nothing else was fitted on
    training/         the run; pictures/ what it learned, to look at
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from nkjax import checkpoints, journal, skeleton, trees
from nkjax.checkpoints import BadCheckpoint
from nkjax.models import denoiser
from nkjax.prior.coordinates import Part, Units
from nkjax.prior.diffusion import PartPrior
from nkjax.prior.gaussian import Gaussian
from nkjax.skeleton import Skeleton

FORMAT = "nkjax prior 1"
DOCUMENTS = ("statistics", "calibration")
_REMEDY = "fit it again: scripts/fit_prior.py"


class Prior(NamedTuple):
    """A fitted prior: its skeleton, a `PartPrior` per part, the content of its JSON files."""

    skeleton: Skeleton
    parts: dict[str, PartPrior]
    statistics: dict
    calibration: dict


def to_json(prior: PartPrior) -> dict:
    """Return what a part's prior is, its parameters aside, as plain JSON values."""
    about = {name: dataclasses.asdict(getattr(prior, name)) for name in ("part", "units", "spec")}
    return json.loads(json.dumps(about))


def from_json(plain: Mapping) -> PartPrior:
    """Rebuild a part's prior from `to_json`, without any array; raises TypeError or KeyError."""

    def frozen(value):
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    made = (
        kind(**{key: frozen(value) for key, value in plain[name].items()})
        for name, kind in (("part", Part), ("units", Units), ("spec", denoiser.Spec))
    )
    return PartPrior(*made, None, {})


def _arrays(prior: PartPrior) -> dict:
    return {"gaussian": prior.gaussian._asdict(), "network": prior.params}


def save(folder, of_skeleton: Skeleton, parts: Mapping[str, PartPrior], origin: Mapping) -> None:
    """Write params/ and model.json of a prior folder, in place of those that are there.

    origin: facts of where it comes from: data and config hashes, step, versions.
    """
    folder = epath.Path(folder)
    if (folder / "model.json").exists():  # first: without it the folder is not taken for whole
        (folder / "model.json").unlink()
    if (folder / "params").exists():
        (folder / "params").rmtree()
    folder.mkdir(parents=True, exist_ok=True)
    leaves = trees.flatten({name: jax.device_get(_arrays(p)) for name, p in parts.items()})
    checkpoints.save_leaves(folder / "params", leaves.items())
    about = {
        "skeleton": skeleton.to_json(of_skeleton),
        "parts": {name: to_json(prior) for name, prior in parts.items()},
    }
    document = {
        "format": FORMAT,
        "about": about,
        "about_sha256": _sha256(about),
        "origin": dict(origin),
        "leaves": {name: {"sha256": trees.checksum(leaf)} for name, leaf in leaves.items()},
        "files": checkpoints.list_files(folder / "params"),
    }
    journal.write_once(folder / "model.json", document)


def read_model(folder) -> dict:
    """Read model.json of a prior folder; raises BadCheckpoint where it is missing or damaged."""
    path = epath.Path(folder) / "model.json"
    document = _read(path)
    if document.get("format") != FORMAT:
        raise BadCheckpoint(f"{path}: not of a prior folder ({document.get('format')}); {_REMEDY}")
    whole = all(isinstance(document.get(name), dict) for name in ("about", "leaves", "files"))
    whole &= all(
        isinstance(entry, dict) and isinstance(entry.get(fact), kind)
        for name, fact, kind in (("leaves", "sha256", str), ("files", "bytes", int))
        for entry in (document[name].values() if whole else ())
    )
    if not whole or document.get("about_sha256") != _sha256(document["about"]):
        raise BadCheckpoint(f"{path}: damaged, or edited; {_REMEDY}")
    return document


def load(folder) -> Prior:
    """Load a prior folder, every parameter checked against its checksum, on the first device.

    Raises BadCheckpoint, in one line, where files are missing, damaged or do not fit each other.
    """
    folder = epath.Path(folder)
    document = read_model(folder)
    documents = [_read(folder / f"{name}.json") for name in DOCUMENTS]
    checkpoints.check_files(folder / "params", document["files"], _REMEDY)
    try:
        about = document["about"]
        of_skeleton = skeleton.parse(about["skeleton"], str(folder / "model.json"))
        empty = {name: from_json(plain) for name, plain in about["parts"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise BadCheckpoint(f"{folder}/model.json: damaged ({reason}); {_REMEDY}") from None
    wanted = trees.flatten(jax.eval_shape(lambda: {k: _shapes(p) for k, p in empty.items()}))
    single = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    found = dict(
        checkpoints.load_leaves(folder / "params", wanted, dict.fromkeys(wanted, single))
    )
    for name, leaf in found.items():
        if trees.checksum(leaf) != document["leaves"].get(name, {}).get("sha256"):
            raise BadCheckpoint(f"{folder}: the values of {name} have changed; {_REMEDY}")
    arrays = trees.unflatten(found)
    parts = {
        name: dataclasses.replace(
            part, gaussian=Gaussian(**arrays[name]["gaussian"]), params=arrays[name]["network"]
        )
        for name, part in empty.items()
    }
    return Prior(of_skeleton, parts, *documents)


def _shapes(prior: PartPrior) -> dict:
    numbers = 2 * prior.spec.joints
    gaussian = Gaussian(jnp.zeros(numbers), jnp.zeros((numbers, numbers)))
    params = denoiser.init(jax.random.key(0), prior.spec)
    return _arrays(dataclasses.replace(prior, gaussian=gaussian, params=params))


def _read(path) -> dict:
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadCheckpoint(f"{path}: cannot be opened ({reason}); {_REMEDY}") from None
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise BadCheckpoint(f"{path}: not a JSON file ({reason}); {_REMEDY}") from None
    if not isinstance(document, dict):
        raise BadCheckpoint(f"{path}: not a JSON object; {_REMEDY}")
    return document


def _sha256(document) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
