"""The readers against recorded activations, against other parsers, and against torch itself."""

import gc
import json
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from convert_weights.readers import BadFile, open_checkpoint
from tests.convert_weights.crafting import (
    Member,
    archive,
    flat,
    mapping,
    pickled,
    safetensors,
    storage,
    tensor,
)

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "data" / "fixtures"
BOOKS = ["message_hub", "optimizer", "param_schedulers"]
RUN_FACTS = {
    "epoch", "iter", "cfg", "seed", "experiment_name", "time", "mmengine_version", "dataset_meta",
}  # fmt: skip
# file: layout, tensors, keys of meta, what is dropped; from the fixtures' README.
EXPECTED = {
    "tiny_pose.pth": ("pth state_dict", 49, RUN_FACTS, []),
    "tiny_pose_batchnorm.pth": ("pth state_dict", 45, RUN_FACTS, []),
    "tiny_seg.pth": ("pth state_dict", 40, RUN_FACTS, []),
    "tiny_normal.pth": ("pth state_dict", 40, RUN_FACTS, []),
    "tiny_depth.pth": ("pth training checkpoint", 39, RUN_FACTS, ["message_hub"]),
    "tiny_mae_raw_epoch.pth": ("pth training checkpoint", 50, RUN_FACTS, BOOKS),
    "tiny_pretrain_clean.pth": ("pth flat", 30, set(), []),
    "tiny_pose_torchscript.pt2": (
        "torchscript", 27, set(), ["constants.pkl", "traced_inputs", "traced_inputs.pkl"],
    ),
    "tiny_depth_bfloat16.pt2": (
        "torch.export", 39, set(),
        ["data/constants/tensor_0", "data/constants/tensor_1",
         "data/constants/model_constants_config.json", "models/model.json"],
    ),
    "tiny_depth_bfloat16_legacy_layout.pt2": (
        "torch.export (2.3 layout)", 39, set(),
        ["serialized_exported_program.json", "serialized_constants.pt",
         "serialized_example_inputs.pt"],
    ),
}  # fmt: skip


def _arrays(path) -> dict[str, np.ndarray]:
    return {key: found.read() for key, found in open_checkpoint(path).tensors.items()}


@pytest.mark.parametrize("name", EXPECTED)
def test_layout_and_what_lies_beside_the_weights(name):
    layout, count, facts, dropped = EXPECTED[name]
    found = open_checkpoint(FIXTURES / name)
    assert (found.layout, len(found.tensors)) == (layout, count)
    assert (set(found.meta), found.dropped) == (facts, dropped)
    json.dumps(found.meta)  # plain data throughout


def test_every_fixture_is_covered():
    assert set(EXPECTED) == {p.name for p in FIXTURES.glob("*.p*")}


@pytest.mark.parametrize(
    "name", [n for n in EXPECTED if (FIXTURES / n).with_suffix(".npz").exists()]
)
def test_keys_are_the_parameters_that_have_a_gradient(name):
    with np.load((FIXTURES / name).with_suffix(".npz")) as golden:
        trained = {k.removeprefix("gradnorm/") for k in golden if k.startswith("gradnorm/")}
    extra = {key for key in open_checkpoint(FIXTURES / name).tensors if key not in trained}
    kinds = (
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "preprocessor.mean",
        "preprocessor.std",
    )
    assert trained and all(key.endswith(kinds) for key in extra)
    assert trained <= set(open_checkpoint(FIXTURES / name).tensors)


@pytest.mark.parametrize(
    ("name", "golden", "prefix"),
    [
        ("tiny_pose.pth", "tiny_pose.npz", "backbone."),
        ("tiny_seg.pth", "tiny_seg.npz", "backbone."),
        ("tiny_normal.pth", "tiny_normal.npz", "backbone."),
        ("tiny_depth.pth", "tiny_depth.npz", "backbone."),
        ("tiny_pretrain_clean.pth", "tiny_backbone.npz", ""),
        ("tiny_mae_raw_epoch.pth", "tiny_backbone.npz", "backbone."),
    ],
)
def test_values_explain_the_recorded_activations(name, golden, prefix):
    weights = _arrays(FIXTURES / name)
    with np.load(FIXTURES / golden) as recorded:
        feat = {k.removeprefix("feat/"): recorded[k] for k in recorded if k.startswith("feat/")}

    def norm(x, key):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)
        return x * weights[f"{prefix}{key}.weight"] + weights[f"{prefix}{key}.bias"]

    def linear(x, key):
        return x @ weights[f"{prefix}{key}.weight"].T + weights[f"{prefix}{key}.bias"]

    first = "layers.0."
    token = int(f"{prefix}cls_token" in weights)
    position = weights[f"{prefix}pos_embed"][:, token : token + 12]
    after = feat["tokens_after_pos"]
    pairs = {
        "position": (feat["patch_tokens"] + position, after[:, token : token + 12]),
        "ln1": (norm(after[:, :12], first + "ln1"), feat["block0_ln1"]),
        "qkv": (linear(feat["block0_ln1"], first + "attn.qkv"), feat["block0_qkv"]),
        "ln2": (
            norm(after[:, :12] + feat["block0_attn_out"][:, :12], first + "ln2"),
            feat["block0_ln2"],
        ),
        "final": (
            norm(feat[max(k for k in feat if k.endswith("_out") and k[5].isdigit()
                          and "attn" not in k)], "ln1"),
            feat["final_norm_out"],
        ),
    }  # fmt: skip
    for what, (mine, recorded) in pairs.items():
        np.testing.assert_allclose(mine, recorded, rtol=1e-5, atol=2e-5, err_msg=what)


@pytest.mark.parametrize("name", EXPECTED)
def test_bytes_are_those_that_another_zip_reader_finds(name):
    with zipfile.ZipFile(FIXTURES / name) as outer:
        members = outer.infolist()
        if "serialized_state_dict.pt" in outer.namelist():
            with zipfile.ZipFile(outer.open("serialized_state_dict.pt")) as inner:
                members = inner.infolist()
    stored = {(m.CRC, m.file_size) for m in members}
    for key, array in _arrays(FIXTURES / name).items():
        data = array.tobytes()
        assert (zlib.crc32(data), len(data)) in stored, key


def test_both_export_layouts_hold_the_same_bfloat16_numbers():
    new = _arrays(FIXTURES / "tiny_depth_bfloat16.pt2")
    old = _arrays(FIXTURES / "tiny_depth_bfloat16_legacy_layout.pt2")
    assert {a.dtype for a in new.values()} == {np.dtype(ml_dtypes.bfloat16)}
    assert new.keys() == old.keys()
    assert all(np.array_equal(new[key], old[key]) for key in new)
    assert 0.7 < new["backbone.ln1.weight"].astype(np.float32).mean() < 1.3


def test_torchscript_names_are_attribute_paths():
    found = _arrays(FIXTURES / "tiny_pose_torchscript.pt2")
    mean, std = found["data_preprocessor.mean"], found["data_preprocessor.std"]
    np.testing.assert_allclose(mean[:, 0, 0], [123.675, 116.28, 103.53], rtol=1e-6)
    np.testing.assert_allclose(std[:, 0, 0], [58.395, 57.12, 57.375], rtol=1e-6)
    assert {"backbone.layers.0.ffn.layers.0.0.weight", "head.final_layer.bias"} <= set(found)


def test_meta_holds_numpy_arrays_and_config_dicts_as_plain_data():
    facts = open_checkpoint(FIXTURES / "tiny_pose.pth").meta["dataset_meta"]
    with np.load(FIXTURES / "tiny_pose.npz") as golden:
        assert facts["flip_indices"] == golden["flip_indices"].tolist()
    nose, ankle = facts["sigmas"][0], facts["sigmas"][16]  # of COCO
    assert (round(nose, 4), round(ankle, 4)) == (0.026, 0.089)
    mapping = facts["coco_wholebody_to_goliath_mapping"]
    assert type(mapping) is dict and mapping[1] == 7
    assert facts["keypoint_colors"][0] == [51, 153, 255]


def test_arrays_are_read_only_and_aligned():
    for name in EXPECTED:
        for array in _arrays(FIXTURES / name).values():
            assert not array.flags.writeable and array.flags.aligned


def test_layout_is_told_by_content(tmp_path):
    for name, (layout, *_) in EXPECTED.items():
        copy = tmp_path / "weights.safetensors"
        copy.write_bytes((FIXTURES / name).read_bytes())
        assert open_checkpoint(str(copy)).layout == layout


def test_a_prefix_of_data_parallel_training_is_kept(tmp_path):
    members = [
        Member("a/data.pkl", pickled(mapping(**{"module.ln1.bias": tensor(), "epoch": b"K\x01"}))),
        Member("a/data/0", bytes(24)),
    ]
    (tmp_path / "x").write_bytes(archive(members))
    found = open_checkpoint(tmp_path / "x")
    assert list(found.tensors) == ["module.ln1.bias"]
    assert found.dropped == ["epoch (not a tensor)"]


def test_damage_in_one_tensor_is_found_when_it_is_read(tmp_path):
    name = "tiny_seg.pth"
    with zipfile.ZipFile(FIXTURES / name) as opened:
        member = opened.getinfo("tiny_seg/data/11")
    damaged = bytearray((FIXTURES / name).read_bytes())
    damaged[member.header_offset + 200] ^= 1
    (tmp_path / name).write_bytes(damaged)
    with pytest.raises(BadFile, match="data/11 does not match its checksum"):
        _arrays(tmp_path / name)
    assert open_checkpoint(tmp_path / name).tensors["backbone.pos_embed"].read().size


def test_a_file_changed_after_opening_is_not_read_on(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes((FIXTURES / "tiny_seg.pth").read_bytes())
    found = open_checkpoint(path).tensors["decode_head.conv_seg.weight"]
    found.read()
    path.open("r+b").truncate(5000)
    with pytest.raises(BadFile, match="was changed while it was being read"):
        found.read()


def test_safetensors_written_by_its_own_package(tmp_path):
    package = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    arrays = {
        "a.weight": rng.normal(size=(3, 5)).astype(np.float32),
        "b": rng.normal(size=(7,)).astype(ml_dtypes.bfloat16),
        "c": np.array([True, False, True]),
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 4), np.float16),
    }
    package.save_file(arrays, tmp_path / "x", metadata={"format": "pt"})
    found = open_checkpoint(tmp_path / "x")
    assert (found.layout, found.meta, found.dropped) == ("safetensors", {"format": "pt"}, [])
    assert set(found.tensors) == set(arrays)
    for key, array in arrays.items():
        mine = found.tensors[key]
        assert (mine.shape, mine.dtype) == (array.shape, str(array.dtype))
        assert mine.read().dtype == array.dtype and np.array_equal(mine.read(), array)


def test_bfloat16_safetensors_byte_by_byte(tmp_path):
    numbers = np.array([1, -2, 0.5, 3.140625], ml_dtypes.bfloat16)
    header = {"a": flat(0, 2, (), "I16"), "w": flat(2, 10, (2, 2), "BF16")}
    body = b"\x34\x12" + numbers.tobytes()
    (tmp_path / "x").write_bytes(safetensors(header, body))
    found = _arrays(tmp_path / "x")
    assert found["a"] == 0x1234 and np.array_equal(found["w"], numbers.reshape(2, 2))


def test_numbers_at_odd_addresses_are_read_right(tmp_path):
    values = np.arange(6, dtype="<f4")
    for fill in range(4):
        members = [
            Member("m/data.pkl", pickled(mapping(w=tensor(shape=(3, 2), strides=(1, 3))))),
            Member("m/pad", bytes(fill)),
            Member("m/data/0", values.tobytes()),
        ]
        (tmp_path / "x").write_bytes(archive(members))
        array = _arrays(tmp_path / "x")["w"]
        assert np.array_equal(array, values.reshape(2, 3).T)
        assert array.flags.aligned and not array.flags.writeable


_STREAM = """
import sys
from tests.convert_weights.tripwire import peak_mib
from convert_weights.readers import open_checkpoint
open_checkpoint(sys.argv[2]).tensors["backbone.pos_embed"].read().sum()
before, total = peak_mib(), 0.0
for tensor in open_checkpoint(sys.argv[1]).tensors.values():
    total += float(tensor.read().max())
print(total, peak_mib() - before)
"""


@pytest.mark.parametrize("fill", range(4))  # at one of them the numbers are aligned, thus mapped
def test_reading_a_file_tensor_by_tensor_holds_one_at_a_time(tmp_path, fill):
    count, size = 5, 16 << 20
    stored = {f"w{i}": storage(str(i), size // 4) for i in range(count)}
    shape = {"shape": (4, size // 16), "strides": (size // 16, 1)}
    weights = mapping(**{key: tensor(value, **shape) for key, value in stored.items()})
    one = np.ones(size // 4, "<f4").tobytes()
    members = [Member(f"a/data/{i}", one) for i in range(count)]
    path = tmp_path / "large.pth"
    pad = Member("a/data/pad", bytes(fill))
    path.write_bytes(archive([Member("a/data.pkl", pickled(weights)), pad, *members]))
    command = [sys.executable, "-c", _STREAM, str(path), str(FIXTURES / "tiny_seg.pth")]
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    total, grew = map(float, done.stdout.split())
    assert total == count and grew < 16 + 8  # MiB


def test_a_dropped_array_closes_its_map_and_its_file(tmp_path):
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    found = open_checkpoint(FIXTURES / "tiny_seg.pth")
    array = found.tensors["backbone.pos_embed"].read()
    assert "tiny_seg.pth" in Path("/proc/self/maps").read_text()
    del array, found
    gc.collect()
    assert "tiny_seg.pth" not in Path("/proc/self/maps").read_text()
    assert len(list(descriptors.iterdir())) == before
