"""Keypoint sets as data: names, limbs, sigmas, left-right pairs, body groups.

Three are built in, a lab brings its own in one file (`skeleton_formats`). Names are compared
without regard to case, '-', ' ', camelCase and l/left, r/right: 'L-Eye', 'leftEye' and 'left_eye'
are one joint.
"""

import dataclasses
import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path

BUILT_IN = ("coco17", "wholebody133", "goliath308")
GROUPS = ("head", "arms", "legs", "feet", "left_hand", "right_hand")

SIDES = {"l": "left", "r": "right"}
MIRROR = {"left": "right", "right": "left"}
# A joint belongs to the first of these that shares a word with its name; hands are split by side.
# In this order, so that left_foot_index is a foot and middle_of_forehead a head.
WORDS = {
    "arms": "shoulder acromion elbow olecranon cubital forearm wrist",
    "legs": "hip knee ankle",
    "feet": "foot toe heel",
    "head": "head face forehead jaw chin cheek nose nostril eye eyebrow eyelid lash crease iris "
    "pupil glabella mouth lip cupid labiomental ear lobe helix antihelix crus tragus antitragus "
    "concha",
    "hand": "hand thumb finger forefinger index middle ring pinky palm knuckle",
}
KEYS = ("name", "keypoints", "limbs", "sigmas", "joint_weights", "flip_pairs", "groups")


class BadSkeleton(ValueError):
    """A skeleton that cannot be used; the message is one line with file, rule and remedy."""


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A set of K keypoints; every index refers to `keypoints`.

    sigmas: OKS fall-off per joint (COCO's, relative to the root of the area), empty where nobody
    gave them; joint_weights: training weight per joint; flip_indices: the joint that joint i
    becomes in the mirrored picture; groups: 'head', 'arms', 'legs', 'feet', 'left_hand',
    'right_hand' -> indices. A joint may be in no group (neck).
    """

    name: str
    keypoints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    joint_weights: tuple[float, ...]
    flip_indices: tuple[int, ...]
    groups: Mapping[str, tuple[int, ...]] = dataclasses.field(hash=False)


def load(name):
    """Load a built-in skeleton by its name; `skeleton_formats.load` reads files too.

    Raises BadSkeleton.
    """
    if name not in BUILT_IN:
        raise BadSkeleton(f"{name}: not a built-in skeleton ({', '.join(BUILT_IN)})")
    path = Path(__file__).parent / "skeletons" / f"{name}.json"
    return parse(json.loads(path.read_text(encoding="utf-8")), name)


def parse(data, source):
    """Make a Skeleton from the content of a skeleton file; every rule is checked.

    data: {"name": str, "keypoints": [str], "limbs": [[str, str]], "sigmas": [float],
    "joint_weights": [float], "flip_pairs": [[str, str]], "groups": {group: [str]}}; only the first
    two are required. Left-right pairs follow from the names (left_eye, l_eye, eye_r, ...);
    `flip_pairs` overrides them for the joints it names, and a joint paired with itself lies on the
    mid-line; a pair that contradicts the names (left_x with right_y, or with itself) is refused.
    Groups follow from the names too; `groups` overrides them for the joints it names. source: names
    the file in messages. Raises BadSkeleton.
    """
    try:
        return _parse(data)
    except BadSkeleton as error:
        raise BadSkeleton(f"{source}: {error}") from None


def to_json(skeleton):
    """Return a skeleton as the plain dict that `parse` reads back to an equal one."""
    names = skeleton.keypoints
    plain = {
        "name": skeleton.name,
        "keypoints": list(names),
        "limbs": [[names[a], names[b]] for a, b in skeleton.limbs],
        "joint_weights": list(skeleton.joint_weights),
        "flip_pairs": [[names[i], names[j]] for i, j in enumerate(skeleton.flip_indices) if i <= j],
        "groups": {group: [names[i] for i in joints] for group, joints in skeleton.groups.items()},
    }
    return plain | ({"sigmas": list(skeleton.sigmas)} if skeleton.sigmas else {})


def match(source, target):
    """Tell for every joint of `target` the index of the same joint in `source`, or None."""
    index = {_words(joint): i for i, joint in enumerate(source.keypoints)}
    return tuple(index.get(_words(joint)) for joint in target.keypoints)


def _parse(data):
    _require(isinstance(data, dict), "want one object with 'name' and 'keypoints'")
    for key in data:
        _require(key in KEYS, f"unknown key {key!r}; known: {', '.join(KEYS)}")
    name, keypoints = data.get("name"), data.get("keypoints")
    _require(isinstance(name, str) and name.strip(), "'name' is missing; name the skeleton")
    _require(_is_list_of(keypoints, str) and keypoints, "'keypoints' must be a list of names")
    index = {}
    for i, joint in enumerate(keypoints):
        _require(_words(joint), f"keypoint {i} has no letter or digit in its name {joint!r}")
        twin = keypoints[index.setdefault(_words(joint), i)]
        _require(index[_words(joint)] == i, f"{twin!r} and {joint!r} are one name; rename one")
    limbs = _pairs(data, "limbs", index)
    for a, b in limbs:
        _require(a != b, f"limb from {keypoints[a]!r} to itself; name two joints")
    return Skeleton(
        name=name,
        keypoints=tuple(keypoints),
        limbs=limbs,
        sigmas=_numbers(data, "sigmas", len(keypoints)),
        joint_weights=_numbers(data, "joint_weights", len(keypoints)) or (1.0,) * len(keypoints),
        flip_indices=_flip_indices(keypoints, index, _pairs(data, "flip_pairs", index)),
        groups=_groups(keypoints, index, data.get("groups", {})),
    )


def _words(joint):
    """Split a name into lower-case words with sides spelled out: 'L-Eye' -> ('left', 'eye')."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", joint)
    spaced = re.sub("(left|right)", r" \1 ", spaced.lower())
    return tuple(SIDES.get(word, word) for word in re.findall(r"[^\W_]+", spaced))


def _flip_indices(keypoints, index, pairs):
    flip = {}
    for a, b in pairs:
        _check_sides(keypoints[a], keypoints[b])
        for i, j in {(a, b), (b, a)}:
            _require(i not in flip, f"flip_pairs names {keypoints[i]!r} twice; want one partner")
            flip[i] = j
    for i, joint in enumerate(keypoints):
        if i not in flip:
            partner = index.get(_mirrored(_words(joint)))
            _require(
                partner is not None and flip.get(partner, i) == i,
                f"{joint!r} has no free partner on the other side; add it, or use flip_pairs",
            )
            flip[i] = partner
    return tuple(flip[i] for i in range(len(keypoints)))


def _mirrored(words):
    return tuple(MIRROR.get(word, word) for word in words)


def _check_sides(joint, partner):
    """Refuse a declared pair when both names tell a side and are not each other's mirror."""
    # Numbers along a contour may run the other way round on the other side.
    first, second = (
        tuple(word for word in _words(name) if not word.isdigit()) for name in (joint, partner)
    )
    told = first != _mirrored(first) and second != _mirrored(second)
    _require(
        not told or second == _mirrored(first),
        f"{joint!r} is paired with {partner!r}, which its name contradicts; correct the flip "
        "pairs, or the names",
    )


def _groups(keypoints, index, named):
    known = ", ".join(GROUPS)
    _require(isinstance(named, dict), f"'groups' must map {known} to lists of joint names")
    members = {group: set() for group in GROUPS}
    for group, joints in named.items():
        _require(group in GROUPS, f"unknown group {group!r}; known: {known}")
        _require(_is_list_of(joints, str), f"group {group!r} must be a list of joint names")
        members[group] = {_find(joint, index, f"group {group!r}") for joint in joints}
    overridden = set().union(*members.values())
    for i, joint in enumerate(keypoints):
        group = _group_of(_words(joint))
        if group is not None and i not in overridden:
            members[group].add(i)
    return {group: tuple(sorted(joints)) for group, joints in members.items()}


def _group_of(words):
    stems = {word.rstrip("0123456789") for word in words}
    group = next((group for group, known in WORDS.items() if stems & set(known.split())), None)
    if group == "hand":
        return next((f"{side}_hand" for side in MIRROR if side in words), None)
    return group


def _pairs(data, key, index):
    pairs = data.get(key, [])
    good = _is_list_of(pairs, list) and all(len(p) == 2 and _is_list_of(p, str) for p in pairs)
    _require(good, f"{key!r} must be a list of pairs of joint names")
    return tuple(tuple(_find(joint, index, key) for joint in pair) for pair in pairs)


def _numbers(data, key, count):
    if key not in data:
        return ()
    values = data[key]
    _require(_is_list_of(values, (int, float)), f"{key!r} must be a list of numbers")
    _require(len(values) == count, f"{key!r} has {len(values)} numbers for {count} keypoints")
    # The comparison also refuses NaN, inf and integers too long for a float.
    _require(all(0 < v < 1e6 for v in values), f"{key!r} must all be above 0 and finite")
    return tuple(float(v) for v in values)


def _find(joint, index, where):
    found = index.get(_words(joint))
    if found is None:
        known = ["_".join(words) for words in index]
        near = difflib.get_close_matches("_".join(_words(joint)), known, 1)
        hint = f"did you mean {near[0]!r}?" if near else "check the spelling"
        raise BadSkeleton(f"{where} names {joint!r}, which is not among the keypoints; {hint}")
    return found


def _is_list_of(value, kind):
    return isinstance(value, list) and all(
        isinstance(v, kind) and not isinstance(v, bool) for v in value
    )


def _require(condition, rule):
    if not condition:
        raise BadSkeleton(rule)
