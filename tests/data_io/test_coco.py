"""COCO files: what is used, what is counted, what is refused, and whose boxes they are."""

import json

import pytest

from nkjax.data import coco
from nkjax.data.coco import BadAnnotations, Box, Image

GOOD = {"image_id": 785, "category_id": 1, "bbox": [10, 20.5, 30, 40], "score": 0.75}


@pytest.fixture
def write(tmp_path):
    def write(content, name="boxes.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def refusal(function, *args):
    with pytest.raises(BadAnnotations) as error:
        function(*args)
    message = str(error.value)
    assert "\n" not in message and len(message) < 700
    return message


def test_boxes_keep_their_order_and_their_picture(write):
    other = GOOD | {"image_id": "a", "score": 0.1}
    second = GOOD | {"bbox": [1, 2, 3, 4], "score": 1}
    found = coco.read_detections(write([GOOD, other, second]))
    assert found.boxes == {
        785: (Box((10, 20.5, 30, 40), 0.75), Box((1, 2, 3, 4), 1.0)),
        "a": (Box((10, 20.5, 30, 40), 0.1),),
    }
    assert found.person_category == 1 and found.skipped == {}


def test_no_detection_at_all_is_a_legal_file(write):
    found = coco.read_detections(write([]))
    assert found.boxes == {} and found.person_category is None


@pytest.mark.parametrize("change, reason", [
    ({"bbox": [1, 2, float("nan"), 4]}, "finite numbers"),
    ({"bbox": [1, 2, float("inf"), 4]}, "finite numbers"),
    ({"bbox": [1, 2, 10**400, 4]}, "finite numbers"),
    ({"bbox": [1, 2, "3", 4]}, "finite numbers"),
    ({"bbox": [1, 2, True, 4]}, "finite numbers"),
    ({"bbox": [1, 2, 3]}, "finite numbers"),
    ({"bbox": {"x": 1}}, "finite numbers"),
    ({"bbox": None}, "finite numbers"),
    ({"bbox": [1, 2, 0, 4]}, "less than 1 px"),
    ({"bbox": [1, 2, 3, -4]}, "less than 1 px"),
    ({"bbox": [1, 2, 3, 1e7]}, "beyond"),
    ({"bbox": [-1e300, 2, 3, 4]}, "finite numbers"),
    ({"score": None}, "no finite score"),
    ({"score": float("nan")}, "no finite score"),
    ({"score": "0.9"}, "no finite score"),
    ({"image_id": None}, "no image_id"),
    ({"image_id": 1.5}, "no image_id"),
    ({"image_id": ""}, "no image_id"),
    ({"image_id": [1]}, "no image_id"),
    ({"category_id": None}, "no category_id"),
    ({"category_id": {}}, "no category_id"),
])  # fmt: skip
def test_unusable_entries_are_counted_by_reason(write, change, reason):
    found = coco.read_detections(write([GOOD, GOOD | change, GOOD | change]))
    assert list(found.boxes.values()) == [(Box((10, 20.5, 30, 40), 0.75),)]
    ((counted, number),) = found.skipped.items()
    assert reason in counted and number == 2


@pytest.mark.parametrize("content, words", [
    ("", "not a JSON file"),
    ("[" * 100_000, "not a JSON file"),
    ("[1" + "0" * 5000 + "]", "not a JSON file"),
    ("\x00\x01", "not a JSON file"),
    ({"images": [], "annotations": []}, "an annotation file is not a detections file"),
    ("null", "want a list"),
    ("3", "want a list"),
    ([1, [], None], "3 with no object"),
    ([GOOD | {"bbox": []}], "none of its 1 entries"),
])  # fmt: skip
def test_another_file_is_refused_in_one_line(write, content, words):
    path = write(content)
    message = refusal(coco.read_detections, path)
    assert words in message and str(path) in message


def test_a_file_that_does_not_open_is_refused(tmp_path, write):
    assert "cannot be opened" in refusal(coco.read_detections, tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'["\xe9"]')
    assert "not a JSON file" in refusal(coco.read_detections, tmp_path / "latin.json")


def test_several_categories_need_a_choice(write):
    dog = GOOD | {"category_id": 18}
    path = write([GOOD, dog, dog])
    message = refusal(coco.read_detections, path)
    assert "--person_category" in message and "18 (2 boxes)" in message and "1 (1 boxes)" in message
    assert "no category '3'" in refusal(coco.read_detections, path, "3")
    found = coco.read_detections(path, "18")
    assert [box.person for box in found.boxes[785]] == [False, True, True]
    assert found.person_category == 18


def test_one_category_is_people_whatever_its_number(write):
    found = coco.read_detections(write([GOOD | {"category_id": 0}]))
    assert found.person_category == 0 and found.boxes[785][0].person


def test_images_are_read(write):
    entries = [
        {"id": 3, "file_name": "a.jpg", "width": 640, "height": 480},
        {"id": "x", "file_name": "b.jpg", "height": 480},
    ]
    assert coco.read_images(write({"images": entries})) == (
        Image(3, "a.jpg", (640, 480)),
        Image("x", "b.jpg", None),
    )


@pytest.mark.parametrize("content, words", [
    ([GOOD], "no list of images"),
    ({"images": {}}, "no list of images"),
    ({"images": []}, "no list of images"),
    ({"images": [3]}, "images[0] lacks"),
    ({"images": [{"id": 3}]}, "images[0] lacks"),
    ({"images": [{"id": True, "file_name": "a.jpg"}]}, "images[0] lacks"),
    ({"images": [{"id": 3, "file_name": "a"}, {"id": 3, "file_name": "b"}]}, "have id 3"),
])  # fmt: skip
def test_bad_images_are_refused_in_one_line(write, content, words):
    assert words in refusal(coco.read_images, write(content))


def matched(names, *file_names):
    images = [Image(i, name, None) for i, name in enumerate(file_names)]
    found = coco.match_by_file_name(names, images, "ann.json")
    return {name: image.id for name, image in found.items()}


def test_pictures_are_found_by_path_or_by_unambiguous_name():
    assert matched(["a.jpg", "sub/b.jpg", "c.jpg"], "./a.jpg", "b.jpg") == {
        "a.jpg": 0,
        "sub/b.jpg": 1,
    }
    assert matched(["b.jpg"], "val2017/b.jpg") == {"b.jpg": 0}
    assert matched(["sub/b.jpg"], "sub\\b.jpg") == {"sub/b.jpg": 0}
    # An exact path wins over the same name elsewhere.
    assert matched(["b.jpg", "sub/b.jpg"], "sub/b.jpg", "b.jpg") == {"sub/b.jpg": 0, "b.jpg": 1}


def test_ambiguous_file_names_are_refused():
    assert "fits 2 pictures" in refusal(matched, ["x/b.jpg", "y/b.jpg"], "b.jpg")
    assert "fit one picture" in refusal(matched, ["b.jpg"], "x/b.jpg", "y/b.jpg")


def test_pictures_are_found_by_their_number_or_stem():
    names = ["000000000785.jpg", "sub/kid.tar.png", "-3.jpg", "²5.jpg"]
    assert coco.match_by_stem(names, [785], "d.json") == {"000000000785.jpg": 785}
    assert coco.match_by_stem(names, ["785", 9], "d.json") == {"000000000785.jpg": "785"}
    found = coco.match_by_stem(names, ["kid.tar", -3, "²5"], "d.json")
    assert found == {"sub/kid.tar.png": "kid.tar", "-3.jpg": -3, "²5.jpg": "²5"}


def test_ambiguous_stems_are_refused():
    match = coco.match_by_stem
    assert "fits 2 pictures" in refusal(match, ["7.jpg", "sub/007.png"], [7], "d.json")
    assert "another fits too" in refusal(match, ["7.jpg"], [7, "07"], "d.json")
    # Pictures that nobody asks for may share a stem.
    assert match(["7.jpg", "7.png", "8.png"], [8], "d.json") == {"8.png": 8}
