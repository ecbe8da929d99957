"""What the salted ids stand for: DATA/private, which stays in the lab.

    salt.txt      makes the ids: --salt gives the same ones again
    mapping.csv   a row per picture, and one per person: which file, which ids of the lab
    subjects.csv  which child and which session
"""

import csv
import io
from collections.abc import Callable
from pathlib import Path

from nkjax import ids
from nkjax.lab import layout, shards
from nkjax.lab.layout import Plan

MAPPING = "picture_id person_id subject_id file image_id annotation_id".split()
SUBJECTS = "subject_id subject session_id session".split()
# What a packing leaves that is killed before it has written the salt.
UNFINISHED = {"salt.txt.partial"}
NOTE = """\
This folder says which file and which child every id of the data stands for, and holds the salt
that makes the ids. Keep it in the lab: never pass it on with the data. pack_data.py needs it to
remove a child (--purge); with --salt salt.txt it gives the same ids again.

The data outside of this folder calls files, children and sessions by ids only. But it holds `site`,
`posture` and `grasp` as they are written in the subjects file (and the annotations): they must not
hold names.
"""


def write_salt(folder, salt: bytes) -> None:
    """Make the private folder, which only its owner may open, with the salt in it."""
    top = Path(folder) / "private"
    top.mkdir(mode=0o700, exist_ok=True)
    top.chmod(0o700)
    # First, because by its salt the folder is known to be ours.
    shards.write_file(top / "salt.txt", f"{salt.hex()}\n".encode())
    shards.write_file(top / "README.txt", NOTE.encode())


def is_ours(folder) -> bool:
    """Tell whether a data folder's private folder is missing, still empty, or holds a salt."""
    top = Path(folder) / "private"
    if not top.exists() and not top.is_symlink():
        return True
    if not top.is_dir():
        return False
    try:
        return read_salt(folder) is not None or {p.name for p in top.iterdir()} <= UNFINISHED
    except ids.BadSalt:
        return False


def read_salt(folder) -> bytes | None:
    """Return the salt of a data folder, None where it has no private folder; raises BadSalt."""
    path = Path(folder) / "private" / "salt.txt"
    return ids.read_salt(path) if path.exists() else None


def write_names(folder, plan: Plan) -> None:
    """Write which file, picture, person, child and session every id of a plan stands for."""
    pictures, subjects = [], set()
    for shard in plan.shards:
        for entry in shard.entries:
            subject = entry.picture.subject
            subject_id = ids.salted_id(plan.salt, subject.id) if subject.id else ""
            here = (entry.id, subject_id, entry.picture.key, entry.picture.image_id)
            pictures.append(_row(*here))
            pictures += [_row(*here, *person) for person in entry.people]
            if subject_id:
                session_id = layout.session_id(entry.picture, plan.salt)
                subjects.add((subject_id, subject.id, session_id, subject.session))
    top = Path(folder) / "private"
    shards.write_file(top / "mapping.csv", _csv(MAPPING, pictures))
    shards.write_file(top / "subjects.csv", _csv(SUBJECTS, sorted(subjects)))


def read_rows(folder, name: str) -> list[dict] | None:
    """Return the rows of mapping.csv or subjects.csv, None where it is missing."""
    path = Path(folder) / "private" / name
    if not path.exists():
        return None
    with open(path, newline="", encoding="utf-8", errors="surrogatepass") as file:
        return list(csv.DictReader(file))


def remove_rows(folder, name: str, gone: Callable[[dict], bool]) -> None:
    """Write mapping.csv or subjects.csv again without some of its rows, if it is there."""
    rows = read_rows(folder, name)
    if rows is not None:
        columns = MAPPING if name == "mapping.csv" else SUBJECTS
        kept = [[row[column] for column in columns] for row in rows if not gone(row)]
        shards.write_file(Path(folder) / "private" / name, _csv(columns, kept))


def _row(picture_id, subject_id, file, image_id, person_id="", person=None):
    return [
        picture_id, person_id, subject_id, file,
        "" if image_id is None else image_id,
        "" if person is None or person.source_id is None else person.source_id,
    ]  # fmt: skip


def _csv(columns, rows) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    # File names may be no UTF-8, and ids hold halves of characters.
    return text.getvalue().encode(errors="surrogatepass")
