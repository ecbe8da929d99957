"""Which joints an annotation file has, whose they are, and where the skeleton's joints stand."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from nkjax import skeleton as skeletons
from nkjax import skeleton_formats
from nkjax.data import coco
from nkjax.data.coco import BadAnnotations
from nkjax.lab.findings import Findings
from nkjax.skeleton import BUILT_IN, Skeleton

# COCO-WholeBody keeps these beside the 17 body joints, in the order of wholebody133.
PARTS = {
    "foot_kpts": ("foot_valid", 6),
    "face_kpts": ("face_valid", 68),
    "lefthand_kpts": ("lefthand_valid", 21),
    "righthand_kpts": ("righthand_valid", 21),
}
BODY = 17
VISIBILITIES = (0, 1, 2)


class Unusable(ValueError):
    """An entry to leave out: the code of its finding and why, in a few words."""

    def __init__(self, code: str, why: str):
        super().__init__(why)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Category:
    """The category whose annotations are people; id None: the file has no categories at all.

    keypoints: the names of its joints, () where the file does not name them.
    """

    id: int | str | None
    entry: dict
    keypoints: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an entry's lists become the K joints of the skeleton.

    body: joints that 'keypoints' must have; parts: whether the lists of COCO-WholeBody follow;
    order_k: where each joint of the skeleton stands in the joined list, -1 where it is not there.
    """

    skeleton: Skeleton
    body: int
    parts: bool
    order_k: np.ndarray


def choose_category(path, data: dict, wanted: str) -> Category:
    """Find the category of people: the one wanted (id or name), the only one with joints, 'person'.

    Raises BadAnnotations where that leaves none or several, and for names used twice.
    """
    listed = data.get("categories")
    known = [c for c in listed if isinstance(c, dict) and coco.is_id(c.get("id"))] if (
        isinstance(listed, list)
    ) else []  # fmt: skip
    told = ", ".join(f"{coco.short(c['id'])} {coco.short(c.get('name'))}" for c in known[:8])
    if wanted:
        found = [c for c in known if wanted in (str(c["id"]), c.get("name"))]
        if not found:
            raise BadAnnotations(f"{path}: no category {wanted!r}; it has {told or 'none'}")
    else:
        found = [c for c in known if c.get("keypoints")] or known
    if len(found) > 1:
        found = [c for c in found if str(c.get("name")).lower() == "person"]
        if len(found) != 1:
            raise BadAnnotations(
                f"{path}: several categories could be people, {told}; name one with "
                "--person_category"
            )
    if not found:
        return Category(None, {}, ())
    return Category(found[0]["id"], found[0], _names(path, found[0]))


def plan(path, category: Category, skeleton: str, entries: Sequence, findings: Findings) -> Layout:
    """Match the joints of the file to those of the skeleton by name.

    skeleton: name or file, '' for the category's own joints. A difference is a finding of NK42x.
    Raises BadSkeleton, and BadAnnotations where no joint fits.
    """
    whole = skeletons.load("wholebody133")
    extra = Category(None, {}, whole.keypoints[BODY:])
    apart = sum(isinstance(e, dict) and not PARTS.keys().isdisjoint(e) for e in entries)
    target = _skeleton(path, category, skeleton)
    names = category.keypoints
    parts = (
        bool(apart)
        and len(names or whole.keypoints[:BODY]) == BODY
        and any(i is not None for i in skeletons.match(extra, target))
    )
    if apart and not parts:
        findings.add("NK425", f"{path}: --skeleton is {target.name}", apart)
    if not names:
        names = whole.keypoints[:BODY] if parts else target.keypoints
        findings.add("NK424", f"{path}: taken as {_some(names)}")
    body = len(names)
    names += extra.keypoints if parts else ()
    index = skeletons.match(Category(None, {}, names), target)
    _report_order(path, names, index, target, findings)
    if not target.sigmas:
        findings.add("NK401", f"{target.name}: {len(target.keypoints)} joints")
    order = np.array([-1 if i is None else i for i in index])
    return Layout(target, body, parts, order)


def read(entry: dict, layout: Layout, note: Callable) -> np.ndarray:
    """Return the joints (K, 3) of an entry in the skeleton's order, float64; 0 where it has none.

    x and y as the file has them, v = 0, 1 or 2; note(code, count) tells what was changed.
    Confidences in the place of v, as the parts of COCO-WholeBody have them, become v = 1: placed,
    by whoever it was. Raises Unusable.
    """
    joints = [_triples(entry, "keypoints", layout.body, note, False)]
    for key, (valid, count) in PARTS.items() if layout.parts else ():
        part = _triples(entry, key, count, note, True)
        if entry.get(valid, True) in (False, 0):
            note("NK205", int((part[:, 2] > 0).sum()))
            part = np.zeros_like(part)
        else:
            note("NK207", sum(v == 1 for v in (entry.get(key) or [])[2::3]))
        joints.append(part)
    joints = np.concatenate(joints)
    unlabelled = joints[:, 2] == 0
    note("NK206", int((unlabelled & (joints[:, :2] != 0).any(1)).sum()))
    joints[unlabelled] = 0
    return np.where(layout.order_k[:, None] < 0, 0.0, joints[layout.order_k])


def numbers(values, what: str) -> list[float]:
    """Return a list of plain, finite numbers; raises Unusable otherwise."""
    if not isinstance(values, list):
        raise Unusable("NK243", f"{what} is no list")
    if not set(map(type, values)) <= {int, float}:
        raise Unusable("NK243", f"{what} holds something other than numbers")
    for value in values:
        if not abs(value) <= coco.FARTHEST_PX:
            raise Unusable("NK211", f"{what} holds {coco.short(value)}")
    return [float(value) for value in values]


def _triples(entry, key, count, note, confidences):
    values = numbers(entry.get(key) or [], key)
    if not values:
        return np.zeros((count, 3))
    if len(values) != 3 * count:
        raise Unusable("NK402", f"{key} has {len(values)} numbers, want 3 x {count}")
    triples = np.array(values).reshape(count, 3)
    odd = ~np.isin(triples[:, 2], VISIBILITIES)
    if odd.any():
        confident = odd & (triples[:, 2] > 0) & (triples[:, 2] < 1)
        if not confidences or (confident != odd).any():
            raise Unusable("NK202", f"{key} has visibility {triples[odd][0, 2]:g}")
        note("NK204", int(odd.sum()))
        triples[odd, 2] = 1
    return triples


def _names(path, category) -> tuple[str, ...]:
    names = category.get("keypoints")
    if not (isinstance(names, list) and all(isinstance(n, str) and n.strip() for n in names)):
        return ()
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise BadAnnotations(
            f"{path}: category {coco.short(category['id'])} names {coco.short(twice[0])} twice; "
            "rename one"
        )
    return tuple(names)


def _skeleton(path, category, name) -> Skeleton:
    if name:
        return skeleton_formats.load(name)
    if not category.keypoints:
        raise BadAnnotations(
            f"{path}: no category names its joints ; say which they are with --skeleton"
        )
    for built_in in map(skeletons.load, BUILT_IN):
        same = len(category.keypoints) == len(built_in.keypoints)
        if same and None not in skeletons.match(category, built_in):
            return built_in
    return skeleton_formats.from_coco_category(category.entry, str(path))


def _report_order(path, names, index, target, findings):
    found = [i for i in index if i is not None]
    if not found:
        raise BadAnnotations(
            f"{path}: none of its joints ({_some(names)}) is in the skeleton {target.name} "
            f"({_some(target.keypoints)}); name the right one with --skeleton"
        )
    missing = [joint for joint, i in zip(target.keypoints, index, strict=True) if i is None]
    extra = [joint for i, joint in enumerate(names) if i not in set(found)]
    moved = [names[a] for a, b in zip(found, sorted(found), strict=True) if a != b]
    for code, joints in (("NK421", missing), ("NK422", moved), ("NK423", extra)):
        if joints:
            findings.add(code, _some(joints, 12), len(joints))


def _some(names, most=4):
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
