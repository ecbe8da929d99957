"""A pose network to predict with, out of a weights folder or a run, and where it comes from."""

import dataclasses
import hashlib
import json
from collections.abc import Callable

import jax
from etils import epath

from nkjax import runs
from nkjax.evaluate.pictures import BadInput
from nkjax.models import sapiens
from nkjax.models.sapiens import Spec

NO_LICENCE = "none stated: the network was trained from random numbers, or its weights named none"


@dataclasses.dataclass(frozen=True)
class Network:
    """A network whose parameters are not read yet.

    facts: where it comes from, as JSON: source or run, state and step, hashes and licence; compute:
    dtype that it was trained in; load(mesh) reads and verifies the parameters, on the mesh or for
    None on the first device, and raises BadCheckpoint.
    """

    spec: Spec
    facts: dict
    compute: str
    load: Callable[[jax.sharding.Mesh | None], dict]


def find(weights: str | None, run: str | None, state: str, command: str) -> Network:
    """Find the network of a weights folder or of a run, one of them; reads no arrays.

    state: 'best', 'last' or the number of a step, of a run; command: who asks, for messages. Raises
    BadInput where it is no pose network that knows its joints, and BadCheckpoint.
    """
    if bool(weights) == bool(run):
        raise BadInput("give --run or --weights, one of them: the network to predict with")
    if weights and runs.is_run(weights):
        raise BadInput(f"{weights}: is the folder of a run; name it with --run")
    if run and not runs.is_run(run):
        raise BadInput(
            f"{run}: no config.json and model.json here, so no run folder; name one that train.py "
            "made, or a weights folder with --weights"
        )
    folder = run or weights
    spec, document = sapiens.read_model(folder)
    if spec.task != "pose":
        raise BadInput(f"{folder}: weights for {spec.task}; {command} needs pose weights")
    if spec.skeleton is None:
        raise BadInput(
            f"{folder}: nothing names its {spec.head.outputs} keypoints; convert again with "
            "--skeleton"
        )
    return _of_run(run, spec, document, state) if run else _of_weights(weights, spec, document)


def licence_words(facts: dict) -> str:
    """Say in words what a network's licence is."""
    licence = facts.get("licence")
    if isinstance(licence, dict):
        return " ".join(str(value) for value in licence.values() if value) or NO_LICENCE
    return str(licence or NO_LICENCE)


def _of_weights(folder, spec, document) -> Network:
    facts = {name: document.get(name) for name in ("source", "licence", "made_with", "spec_sha256")}
    return Network(spec, facts, "float32", lambda mesh: sapiens.load(folder, mesh)[1])


def _of_run(folder, spec, document, state) -> Network:
    step = runs.choose_step(folder, state)
    # Holds a fingerprint of every array of the state.
    record = epath.Path(folder) / "checkpoints" / str(step) / "record.json"
    facts = {
        "run": str(folder),
        "state": state,
        "step": step,
        "record_sha256": hashlib.sha256(record.read_bytes()).hexdigest(),
        "spec_sha256": document["spec_sha256"],
        "source": document.get("source"),
        "licence": document.get("licence"),
        "data_sha256": _trained_on(epath.Path(folder) / "run.json"),
    }
    compute = runs.read_config(folder)["compute"]
    return Network(spec, facts, compute, lambda mesh: runs.load(folder, str(step), mesh)[1])


def _trained_on(path) -> str | None:
    """Return the data that a run.json names, None where it is lost: prediction goes without."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return document.get("data_sha256") if isinstance(document, dict) else None
