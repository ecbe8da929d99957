"""Every hostile file is refused in one line, quickly, in little memory, and nothing in it runs."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from convert_weights.readers import BadFile, open_checkpoint
from tests.convert_weights import hostile
from tests.convert_weights.crafting import (
    Member,
    archive,
    checkpoint,
    mapping,
    module,
    name,
    pickled,
    pth,
    storage,
    tensor,
)
from tests.convert_weights.hostile_pickles import payloads

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "data" / "fixtures"
WARM_UP = ("tiny_pose.pth", "tiny_depth_bfloat16.pt2", "tiny_depth_bfloat16_legacy_layout.pt2")


def _tripwire(mode: str, folder: Path) -> dict[str, dict]:
    command = [sys.executable, "-m", "tests.convert_weights.tripwire", mode, str(folder)]
    command += [str(FIXTURES / name) for name in WARM_UP] if mode == "read" else []
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {row["file"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def crafted(tmp_path_factory) -> tuple[list[Path], dict[str, dict]]:
    folder = tmp_path_factory.mktemp("hostile")
    paths = hostile.craft_all(folder)
    return paths, _tripwire("read", folder)


def test_every_file_is_refused_in_one_line_that_names_it(crafted):
    paths, seen = crafted
    assert len(paths) == len(seen) > 180
    for path in paths:
        said = seen[path.name]
        assert said["kind"] == "BadFile", (path.name, said)
        assert said["said"].startswith(f"{path}: ") and "; " in said["said"]
        assert said["said"].isprintable() and len(said["said"]) < len(str(path)) + 400


def test_nothing_in_them_runs(crafted):
    paths, seen = crafted
    assert {key: row["events"] for key, row in seen.items() if row["events"]} == {}
    assert not (paths[0].parent / hostile.MARKER).exists()


def test_they_cost_little_time_and_memory(crafted):
    _, seen = crafted
    assert max(row["seconds"] for row in seen.values()) < 2
    assert sum(row["grew_mib"] for row in seen.values()) < 100


def test_the_tripwire_sees_every_payload_when_it_is_really_unpickled(tmp_path):
    seen = _tripwire("control", tmp_path)
    assert set(seen) == set(payloads(tmp_path))
    for key, row in seen.items():
        assert row["ran"], key
        assert any(not event.startswith("pickle.find_class") for event in row["events"]), key


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("payload_os_system.pth", "asks Python for os.system"),
        ("payload_inst.pth", "opcode INST"),
        ("pickle_getattr_dunder.pth", "getattr other than a method"),
        ("pickle_state_of_a_class.pth", "sets the state of a Global"),
        ("pickle_numpy_objects.pth", "numpy array of O8"),
        ("bomb_huge_storage.pth", "is 24 bytes, but the file says that it holds 1,152,921"),
        ("bomb_zip_bomb.pth", "would unpack to 209,715,200 bytes"),
        ("tensor_stride_negative.pth", "negative"),
        ("tensor_pickle_cut_short.pth", "is no whole pickle"),
        ("zip_members_overlap.pth", "overlap"),
        ("zip_local_size_differs.pth", "two ways that disagree"),
        ("zip_wrong_checksum.pth", "does not match its checksum"),
        ("zip_cut_in_half.pth", "is cut short"),
        ("zip_encrypted.pth", "has an encrypted member"),
        ("zip_compressed_weights.pth", "has compressed its member a/data/0"),
        ("zip_members_nested.pth", "overlap at a/data/1"),
        ("zip_parent_folder.pth", "'../../evil', which points outside"),
        ("layout_old_export_payload.pth", "serialized_state_dict.pt/archive/data.pkl asks"),
        ("layout_export_parent_folder.pth", "'../x', which points outside"),
        ("layout_export_pickle.pth", "pickled object"),
        ("safetensors_overlap.pth", "overlap at b"),
        ("safetensors_hole.pth", "leave a hole at b"),
        ("safetensors_key_twice.pth", "twice"),
        ("bomb_header_length.pth", "header of 1,152,921,504,606,846,976 bytes"),
        ("other_git_lfs_pointer.pth", "run git lfs pull"),
        ("other_web_page.pth", "is a web page"),
        ("other_empty.pth", "is empty"),
        ("other_legacy_torch.pth", "before 1.6"),
        ("other_onnx.pth", "ONNX"),
        ("other_gzip.pth", "is compressed; unpack it"),
    ],
)
def test_the_line_tells_what_is_wrong(crafted, file, says):
    assert says in crafted[1][file]["said"]


def test_paths_that_hold_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, says in (
        (tmp_path, "is a folder"),
        (tmp_path / "absent.pth", "does not exist"),
        (tmp_path / "pipe", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        ("nul\0byte", "cannot be opened"),
        (tmp_path / "a\nb\x1b[2J", r"a\nb\x1b[2J: does not exist"),
    ):
        with pytest.raises(BadFile) as caught:
            open_checkpoint(path)
        assert says in str(caught.value) and str(caught.value).isprintable()


def test_a_file_of_another_model_is_readable(tmp_path):
    (tmp_path / "resnet.pth").write_bytes(hostile.another_model())
    found = open_checkpoint(tmp_path / "resnet.pth")
    assert found.layout == "pth flat" and "layer1.0.conv1.weight" in found.tensors


def test_odd_but_harmless_files_are_read(tmp_path):
    history = name("mmengine.logging.history_buffer", "HistoryBuffer")
    shared = b"](" + b"N" * 10 + b"e" + b"q\x01"
    for _ in range(12):
        shared += b"0](" + b"h\x01" * 10 + b"eq\x01"
    run = payloads(tmp_path / hostile.MARKER)["os_system"]
    values = {
        "memo index": checkpoint(b"Nr\xff\xff\xff\x7f"),
        "odd escape": checkpoint(b"S'\\l'\n"),
        "meta is a cycle": checkpoint(mapping(cycle=b"]q\x00h\x00a", epoch=b"K\x03")),
        "meta shares its parts": checkpoint(mapping(shared=shared, epoch=b"K\x03")),
        "meta has objects": checkpoint(mapping(a=history + b")\x81}b", epoch=b"K\x03")),
    }
    for key, value in values.items():
        (tmp_path / key).write_bytes(pth(value))
        found = open_checkpoint(tmp_path / key)
        assert found.tensors["weight"].read().shape == (2, 3)
        if "meta" in key:
            assert found.meta == {"epoch": 3}
            assert [line.startswith("meta.") for line in found.dropped] == [True]
    objects = mapping(**{f"x{i}": history + b")\x81" for i in range(1000)})
    (tmp_path / "objects").write_bytes(pth(checkpoint(objects)))
    found = open_checkpoint(tmp_path / "objects")
    assert len(found.dropped) == 201 and found.dropped[-1] == "and 800 more"
    # What is not weights is not even looked at: the constants of a TorchScript file.
    script = Member("archive/constants.pkl", pickled(run))
    (tmp_path / "script").write_bytes(pth(module(weight=tensor()), script))
    found = open_checkpoint(tmp_path / "script")
    assert list(found.tensors) == ["weight"] and found.dropped == ["constants.pkl"]
    assert not (tmp_path / hostile.MARKER).exists()


def test_shared_storages_are_read_from_one_place(tmp_path):
    data = bytes(range(24))
    weights = mapping(
        a=tensor(), b=tensor(shape=(3, 2), strides=(1, 3)), c=tensor(shape=(), strides=(), offset=5)
    )
    members = [Member("m/data.pkl", pickled(weights)), Member("m/data/0", data)]
    (tmp_path / "shared").write_bytes(archive(members))
    found = open_checkpoint(tmp_path / "shared").tensors
    assert (found["b"].read() == found["a"].read().T).all()
    assert found["c"].read() == found["a"].read()[1, 2]


@pytest.mark.parametrize("fixture", sorted(p.name for p in FIXTURES.glob("*.p*")))
def test_damaged_copies_raise_badfile_or_read(fixture, tmp_path):
    """Flip bytes where the structure lies: whatever comes, it is an answer and not a traceback."""
    good = (FIXTURES / fixture).read_bytes()
    rng = random.Random(fixture)
    marks = [good.find(b"\x80\x02"), good.rfind(b"PK\1\2"), len(good) - 60]
    refused = 0
    for _ in range(60):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            at = rng.choice(marks) + rng.randint(0, 3000)
            bad[at % len(bad)] = rng.randrange(256)
        (tmp_path / "damaged").write_bytes(bad[: rng.choice((len(bad), len(bad), at + 1))])
        try:
            for found in open_checkpoint(tmp_path / "damaged").tensors.values():
                found.read()
        except BadFile as problem:
            refused += 1
            assert str(problem).isprintable()
    assert refused > 30


def test_pickles_whose_checksum_is_right_but_whose_bytes_are_not(tmp_path):
    """The same with the checksum mended, so that the damage reaches the pickle machine."""
    rng = random.Random(0)
    value = pickled(checkpoint(mapping(a=b"K\x01"), optimizer=mapping(x=tensor(storage()))))
    refused = 0
    for _ in range(1500):
        bad = bytearray(value)
        for _ in range(rng.randint(1, 4)):
            bad[rng.randrange(2, len(bad))] = rng.randrange(256)
        members = [Member("a/data.pkl", bytes(bad)), Member("a/data/0", bytes(24))]
        (tmp_path / "damaged").write_bytes(archive(members))
        try:
            open_checkpoint(tmp_path / "damaged")
        except BadFile as problem:
            refused += 1
            assert str(problem).isprintable()
    assert refused > 1000
