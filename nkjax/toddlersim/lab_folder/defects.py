"""A lab's usual mistakes, planted in a simulated folder for check_data.py to find.

Source: the table of bad input, notes ecosystem 2.2; the codes are those of nkjax.lab.findings.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

from nkjax.toddlersim.lab_folder import folder, mistakes, spoiling
from nkjax.toddlersim.lab_folder.handed_over import BadDefects, HandedOver
from nkjax.toddlersim.lab_folder.mistakes import file, joint, person

# From so many people on check_data.py judges labels by each other, and says these; the number is
# that of nkjax.lab.suspicious, which this world does not import (a test compares them).
FEWEST_PEOPLE = 50
JUDGED = {"NK251", "NK252", "NK412"}
# Of unlabelled pictures each child keeps one as it is.
UNLABELLED_EACH = 2


class Defect(NamedTuple):
    """A mistake: codes that check_data.py must report, what it is in one phrase, how to plant it.

    labelled, test, unlabelled: pictures that it needs. everywhere: in every entry, so that it hides
    other mistakes, and 'all' leaves it out.
    """

    codes: tuple[str, ...]
    what: str
    plant: Callable[[HandedOver], None]
    labelled: int = 1
    test: int = 0
    unlabelled: int = 0
    everywhere: bool = False


# In the order in which they are planted.
DEFECTS = {
    # files
    "truncated": Defect(
        ("NK101",), "a JPEG that ends in the middle", file(spoiling.truncated)),
    "no_picture": Defect(
        ("NK101",), "a text file called .jpg", file(lambda data: b"follows by mail\n")),
    "several_frames": Defect(
        ("NK102",), "a file with several frames", file(spoiling.animated)),
    "transparent": Defect(
        ("NK103",), "a transparent PNG", file(spoiling.transparent)),
    "deep": Defect(
        ("NK111",), "a 16-bit PNG", file(spoiling.deep)),
    "exif_turn": Defect(
        ("NK121",), "a quarter turn by EXIF that the labels do not have",
        file(lambda data: spoiling.turned(data, 6))),
    "exif_doubt": Defect(
        ("NK122",), "an EXIF half turn that no size decides",
        file(lambda data: spoiling.turned(data, 3))),
    "other_size": Defect(
        ("NK123",), "another width in the JSON than the picture has", mistakes.other_size),
    "missing": Defect(
        ("NK131",), "a picture that is not there", mistakes.missing),
    "other_case": Defect(
        ("NK132",), "a file name in capitals, in small letters in the JSON", mistakes.other_case),
    "other_folder": Defect(
        ("NK135",), "a picture in another folder than the JSON says", mistakes.other_folder),
    "listed_twice": Defect(
        ("NK136",), "a file that is two images of the JSON", mistakes.listed_twice),
    "copied": Defect(
        ("NK141", "NK303"), "a training picture that is a test picture too", mistakes.copied,
        test=1),
    # labels
    "visibility": Defect(
        ("NK202",), "a visibility of 7", joint(0.5, 0.5, 7)),
    "corner": Defect(
        ("NK203",), "a joint marked as seen at (0, 0)", joint(0, 0, 2)),
    "nan": Defect(
        ("NK211",), "a coordinate that is NaN", joint(float("nan"), 0.5, 2)),
    "outside": Defect(
        ("NK214",), "a joint outside the picture", joint(1.2, 0.5, 2)),
    "most_outside": Defect(
        ("NK215",), "a person with all joints outside", person(mistakes.most_outside)),
    "box_elsewhere": Defect(
        ("NK216",), "a box away from its joints", person(mistakes.box_elsewhere)),
    "box_empty": Defect(
        ("NK221",), "a box without width", person(mistakes.box_empty)),
    "box_missing": Defect(
        ("NK223",), "a person without a box", person(mistakes.box_missing)),
    "nothing": Defect(
        ("NK224",), "a person with neither box nor joints", person(mistakes.nothing)),
    "box_beyond": Defect(
        ("NK225",), "a box that begins outside the picture", person(mistakes.box_beyond)),
    "id_0": Defect(
        ("NK231",), "an annotation with id 0", person(mistakes.id_0)),
    "shared_id": Defect(
        ("NK232",), "two annotations with one id", mistakes.shared_id, labelled=2),
    "shared_image_id": Defect(
        ("NK233",), "two images with one id", mistakes.shared_image_id, labelled=2),
    "image_not_listed": Defect(
        ("NK237",), "an annotation of an image that is not listed",
        person(mistakes.image_not_listed)),
    "no_image_id": Defect(
        ("NK243",), "an annotation without image_id", person(mistakes.no_image_id)),
    "more_joints": Defect(
        ("NK402",), "a person with one joint too many", person(mistakes.more_joints)),
    "stretched": Defect(
        ("NK251",), "a wrist in a corner of the picture", mistakes.stretched),
    "swapped": Defect(
        ("NK252",), "a person with left and right exchanged", mistakes.swapped),
    # subjects
    "no_subject": Defect(
        ("NK305",), "a picture without a line in subjects.csv", mistakes.no_subject),
    "two_subjects": Defect(
        ("NK307",), "a picture with two subjects", mistakes.two_subjects),
    "no_such_file": Defect(
        ("NK306",), "a line of subjects.csv about no picture", mistakes.no_such_file),
    "two_spellings": Defect(
        ("NK312",), "an id in another case", mistakes.two_spellings),
    "two_splits": Defect(
        ("NK302",), "a subject in two splits", mistakes.two_splits, labelled=0, test=2),
    # pictures without labels
    "unlabelled_truncated": Defect(
        ("NK151", "NK242"), "an unlabelled JPEG that ends in the middle",
        mistakes.unlabelled_truncated, labelled=0, unlabelled=1),
    "unlabelled_not_detected": Defect(
        ("NK152",), "an unlabelled picture on which nobody was detected",
        mistakes.unlabelled_not_detected, labelled=0, unlabelled=1),
    "unlabelled_of_test": Defect(
        ("NK143",), "an unlabelled picture of a test subject", mistakes.unlabelled_of_test,
        labelled=0, test=1, unlabelled=1),
    "unlabelled_labelled": Defect(
        ("NK144",), "an unlabelled picture that has labels too", mistakes.unlabelled_labelled,
        unlabelled=1),
    # the whole file
    "other_order": Defect(
        ("NK422",), "the joints in another order than the skeleton's", mistakes.other_order,
        labelled=0),
    "corners": Defect(
        ("NK222",), "all boxes as x1, y1, x2, y2", mistakes.corners, labelled=0,
        everywhere=True),
    "all_swapped": Defect(
        ("NK412",), "left and right exchanged in everybody", mistakes.all_swapped,
        labelled=0, everywhere=True),
}  # fmt: skip


def chosen(text: str) -> tuple[str, ...]:
    """Read 'all', or names separated by commas; raises BadDefects for a name that is not known."""
    if text.strip() == "all":
        return tuple(name for name, defect in DEFECTS.items() if not defect.everywhere)
    names = {name.strip() for name in text.split(",")} - {""}
    for name in sorted(names - DEFECTS.keys()):
        raise BadDefects(f"no mistake is called {name!r}; --defects list shows all")
    if not names:
        raise BadDefects("no mistake is named; --defects list shows all")
    return tuple(name for name in DEFECTS if name in names)


def check_counts(names: Collection[str], counts, size_wh) -> None:
    """Raise BadDefects where a folder of so many pictures per role is too small for the mistakes.

    A picture that EXIF turns must not be square: nothing would tell that it lies on its side.
    """
    wanted = [DEFECTS[name] for name in names]
    judged = any(JUDGED.intersection(defect.codes) for defect in wanted)
    needed = {
        "labelled": sum(defect.labelled for defect in wanted) + FEWEST_PEOPLE * judged,
        "test": sum(defect.test for defect in wanted),
        "unlabelled": UNLABELLED_EACH * sum(defect.unlabelled for defect in wanted),
    }
    for role, count in needed.items():
        if counts[role] < count:
            raise BadDefects(f"these mistakes need at least {count} {role} pictures; make more")
    if size_wh[0] == size_wh[1] and "exif_turn" in names:
        raise BadDefects("exif_turn needs pictures that are not square; choose another size")


def plant(out, names: Collection[str]) -> None:
    """Plant mistakes in a whole simulated folder, and note their names in its simulation.json.

    Each in pictures of its own; the same folder, the same mistakes. Raises BadDefects where the
    folder is too small, BadFolder where it is not whole or has mistakes already.
    """
    names, known = set(names), folder.settings(out)
    if known["defects"]:
        raise folder.BadFolder(f"{out}: has mistakes planted already; simulate another folder")
    check_counts(names, known["counts"], known["size_wh"])
    lab = HandedOver(out)
    for name, defect in DEFECTS.items():
        if name in names:
            defect.plant(lab)
    lab.save()
    folder.note_defects(out, [name for name in DEFECTS if name in names])
