"""Training states on disk: saved in the background, verified bit by bit when read again.

folder/checkpoints/<step>/state is a checkpoint of orbax; record.json beside it, written last, is
what makes the step a finished one: facts, metrics, a fingerprint per leaf, the list of files.
"""

import concurrent.futures
import functools
import hashlib
import json
import logging
import math

import jax
import jax.numpy as jnp
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from nkjax import checkpoints, trees
from nkjax.checkpoints import BadCheckpoint

_RECORD, _STATE = "record.json", "state"


class NotFinite(ValueError):
    """A state with a number that is not finite, in one line that names the leaf."""


class Snapshots:
    """The training states of a run below folder/checkpoints/<step>; the best and the last are kept.

    keep: how many of the last steps stay; best: name of a metric ('' for none) of which the best
    step stays too, the earliest of equals. Every process of a run makes one and calls the same
    methods in the same order. Until the first save nothing on disk is touched, so that an
    evaluation may look at a run that is being trained.
    """

    def __init__(self, folder, *, keep: int, best: str = "", higher_is_better: bool = True):
        self._folder, self._keep = folder, keep
        self._metric, self._sign = best, 1 if higher_is_better else -1
        self._background = concurrent.futures.ThreadPoolExecutor(1, "snapshots")
        self._pending: concurrent.futures.Future | None = None
        logging.getLogger("absl").setLevel(logging.WARNING)  # orbax tells every step it takes

    def steps(self) -> list[int]:
        """Return the steps that are finished, ascending."""
        return _finished(self._folder)

    def latest(self) -> int | None:
        """Return the last finished step, None when there is none."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """Return the finished step with the best stored metric, None when no step has it."""
        values = {step: value for step in self.steps() if (value := self._value(step)) is not None}
        return max(values, key=lambda step: self._sign * values[step], default=None)

    def _value(self, step: int) -> float | None:
        try:
            return read_facts(self._folder, step)["metrics"].get(self._metric)
        except (BadCheckpoint, FileNotFoundError):  # damaged, or retired just now: not the best
            return None

    def prepare(self, abstract) -> None:
        """Compile what saving a state, given as ShapeDtypeStructs with shardings, will call."""
        jax.tree.map(_program, _flat(abstract)[0])
        _all_processes("prepared")

    def save(self, step: int, state, facts: dict, metrics: dict[str, float]) -> None:
        """Begin to save a state; it may be donated as soon as this returns.

        facts: what JSON can hold; metrics that are not finite are left out. Waits for the save
        before this one. Raises NotFinite, FileExistsError for a step that is saved already, and as
        `wait` does.
        """
        self.wait()
        folder = _step_folder(self._folder, step)
        if step in self.steps():
            raise FileExistsError(f"{folder} exists: a step is saved once")
        known = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        record = {"step": step, "facts": facts, "metrics": known}
        _seal(record)  # facts that JSON cannot hold are refused before anything is written
        with jax.transfer_guard("allow"):
            leaves = trees.flatten(_without_keys(state))
            hashes, finite = _measure(leaves)
            if bad := [name for name, fine in finite.items() if not fine]:
                more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
                raise NotFinite(f"step {step} is not saved: {bad[0]}{more} is not finite")
            shapes = checkpoints.spell(leaves)
            record["leaves"] = {name: [shapes[name], hashes[name]] for name in leaves}
            if jax.process_index() == 0:
                for path in _numbered(self._folder):
                    if not (path / _RECORD).exists():
                        path.rmtree()
                folder.mkdir(parents=True)
            _all_processes(f"cleaned before {step}")
            response = checkpoints.start_save(folder / _STATE, trees.unflatten(leaves))
        self._pending = self._background.submit(self._finish, folder, record, response)

    def _finish(self, folder: epath.Path, record: dict, response) -> None:
        response.result()
        if jax.process_index() == 0:
            files = checkpoints.list_files(folder / _STATE)
            _write_whole(folder / _RECORD, _seal(record | {"files": files}))
            kept = {*self.steps()[-self._keep :], self.best()}
            for step in set(self.steps()) - kept:
                _remove(_step_folder(self._folder, step))

    def restore(self, step: int, abstract) -> tuple:
        """Return the (state, facts) of a step, every leaf verified.

        abstract: the state as ShapeDtypeStructs with shardings, of any mesh. Raises BadCheckpoint,
        naming leaf or file, when leaves are missing, left over, of another shape or dtype, or not
        what was saved.
        """
        self.wait()
        record = _read_record(self._folder, step)
        shapes = {name: shape for name, (shape, _) in record["leaves"].items()}
        leaves, rebuild = _flat(abstract)
        checkpoints.compare(
            _step_folder(self._folder, step), checkpoints.spell(leaves), shapes,
            "go on with the config that this run was started with, or train in another folder",
        )  # fmt: skip
        return rebuild(_read(self._folder, step, record, leaves)), record["facts"]

    def wait(self, alone: bool = False) -> None:
        """Wait until what was saved is finished on disk, by all processes or only by this one.

        Raises what went wrong in doing so: OSError where the disk is full, say.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                pending.result()
            except ValueError as error:  # tensorstore's, of a disk that is full
                raise OSError(f"{self._folder}: a state could not be saved: {error}") from error
            if not alone:
                _all_processes("finished")

    def close(self, alone: bool = False) -> None:
        """Wait, and end the background thread; nothing can be saved after that.

        alone: for no other process, as this one ends for reasons of its own.
        """
        try:
            self.wait(alone)
        finally:
            self._background.shutdown()


def restore_part(folder, step: int, part: str, abstract):
    """Return one part of a saved state, 'params' or 'ema' say, verified; nothing else is read.

    abstract: that part alone as ShapeDtypeStructs with shardings. Raises BadCheckpoint as
    `Snapshots.restore` does.
    """
    record = _read_record(folder, step)
    leaves, rebuild = _flat({part: abstract})
    shapes = {name: shape for name, (shape, _) in record["leaves"].items()}
    inside = {name: s for name, s in shapes.items() if f"{name}/".startswith(f"{part}/")}
    checkpoints.compare(
        _step_folder(folder, step), checkpoints.spell(leaves), inside,
        "read it with the config of its run",
    )  # fmt: skip
    return rebuild(_read(folder, step, record, leaves))[part]


def read_facts(folder, step: int) -> dict:
    """Return {'facts', 'metrics'} as they were saved with a step, without reading its arrays.

    Raises BadCheckpoint when there is no such finished step, or its record is damaged.
    """
    record = _read_record(folder, step)
    return {name: record[name] for name in ("facts", "metrics")}


def _read(folder, step: int, record: dict, leaves: dict) -> dict[str, jax.Array]:
    """Read and verify leaves, {'a/b/c': ShapeDtypeStruct with sharding}."""
    path, remedy = _step_folder(folder, step), _remedy(folder, step)
    checkpoints.check_files(path / _STATE, record["files"], remedy)
    shardings = {name: leaf.sharding for name, leaf in leaves.items()}
    with jax.transfer_guard("allow"):
        found = dict(checkpoints.read_leaves(path / _STATE, leaves, shardings, remedy))
        hashes, _ = _measure(found)
    bad = [name for name in leaves if hashes[name] != record["leaves"][name][1]]
    if bad:
        more = f" and {len(bad) - 1} more leaves" if len(bad) > 1 else ""
        raise BadCheckpoint(f"{path}: {bad[0]}{more} changed on disk since saved; {remedy}")
    return found


def _remedy(folder, step: int) -> str:
    others = [other for other in _finished(folder) if other != step]
    goal = f"go on from step {max(others)}" if others else "start again"
    return f"remove {_step_folder(folder, step)} to {goal}"


def _measure(leaves: dict) -> tuple[dict[str, str], dict[str, bool]]:
    """Return the fingerprint of each leaf in hexadecimal, and whether all of it is finite."""
    like = {k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
            for k, x in leaves.items()}  # fmt: skip
    # One after the other: many programs that sum over devices may wait for each other for ever.
    measured = {name: jax.device_get(_program(like[name])(leaves[name])) for name in leaves}
    hashes = {name: f"{a:08x}{b:08x}" for name, ((a, b), _) in measured.items()}
    return hashes, {name: bool(finite) for name, (_, finite) in measured.items()}


@functools.lru_cache
def _program(leaf: jax.ShapeDtypeStruct):
    # Leaf by leaf: parameters, averages and moments of one shape are compiled once.
    place = leaf.sharding
    if isinstance(place, NamedSharding):  # every process can read what is replicated
        place = NamedSharding(place.mesh, PartitionSpec())
    measure = jax.jit(lambda x: (trees.fingerprint(x), jnp.isfinite(x).all()), out_shardings=place)
    return measure.lower(leaf).compile()


def _is_key(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_kind(abstract):
    kinds = []  # jax tells it of arrays and of traced ones only
    jax.eval_shape(lambda keys: kinds.append(jax.random.key_impl(keys)), abstract)
    return kinds[0]


def _without_keys(tree):
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _flat(abstract):
    """Return {'a/b/c': ShapeDtypeStruct}, typed keys as their words, and what undoes that."""
    paths, structure = jax.tree_util.tree_flatten_with_path(abstract)
    named = {trees.path_name(path): leaf for path, leaf in paths}

    def words(leaf):
        plain = jax.eval_shape(_without_keys, leaf)
        return jax.ShapeDtypeStruct(plain.shape, plain.dtype, sharding=leaf.sharding)

    def rebuild(found: dict):
        leaves = [
            jax.random.wrap_key_data(found[name], impl=_key_kind(leaf))
            if _is_key(leaf) else found[name]
            for name, leaf in named.items()
        ]  # fmt: skip
        return jax.tree.unflatten(structure, leaves)

    return {name: words(leaf) for name, leaf in named.items()}, rebuild


def _step_folder(folder, step: int) -> epath.Path:
    return checkpoints.absolute(folder) / "checkpoints" / str(step)


def _numbered(folder) -> list[epath.Path]:
    parent = checkpoints.absolute(folder) / "checkpoints"
    return [path for path in parent.iterdir() if path.name.isdecimal()] if parent.exists() else []


def _finished(folder) -> list[int]:
    return sorted(int(path.name) for path in _numbered(folder) if (path / _RECORD).exists())


def _remove(path: epath.Path) -> None:
    (path / _RECORD).unlink()  # first: a step that is half gone must not look finished
    path.rmtree()


def _seal(record: dict) -> str:
    text = json.dumps(record, sort_keys=True, allow_nan=False)
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "record": record})


def _write_whole(path: epath.Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def _read_record(folder, step: int) -> dict:
    path = _step_folder(folder, step) / _RECORD
    if not path.exists():
        there = ", ".join(map(str, _finished(folder))) or "none"
        raise BadCheckpoint(f"{path.parent}: no finished step here; choose another one of: {there}")
    try:
        document = json.loads(path.read_bytes())
        record, text = document["record"], json.dumps(document["record"], sort_keys=True)
        if document["sha256"] == hashlib.sha256(text.encode()).hexdigest():
            return record
    except (ValueError, KeyError, TypeError):
        pass
    raise BadCheckpoint(f"{path} is damaged; {_remedy(folder, step)}")


def _all_processes(what: str) -> None:
    if jax.process_count() > 1:
        with jax.transfer_guard("allow"):
            multihost_utils.sync_global_devices(f"snapshots: {what}")
