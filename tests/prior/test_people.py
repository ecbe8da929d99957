"""People as arrays: who is read, what is not labelled, who calibrates."""

from types import SimpleNamespace

import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.prior import people
from tests.data_io import packed

COCO17 = skeletons.load("coco17")


def labelled(seed=0, missing=(3, 16)):
    """Return keypoints (17, 3), some of them occluded, some not labelled: (0, 0, 0)."""
    rng = np.random.default_rng(seed)
    keypoints = np.concatenate([rng.uniform(5, 60, (17, 2)), rng.integers(1, 3, (17, 1))], 1)
    keypoints[list(missing)] = 0
    return keypoints.astype(np.float32)


class Rows:
    """Rows without pictures: to open one is an AttributeError."""

    def __init__(self, rows, skeleton=COCO17):
        self.rows, self.manifest = rows, SimpleNamespace(skeleton=skeleton)

    def __len__(self):
        return len(self.rows)

    def person(self, number):
        return self.rows[number]


def test_people_are_read_as_they_were_packed(tmp_path):
    data = packed.jpeg(np.zeros((72, 96, 3), np.uint8))
    rows = [
        (packed.person_row(labelled(i), [4, 5, 30, 40], i, age_months=np.float32(18 + i)),
         packed.picture_row(data, (96, 72), i))
        for i in range(3)
    ]  # fmt: skip
    manifest = packed.write(tmp_path, {"train": rows})
    found = people.read(packed.records.Rows(manifest, "train"))
    for i in range(3):
        keypoints, there = labelled(i), labelled(i)[:, 2] > 0
        assert (found.points_nk2[i][there] == keypoints[there, :2]).all()
        assert (found.visible_nk[i] == keypoints[:, 2]).all()
    assert set(found.visible_nk.ravel()) == {0, 1, 2} and found.visible_nk.dtype == np.int8
    assert found.points_nk2.dtype == np.float32 and found.diagonal_n.dtype == np.float32
    assert found.diagonal_n.tolist() == [50.0] * 3 and found.age_n.tolist() == [18, 19, 20]
    assert found.person_n.tolist() == [f"{i:016x}" for i in range(3)]
    assert found.subject_n.tolist() == [f"{i % 3:016x}" for i in range(3)]
    assert found.posture_n.tolist() == ["walk"] * 3 and found.grasp_n.tolist() == ["pincer"] * 3


def test_a_joint_that_nobody_labelled_is_nowhere():
    row = packed.person_row(labelled(), [0, 0, 30, 40])
    found = people.gather([row])
    assert np.isnan(found.points_nk2[0, [3, 16]]).all()
    assert np.isfinite(np.delete(found.points_nk2[0], [3, 16], 0)).all()
    # A place beside visibility 0, which other tools write, is none either.
    stray = labelled()
    stray[3, :2] = 17, 17
    assert np.isnan(people.gather([packed.person_row(stray, [0, 0, 1, 1])]).points_nk2[0, 3]).all()


def test_who_has_no_labelled_joint_is_left_out_and_the_order_stays():
    rows = [packed.person_row(labelled(i), [0, 0, 3, 4], i) for i in range(4)]
    rows[1]["keypoints"] = np.zeros((17, 3), np.float32)
    seen = []

    def progress(numbers, total):
        seen.append(total)
        return numbers

    found = people.read(Rows(rows), progress)
    assert found.person_n.tolist() == [f"{i:016x}" for i in (0, 2, 3)] and seen == [4]
    some = found.chosen(found.person_n == f"{2:016x}")
    assert some.points_nk2.shape == (1, 17, 2) and some.person_n.tolist() == [f"{2:016x}"]


def test_an_age_that_is_not_known_stays_unknown():
    rows = [packed.person_row(labelled(), [0, 0, 3, 4], age_months=np.float32(np.nan))]
    assert np.isnan(people.gather(rows).age_n).all()


def test_nobody_is_nobody_of_the_same_skeleton():
    empty = packed.person_row(np.zeros((17, 3)), [0, 0, 3, 4])
    for rows in ([], [empty]):
        found = people.read(Rows(rows))
        assert found.points_nk2.shape == (0, 17, 2) and found.visible_nk.shape == (0, 17)
        assert all(len(array) == 0 for array in found)


def names(count, each=3):
    """Return subjects of so many people each, shuffled."""
    subjects = np.repeat([f"child{i}" for i in range(count)], each)
    return np.random.default_rng(0).permutation(subjects)


def test_a_subject_calibrates_whole_or_not_at_all():
    subjects = names(60)
    held = people.held_out(subjects, 0.3, 0)
    assert held.dtype == bool and held.shape == subjects.shape and held.any() and not held.all()
    assert not set(subjects[held]) & set(subjects[~held])


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_so_many_subjects_calibrate_as_were_asked_for(share):
    held = people.held_out(names(2000, 1), share, 0)
    assert abs(held.mean() - share) < 4 * np.sqrt(share * (1 - share) / 2000)


def test_no_share_and_all():
    assert not people.held_out(names(50), 0.0, 0).any() and people.held_out(names(50), 1.0, 0).all()


def test_where_a_subject_is_depends_on_seed_and_name_alone():
    subjects = names(60)
    held = dict(zip(subjects, people.held_out(subjects, 0.3, 0), strict=True))
    fewer = subjects[:40][::-1]
    assert people.held_out(fewer, 0.3, 0).tolist() == [held[name] for name in fewer]
    more = people.held_out([*subjects, "newcomer"], 0.3, 0)
    assert more[:-1].tolist() == [held[name] for name in subjects]
    assert people.held_out(subjects, 0.3, 1).tolist() != [held[name] for name in subjects]
    # Who calibrates at a small share does so at a larger one.
    assert (people.held_out(subjects, 0.5, 0) >= people.held_out(subjects, 0.3, 0)).all()


def test_the_draw_of_a_subject_is_that_of_sha256sum():
    """Golden: printf 0:child0 | sha256sum begins with d91c5d8a, and so on."""
    golden = {"child0": 0xD91C5D8A, "child1": 0xD35400B9, "child3": 0x15ADC52A}
    for name, digits in golden.items():
        for share in (0.05, 0.08, 0.1, 0.5, 0.83, 0.9):
            assert people.held_out([name], share, 0)[0] == (digits / 2**32 < share), (name, share)


def test_who_has_no_subject_never_calibrates():
    assert not people.held_out(["", ""], 1.0, 0).any()
    assert people.held_out(["", "child"], 1.0, 0).tolist() == [False, True]
