"""Truth in side files: back within its steps, the same bytes, one line where it cannot be read."""

import json
import zipfile

import numpy as np
import pytest

from nkjax.toddlersim import truth
from tests.toddlersim import imagined

SIZE_WH = (80, 64)


@pytest.fixture
def example():
    return imagined.example("adult", "labelled", 3, SIZE_WH, 7)


@pytest.fixture
def lab(tmp_path, example):
    (tmp_path / "truth").mkdir()
    (tmp_path / "simulation.json").write_text('{"domain": "adult"}')
    (tmp_path / "truth" / "people.csv").write_text("file,domain\na.jpg,adult\nb.jpg,toddler\n")
    truth.write(tmp_path, "a.jpg", example)
    return tmp_path


def test_everything_comes_back_within_its_step(lab, example):
    read = truth.read(lab, "a")
    np.testing.assert_allclose(read.depth_hw, example.maps.depth_hw, atol=0.0001 + 1e-6)
    np.testing.assert_allclose(np.linalg.norm(read.normals_hw3, axis=2), 1, atol=1e-6)
    # Half a step on each axis, and as much again for the length.
    apart = np.linalg.norm(read.normals_hw3 - example.maps.normals_hw3, axis=2)
    assert apart.max() < 3**0.5 * 0.5 / 127 * 1.1 and apart.max() > 1e-3
    np.testing.assert_array_equal(read.parts_hw, example.maps.parts_hw)
    np.testing.assert_array_equal(read.people_hw, example.maps.people_hw)
    np.testing.assert_array_equal(read.joints_k3, example.joints_k3.astype(np.float32))
    np.testing.assert_allclose(read.ways_23, example.ways_23, atol=1e-7)
    assert {a.dtype.name for a in read[:2]} == {"float32"} and read.parts_hw.dtype == np.uint8
    # The matrix brings joints of the camera frame to the labelled pixels.
    flat = example.joints_k3 @ read.camera_33.T
    seen = example.keypoints_k3[:, 2] > 0
    pixels = (flat[:, :2] / flat[:, 2:])[seen]
    np.testing.assert_allclose(pixels, example.keypoints_k3[seen, :2], atol=1e-4)


def test_depth_that_16_bits_do_not_hold_is_none(lab, example):
    depth = example.maps.depth_hw.copy()
    depth[0, :6] = np.inf, np.nan, -1, 13.2, 0, 13.1
    normals = example.maps.normals_hw3.copy()
    normals[0, 0] = 0
    maps = example.maps._replace(depth_hw=depth, normals_hw3=normals)
    truth.write(lab, "b", example._replace(maps=maps))
    read = truth.read(lab, "b.jpg")
    np.testing.assert_allclose(read.depth_hw[0, :6], [0, 0, 0, 0, 0, 13.1], atol=1e-4)
    np.testing.assert_array_equal(read.normals_hw3[0, 0], 0)


def test_same_bytes_whatever_the_day(lab, example, monkeypatch):
    first = (lab / "truth" / "a.npz").read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    truth.write(lab, "c", example)
    assert (lab / "truth" / "c.npz").read_bytes() == first
    # What any numpy reads.
    with np.load(lab / "truth" / "a.npz", allow_pickle=False) as arrays:
        assert arrays["depth_hw"].dtype == np.uint16 and arrays["normals_3hw"].dtype == np.int8


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(bytes(data))


def text(path):
    path.write_text("no zip")


def pickled(path):
    np.savez(path, depth_hw=np.array([{}], object))


def half(path):
    with zipfile.ZipFile(path) as file:
        one = file.read("depth_hw.npy")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("depth_hw.npy", one)


def missing(path):
    path.unlink()


@pytest.mark.parametrize("damage", [cut, flipped, text, pickled, half, missing])
def test_missing_or_damaged_is_one_line(lab, damage):
    damage(lab / "truth" / "a.npz")
    with pytest.raises(truth.BadTruth, match="simulate the folder again") as error:
        truth.read(lab, "a")
    assert "\n" not in str(error.value) and "a.npz" in str(error.value)


def changed(path, **arrays):
    with np.load(path) as known:
        arrays = dict(known) | arrays
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize("arrays", [
    {"depth_hw": np.zeros((64, 81), np.uint16)}, {"parts_hw": np.zeros((64, 79), np.uint8)},
    {"people_hw": np.zeros((80, 64), np.uint8)}, {"normals_3hw": np.zeros((3, 63, 80), np.int8)},
    {"normals_3hw": np.zeros((2, 64, 80), np.int8)}, {"joints_k3": np.zeros((65, 2), np.float32)},
    {"joints_k3": np.float32(1)}, {"camera_33": np.eye(4, dtype=np.float32)},
    {"ways_23": np.zeros((3, 3), np.float32)}, {"parts_hw": np.full((64, 80), 28, np.uint8)},
    {"parts_hw": np.zeros((64, 80))}, {"joints_k3": np.full((65, 3), np.nan, np.float32)},
    {"joints_k3": np.full((65, 3), "x")}, {"ways_23": None},
])  # fmt: skip
def test_arrays_that_do_not_fit_each_other_are_one_line(lab, arrays):
    changed(lab / "truth" / "a.npz")
    truth.read(lab, "a")
    changed(lab / "truth" / "a.npz", **arrays)
    with pytest.raises(truth.BadTruth, match="simulate the folder again") as error:
        truth.read(lab, "a")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../a", "x/../a.jpg", "/a", "..\\a", "", "a\0"])
def test_a_name_is_not_a_path(lab, example, name):
    (lab / "truth" / "x").mkdir()
    (lab / "a.npz").write_bytes((lab / "truth" / "a.npz").read_bytes())
    for act in (lambda: truth.read(lab, name), lambda: truth.write(lab, name, example)):
        with pytest.raises(truth.BadTruth, match="is not the name of a picture"):
            act()


def test_only_adults_may_be_learned_from(lab):
    wanted = truth.read(lab, "a")
    for a, b in zip(truth.read_adult(lab, "a.jpg"), wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    # A toddler of whom the list says so, whatever the settings say; somebody who is not listed.
    for name in "bc":
        (lab / "truth" / f"{name}.npz").write_bytes((lab / "truth" / "a.npz").read_bytes())
        with pytest.raises(truth.BadTruth, match="only adults' truth"):
            truth.read_adult(lab, name)
    for domain in ("toddler", "atypical", None):
        (lab / "simulation.json").write_text(json.dumps({"domain": domain}))
        with pytest.raises(truth.BadTruth, match="only adults' truth"):
            truth.read_adult(lab, "a")
    for content in ("", "[]", "{}"):
        (lab / "simulation.json").write_text(content)
        with pytest.raises(truth.BadTruth, match="not a whole simulated folder"):
            truth.read_adult(lab, "a")
    (lab / "simulation.json").unlink()
    with pytest.raises(truth.BadTruth, match="not a whole simulated folder"):
        truth.read_adult(lab, "a")
    truth.read(lab, "a")
    (lab / "simulation.json").write_text('{"domain": "adult"}')
    truth.read_adult(lab, "a")
    (lab / "truth" / "people.csv").write_text("file,domain\na.jpg,toddler\n")
    with pytest.raises(truth.BadTruth, match="only adults' truth"):
        truth.read_adult(lab, "a")
    for content in (b"", b"file\na.jpg\n", b"\xff"):
        (lab / "truth" / "people.csv").write_bytes(content)
        with pytest.raises(truth.BadTruth):
            truth.read_adult(lab, "a")
    (lab / "truth" / "people.csv").unlink()
    with pytest.raises(truth.BadTruth, match="people.csv: not there or damaged"):
        truth.read_adult(lab, "a")


def test_a_line_about_a_picture(example):
    labels = example.labels._replace(age_months=17.26)
    assert truth.row("a.jpg", labels) == [
        "a.jpg", "adult", "labelled", "al001", "walking", "pincer", "17.3",
    ]  # fmt: skip
    assert truth.row("a.jpg", labels._replace(age_months=float("nan")))[-1] == ""
    assert len(truth.COLUMNS) == 7
