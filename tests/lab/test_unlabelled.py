"""Unlabelled folders, lists and videos: what is found, what is left out, whose boxes they get."""

import hashlib
import json

import numpy as np
import pytest

from nkjax.data import coco
from nkjax.lab import sources, unlabelled
from nkjax.lab.findings import Findings
from nkjax.lab.listed import Listing
from nkjax.lab.rows import Inputs, Picture
from tests.data_io.test_images import STORED, UPRIGHT, encode, exif, with_exif
from tests.data_io.test_videos import counting, rotated, write_video
from tests.lab.planted import lock_out


def picture(seed, size_wh=(64, 48)):
    """Blocks of noise: pictures of different seeds are far apart."""
    small = np.random.default_rng(seed).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    rows, columns = (np.arange(n) * k // n for n, k in zip(size_wh[::-1], (8, 9), strict=True))
    return small[rows][:, columns]


def write(folder, *names, first=0):
    """Write different pictures under names; return them by name."""
    content = {}
    for seed, name in enumerate(names, first):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(path.suffix, picture(seed)).tobytes())
        content[name] = path.read_bytes()
    return content


def read(*sources, labelled=(), detections="", category="", min_score=0.3, **options):
    findings = Findings()
    inputs = Inputs(
        unlabelled=tuple(map(str, sources)),
        detections=str(detections) if detections else "",
        person_category=category,
        min_score=min_score,
    )
    listing = Listing(pictures=tuple(labelled))
    pictures, people = unlabelled.read(inputs, listing, findings, **options)
    return pictures, people, findings


def codes(findings):
    return {finding.code: finding.count for finding in findings.listed()}


def write_boxes(path, *entries):
    rows = [{"image_id": i, "category_id": c, "bbox": b, "score": 0.5} for i, c, b in entries]
    path.write_text(json.dumps(rows))
    return path


def test_a_folder_tree_with_pictures_and_a_video(tmp_path):
    content = write(tmp_path / "lab", "b/2.png", "a.jpg", "b/10.jpg", first=10)
    write_video(tmp_path / "lab" / "b" / "clip.avi", [picture(s) for s in range(3)])
    (tmp_path / "lab" / "notes.json").write_text("{}")
    (tmp_path / "lab" / "b" / "._2.png").write_bytes(b"junk")
    before = {p: p.read_bytes() for p in (tmp_path / "lab").rglob("*") if p.is_file()}
    pictures, people, findings = read(tmp_path / "lab", joints=17)
    assert [p.key for p in pictures] == [
        "a.jpg", "b/10.jpg", "b/2.png",
        "b/clip.avi#000000", "b/clip.avi#000001", "b/clip.avi#000002",
    ]  # fmt: skip
    assert [(p.frame, round(p.time_s, 3)) for p in pictures[2:]] == [
        (-1, -1.0), (0, 0.0), (1, 0.08), (2, 0.16),
    ]  # fmt: skip
    assert pictures[0].sha256 == hashlib.sha256(content["a.jpg"]).hexdigest()
    assert all(not p.labelled and p.size_wh == (64, 48) and p.turn == 1 for p in pictures)
    assert [p.id for p in people] == [1, 2, 3, 4, 5, 6]
    assert [p.picture for p in people] == [p.key for p in pictures]
    assert {(p.box_xywh, p.box_source, p.score) for p in people} == {
        ((0.0, 0.0, 64.0, 48.0), "picture", 1.0)
    }
    for person in people:
        assert person.keypoints_k3.shape == (17, 3) and not person.keypoints_k3.any()
        assert person.keypoints_k3.dtype == np.float32 and not person.ignore
    assert codes(findings) == {"NK154": 2}
    assert {p: p.read_bytes() for p in before} == before
    assert read(tmp_path / "lab", workers=3)[0] == pictures
    assert read() [:2] == ([], [])  # fmt: skip


def test_a_list_names_files_relative_to_itself(tmp_path):
    write(tmp_path / "far", "x.jpg", first=1)
    write(tmp_path / "lists", "in/a.jpg", "b.jpg", first=2)
    lines = ["# ours", "", "in/a.jpg\r", "./b.jpg", "in/../b.jpg", "../far/x.jpg", "gone.jpg",
             str(tmp_path / "far" / "x.jpg"), "a\0b.jpg", "in", "b.jpg # no comment"]  # fmt: skip
    path = tmp_path / "lists" / "all.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode() + b"\ncaf\xe9.jpg")
    pictures, _, findings = read(path)
    assert [p.key for p in pictures] == ["b.jpg", "far/x.jpg", "in/a.jpg"]
    assert codes(findings) == {"NK155": 5, "NK146": 2}
    empty = tmp_path / "empty.txt"
    empty.write_text("# nothing\n")
    assert read(empty)[:2] == ([], [])


def test_two_sources_with_one_name(tmp_path):
    write(tmp_path / "mon", "a.jpg", "b.jpg", first=1)
    write(tmp_path / "tue", "a.jpg", first=3)
    write(tmp_path / "more" / "tue", "a.jpg", first=4)
    sources = [tmp_path / "mon", tmp_path / "tue", tmp_path / "more" / "tue"]
    pictures, _, findings = read(*sources)
    assert [p.key for p in pictures] == ["a.jpg", "b.jpg", "tue-2/a.jpg", "tue/a.jpg"]
    assert codes(findings) == {}
    ours = Picture("a.jpg", "elsewhere", (9, 9), 1, "0", 1, image_id=1)
    assert [p.key for p in read(tmp_path / "tue", labelled=[ours])[0]] == ["tue/a.jpg"]
    assert read(tmp_path / "mon" / "b.jpg")[0][0].key == "b.jpg"


def test_labelled_pictures_and_copies_are_left_out(tmp_path):
    content = write(tmp_path / "lab", "a.jpg", "b.jpg", "c.jpg", first=1)
    (tmp_path / "lab" / "a_again.jpg").write_bytes(content["a.jpg"])
    (tmp_path / "lab" / "z_again.jpg").write_bytes(content["c.jpg"])
    sha256 = hashlib.sha256(content["a.jpg"]).hexdigest()
    copy = Picture("x.jpg", "elsewhere", (64, 48), 1, sha256, 1, image_id=1)
    same = Picture("y.jpg", str(tmp_path / "lab" / "b.jpg"), (64, 48), 1, "0", 1, image_id=2)
    pictures, _, findings = read(tmp_path / "lab", labelled=[copy, same])
    assert [p.key for p in pictures] == ["c.jpg"]
    assert codes(findings) == {"NK144": 3, "NK146": 1}


def test_bad_files_are_counted_and_the_rest_goes_on(tmp_path):
    content = write(tmp_path, "good.jpg", first=1)
    (tmp_path / "cut.jpg").write_bytes(content["good.jpg"][:-9])
    (tmp_path / "clip.mp4").write_bytes(b"junk" * 99)
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
    whole = write_video(tmp_path / "a.avi", noise).read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) // 2])
    pictures, _, findings = read(tmp_path)
    assert pictures[-1].key == "good.jpg" and len(pictures) > 5
    assert codes(findings) == {"NK151": 2, "NK153": 1}
    (bad,) = [f for f in findings.listed() if f.code == "NK151"]
    assert bad.examples[0].startswith("cut.jpg (") and "truncated" in bad.examples[0]
    assert bad.examples[1] == "clip.mp4: no video that we know; save it as MP4"
    for source in (tmp_path / "no", tmp_path / "odd.csv"):
        (tmp_path / "odd.csv").write_text("a")
        with pytest.raises(sources.BadUnlabelled, match="check --unlabelled") as caught:
            read(source)
        assert str(caught.value).startswith(f"{source}: ")


def test_exif_and_rotation_flags_are_always_applied(tmp_path):
    for orientation in (3, 6):
        data = with_exif(encode(".png", STORED[orientation]).tobytes(), exif(orientation))
        folder = tmp_path / str(orientation)
        folder.mkdir()
        (folder / "a.png").write_bytes(data)
        (found,), _, _ = read(folder)
        assert (found.turn, found.size_wh) == (orientation, (64, 48))
    wide = np.repeat(UPRIGHT[..., :1], 3, -1).astype(np.uint16) * 257
    write_wide = encode(".png", wide).tobytes()
    (tmp_path / "6" / "b.png").write_bytes(write_wide)
    (tmp_path / "6" / "c.png").write_bytes(encode(".png", picture(5)[..., 0]).tobytes())
    assert codes(read(tmp_path / "6")[2]) == {"NK111": 1, "NK112": 1}
    clip = rotated(write_video(tmp_path / "turned.mp4", counting(2)), 90)
    pictures, people, findings = read(clip)
    assert pictures[0].size_wh == (48, 64) and people[0].box_xywh == (0, 0, 48, 64)
    assert codes(findings)["NK125"] == 1


def test_what_looks_like_the_one_kept_before_is_thinned_out(tmp_path):
    still, moved = picture(1).astype(int), picture(2).astype(int)
    for i, image in enumerate([still, still + 3, still + 6, moved, moved + 3, still + 9], 7):
        data = encode(".png", np.clip(image, 0, 255).astype(np.uint8)).tobytes()
        (tmp_path / f"f{i}.png").write_bytes(data)  # f7 ... f12: f10 stands behind f9
    other = tmp_path / "other"
    other.mkdir()
    (other / "f8.png").write_bytes(encode(".png", (still // 2).astype(np.uint8)).tobytes())
    for i in range(3):  # no contrast: like nothing
        (other / f"g{i}.png").write_bytes(encode(".png", np.full((48, 64, 3), 9 + i)).tobytes())
    pictures, _, findings = read(tmp_path)
    assert [p.key for p in pictures] == [
        "f10.png", "f12.png", "f7.png", "other/f8.png", "other/g0.png", "other/g1.png",
        "other/g2.png",
    ]  # fmt: skip
    assert codes(findings) == {"NK142": 3}
    clip = write_video(tmp_path / "clip.avi", [picture(3)] * 4 + [picture(4)] * 3)
    assert [p.frame for p in read(clip)[0]] == [0, 4]


def test_boxes_of_a_detector(tmp_path):
    write(tmp_path / "lab", "a/007.jpg", "a/b.jpg", "c/b.jpg", "lonely.jpg", "x_3.jpg", first=1)
    write_video(tmp_path / "lab" / "x.avi", [picture(20 + s) for s in range(5)])
    path = write_boxes(
        tmp_path / "boxes.json",
        (7, 1, [1, 2, 30, 40]),
        ("007", 1, [5, 5, 8, 8]),  # the same picture under another name
        ("a/b", 1, [-4, 3, 10, 100]),  # cut
        ("c\\b.jpg", 1, [60, 40, 4, 8]),
        ("b", 1, [1, 1, 9, 9]),  # two pictures are called so
        ("x_3", 1, [2, 2, 9, 9]),  # the picture, not frame 3
        ("x#3", 1, [3, 3, 9, 9]),
        ("x.avi_000004", 1, [4, 4, 9, 9]),
        ("x_9", 1, [4, 4, 9, 9]),  # no such frame
        (12, 1, [4, 4, 9, 9]),  # no such picture
        ("lonely", 1, [64, 4, 9, 9]),  # outside
        ("lonely", 1, [1, 1, 0, 9]),  # no box
    )
    pictures, people, findings = read(tmp_path / "lab", detections=path)
    assert [(p.picture, p.box_xywh) for p in people] == [
        ("a/007.jpg", (1, 2, 30, 40)), ("a/007.jpg", (5, 5, 8, 8)), ("a/b.jpg", (0, 3, 6, 45)),
        ("c/b.jpg", (60, 40, 4, 8)), ("x.avi#000003", (3, 3, 9, 9)),
        ("x.avi#000004", (4, 4, 9, 9)), ("x_3.jpg", (2, 2, 9, 9)),
    ]  # fmt: skip
    assert {(p.box_source, p.score) for p in people} == {("detector", 0.5)}
    assert [p.id for p in people] == list(range(1, 8))
    assert people[0].area == pytest.approx(0.53 * 30 * 40)
    assert [p.key for p in pictures] == list(dict.fromkeys(p.picture for p in people))
    # NK152: lonely.jpg and frames 0 ... 2.
    assert codes(findings) == {"NK242": 5, "NK225": 1, "NK152": 4}


def test_a_box_that_comes_twice_is_one_person(tmp_path):
    write(tmp_path / "lab", "0001.png")
    boxes = [(1, [1, 2, 30, 40], 0.5), ("0001", [1, 2, 30, 40], 0.9), (1, [1, 3, 30, 40], 0.4)]
    rows = [{"image_id": i, "category_id": 1, "bbox": b, "score": s} for i, b, s in boxes]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    _, people, findings = read(tmp_path / "lab", detections=tmp_path / "d.json")
    found = [(person.box_xywh, person.score) for person in people]
    assert found == [((1, 2, 30, 40), 0.9), ((1, 3, 30, 40), 0.4)]
    assert codes(findings) == {"NK242": 1}


def folders_linked(tmp_path):
    """Write lab/ with a loop, a link to lab/real, one to far/, a broken one and one to a file."""
    write(tmp_path / "lab", "real/a.png", first=1)
    write(tmp_path / "far", "b.png", "deep/c.png", first=2)
    for link, target in {"alias": "real", "real/loop": "..", "far": tmp_path / "far",
                         "gone": "nowhere", "gone.png": "nowhere", "up": tmp_path,
                         "z.png": tmp_path / "far" / "b.png"}.items():  # fmt: skip
        (tmp_path / "lab" / link).symlink_to(target)
    return tmp_path / "lab"


def test_links_are_followed_once_and_broken_ones_counted(tmp_path):
    top = folders_linked(tmp_path)
    pictures, _, findings = read(top)
    assert [p.key for p in pictures] == ["far/b.png", "far/deep/c.png", "real/a.png"]
    # NK156: gone, and up, which leads to a folder around; NK151: gone.png; NK146: z.png.
    assert codes(findings) == {"NK156": 2, "NK151": 1, "NK146": 1}


def test_folders_that_cannot_be_opened_are_counted(tmp_path, monkeypatch):
    write(tmp_path / "lab", "a.png", "shut/b.png")
    lock_out(monkeypatch, "shut")
    pictures, _, findings = read(tmp_path / "lab", tmp_path / "lab")
    assert [p.key for p in pictures] == ["a.png"]
    assert codes(findings) == {"NK156": 1, "NK146": 1}
    (shut,) = [f for f in findings.listed() if f.code == "NK156"]
    assert shut.examples == (f"{tmp_path / 'lab' / 'shut'}: Permission denied",)


def test_a_box_counts_in_the_upright_picture(tmp_path):
    data = with_exif(encode(".png", STORED[6]).tobytes(), exif(6))
    (tmp_path / "a.png").write_bytes(data)
    path = write_boxes(tmp_path / "boxes.json", ("a", 1, [50, 2, 20, 60]))
    _, (person,), _ = read(tmp_path / "a.png", detections=path)
    assert person.box_xywh == (50, 2, 14, 46)


def test_boxes_of_several_categories(tmp_path):
    write(tmp_path / "lab", "a.jpg", "b.jpg")
    path = write_boxes(tmp_path / "d.json", ("a", 3, [1, 1, 9, 9]), ("a", 4, [2, 2, 9, 9]),
                       ("b", 4, [1, 1, 9, 9]))  # fmt: skip
    with pytest.raises(coco.BadAnnotations, match="several categories"):
        read(tmp_path / "lab", detections=path)
    pictures, people, findings = read(tmp_path / "lab", detections=path, category="3")
    assert [p.box_xywh for p in people] == [(1, 1, 9, 9)] and len(pictures) == 1
    assert codes(findings) == {"NK244": 2, "NK152": 1}
    # The labels may call the category otherwise where the detector has one only.
    path = write_boxes(tmp_path / "d.json", ("a", 3, [1, 1, 9, 9]))
    assert len(read(tmp_path / "lab", detections=path, category="toddler")[1]) == 1


@pytest.mark.parametrize("content, want", [
    ("[]", {"NK241": 1, "NK152": 1}),
    ('[{"image_id": "a"}, 7, null]', {"NK241": 1, "NK152": 1}),
    ('{"images": []}', "want a list of detections"),
    ("[" * 100_000, "not a JSON file"),
])  # fmt: skip
def test_detections_of_no_use(tmp_path, content, want):
    write(tmp_path / "lab", "a.jpg")
    (tmp_path / "d.json").write_text(content)
    if isinstance(want, dict):
        pictures, people, findings = read(tmp_path / "lab", detections=tmp_path / "d.json")
        assert (pictures, people, codes(findings)) == ([], [], want)
    else:
        with pytest.raises(coco.BadAnnotations, match=want):
            read(tmp_path / "lab", detections=tmp_path / "d.json")


def test_boxes_below_the_score_are_counted_not_used(tmp_path):
    write(tmp_path / "lab", "a.png")
    boxes = [{"image_id": "a", "category_id": 1, "bbox": [1, i, 30, 30], "score": score}
             for i, score in enumerate((0.31, 0.29, 0.3, 0.1))]  # fmt: skip
    (tmp_path / "d.json").write_text(json.dumps(boxes))
    _, people, findings = read(tmp_path / "lab", detections=tmp_path / "d.json")
    assert [person.score for person in people] == [0.31, 0.3]
    assert findings.count("NK246") == 2
    _, people, _ = read(tmp_path / "lab", detections=tmp_path / "d.json", min_score=0.05)
    assert len(people) == 4
