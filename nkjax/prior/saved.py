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
# What readers look up in the other documents.
DOCUMENTS = {
    "statistics": ("data", "folds", "bones", "symmetry", "angles"),
    "calibration": ("data", "prior", "conformal", "limits", "energies", "usual_pull"),
}
REMEDY = "fit it again: scripts/fit_prior.py"


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
    document = journal.read_object(path, BadCheckpoint, REMEDY)
    if document.get("format") != FORMAT:
        raise BadCheckpoint(f"{path}: not of a prior folder ({document.get('format')}); {REMEDY}")
    sections = ("about", "origin", "leaves", "files")
    whole = all(isinstance(document.get(name), dict) for name in sections)
    whole &= all(
        isinstance(entry, dict) and isinstance(entry.get(fact), kind)
        for name, fact, kind in (("leaves", "sha256", str), ("files", "bytes", int))
        for entry in (document[name].values() if whole else ())
    )
    if not whole or document.get("about_sha256") != _sha256(document["about"]):
        raise BadCheckpoint(f"{path}: damaged, or edited; {REMEDY}")
    return document


def identity(document: Mapping) -> str:
    """Return what tells a prior from all others: a hash of what model.json says it is made of."""
    return _sha256([document["about"], document["leaves"]])


def read_document(folder, name: str, document: Mapping) -> dict:
    """Read statistics.json or calibration.json of the prior that model.json describes.

    name: of DOCUMENTS; document: what `read_model` returned. Raises BadCheckpoint where the file is
    missing, damaged, or belongs to other data or to another prior.
    """
    path = epath.Path(folder) / f"{name}.json"
    found = journal.read_object(path, BadCheckpoint, REMEDY)
    missing = [key for key in DOCUMENTS[name] if key not in found]
    if name == "calibration" and not missing:
        limits = found["limits"] if isinstance(found["limits"], dict) else {}
        missing = [f"limits/{part}" for part in document["about"]["parts"] if part not in limits]
    if missing:
        raise BadCheckpoint(f"{path}: {missing[0]!r} is missing; {REMEDY}")
    if found["data"] != document["origin"].get("data_sha256"):
        raise BadCheckpoint(f"{path}: measured on other data than model.json tells; {REMEDY}")
    if "prior" in DOCUMENTS[name] and found["prior"] != identity(document):
        raise BadCheckpoint(f"{path}: of another prior than model.json tells; {REMEDY}")
    return found


def load(folder) -> Prior:
    """Load a prior folder, every parameter checked against its checksum, on the first device.

    Raises BadCheckpoint, in one line, where files are missing, damaged or do not fit each other.
    """
    of_skeleton, parts = load_parts(folder)
    document = read_model(folder)
    return Prior(of_skeleton, parts, *(read_document(folder, name, document) for name in DOCUMENTS))


def load_parts(folder) -> tuple[Skeleton, dict[str, PartPrior]]:
    """Load params/ and model.json alone, as `load` does, which reads the other documents too."""
    folder = epath.Path(folder)
    document = read_model(folder)
    checkpoints.check_files(folder / "params", document["files"], REMEDY)
    try:
        about = document["about"]
        of_skeleton = skeleton.parse(about["skeleton"], str(folder / "model.json"))
        empty = {name: from_json(plain) for name, plain in about["parts"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise BadCheckpoint(f"{folder}/model.json: damaged ({reason}); {REMEDY}") from None
    wanted = trees.flatten(jax.eval_shape(lambda: {k: _shapes(p) for k, p in empty.items()}))
    single = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    found = dict(
        checkpoints.load_leaves(folder / "params", wanted, dict.fromkeys(wanted, single))
    )
    for name, leaf in found.items():
        if trees.checksum(leaf) != document["leaves"].get(name, {}).get("sha256"):
            raise BadCheckpoint(f"{folder}: the values of {name} have changed; {REMEDY}")
    arrays = trees.unflatten(found)
    parts = {
        name: dataclasses.replace(
            part, gaussian=Gaussian(**arrays[name]["gaussian"]), params=arrays[name]["network"]
        )
        for name, part in empty.items()
    }
    return of_skeleton, parts


def _shapes(prior: PartPrior) -> dict:
    numbers = 2 * prior.spec.joints
    gaussian = Gaussian(jnp.zeros(numbers), jnp.zeros((numbers, numbers)))
    params = denoiser.init(jax.random.key(0), prior.spec)
    return _arrays(dataclasses.replace(prior, gaussian=gaussian, params=params))


def _sha256(document) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
