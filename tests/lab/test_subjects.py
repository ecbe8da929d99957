"""The subjects file: every spelling of it, every mistake in it, and which picture is whose."""

import fnmatch
import time

import numpy as np
import pytest

from nkjax.lab import subjects
from nkjax.lab.findings import Findings
from nkjax.lab.rows import Subject

HEADER = "file,subject,session,site,age_months,posture,split\n"


def read(tmp_path, text):
    file = tmp_path / "subjects.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = file.read_bytes()
    try:
        return subjects.read(file)
    finally:
        assert file.read_bytes() == before


def assign(keys, *rows):
    findings = Findings()
    made = [subjects.SubjectRow(file, subject if isinstance(subject, Subject) else Subject(subject),
                                line) for line, (file, subject) in enumerate(rows, 2)]  # fmt: skip
    who = subjects.assign(keys, made, findings)
    return who, {f.code: (f.count, f.examples) for f in findings.listed()}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_dialect_reads_the_same(tmp_path, delimiter, mark, end):
    lines = [["File_Name", "child", "site", "age_months", "split", "Grasp"],
             ['"a, b; c.jpg"', "K 1", "", '"14,5"', "Val", "pincer"], [],
             ["d.jpg", "K2", "x", "NA", "", ""]]  # fmt: skip
    text = mark + end.join(delimiter.join(line) for line in lines)
    first, second = read(tmp_path, text)
    assert (first.file, second.file) == ("a, b; c.jpg", "d.jpg")
    assert first.subject == Subject("K 1", age_months=14.5, split="val", grasp="pincer")
    assert second.subject.site == "x" and np.isnan(second.subject.age_months)


def test_unknown_columns_are_named_and_not_used(tmp_path):
    rows = read(tmp_path, "id,image,tester,subject\n7,a.jpg,Ann,K1\n8,b.jpg,Bob,K1\n")
    # 'id' is an alias of subject, but there is a column of that name.
    assert rows[0].unused == ("id", "tester") and rows[0].subject.id == "K1"
    assert rows[0].line == 2 and rows[1].line == 3
    findings = Findings()
    subjects.assign(["a.jpg", "b.jpg"], rows, findings)
    assert [(f.code, f.count, f.examples) for f in findings.listed()] == [
        ("NK308", 2, ("id", "tester"))
    ]


def test_unlabelled_pictures_may_be_of_nobody_known():
    rows = [
        subjects.SubjectRow("a.jpg", Subject("K1"), 2),
        subjects.SubjectRow("more/*", Subject("K2"), 3),
    ]
    findings = Findings()
    keys = ["a.jpg", "b.jpg", "more/c.jpg", "d.jpg"]
    who = subjects.assign(keys, rows, findings, {"more/c.jpg", "d.jpg"})
    assert {key: subject.id for key, subject in who.items()} == {
        "a.jpg": "K1", "more/c.jpg": "K2", "d.jpg": ""
    }  # fmt: skip
    assert [(f.code, f.severity, f.examples) for f in findings.listed()] == [
        ("NK305", "error", ("b.jpg",)), ("NK311", "warning", ("d.jpg",)),
    ]  # fmt: skip


MISTAKES = {
    "": "has no line below",
    "file,subject\n": "has no line below",
    "name,subject\na.jpg,K1\n": "no column 'file'; known columns: file, subject, session",
    "file;age_months\na.jpg;3\n": "no column 'subject'",
    "image,path,subject\na,b,K\n": "'image' and 'path' may both be 'file'",
    "file,file,subject\na,b,K\n": "'file' and 'file' may both be 'file'",
    "file,subject\na.jpg,\n": "line 2: 'subject' is empty",
    "file,subject\n\n,K1\n": "line 3: 'file' is empty",
    "file,subject\na,b,K1\n": "line 2: 3 cells for 2 columns",
    HEADER + "a,K,,,twelve,,\n": "line 2: age_months 'twelve'",
    HEADER + "a,K,,,-3,,\n": "line 2: age_months '-3'",
    HEADER + "a,K,,,1e999,,\n": "line 2: age_months '1e999'",
    HEADER + "b,K,,,1,,\na,K,,,,,training\n": "line 3: split 'training'; want train, val",
    'file,subject\n"a,K1\n': "line 2: ",
    "file,subject\n" + "a" * 200_000 + ",K\n": "line 2: ",
    b"file,subject\n\xff\xfea,K\n": "is not UTF-8",
    b"\x00\x01\x02": "no column 'file'",
    "file,subject\n".encode("utf-16"): "is not UTF-8",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_every_mistake_is_one_line(tmp_path, text):
    with pytest.raises(subjects.BadSubjects) as error:
        read(tmp_path, text)
    assert MISTAKES[text] in str(error.value) and "subjects.csv: " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(subjects.BadSubjects, match="cannot be opened"):
            subjects.read(path)


def test_names_go_before_patterns_and_frames_before_videos():
    keys = ["s/a.jpg", "s/b.jpg", "S/a.jpg", "v.mp4#1", "v.mp4#2", "w.mp4#3", "x[1].jpg", "x1.jpg"]
    who, found = assign(
        keys, ("s/*", "K1"), ("s/b.jpg", "K2"), ("v.mp4", "K3"), ("v.mp4#2", "K4"), ("w.*", "K5"),
        ("x[1].jpg", "K6"), ("x?.jpg", "K7"),
    )  # fmt: skip
    assert {key: subject.id for key, subject in who.items()} == {
        "s/a.jpg": "K1", "s/b.jpg": "K2", "v.mp4#1": "K3", "v.mp4#2": "K4", "w.mp4#3": "K5",
        "x[1].jpg": "K6", "x1.jpg": "K7",
    }  # fmt: skip
    assert found == {"NK305": (1, ("S/a.jpg",))}


def test_what_fits_nothing_and_what_fits_two():
    who, found = assign(
        ["a/1.jpg", "a/2.jpg", "b.jpg"],
        ("a/*", "K1"), ("*/2.jpg", "K2"), ("c.jpg", "K3"), ("d*", "K4"), ("B.jpg", "K5"),
    )  # fmt: skip
    assert set(who) == {"a/1.jpg"}
    assert found == {
        "NK305": (1, ("b.jpg",)),
        "NK306": (3, ("line 4: c.jpg", "line 5: d*", "line 6: B.jpg")),
        "NK307": (1, ("a/2.jpg: K1, K2",)),
    }


def test_the_narrower_line_of_a_child_speaks_first():
    who, found = assign(
        ["k/s2/1.jpg"],
        ("k/*", Subject("K", site="x", age_months=12.0, posture="sit", grasp="palmar")),
        ("k/s2/*", Subject("K", session="2", age_months=18.0)),
    )
    assert who["k/s2/1.jpg"] == Subject("K", "2", "x", 18.0, "sit", "palmar") and not found


def test_accents_match_in_any_unicode_form():
    who, found = assign(["Zo\u00eb.jpg", "Jose\u0301/1.jpg"],
                        ("Zoe\u0308.jpg", "K1"), ("Jos\u00e9/*", "K2"))  # fmt: skip
    assert [who[k].id for k in ("Zo\u00eb.jpg", "Jose\u0301/1.jpg")] == ["K1", "K2"] and not found


def test_patterns_fit_what_fnmatch_says():
    rng = np.random.default_rng(0)
    letters = list("ab/[]!?*-")
    keys = sorted({"".join(rng.choice(list("ab/]-!"), rng.integers(1, 7))) for _ in range(300)})
    for _ in range(400):
        pattern = "".join(rng.choice(letters, rng.integers(1, 6)))
        who, _ = assign(keys, (pattern, "K"))
        fits = [k for k in keys if k == pattern]
        assert sorted(who) == (fits or [k for k in keys if fnmatch.fnmatchcase(k, pattern)]), (
            pattern
        )


def test_one_child_under_two_spellings_that_look_the_same_is_one(tmp_path):
    spelled = ["Jos\u00e9 K", "Jose\u0301 K", " Jos\u00e9 \u00a0 K\u200b", "\ufeffJos\u00e9\tK"]
    text = "file,subject,session\n" + "".join(
        f'{i}.jpg,"{name}","{name}"\n' for i, name in enumerate(spelled)
    )
    rows = read(tmp_path, text)
    assert {(row.subject.id, row.subject.session) for row in rows} == {("Jos\u00e9 K",) * 2}
    with pytest.raises(subjects.BadSubjects, match="line 2: 'subject' is empty"):
        read(tmp_path, "file,subject\na.jpg,\u200b\n")


@pytest.mark.parametrize("one, other", [
    ("K1", "k1"), ("K-01", "K-1"), ("007", "7"), ("O'Hara", "O\u2019Hara"), ("K-1", "K\u20131"),
    ("Stra\u00dfe", "STRASSE"),
])  # fmt: skip
def test_ids_that_may_be_one_child_are_told_and_stay_two(one, other):
    who, found = assign(["a", "b", "c"], ("a", one), ("b", other), ("c", "K10"))
    assert [who[key].id for key in "abc"] == [one, other, "K10"]
    first, second = sorted([one, other])
    assert found == {"NK312": (1, (f"{first!r} and {second!r}",))}


def test_ids_of_different_children_are_not_told():
    names = ["K1", "K10", "K100", "K2", "L1", "1", "0", "10", "K 1", "K-1", "A1B", "A11B"]
    keys = [f"{i}.jpg" for i in range(len(names))]
    assert not assign(keys, *zip(keys, names, strict=True))[1]


@pytest.mark.parametrize("pattern", ["site0/child{:04d}/*", "*child{:04d}/*.jpg"])
def test_thousands_of_patterns_take_seconds(pattern):
    """A twelfth of 240 million comparisons, which take 10 s and more one by one."""
    keys = [f"site0/child{i % 1000:04d}/session{i % 7}/IMG_{i:06d}.jpg" for i in range(20_000)]
    start = time.perf_counter()
    who, found = assign(keys, *((pattern.format(i), str(i)) for i in range(1000)))
    assert time.perf_counter() - start < 6
    assert not found and all(who[key].id == str(i % 1000) for i, key in enumerate(keys))
