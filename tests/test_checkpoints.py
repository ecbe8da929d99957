"""Saving and loading leaf by leaf: exact, resharded, all or nothing, readable when refused."""

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from nkjax import checkpoints, trees
from nkjax.checkpoints import BadCheckpoint
from nkjax.mesh import make_mesh

ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def leaves():
    rng = np.random.default_rng(0)
    return {
        "a/kernel": rng.normal(size=(16, 24)).astype(np.float32),
        "a/b/c/half": rng.normal(size=(3, 8, 8)).astype(ml_dtypes.bfloat16),
        "a/b/bias": rng.normal(size=(7,)).astype(np.float32),
        "step": np.array(12345, np.int32),
        "z/transposed": rng.normal(size=(5, 8)).astype(np.float32).T,
    }


def shapes(values):
    return {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in values.items()}


def load(path, wanted, sharding=ONE):
    return dict(checkpoints.load_leaves(path, wanted, dict.fromkeys(wanted, sharding)))


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "params"
    checkpoints.save_leaves(path, leaves().items())
    return path


@pytest.mark.parametrize("group", [1, 700, 1 << 26], ids=["each alone", "some", "together"])
def test_round_trip_is_exact(tmp_path, monkeypatch, group):
    monkeypatch.setattr(checkpoints, "_GROUP_BYTES", group)
    values, path = leaves(), tmp_path / "params"
    checkpoints.save_leaves(path, iter(values.items()))
    assert [p.name for p in tmp_path.iterdir()] == ["params"]
    assert checkpoints.describe(path) == shapes(values)
    loaded = load(path, shapes(values))
    assert loaded.keys() == values.keys()
    for name, value in values.items():
        assert loaded[name].dtype == value.dtype and loaded[name].sharding == ONE
        assert np.array_equal(np.asarray(loaded[name]), value), name
        assert trees.checksum(loaded[name]) == trees.checksum(value)


def test_leaves_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_CHUNK_BYTES", 256)
    values = leaves()
    checkpoints.save_leaves(tmp_path / "p", values.items())
    loaded = load(tmp_path / "p", shapes(values))
    assert all(np.array_equal(np.asarray(loaded[k]), v) for k, v in values.items())


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, real or forced")
@pytest.mark.parametrize("mesh_shape", [(1, 8), (8, 1), (2, 4)])
def test_saved_on_one_device_loaded_on_a_mesh_and_back(saved, tmp_path, mesh_shape):
    mesh, values = make_mesh(*mesh_shape, devices=jax.devices()[:8]), leaves()
    wanted = shapes(values)
    split = {"a/kernel": PartitionSpec("fsdp", "data"), "a/b/c/half": PartitionSpec(None, "fsdp")}
    placed = {k: NamedSharding(mesh, split.get(k, PartitionSpec())) for k in wanted}
    loaded = dict(checkpoints.load_leaves(saved, wanted, placed))
    kernel = loaded["a/kernel"]
    assert {s.data.shape for s in kernel.addressable_shards} == {
        (16 // mesh_shape[1], 24 // mesh_shape[0])
    }
    for name, value in values.items():
        assert loaded[name].sharding == placed[name]
        assert np.array_equal(np.asarray(loaded[name]), value), name
    checkpoints.save_leaves(tmp_path / "again", loaded.items())
    back = load(tmp_path / "again", wanted)
    assert all(np.array_equal(np.asarray(back[k]), v) for k, v in values.items())


@pytest.mark.parametrize("after", [0, 1, 4])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_stream_leaves_nothing(tmp_path, monkeypatch, after, error):
    monkeypatch.setattr(checkpoints, "_GROUP_BYTES", 1)

    def stream():
        for i, leaf in enumerate(leaves().items()):
            if i == after:
                raise error("planted")
            yield leaf

    with pytest.raises(error, match="planted"):
        checkpoints.save_leaves(tmp_path / "p", stream())
    assert not list(tmp_path.iterdir())
    checkpoints.save_leaves(tmp_path / "p", leaves().items())
    assert checkpoints.describe(tmp_path / "p") == shapes(leaves())


def test_an_existing_checkpoint_is_never_replaced(saved):
    with pytest.raises(FileExistsError, match="exists"):
        checkpoints.save_leaves(saved, {"other": np.zeros(3, np.float32)}.items())
    assert checkpoints.describe(saved) == shapes(leaves())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a/kernel": jax.ShapeDtypeStruct((16, 25), np.float32)},
         "a/kernel is float32[16, 24], not float32[16, 25]"),
        ({"a/kernel": jax.ShapeDtypeStruct((16, 24), ml_dtypes.bfloat16)},
         "a/kernel is float32[16, 24], not bfloat16[16, 24]"),
        ({"a/new": jax.ShapeDtypeStruct((3,), np.float32)}, "a/new is missing"),
        ({"a/b/bias": None}, "a/b/bias is not expected"),
        ({f"n{i}": jax.ShapeDtypeStruct((), np.float32) for i in range(9)}, "and 6 more"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_in_one_line(saved, change, words):
    wanted = {k: v for k, v in (shapes(leaves()) | change).items() if v is not None}
    with pytest.raises(BadCheckpoint) as caught:
        load(saved, wanted)
    message = str(caught.value)
    assert words in message and str(saved) in message and "\n" not in message


def test_no_checkpoint_here(tmp_path, saved):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name in ("absent", "file", "empty"):
        with pytest.raises(BadCheckpoint) as caught:
            checkpoints.describe(tmp_path / name)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / name}: ") and "\n" not in message
        assert "no finished orbax checkpoint" in message or "missing or damaged" in message
