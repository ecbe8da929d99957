"""A lab's usual mistakes, each made in pictures of its own; `defects` says which they are.

Every function takes what was handed over and changes it or the files; those of a person take a
victim too. Source: the table of bad input, notes ecosystem 2.2.
"""

import shutil

import numpy as np

from nkjax.toddlersim.lab_folder import lists, spoiling
from nkjax.toddlersim.lab_folder.handed_over import HandedOver, Victim

PARALLEL = 0.8  # cosine between eyes, shoulders and hips of somebody who faces the camera


def file(change):
    """Return a mistake in the bytes of a picture: change(bytes) -> bytes."""

    def plant(lab: HandedOver):
        path = lab.take().path
        path.write_bytes(change(path.read_bytes()))

    return plant


def missing(lab):
    """Remove a picture."""
    lab.take().path.unlink()


def other_size(lab):
    """Write another width than the picture has."""
    lab.take().image["width"] += 1


def other_case(lab):
    """Call a file in capitals, and not in the lists."""
    path = lab.take().path
    path.rename(path.with_name(path.name.upper()))


def other_folder(lab):
    """Name a folder that is not there, as tools that export their own paths do."""
    image = lab.take().image
    image["file_name"] = f"export/{image['file_name']}"


def listed_twice(lab):
    """List a file twice."""
    lab.data["images"].append(lab.take().image | {"id": 10 * lists.ROLE_IDS})


def copied(lab):
    """Copy a picture that is learned from, and its labels, to the name of a test picture."""
    source, copy = lab.take(), lab.take("test")
    shutil.copyfile(source.path, copy.path)
    copy.put(source.joints())
    copy.person.update(bbox=list(source.person["bbox"]), area=source.person["area"])


def person(change):
    """Return a mistake in the entry of a person: change(victim, lab)."""
    return lambda lab: change(lab.take(), lab)


def joint(x, y, v):
    """Return a mistake in a labelled joint; x and y in widths and heights of the picture."""

    def plant(lab):
        victim = lab.take()
        joints = victim.joints()
        joints[np.flatnonzero(joints[:, 2])[0]] = x * lab.size_wh[0], y * lab.size_wh[1], v
        victim.put(joints)

    return plant


def most_outside(victim: Victim, lab):
    """Move all joints out of the picture."""
    joints = victim.joints()
    joints[joints[:, 2] > 0, 0] += 10 * lab.size_wh[0]
    victim.put(joints)


def box_elsewhere(victim: Victim, lab):
    """Put the box into the corner that is farthest from the joints."""
    joints, size = victim.joints(), np.array(lab.size_wh)
    x, y = np.where(joints[joints[:, 2] > 0, :2].mean(0) < size / 2, size - 5, 1).tolist()
    victim.person["bbox"] = [x, y, 3, 3]


def box_beyond(victim: Victim, lab):
    """Let the box begin outside the picture."""
    x, y, width, height = victim.person["bbox"]
    victim.person["bbox"] = [-5, y, x + width + 5, height]


def box_empty(victim: Victim, lab):
    """Leave the box no width."""
    victim.person["bbox"][2] = 0


def box_missing(victim: Victim, lab):
    """Leave the box out."""
    del victim.person["bbox"]


def nothing(victim: Victim, lab):
    """Leave out box and joints."""
    victim.put(0 * victim.joints())
    del victim.person["bbox"]


def corners(lab):
    """Write all boxes as x1, y1, x2, y2."""
    for entry in lab.data["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x, y, x + width, y + height]


def id_0(victim: Victim, lab):
    """Number an annotation 0."""
    victim.person["id"] = 0


def shared_id(lab):
    """Give two annotations one id."""
    lab.take().person["id"] = lab.take().person["id"]


def shared_image_id(lab):
    """Give two images one id."""
    first, second = lab.take(), lab.take()
    second.image["id"] = first.image["id"]
    for entry in second.entries:
        entry["image_id"] = first.image["id"]


def image_not_listed(victim: Victim, lab):
    """Put a person on an image that is not there."""
    victim.person["image_id"] = 10 * lists.ROLE_IDS - 1


def no_image_id(victim: Victim, lab):
    """Leave out which image a person is on."""
    del victim.person["image_id"]


def more_joints(victim: Victim, lab):
    """Add a joint that the skeleton does not have."""
    victim.person["keypoints"] += [1, 1, 2]


def stretched(lab):
    """Put a left wrist into the corner farthest from its elbow, of whom that stretches most."""
    elbow, wrist = (lab.skeleton.keypoints.index(f"left_{name}") for name in ("elbow", "wrist"))
    far = np.array(lab.size_wh) - 2

    def corner(joints):
        return np.where(joints[elbow, :2] < far / 2, far, 1)

    def worth(victim):
        joints = victim.joints()
        if not (joints[[elbow, wrist], 2] > 0).all():
            return -np.inf
        arm = np.hypot(*(corner(joints) - joints[elbow, :2]))
        return arm / np.hypot(*victim.person["bbox"][2:])

    victim = lab.take(worth=worth)
    joints = victim.joints()
    joints[wrist, :2] = corner(joints)
    victim.put(joints)


def swapped(lab):
    """Exchange the sides of somebody who is seen upright from the front, in full width."""
    index = {name: i for i, name in enumerate(lab.skeleton.keypoints)}
    face = [index[name] for name in ("nose", "left_eye", "right_eye")]
    pairs = [[index[f"{side}_{name}"] for side in ("left", "right")]
             for name in ("eye", "shoulder", "hip")]  # fmt: skip
    body = {*lab.skeleton.groups["arms"], *lab.skeleton.groups["legs"]}
    limbs = np.array([limb for limb in lab.skeleton.limbs if body.issuperset(limb)])

    def worth(victim):
        joints = victim.joints()
        if (joints[face, 2] != 2).any() or (joints[pairs, 2] == 0).any():
            return -np.inf
        across = np.array([joints[a, :2] - joints[b, :2] for a, b in pairs])
        widths = np.hypot(*across.T)
        along = (across[:, None] * across).sum(-1) / np.outer(widths, widths)
        x, y = across[0] / widths[0]
        down = joints[face[0], :2] - joints[face[1:], :2].mean(0)
        upright = (down @ (-y, x)) / np.hypot(*down)
        if along.min() < PARALLEL or upright < PARALLEL:
            return -np.inf
        known = (joints[limbs, 2] > 0).all(1)
        lengths = np.hypot(*(joints[limbs[:, 0], :2] - joints[limbs[:, 1], :2])[known].T)
        return np.prod(widths) / np.quantile(lengths, 0.75) ** 3 if len(lengths) else -np.inf

    victim = lab.take(worth=worth)
    victim.put(victim.joints()[list(lab.skeleton.flip_indices)])


def all_swapped(lab):
    """Exchange the sides of everybody."""
    for victim in lab.not_spoilt():
        victim.put(victim.joints()[list(lab.skeleton.flip_indices)])


def other_order(lab):
    """Bring the names of the joints, and all joints, into another order."""
    category = lab.data["categories"][0]
    order = np.roll(np.arange(len(category["keypoints"])), 3)
    place = np.argsort(order)
    category["keypoints"] = [category["keypoints"][i] for i in order]
    category["skeleton"] = [[int(place[a - 1]) + 1 for a in limb] for limb in category["skeleton"]]
    for entry in lab.data["annotations"]:
        joints = np.array(entry["keypoints"]).reshape(-1, 3)
        if len(joints) == len(order):
            entry["keypoints"] = joints[order].ravel().tolist()


def no_subject(lab):
    """Leave out who is on a picture."""
    lab.lines.remove(lab.take().line)


def two_subjects(lab):
    """Write two children for one picture."""
    line = lab.take().line
    lab.lines.append(line | {"subject": f"{line['subject']} 2"})


def no_such_file(lab):
    """Write a line about a picture that is not there."""
    lab.lines.append(lab.take().line | {"file": "lost.jpg"})


def two_spellings(lab):
    """Write a child's id in another case on one of its pictures."""
    line = lab.take(worth=_has_others(lab)).line
    line["subject"] = line["subject"].swapcase()


def two_splits(lab):
    """Put a picture of a test child on the side that is learned from."""
    lab.take("test", _has_others(lab)).line["split"] = "train"


def unlabelled_truncated(lab):
    """Cut an unlabelled picture in the middle."""
    path = lab.take_unlabelled()
    path.write_bytes(spoiling.truncated(path.read_bytes()))


def unlabelled_not_detected(lab):
    """Let the detector find nobody on a picture."""
    name = lab.take_unlabelled().stem
    lab.detections = [entry for entry in lab.detections if entry["image_id"] != name]


def unlabelled_of_test(lab):
    """Let an unlabelled picture show a test child."""
    who = lab.take("test").line["subject"]
    lab.lines.append({"file": lab.take_unlabelled().name, "subject": who})


def unlabelled_labelled(lab):
    """Have a labelled picture among the unlabelled ones too."""
    shutil.copyfile(lab.take().path, lab.take_unlabelled())


def _has_others(lab):
    """Return a worth that takes only children with several pictures."""
    counts = {}
    for line in lab.lines:
        counts[line["subject"]] = counts.get(line["subject"], 0) + 1
    return lambda victim: 0.0 if counts[victim.line["subject"]] > 1 else -np.inf
