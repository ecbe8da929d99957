"""Where a run comes from: the content of its run.json, as plain data."""

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import jax

PACKAGES = (
    "nkjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy",
    "opencv-python-headless",
)  # fmt: skip
_ROOT = Path(__file__).parents[1]
_HOSTS = ("coordinator",)  # options that name a machine


def record(
    command: Sequence[str],
    config: Mapping,
    data_sha256: str,
    weights: Mapping,
    parents: Sequence[Mapping] = (),
) -> dict:
    """Return the run.json of a run that starts now; call it after `mesh.start`.

    command: words of the command line; config: the resolved config as JSON, with its seed;
    data_sha256: of the data set; weights: model.json of the weights that the run starts from, or
    {}; parents: facts of the runs whose states it starts from. Holds no host name.
    """
    first = _session(command, 0)
    return {
        "format": 1,
        **first,
        "seed": config["seed"],
        "config_sha256": json_sha256(config),
        "data_sha256": data_sha256,
        "weights": {name: weights.get(name) for name in ("source", "licence", "spec_sha256")}
        if weights
        else {},
        "parents": [dict(parent) for parent in parents],
        "sessions": [first],
    }


def resumed(document: Mapping, command: Sequence[str], from_step: int) -> dict:
    """Return run.json with one session more; what stands there about the first start stays.

    Raises ValueError when `document` is no run.json of this format.
    """
    if document.get("format") != 1 or not isinstance(document.get("sessions"), list):
        raise ValueError("not a run.json of nkjax; restore the file, or start in a new folder")
    return {**document, "sessions": [*document["sessions"], _session(command, from_step)]}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what a run computes."""
    return {"python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES}


def json_sha256(document: Mapping) -> str:
    """Return the sha256 of a document's JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def git_state() -> dict:
    """Return the clone's {'commit', 'changed': whether tracked files differ}, {} without git."""
    try:
        top, commit = _git("rev-parse", "--show-toplevel", "HEAD").split("\n")
        if Path(top).resolve() != _ROOT.resolve():
            return {}  # installed inside somebody else's clone
        return {"commit": commit, "changed": bool(_git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", "--no-optional-locks", "-C", _ROOT, *words],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return done.stdout.strip()


def _session(command: Sequence[str], from_step: int) -> dict:
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _without_hosts(command),
        "from_step": from_step,
        "versions": versions(),
        "git": git_state(),
        "processes": jax.process_count(),
        "devices": {"kind": jax.devices()[0].device_kind, "count": jax.device_count()},
    }


def _without_hosts(command: Sequence[str]) -> list[str]:
    kept, hidden = [], False
    for word in command:
        option, equals, _ = word.partition("=")
        names_host = option.startswith("-") and option.lstrip("-") in _HOSTS
        kept.append("[host]" if hidden else f"{option}=[host]" if names_host and equals else word)
        hidden = names_host and not equals
    return kept


def version(package: str) -> str:
    """Return the version of an installed package, or 'not installed'."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
