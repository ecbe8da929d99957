"""Training states on disk: exact, on any mesh, never half, never silently wrong."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from nkjax import checkpoints, snapshots, trees
from nkjax.checkpoints import BadCheckpoint
from nkjax.mesh import make_mesh
from nkjax.snapshots import NotFinite, Snapshots, read_facts, restore_part

ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
EIGHT = pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, real or forced")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """As the trainer's: numbers of all kinds, in dicts, tuples and tuples with names."""

    step: jax.Array
    params: dict
    ema: dict
    opt: tuple
    key: jax.Array


def make_state(seed=0, wide=24) -> State:
    rng = np.random.default_rng(seed)
    params = {
        "block": {"kernel": jnp.asarray(rng.normal(size=(16, wide)), jnp.float32),
                  "half": jnp.asarray(rng.normal(size=(8, 4)), jnp.bfloat16)},
        "used": jnp.asarray(rng.random(8) < 0.5),
    }  # fmt: skip
    moments = {name: params["block"][name] * 2 for name in ("kernel", "half")}
    opt = optax.adamw(optax.constant_schedule(0.1)).init(moments)
    return State(jnp.int32(7), params, jax.tree.map(jnp.copy, params), opt, jax.random.key(seed))


def place(leaf, mesh):
    """A sharding: the large leaves are divided over both axes."""
    if mesh is None:
        return ONE
    axes = PartitionSpec("fsdp", "data") if leaf.shape == (16, 24) else PartitionSpec()
    return NamedSharding(mesh, axes)


def on(state, mesh=None):
    return jax.tree.map(lambda leaf: jax.device_put(leaf, place(leaf, mesh)), state)


def abstract(state, mesh=None):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place(leaf, mesh)), state
    )


def bits(leaf) -> bytes:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
        where = trees.path_name(path)
        assert (a.shape, a.dtype) == (b.shape, b.dtype) and bits(a) == bits(b), where


def save(folder, *states, keep=9, metrics=None, **options):
    saved = Snapshots(folder, keep=keep, **options)
    for step, state in enumerate(states, start=1):
        saved.save(step, state, {"rows": step * 10}, (metrics or {}).get(step, {}))
    saved.close()
    return saved


def refused(call) -> str:
    with pytest.raises(BadCheckpoint) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700, message
    return message


# Coming back.


def test_round_trip_is_exact_and_typed(tmp_path):
    state = on(make_state())
    saved = save(tmp_path, state, metrics={1: {"val/pck": np.float32(0.5), "loss": float("nan")}})
    found, facts = saved.restore(1, abstract(state))
    assert_same(found, state)
    assert isinstance(found, State) and type(found.opt[0]) is type(state.opt[0])
    assert all(leaf.sharding == ONE for leaf in jax.tree.leaves(found))
    assert facts == {"rows": 10}
    assert read_facts(tmp_path, 1) == {"facts": {"rows": 10}, "metrics": {"val/pck": 0.5}}
    assert saved.steps() == [1] and saved.latest() == 1 and saved.best() is None


@EIGHT
@pytest.mark.parametrize("shape", [(8, 1), (1, 8), None], ids=str)
def test_saved_on_2x4_restored_elsewhere(tmp_path, shape):
    state, devices = make_state(), jax.devices()[:8]
    saved = save(tmp_path, on(state, make_mesh(2, 4, devices=devices)))
    mesh = make_mesh(*shape, devices=devices) if shape else None
    found, _ = saved.restore(1, abstract(state, mesh))
    assert_same(found, state)
    kernel = found.params["block"]["kernel"]
    assert kernel.sharding == place(kernel, mesh)
    assert len(kernel.addressable_shards) == (8 if shape else 1)


def test_a_part_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_SMALL_FILE", 1 << 14)
    state = on(make_state(wide=5000))  # its leaves lie in order in one file, params behind the rest
    saved, read = save(tmp_path, state), []
    original = checkpoints.read_leaves
    monkeypatch.setattr(
        checkpoints, "read_leaves",
        lambda path, wanted, *rest: read.extend(wanted) or original(path, wanted, *rest),
    )  # fmt: skip
    flip(*bytes_of(tmp_path, state.params["block"]["kernel"], last=True))
    assert_same(restore_part(tmp_path, 1, "ema", abstract(state.ema)), state.ema)
    assert read and all(name.startswith("ema/") for name in read)
    assert int(restore_part(tmp_path, 1, "step", abstract(state.step))) == 7
    for call in (lambda: saved.restore(1, abstract(state)),
                 lambda: restore_part(tmp_path, 1, "params", abstract(state.params))):  # fmt: skip
        assert "params/block/kernel changed on disk since saved; remove" in refused(call)
    assert "emas/used is missing" in refused(
        lambda: restore_part(tmp_path, 1, "emas", abstract(state.ema)))  # fmt: skip


def test_the_next_step_may_take_the_buffers(tmp_path):
    state = on({"w": jnp.zeros((1500, 1500)), "n": jnp.int32(0)})
    wanted = jax.tree.map(np.asarray, jax.tree.map(jnp.copy, state))
    one = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    saved = Snapshots(tmp_path, keep=9)
    for step in range(4):
        saved.save(step, state, {}, {})
        before, state = state, one(state)
        # A CPU's array that the save has looked at is left alone: there jax copies instead.
        assert before["w"].is_deleted() or jax.default_backend() == "cpu"
    jax.tree.map(lambda leaf: leaf.delete(), state)
    for step in range(4):
        found, _ = saved.restore(step, abstract(state))
        assert_same(found, jax.tree.map(lambda x, n=step: x + x.dtype.type(n), wanted))


def test_nothing_is_transferred_unasked(tmp_path):
    state = on(make_state())
    with jax.transfer_guard("disallow"):
        saved = save(tmp_path, state)
        found, _ = saved.restore(1, abstract(state))
    assert_same(found, state)


# What is kept, what is refused.


@pytest.mark.parametrize(
    ("higher", "values", "kept", "best"),
    [
        (True, {1: 5.0, 2: 9.0, 3: 9.0, 4: 1.0, 5: 2.0}, [2, 4, 5], 2),
        (False, {1: 5.0, 2: 9.0, 3: 4.0, 4: 7.0, 5: 8.0}, [3, 4, 5], 3),
        (True, {2: float("nan"), 3: 1.0}, [3, 4, 5], 3),
        (True, {5: 1.0}, [4, 5], 5),
        (True, {}, [4, 5], None),
    ],
)  # fmt: skip
def test_the_last_and_the_best_stay(tmp_path, higher, values, kept, best):
    state = on({"n": jnp.int32(0)})
    metrics = {step: {"ap": value, "other": -value} for step, value in values.items()}
    options = {"best": "ap", "higher_is_better": higher}
    saved = save(tmp_path, *[state] * 5, keep=2, metrics=metrics, **options)
    again = Snapshots(tmp_path, keep=2, **options)
    for each in (saved, again):
        assert each.steps() == kept and each.best() == best and each.latest() == 5
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == kept


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_state_that_is_not_finite_is_refused(tmp_path, value, dtype):
    state = on({"fine": jnp.ones(3), "opt": (jnp.zeros((4, 5), dtype).at[2, 3].set(value),)})
    saved = Snapshots(tmp_path, keep=2)
    with pytest.raises(NotFinite, match="step 3 is not saved: opt/0 is not finite"):
        saved.save(3, state, {}, {})
    saved.close()
    assert saved.steps() == [] and not (tmp_path / "checkpoints" / "3").exists()


def test_a_step_is_saved_once(tmp_path):
    saved = save(tmp_path, on({"n": jnp.int32(0)}))
    with pytest.raises(FileExistsError, match="checkpoints/1 exists"):
        Snapshots(tmp_path, keep=1).save(1, on({"n": jnp.int32(3)}), {}, {})
    assert int(saved.restore(1, abstract({"n": jnp.int32(0)}))[0]["n"]) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"params": {"a": jnp.zeros((2, 4))}}, "params/a is float32[2, 3], not float32[2, 4]"),
        ({"params": {"a": jnp.zeros((2, 3), jnp.bfloat16)}}, "float32[2, 3], not bfloat16[2, 3]"),
        ({"new": jnp.zeros(3)}, "new is missing"),
        ({"step": None}, "step is not expected"),
        ({f"n{i}": jnp.zeros(()) for i in range(9)}, "and 6 more"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, change, words):
    state = on({"params": {"a": jnp.zeros((2, 3))}, "step": jnp.int32(1)})
    saved = save(tmp_path, state)
    message = refused(lambda: saved.restore(1, abstract(state | change)))
    assert words in message and "checkpoints/1: " in message and "with the config" in message


def test_unfinished_steps_are_not_seen_and_then_cleaned(tmp_path):
    state = on({"n": jnp.int32(0)})
    save(tmp_path, state, state, state)
    (tmp_path / "checkpoints" / "2" / "record.json").unlink()
    for name in ("3/state", "5/state.orbax-checkpoint-tmp/d"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True, exist_ok=True)
    saved = Snapshots(tmp_path, keep=9)
    assert saved.steps() == [1, 3] and saved.latest() == 3
    assert (tmp_path / "checkpoints" / "5").exists()  # looking cleans nothing
    assert "no finished step here; choose another one of: 1, 3" in refused(
        lambda: saved.restore(2, abstract(state)))  # fmt: skip
    saved.save(5, state, {}, {})
    saved.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "3", "5"]
    assert int(saved.restore(5, abstract(state))[0]["n"]) == 0
    assert Snapshots(tmp_path / "absent", keep=1).steps() == []


def test_a_save_that_fails_in_the_background_is_told(tmp_path, monkeypatch):
    state = on({"n": jnp.int32(0)})
    saved = Snapshots(tmp_path, keep=2)
    with monkeypatch.context() as broken:
        broken.setattr(checkpoints, "list_files", lambda path: 1 / 0)
        saved.save(1, state, {}, {})
        with pytest.raises(ZeroDivisionError):
            saved.wait()
    assert saved.latest() is None
    saved.save(1, state, {}, {})
    saved.close()
    assert saved.steps() == [1]


def test_a_full_disk_is_an_os_error(tmp_path, monkeypatch):
    def full(path):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")  # tensorstore's words

    monkeypatch.setattr(checkpoints, "list_files", full)
    saved = Snapshots(tmp_path, keep=2)
    saved.save(1, on({"n": jnp.int32(0)}), {}, {})
    with pytest.raises(OSError, match=f"{tmp_path}: a state could not be saved: .*No space left"):
        saved.wait()


def test_who_ends_alone_waits_for_its_own_save_only(tmp_path, monkeypatch):
    saved, met = Snapshots(tmp_path, keep=2), []
    saved.save(1, on({"n": jnp.int32(0)}), {}, {})
    monkeypatch.setattr(snapshots, "_all_processes", met.append)
    saved.close(alone=True)
    assert saved.steps() == [1] and met == []


def test_a_step_half_removed_does_not_look_finished(tmp_path, monkeypatch):
    state = on({"n": jnp.int32(0)})
    save(tmp_path, state, state)
    saved = Snapshots(tmp_path, keep=1)

    def killed(path):
        raise InterruptedError(path)

    with monkeypatch.context() as broken:
        broken.setattr(type(checkpoints.absolute(tmp_path)), "rmtree", killed)
        saved.save(3, state, {}, {})
        with pytest.raises(InterruptedError):
            saved.wait()
    assert saved.steps() == [2, 3]  # 1 was being removed, 2 not yet
    saved.save(4, state, {}, {})
    saved.close()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]


# Damage.


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 0x10
    file.write_bytes(content)


def bytes_of(folder, leaf, last=False) -> tuple[Path, int]:
    """The file that holds a leaf, and a place in it inside the leaf's numbers."""
    some = np.asarray(leaf).tobytes()[4000:4064]
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        place = content.rfind(some) if last else content.find(some)
        if place >= 0:
            return file, place + 3
    raise AssertionError("no file holds these numbers")


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, save(folder, *[on(make_state(wide=500))] * 2), on(make_state(wide=500))


def test_a_flipped_byte_in_any_file_is_found(intact):
    folder, saved, state = intact
    files = sorted(path for path in (folder / "checkpoints" / "2").rglob("*") if path.is_file())
    assert {"record.json", "_METADATA", "manifest.ocdbt"} <= {file.name for file in files}
    for file in (file for file in files if file.stat().st_size):
        content = file.read_bytes()
        for position in (0, len(content) // 3, len(content) // 2, len(content) - 2):
            flip(file, position)
            message = refused(lambda: saved.restore(2, abstract(state)))
            assert message.startswith(f"{file} is damaged; remove {folder}/checkpoints/2 to go on")
            assert message.endswith("from step 1")
            file.write_bytes(content)
    assert_same(saved.restore(2, abstract(state))[0], state)


def test_missing_and_cut_files_are_found(intact):
    folder, saved, state = intact
    for file in sorted((folder / "checkpoints" / "2" / "state").rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            file.write_bytes(content[:-1] if content else b"x")
            assert f"{file} is damaged" in refused(lambda: saved.restore(2, abstract(state)))
            file.unlink()
            assert f"{file} is missing" in refused(lambda: saved.restore(2, abstract(state)))
            file.write_bytes(content)


def test_a_flipped_bit_in_a_large_file_is_named_by_its_leaf(intact, tmp_path, monkeypatch):
    _, _, state = intact
    monkeypatch.setattr(checkpoints, "_SMALL_FILE", 1 << 14)
    saved = save(tmp_path, state, keep=1)
    file, place = bytes_of(tmp_path, state.opt[0].mu["kernel"])
    assert file.stat().st_size > 1 << 14
    for position in (place, place + 4, place + 20000):
        content = file.read_bytes()
        flip(file, position)
        message = refused(lambda: saved.restore(1, abstract(state)))
        assert "changed on disk since saved" in message and "to start again" in message
        file.write_bytes(content)


def test_a_damaged_record_is_no_best(intact):
    state = on({"n": jnp.int32(0)})
    folder = intact[0] / "another"
    saved = save(folder, *[state] * 3, best="ap", metrics={1: {"ap": 3.0}, 2: {"ap": 2.0}})
    flip(folder / "checkpoints" / "1" / "record.json", 90)
    assert saved.steps() == [1, 2, 3] and saved.best() == 2
    assert "1/record.json is damaged; remove" in refused(lambda: read_facts(folder, 1))


def test_kept_names(tmp_path):
    """The names on disk are a promise: older runs are read by newer code."""
    save(tmp_path, on({"n": jnp.int32(3)}))
    assert {path.name for path in (tmp_path / "checkpoints" / "1").iterdir()} == {
        "state", "record.json"
    }  # fmt: skip
    document = json.loads((tmp_path / "checkpoints" / "1" / "record.json").read_text())
    assert set(document["record"]) == {"step", "facts", "metrics", "leaves", "files"}
    assert snapshots.read_facts(tmp_path, 1)["facts"] == {"rows": 10}
