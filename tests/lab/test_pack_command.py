"""The command, from a lab's files to a data folder, and one child out of it again."""

import collections
import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from nkjax import ids
from nkjax.data import images, records
from nkjax.lab import pack, scan
from tests.data_io import drawn
from tests.lab import pack_and_kill
from tests.lab.pack_and_kill import ROOT, SALT, SECRET, content, plant_metadata, rows_of

_spec = importlib.util.spec_from_file_location("pack_script", ROOT / "scripts" / "pack_data.py")
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)


def write_video(path, count=6):
    """Write frames that all differ: a bright square wanders over a dark picture."""
    codec = cv2.VideoWriter_fourcc(*"MJPG")
    video = cv2.VideoWriter(str(path), codec, 10, (96, 64))
    assert video.isOpened()
    for i in range(count):
        frame = np.random.default_rng(i).integers(0, 256, (4, 6, 3), np.uint8)
        video.write(cv2.resize(frame, (96, 64), interpolation=cv2.INTER_NEAREST))
    video.release()


@pytest.fixture(scope="module")
def lab_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab") / "Kinderklinik"
    drawn.write_lab(folder, pictures=20, people=1, subjects=10)
    for path in (folder / "images").iterdir():
        plant_metadata(path)
    with open(folder / "subjects.csv", "a") as file:
        file.write("Anna*,child77,,,,\n")
    (folder / "more").mkdir()
    for i in range(3):
        picture = drawn.picture(np.random.default_rng(100 + i), (96, 64))
        cv2.imwrite(str(folder / "more" / f"Anna_{i}.png"), picture)
    write_video(folder / "Anna.avi")
    return folder


@pytest.fixture
def salt(tmp_path):
    path = tmp_path / "salt.txt"
    path.write_text(SALT.hex())
    return path


def inputs_of(folder, *more):
    return ["--annotations", folder / "labels.json", "--images", folder / "images",
            "--subjects", folder / "subjects.csv", *more]  # fmt: skip


def run(*options) -> int:
    return script.main([str(option) for option in options])


def test_a_lab_is_packed_whole(lab_folder, tmp_path, salt, capfd):
    before, out = content(lab_folder), tmp_path / "out"
    more = ["--unlabelled", lab_folder / "more", lab_folder / "Anna.avi", "--salt", salt]
    assert run(*inputs_of(lab_folder, *more), "--out", out) == 0
    told = capfd.readouterr()
    assert content(lab_folder) == before
    manifest = records.read_manifest(out).content
    splits = manifest["splits"]
    assert sum(splits[s]["pictures"] for s in ("train", "val", "test")) == 20
    assert sum(splits[s]["subjects"] for s in ("train", "val", "test")) == 10
    assert splits["val"]["subjects"] >= 1 and splits["test"]["subjects"] >= 1
    assert splits["unlabelled"]["pictures"] == 3 + 6
    assert f"wrote {out}" in told.out and str(out / "private") in told.out
    assert manifest["salt"] == ids.fingerprint(SALT)
    assert manifest["options"]["shares"] == {"train": 0.8, "val": 0.1, "test": 0.1}
    assert set(manifest["inputs"]) == {"annotations", "subjects"}
    for name, data in content(out).items():
        if not name.startswith("private/"):
            for secret in (SECRET, b"Exif", b"Anna", b"child", b"Kinderklinik", b".jpg", b".avi"):
                assert secret not in data and secret.decode() not in name, (name, secret)
    frames = [row for row in rows_of(out, "unlabelled") if row["frame"] >= 0]
    assert [row["frame"] for row in frames] == list(range(6))
    assert {row["video"] for row in frames} == {frames[0]["video"]} != {""}
    wanted = [frame for _, _, frame in frames_of(lab_folder / "Anna.avi")]
    for row, pixels in zip(frames, wanted, strict=True):
        assert np.abs(images.decode_rgb(row["image"]).astype(int) - pixels).mean() < 3
        assert row["time_s"] == pytest.approx(row["frame"] / 10, abs=0.051)


def frames_of(path):
    """Decode the frames here, not by nkjax."""
    video, i = cv2.VideoCapture(str(path)), 0
    while (read := video.read())[0]:
        yield i, 0, read[1][..., ::-1].astype(int)
        i += 1


def test_the_same_command_gives_the_same_bytes_whatever_the_workers(lab_folder, tmp_path, salt):
    for name, workers in (("a", 1), ("b", 4)):
        more = ["--salt", salt, "--workers", workers, "--unlabelled", lab_folder / "more"]
        assert run(*inputs_of(lab_folder, *more), "--out", tmp_path / name) == 0
    assert content(tmp_path / "a") == content(tmp_path / "b")
    # The salt of the first folder, and another seed.
    again = ["--salt", tmp_path / "a" / "private" / "salt.txt", "--seed", "5"]
    assert run(*inputs_of(lab_folder, *again), "--out", tmp_path / "c") == 0
    mine, other = (json.loads((tmp_path / n / "manifest.json").read_text()) for n in "ac")
    assert mine["salt"] == other["salt"] and mine["options"]["seed"] != other["options"]["seed"]


def test_a_dry_run_says_everything_and_touches_nothing(lab_folder, tmp_path, capfd):
    before = sorted(tmp_path.rglob("*"))
    assert run(*inputs_of(lab_folder), "--out", tmp_path / "out", "--dry_run") == 0
    told = capfd.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert "nothing written" in told and "NK201" in told
    assert re.search(r"pictures +\d+ +\d+ +\d+", told)
    size = sum(path.stat().st_size for path in (lab_folder / "images").iterdir())
    assert re.search(r"\d+ shards of each table, about \d+ MB", told) and size < 1e6


def test_errors_stop_it_until_they_are_allowed(lab_folder, tmp_path, capfd):
    broken = tmp_path / "lab"
    shutil.copytree(lab_folder, broken)
    (broken / "images" / "child3_0003.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert run(*inputs_of(broken), "--out", out) == 2
    told = capfd.readouterr()
    assert "NK101" in told.err and told.err.strip().splitlines()[-1].startswith("error: not packed")
    assert not (out / "manifest.json").exists()
    notes = out / "packing" / "scans.jsonl"
    assert f"{notes} keeps" in told.err and "in the lab" in told.err
    assert notes.stat().st_mode & 0o777 == 0o600 and b"child3_0003" in notes.read_bytes()
    twice = ["--allow_skip", "NK101", "--allow_skip", "nk101"]
    assert run(*inputs_of(broken), "--out", out, *twice) == 0
    manifest = records.read_manifest(out).content
    assert {"code": "NK101", "severity": "error", "count": 1} in manifest["findings"]
    assert manifest["options"]["allow_skip"] == ["NK101"]
    assert sum(split["pictures"] for split in manifest["splits"].values()) == 19


def test_pictures_are_not_looked_at_twice(lab_folder, tmp_path, monkeypatch, capfd):
    out, looked = tmp_path / "out", []
    look = scan.scan_file

    def stopping(path):
        looked.append(path)
        if len(looked) == 15:
            raise KeyboardInterrupt
        return look(path)

    monkeypatch.setattr(scan, "scan_file", stopping)
    assert run(*inputs_of(lab_folder), "--out", out, "--workers", 1) == 1
    assert "goes on" in capfd.readouterr().err
    assert (out / "packing").stat().st_mode & 0o777 == 0o700
    assert run(*inputs_of(lab_folder), "--out", out, "--workers", 1) == 0
    # Those before the 15th were noted; a thread may have gone on to some after it.
    times = collections.Counter(looked)
    assert [times[path] for path in looked[:14]] == [1] * 14 and set(times.values()) <= {1, 2}
    assert not (out / "packing").exists()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_stops_it_in_one_line_and_it_goes_on(lab_folder, tmp_path, sign, salt):
    out = tmp_path / "out"
    command = [sys.executable, ROOT / "scripts" / "pack_data.py", "--out", out, "--salt", salt]
    command += inputs_of(lab_folder)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while not (out / "packing" / "scans.jsonl").exists():
        assert running.poll() is None
        time.sleep(0.002)
    running.send_signal(sign)
    told = running.communicate()[1]
    if running.returncode == 0:
        pytest.skip("it was faster than the signal")
    if sign != signal.SIGKILL:
        assert running.returncode == 1 and "Traceback" not in told
        assert told.strip().splitlines()[-1] == "stopped; the same command goes on where it was"
    assert run(*command[2:]) == 0
    assert run(*inputs_of(lab_folder), "--out", tmp_path / "b", "--salt", salt) == 0
    assert content(out) == content(tmp_path / "b")


def test_a_child_is_purged(lab_folder, tmp_path, salt, capfd):
    out = tmp_path / "out"
    assert run(*inputs_of(lab_folder), "--out", out, "--salt", salt) == 0
    assert run("--out", out, "--purge", "child4") == 0
    assert "removed 2 pictures and 2 people" in capfd.readouterr().out
    pack.verify(out)
    assert run("--out", out, "--purge", "child4") == 0
    assert run("--out", out, "--purge", "child99") == 2
    assert "no picture is of subject 'child99'" in capfd.readouterr().err
    assert run(*inputs_of(lab_folder), "--out", out, "--salt", salt) == 2
    assert "purged" in capfd.readouterr().err


def test_a_purge_is_tried_without_writing(lab_folder, tmp_path, salt, capfd):
    out = tmp_path / "out"
    assert run(*inputs_of(lab_folder), "--out", out, "--salt", salt) == 0
    before = content(out)
    assert run("--out", out, "--purge", "child4", "--dry_run") == 0
    told = capfd.readouterr().out
    assert "would remove 2 pictures and 2 people" in told and "nothing written" in told
    for more in (inputs_of(lab_folder), ["--salt", salt], ["--unlabelled", lab_folder / "more"],
                 ["--seed", 1], ["--allow_skip", "NK101"]):  # fmt: skip
        with pytest.raises(SystemExit) as error:
            run("--out", out, "--purge", "child4", *more)
        assert error.value.code == 2 and "--purge" in capfd.readouterr().err
    assert content(out) == before


def test_the_salt_of_purged_data_does_not_bring_the_child_back(lab_folder, tmp_path, salt, capfd):
    out, again = tmp_path / "out", tmp_path / "again"
    assert run(*inputs_of(lab_folder), "--out", out, "--salt", salt) == 0
    assert run("--out", out, "--purge", "child4") == 0
    capfd.readouterr()
    given = [*inputs_of(lab_folder), "--out", again, "--salt", out / "private" / "salt.txt"]
    for more in ((), ("--dry_run",)):
        assert run(*given, *more) == 2
        last = capfd.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("error: ") and "1 of the subjects" in last and "child4" not in last
    assert not (again / "people").exists()


def test_a_skeleton_has_the_name_of_its_file_not_of_the_category(lab_folder, tmp_path):
    folder = tmp_path / "lab"
    shutil.copytree(lab_folder, folder)
    labels = json.loads((folder / "labels.json").read_text())
    joints = labels["categories"][0]["keypoints"]
    labels["categories"][0] |= {"name": "Anna Muster", "keypoints": ["top", *joints[1:]]}
    (folder / "labels.json").write_text(json.dumps(labels))
    own = {"name": "Toddlers", "keypoints": ["top", *joints[1:]]}
    (folder / "own.json").write_text(json.dumps(own))
    given = {"lab": [], "Toddlers": ["--skeleton", folder / "own.json"]}
    for want, more in (*given.items(), ("lab", ["--skeleton", folder / "labels.json"])):
        out = tmp_path / f"out{len(more)}{want}{'labels' in str(more)}"
        assert run(*inputs_of(folder, *more), "--out", out) == 0
        assert json.loads((out / "skeleton.json").read_text())["name"] == want
        assert not [name for name, data in content(out).items() if b"Anna Muster" in data]


def test_a_full_disk_is_one_line_and_it_goes_on(lab_folder, tmp_path, salt, capfd):
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        assert run(*inputs_of(lab_folder), "--out", out, "--salt", salt) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert "failed: " in last and "File too large" in last and "goes on" in last
    assert run(*inputs_of(lab_folder), "--out", out, "--salt", salt) == 0
    pack.verify(out)


REFUSED = {
    "no inputs": (["--out", "{tmp}/out"], "--annotations"),
    "out in the pictures": (["--out", "{lab}/images/out"], "never written to"),
    "pictures in out": (["--out", "{lab}"], "or around it"),
    "no UTF-8": (["--out", "{tmp}/b\udcffd"], "no UTF-8"),
    "nobody to purge": (["--out", "{lab}", "--purge", ""], "is empty"),
    "purging no UTF-8": (["--out", "{tmp}/b\udcffd", "--purge", "child1"], "no UTF-8"),
    "a bucket": (["--out", "gs://lab/data"], "this machine"),
    "no annotations": (["--annotations", "{tmp}/none.json", "--out", "{tmp}/out"], "none.json"),
    "no pictures": (["--images", "{tmp}/none", "--out", "{tmp}/out"], "none"),
    "no salt": (["--salt", "{lab}/labels.json", "--out", "{tmp}/out"], "64 hex digits"),
    "no skeleton": (["--skeleton", "{lab}/subjects.csv", "--out", "{tmp}/out"], "subjects.csv"),
    "a folder in use": (["--out", "{tmp}"], "in use"),
    "a file": (["--out", "{tmp}/salt.txt"], "is a file"),
    "purging from nowhere": (["--out", "{tmp}/none", "--purge", "child1"], "no such folder"),
    "nothing to purge from": (["--out", "{tmp}", "--purge", "child1"], "manifest.json"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line(lab_folder, tmp_path, salt, capfd, case):
    options, words = REFUSED[case]
    options = [option.format(tmp=tmp_path, lab=lab_folder) for option in options]
    before = content(lab_folder)
    given = [] if case == "no inputs" or "--purge" in options else inputs_of(lab_folder)
    assert run(*given, *options) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and words in last
    assert content(lab_folder) == before


@pytest.mark.parametrize("options", [
    ["--val_share", "0.6", "--test_share", "0.5"], ["--val_share", "-1"], ["--val_share", "x"],
    ["--allow_skip", "NK999"], ["--allow_skip", "NK302"], ["--allow_skip", "NK203"],
    ["--workers", "-2"], ["--exif", "never"],
])  # fmt: skip
def test_bad_options_are_usage(tmp_path, options):
    with pytest.raises(SystemExit) as error:
        run("--out", tmp_path / "out", *options)
    assert error.value.code == 2 and not (tmp_path / "out").exists()


def test_help_says_everything(capfd):
    with pytest.raises(SystemExit):
        run("--help")
    told = capfd.readouterr().out
    assert "site, posture and grasp as the subjects file has them" in told
    for word in ("must not hold names", "private/", "--purge", "--allow_skip", "Exit code",
                 "goes on", "manifest.json"):  # fmt: skip
        assert word in told


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    """One picture a worker: peaks of packing 60 and 240 pictures of 0.8 MB in one shard."""
    code = """
import dataclasses, resource, sys
from pathlib import Path
import numpy as np
from tests.lab.pack_and_kill import picture_of, write_noise, SALT
from nkjax import skeleton
from nkjax.lab import layout, pack
from nkjax.lab.findings import Findings
from nkjax.lab.rows import Lab, Person
folder, count = Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir()
write_noise(folder / "a.jpg", (1000, 800))
picture = picture_of(folder / "a.jpg", "a.jpg")
pictures = tuple(dataclasses.replace(picture, key=f"{i}.jpg") for i in range(count))
people = tuple(Person(i, i, p.key, np.ones((17, 3), np.float32), (0, 0, 9, 9), "labels", 9.0)
               for i, p in enumerate(pictures, 1))
lab = Lab(skeleton.load("coco17"), pictures, people, Findings())
plan = layout.plan(lab, {p.key: "train" for p in pictures}, SALT, {}, {})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pack.write(plan, folder / "out", workers=2)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
assert sum(p.stat().st_size for p in (folder / "out" / "pictures").iterdir()) > count * 6e5
"""
    peaks = []
    for count in (60, 240):
        told = pack_and_kill.run_python("-c", code, tmp_path / str(count), count)
        before, after = map(int, told.split())
        peaks.append((after, after - before))
    # KiB; 180 more pictures are 140 MB.
    assert peaks[1][0] - peaks[0][0] < 30_000, peaks
