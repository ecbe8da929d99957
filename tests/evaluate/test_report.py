"""The page: whole, self-contained, escaped, honest about what is not known; charts; faces."""

import base64
import html.parser
import re

import cv2
import numpy as np
import pytest

from nkjax import skeleton
from nkjax.data import records
from nkjax.evaluate import cases, curves, draw, report, scores
from nkjax.evaluate.cases import Case
from nkjax.evaluate.report import Charts
from nkjax.evaluate.scores import Found
from tests.data_io import drawn, packed

COCO17, NAN = skeleton.load("coco17"), float("nan")
VOID = {"meta", "img", "br"}
NASTY = "<script>alert('x')</script> & \"co\""


class Checked(html.parser.HTMLParser):
    """Follows the tags of a page; `links` is all it would fetch."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.links, self.seen, self.words = [], [], set(), ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def found(count=4, skeleton=COCO17):
    joints = len(skeleton.keypoints)
    rng = np.random.default_rng(0)
    truth = rng.uniform(10, 90, (count, joints, 2))
    visible = rng.choice(3, (count, joints), p=[0.2, 0.3, 0.5])
    return Found(
        truth + rng.normal(0, 9, truth.shape), np.ones((count, joints)), truth, visible,
        np.tile([0.0, 0, 60, 100], (count, 1)), np.ones(count), np.full(count, 3e3),
        tuple({"person_id": f"p{i}", "picture_id": f"q{i}", "subject": f"s{i % 2}",
               "posture": NASTY if i else "", "grasp": "", "age_months": NAN}
              for i in range(count)), np.ones(count),
    )  # fmt: skip


def document(mine, **changes):
    plain = {
        "network": f"/lab/{NASTY.replace('/', '')}", "split": "test", "state": {}, "subjects": 2,
        "boxes": "given", "flip_test": True, "unread": 0, "detector": {}, "people": 4,
        "metrics": scores.measure(mine, COCO17), "notes": [NASTY], "licence": NASTY,
        "intervals": {"pck_box@0.05": [None, None], "auc_box": [0.25, 0.5]},
        "oks": {"AP": 0.125, "AP .5": None}, "normalisers": {"box": "side"}, "run_id": "r",
        "started": "now", "compute": "float32", "weights": {"spec_sha256": "ab"},
        "data": {"sha256": "cd", "licence": "", "joints": 17, "skeleton": "coco17"},
        "device": {"kind": "cpu", "count": 1}, "versions": {"jax": "1"},
    }  # fmt: skip
    return plain | changes


def page(mine, charts=None, worst=(), drawn=(), **changes):
    charts = charts or Charts(None, None)
    return report.page(document(mine, **changes), scores.tables(mine, COCO17), charts, worst, drawn)


def test_the_page_is_well_formed_and_fetches_nothing():
    mine = found()
    history = [{"step": s, "train/loss": 1 / s, "val/pck_torso@0.1": 0.1 * s} for s in (1, 2, 3)]
    charts = Charts(curves.training(history, 2), curves.pck(mine, COCO17))
    text = page(mine, charts, [Case(b"jpeg", NASTY)], [Case(b"jpeg", "plain")])
    checked = Checked(text)
    assert checked.open == [] and {"script", "link", "iframe", "object"}.isdisjoint(checked.seen)
    assert len(checked.links) == 4 and all(link.startswith("data:") for link in checked.links)
    assert not re.search(r"url\(|@import|https?://", text)
    # Whatever stands in data and names is text, and says the same.
    assert checked.words.count(NASTY) >= 4 and "<script" not in text
    for link in checked.links[:2]:
        svg = base64.b64decode(link.partition("base64,")[2]).decode()
        assert svg.startswith("<svg") and not re.search(r"(href|src)=.https?:|<script|@import", svg)


def test_figures_are_shown_as_they_are_and_unknown_ones_as_a_dash():
    mine = found()
    words = Checked(page(mine)).words
    metrics = scores.measure(mine, COCO17)
    assert f"PCK@.05, box{100 * metrics['pck_box@0.05']:.1f}{report.DASH}" in words
    assert "AUC, box" in words and "25.0 to 50.0" in words and "OKS AP12.5AP .5: –" in words
    rows = scores.tables(mine, COCO17)["posture"]
    assert f"{NASTY}{rows[0]['n']}3" in words and f"not known{rows[1]['n']}1" in words
    nobody = Found(*(x[:0] for x in mine))
    empty = page(nobody, oks={})
    assert Checked(empty).open == [] and "nan" not in Checked(empty).words.lower().split()
    assert "COCO's figures" not in Checked(empty).words


def test_the_sentence_says_what_was_evaluated():
    mine = found()
    state = {"state": "best", "step": 1200}
    words = Checked(page(mine, state=state, boxes="detected", flip_test=False, unread=3)).words
    joints = scores.measure(mine, COCO17)["joints"]
    assert (
        f", best state, step 1,200, looked for {joints} labelled joints of 4 people of 2 children "
        "in a detector's boxes, without flip test. 3 people could not be read; they do not count."
    ) in words
    assert "interval over children." in words
    assert "interval over people." in Checked(page(mine, subjects=0)).words


def test_the_curve_of_pck_passes_through_the_figures():
    mine = found(40)
    figures = scores.measure(mine, COCO17)
    shares, within = curves.pck_lines(mine, COCO17)["all joints"]
    for share in scores.SHARES:
        at = np.argmin(np.abs(shares - share))
        assert shares[at] == pytest.approx(share)
        assert within[at] == pytest.approx(figures[f"pck_box@{share}"])
    by_part = {row["visible"]: row for row in scores.tables(mine, COCO17)["visible"]}
    for part in ("visible", "occluded"):
        shares, within = curves.pck_lines(mine, COCO17)[part]
        assert within[40] == pytest.approx(by_part[part]["pck_box@0.1"])
    assert "hands" not in curves.pck_lines(mine, COCO17)
    assert curves.pck(Found(*(x[:0] for x in mine)), COCO17) is None


def test_history_is_read_past_a_torn_line(tmp_path):
    assert curves.read_history(tmp_path) == [] and curves.training([], 0) is None
    lines = ['{"step": 1, "train/loss": 2.0}', '{"step": 2, "train/loss": "nan"}', '{"step": 3, "t']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    history = curves.read_history(tmp_path)
    assert len(history) == 2 and curves.series(history, "train/loss").tolist() == [[1, 2]]
    values = np.arange(200.0)
    assert curves.smoothed(values)[[0, 100, 199]].tolist() == [2.0, 100.0, 197.0]


def test_faces_are_masked_before_anything_is_drawn(tmp_path):
    """A face that is painted magenta in the packed picture is so in no cell."""
    rng = np.random.default_rng(4)
    size = (200, 260)
    joints = drawn.person(rng, size)
    joints[:, 2] = 2
    box = drawn.box_around(joints, size)
    picture = np.full((size[1], size[0], 3), 200, np.uint8)
    middle = tuple(int(v) for v in joints[:5, :2].mean(0))
    cv2.circle(picture, middle, 8, (255, 0, 255), cv2.FILLED)
    rows = [(packed.person_row(joints, box), packed.picture_row(packed.jpeg(picture), size))]
    manifest = packed.write(tmp_path / "data", {"test": rows}, shards=1)
    rows = records.Rows(manifest, "test")
    person = rows.person(0)
    # What is predicted lies far off: it must not decide where the mask goes.
    mine = Found(
        np.full((1, 17, 2), 30.0), np.full((1, 17), 0.1), joints[None, :, :2], joints[None, :, 2],
        np.array([box]), np.ones(1), np.ones(1), (person,), np.ones(1),
    )  # fmt: skip
    (case,) = cases.draw_all(rows, mine, [0], COCO17)
    cell = cv2.imdecode(np.frombuffer(case.jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    assert cell.shape == (320, 484, 3)
    painted = np.minimum(cell[..., 0], cell[..., 2]) - cell[..., 1] > 100
    grey = np.abs(cell - draw.MASK_RGB).max(-1) < 12
    for half in (np.s_[:, :240], np.s_[:, 244:]):
        assert not painted[half].any() and grey[half].sum() > 500
    # Left the truth, right the prediction: each on a picture of its own.
    assert np.abs(cell[:, :240] - cell[:, 244:]).max(-1).mean() > 1
    hip = cases.affine.transform_points(
        cases.affine.udp_matrix(
            *cases.crops.center_scale(box, 240 / 320, 1.25), 0.0, (240, 320)
        ), joints[11:12, :2],
    )[0].round().astype(int)  # fmt: skip
    near = np.s_[hip[1] - 1 : hip[1] + 2, hip[0] - 1 : hip[0] + 2]
    orange = np.array(draw.SIDE_RGB["left"])
    assert np.abs(cell[:, :240][near] - orange).max(-1).min() < 60
    assert np.abs(cell[:, 244:][near] - orange).max(-1).min() > 60
    assert case.caption.endswith(f"Person {person['person_id']}") and "17 joints" in case.caption


def test_worst_cases_come_first_and_random_ones_are_others():
    mine = found(40)
    worst, drawn = cases.choose(mine, 0)
    assert worst.tolist() == scores.worst(mine, 8).tolist() and len(drawn) == 8
    assert not set(worst) & set(drawn)
    assert cases.choose(mine, 0)[1].tolist() == drawn.tolist() != cases.choose(mine, 1)[1].tolist()
