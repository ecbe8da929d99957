"""Read which child every picture is of: the lab's CSV, and its lines matched to picture names."""

import bisect
import csv
import dataclasses
import fnmatch
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from nkjax import ids
from nkjax.lab.findings import Findings
from nkjax.lab.rows import Subject

COLUMNS = {
    "file": ("file_name", "file_name_or_glob", "image", "path"),
    "subject": ("subject_id", "child", "id"),
    "session": ("session_id",),
    "site": (),
    "age_months": (),
    "posture": (),
    "grasp": (),
    "split": (),
}
REQUIRED = ("file", "subject")
TIDIED = ("subject", "session")
SPLITS = ("train", "val", "test")
DELIMITERS = (",", ";", "\t")
AGE_NOT_KNOWN = ("", "na", "n/a", "nan")
FRAME = re.compile(r"#[0-9]+$")
# Other quotes and dashes than the keyboard's that office programs write.
QUOTES = "'\"`\u00b4\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u00ab\u00bb\u2039\u203a\u02bc\u2032"
DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d"
ALIKE = str.maketrans(dict.fromkeys(QUOTES, "'") | dict.fromkeys(DASHES, "-"))


class BadSubjects(ValueError):
    """A subjects file that cannot be used; the message is one line with file, line and remedy."""


@dataclasses.dataclass(frozen=True)
class SubjectRow:
    """A line of the subjects file.

    file: a picture's name or a pattern of names; line: its number in the file, from 1; unused:
    names of the file's columns that nkjax does not know, the same in every row.
    """

    file: str
    subject: Subject
    line: int
    unused: tuple[str, ...] = ()


def read(path) -> tuple[SubjectRow, ...]:
    """Read a CSV with a header: comma, semicolon or tab, UTF-8 with or without a byte order mark.

    Columns `file` and `subject` are required, `session`, `site`, `age_months`, `posture`, `grasp`
    and `split` (train, val or test) optional; COLUMNS has the other names they may go by. Further
    columns are not used. `file` is a path relative to the pictures' folder; in a pattern * stands
    for any text, '/' too, ? for one character and [abc] for one of these. Ids of subjects and
    sessions are read in one spelling (`ids.tidy`). Empty lines are passed over. Raises BadSubjects.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadSubjects(f"{path}: cannot be opened ({error.strerror}); check it") from None
    except UnicodeDecodeError:
        raise BadSubjects(f"{path}: is not UTF-8; save it as 'CSV UTF-8'") from None
    try:
        return _parse(text)
    except BadSubjects as error:
        raise BadSubjects(f"{path}: {error}") from None


def assign(
    keys: Iterable[str], rows: Sequence[SubjectRow], findings: Findings, unlabelled=frozenset()
):
    """Give every picture its Subject: dict by picture key, without those NK305 and NK307 count.

    unlabelled: keys that may do without: they have an empty Subject, and are counted (NK311).
    A line that names a picture goes before patterns, and a frame's own name ('clip.mp4#12') before
    its video's; names are compared with regard to case, but not to the Unicode form of accents. Of
    several lines of one subject that fit, the one with the longest text outside wildcards speaks
    first, the others fill what it leaves empty. Ids that look like one child's are told (NK312).
    """
    for column in rows[0].unused if rows else ():
        findings.add("NK308", column)
    _tell_alike({row.subject.id for row in rows}, findings)
    keys = sorted(keys)
    exact, patterns = _fits(keys, rows)
    used = {i for found in (*exact.values(), *patterns.values()) for i in found}
    for i, row in enumerate(rows):
        if i not in used:
            findings.add("NK306", f"line {row.line}: {row.file}")
    subjects = {}
    for key in keys:
        # The frame's own line, its video's line, patterns: the first kind that says something.
        found = exact.get(_normal(key)) or exact.get(_normal(_video(key))) or patterns.get(key, ())
        who = sorted({rows[i].subject.id for i in found})
        if len(who) == 1:
            subjects[key] = _combined([rows[i] for i in found])
        elif who:
            findings.add("NK307", f"{key}: {', '.join(who[:3])}")
        elif key in unlabelled:
            findings.add("NK311", key)
            subjects[key] = Subject()
        else:
            findings.add("NK305", key)
    return subjects


def _parse(text) -> tuple[SubjectRow, ...]:
    delimiter = _delimiter(text)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, places, header = [], None, []
    try:
        for cells in lines:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if places is None:
                header, places = cells, _places(cells)
                unused = tuple(
                    name for i, name in enumerate(cells) if name and i not in places.values()
                )
                continue
            if len(cells) > len(header):
                raise BadSubjects(
                    f"line {lines.line_num}: {len(cells)} cells for {len(header)} columns; put "
                    'text with the separator in it in "quotes"'
                )
            cells += [""] * (len(header) - len(cells))
            values = {column: cells[i] for column, i in places.items()}
            values |= {name: ids.tidy(values[name]) for name in TIDIED if name in values}
            rows.append(_row(values, lines.line_num, unused))
    except csv.Error as error:
        raise BadSubjects(f"line {lines.line_num}: {error}; save it as CSV again") from None
    if not rows:
        raise BadSubjects("has no line below the header; name a picture and its subject in each")
    return tuple(rows)


def _delimiter(text) -> str:
    """Return the separator with which the first line that is not empty names most columns."""
    first = next((line for line in text.splitlines() if line.strip(" \t,;")), "")
    known = {name for column, others in COLUMNS.items() for name in (column, *others)}

    def named(delimiter):
        return len(known & {name.strip().strip('"').strip().lower()
                            for name in first.split(delimiter)})  # fmt: skip

    return max(DELIMITERS, key=named)


def _places(header) -> dict[str, int]:
    """Tell at which position each known column stands."""
    names = [name.lower() for name in header]
    places = {}
    for column, others in COLUMNS.items():
        wanted = (column,) if column in names else others
        found = [i for i, name in enumerate(names) if name in wanted]
        if len(found) > 1:
            twice = " and ".join(repr(header[i]) for i in found)
            raise BadSubjects(f"line 1: {twice} may both be {column!r}; call one of them so")
        if found:
            places[column] = found[0]
    for column in REQUIRED:
        if column not in places:
            raise BadSubjects(
                f"line 1: no column {column!r}; known columns: {', '.join(COLUMNS)}, separated by "
                "comma, semicolon or tab"
            )
    return places


def _row(values, line, unused) -> SubjectRow:
    for column in REQUIRED:
        if not values[column]:
            raise BadSubjects(f"line {line}: {column!r} is empty; fill it in or remove the line")
    split = values.get("split", "").lower()
    if split and split not in SPLITS:
        raise BadSubjects(f"line {line}: split {split[:40]!r}; want train, val, test or nothing")
    subject = Subject(
        id=values["subject"],
        session=values.get("session", ""),
        site=values.get("site", ""),
        age_months=_age(values.get("age_months", ""), line),
        posture=values.get("posture", ""),
        grasp=values.get("grasp", ""),
        split=split,
    )
    file = values["file"].replace("\\", "/").removeprefix("./")
    return SubjectRow(file, subject, line, unused)


def _age(text, line) -> float:
    if text.lower() in AGE_NOT_KNOWN:
        return float("nan")
    # Spreadsheets of half of Europe write 14,5.
    if not re.fullmatch(r"[0-9]{1,4}([.,][0-9]*)?", text):
        raise BadSubjects(
            f"line {line}: age_months {text[:40]!r}; want a number of months, or nothing"
        )
    return float(text.replace(",", "."))


def _tell_alike(names, findings) -> None:
    """Tell ids that differ only in case, zeros in front of a number, quotes or dashes."""
    alike = {}
    for name in sorted(names):
        folded = ids.tidy(name.casefold()).translate(ALIKE)
        alike.setdefault(re.sub(r"(?<!\d)0+(?=\d)", "", folded), []).append(name)
    for spelled in alike.values():
        if len(spelled) > 1:
            findings.add("NK312", " and ".join(map(repr, spelled[:3])))


def _video(key) -> str:
    return FRAME.sub("", key)


def _fits(keys, rows):
    """Return {name, of a video too: rows that say it} and {key: rows whose pattern fits}."""
    videos, whole = {}, {}
    for key in keys:
        videos.setdefault(_normal(_video(key)), []).append(key)
        whole.setdefault(_normal(key), []).append(key)
    # Thousands of frames of one video are one name, unless a pattern is about frames.
    lists = {False: (videos, _Names(videos)), True: (whole, _Names(whole))}
    exact, patterns = {}, {}
    for i, row in enumerate(rows):
        name = _normal(row.file)
        if name in whole or name in videos:
            exact.setdefault(name, []).append(i)
        elif re.search(r"[*?\[]", name):
            keys_by_name, names = lists["#" in name]
            for found in names.matching(name):
                for key in keys_by_name[found]:
                    patterns.setdefault(key, []).append(i)
    return exact, patterns


class _Names:
    """Names in which patterns are looked up without trying each pattern on each name."""

    def __init__(self, names):
        self._names = sorted(names)
        # No file name holds a NUL, so a text found in all of them together lies in one of them.
        self._text = "\0".join(self._names)
        self._starts, start = [], 0
        for name in self._names:
            self._starts.append(start)
            start += len(name) + 1

    def matching(self, pattern) -> list[str]:
        """Return the names that fit: by the text before the first wildcard, then its longest."""
        matches = re.compile(fnmatch.translate(pattern)).match
        texts = _literals(pattern)
        low = bisect.bisect_left(self._names, texts[0])
        high = bisect.bisect_left(self._names, texts[0] + chr(0x10FFFF), lo=low)
        longest = max(texts, key=len)
        if longest == texts[0]:
            return [name for name in self._names[low:high] if matches(name)]
        found, ends = [], [*self._starts, len(self._text) + 1]
        at = self._text.find(longest, ends[low], ends[high])
        while at >= 0:
            i = bisect.bisect_right(self._starts, at) - 1
            if matches(self._names[i]):
                found.append(self._names[i])
            at = self._text.find(longest, ends[i + 1], ends[high])
        return found


def _literals(pattern) -> list[str]:
    """Return the texts between wildcards; each must be in a name that fits, the first begin it."""
    return re.split(r"[*?]|\[!?\]?[^\]]*\]?", pattern)


def _normal(name) -> str:
    return unicodedata.normalize("NFC", name)


def _combined(rows) -> Subject:
    rows = sorted(rows, key=lambda row: (-sum(map(len, _literals(row.file))), row.line))
    values = {}
    for field in dataclasses.fields(Subject):
        said = [getattr(row.subject, field.name) for row in rows]
        values[field.name] = next((v for v in said if v == v and v != ""), said[0])
    return Subject(**values)
