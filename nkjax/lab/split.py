"""Divide a lab's pictures into train, val and test by child, and look whether anything leaks."""

import collections
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nkjax.data import fingerprints
from nkjax.lab.divide import SPLITS, Unit, divide
from nkjax.lab.findings import Findings
from nkjax.lab.rows import Person, Picture

UNLABELLED = "unlabelled"
HELD_OUT = ("test", "val")
# Upper ends in months: 6 to 24 in half years, as gait and grasp change fastest there.
AGE_BANDS = (6, 12, 18, 24, 36, 48, 72)
# A split is told that is off by more than this part of the share asked for, unless that is less
# than half of the smallest child's people: no child could then be moved to mend it.
SHARE_TOLERANCE = 1 / 3
CHUNK = 1 << 22


def assign(
    pictures: Sequence[Picture],
    people: Sequence[Person],
    shares: Mapping[str, float],
    seed: int,
    findings: Findings,
) -> dict[str, str]:
    """Give every picture its split: {key: 'train', 'val', 'test' or 'unlabelled'}.

    shares: of the labelled people (ignored ones aside) by split, together 1. A child is never
    divided; children that share a file stay together, and pictures without a subject go with those
    they are nearly identical to (NK301 where there is no subject at all). The CSV's own splits come
    first. The rest is divided so that each split gets its share of the people, and of the
    people of each stratum (age band, posture, site), as `divide` does. Ties are decided by a hash
    of seed and name, so the order of the pictures does not matter, and one more picture moves few
    children.

    Unlabelled pictures of a child in val or test, or like a picture there (`fingerprints.NEAR`),
    are missing from the answer (NK143). Also adds NK302, NK309 and NK310. Raises ValueError for
    shares that are not of SPLITS, or do not add up to 1.
    """
    if set(shares) - set(SPLITS) or min(shares.values(), default=-1) < 0:
        raise ValueError(f"want shares of {', '.join(SPLITS)}, none below 0, not {dict(shares)}")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"shares add up to {sum(shares.values()):g}, want 1")
    shares = {split: float(shares.get(split, 0)) for split in SPLITS}
    labelled = sorted((p for p in pictures if p.labelled), key=lambda p: p.key)
    units = _units(labelled, people, findings)
    own = _own_splits(pictures, findings)
    fixed = _fixed(labelled, units, own)
    free = [unit for unit in units if not fixed.keys() & set(unit.keys)]
    have = {split: collections.Counter() for split in SPLITS}
    for unit in units:
        # A unit can be on several sides only by an error that is told; count it by picture then.
        for key in fixed.keys() & set(unit.keys):
            have[fixed[key]].update({s: n / len(unit.keys) for s, n in unit.strata.items()})
    chosen = divide(free, have, shares, seed, findings)
    splits = fixed | {key: chosen[unit.name] for unit in free for key in unit.keys}
    if free:  # else nothing was divided: the lab has chosen
        _tell_shares(units, have, shares, findings)
    return splits | _unlabelled(pictures, splits, own, findings)


def check_leaks(pictures: Iterable[Picture], splits: Mapping[str, str], findings: Findings) -> None:
    """Look for one child (NK302), file (NK303) or near-identical picture (NK304) on two sides.

    Sides are val, test, and all that is learned from: train and unlabelled.
    """
    pictures = sorted((p for p in pictures if p.key in splits), key=lambda p: p.key)
    side = {p.key: "train" if splits[p.key] == UNLABELLED else splits[p.key] for p in pictures}
    for code, name in (("NK302", lambda p: p.subject.id), ("NK303", lambda p: p.sha256)):
        members = collections.defaultdict(dict)
        for picture in pictures:
            if name(picture):
                members[name(picture)].setdefault(side[picture.key], picture.key)
        for who, sides in sorted(members.items()):
            if len(sides) > 1:
                shown = ", ".join(f"{key} ({split})" for split, key in sorted(sides.items()))
                findings.add(code, f"{who}: {shown}" if code == "NK302" else shown)
    for i, first in enumerate(SPLITS):
        for second in SPLITS[i + 1 :]:
            a = [p for p in pictures if side[p.key] == first]
            b = [p for p in pictures if side[p.key] == second]
            for row, column, distance in _near_across(a, b):
                one, other = a[row], b[column]
                if one.sha256 != other.sha256:
                    findings.add(
                        "NK304",
                        f"{one.key} ({first}) and {other.key} ({second}): {distance} of 64 bits",
                    )


def summary(pictures, people, splits: Mapping[str, str]) -> list[list[str]]:
    """Return a table as rows of text, its head first: what each split holds.

    Subjects, pictures and people (ignored ones aside), then people by age band, posture and site.
    """
    by_key = {p.key: p for p in pictures if p.key in splits}
    counts = {split: collections.Counter() for split in (*SPLITS, UNLABELLED)}
    subjects = {split: set() for split in counts}
    for picture in by_key.values():
        counts[splits[picture.key]]["pictures"] += 1
        subjects[splits[picture.key]] |= {picture.subject.id} - {""}
    strata = set()
    for person in people:
        if person.picture in by_key and not person.ignore:
            found = _strata(person, by_key[person.picture])
            strata.update(found)
            counts[splits[person.picture]].update(["people", *found])
    rows = [["", *counts], ["subjects", *(str(len(subjects[split])) for split in counts)]]
    for what in ["pictures", "people", *sorted(strata)]:
        rows.append([what, *(str(counts[split][what]) for split in counts)])
    return rows


def age_band(age_months: float) -> str:
    """Name the age band: '12-17 months', '72+ months', or 'age not known' for NaN."""
    if age_months != age_months:
        return "age not known"
    low = max((end for end in (0, *AGE_BANDS) if end <= age_months), default=0)
    above = [end for end in AGE_BANDS if end > age_months]
    return f"{low:02d}-{above[0] - 1:02d} months" if above else f"{low}+ months"


def _strata(person: Person, picture: Picture) -> tuple[str, str, str]:
    posture = person.posture or picture.subject.posture or "not known"
    site = picture.subject.site or "not known"
    return age_band(picture.subject.age_months), f"posture {posture}", f"site {site}"


def _units(labelled, people, findings) -> list[Unit]:
    """Group the pictures that must not be parted; sorted by name, the name of one of them."""
    parents = {p.key: p.key for p in labelled}
    first = {}
    for picture in labelled:
        for tie in (("subject", picture.subject.id), ("sha256", picture.sha256)):
            if tie[1]:
                _join(parents, first.setdefault(tie, picture.key), picture.key)
    unknown = [p for p in labelled if not p.subject.id]
    if unknown:
        near = fingerprints.near_pairs([p.phash for p in labelled], fingerprints.NEAR)
        for i, j in near:
            if not (labelled[i].subject.id and labelled[j].subject.id):
                _join(parents, labelled[i].key, labelled[j].key)
    groups = collections.defaultdict(list)
    for picture in labelled:
        groups[_root(parents, picture.key)].append(picture)
    if labelled and len(unknown) == len(labelled):
        findings.add("NK301", f"{len(labelled)} pictures in {len(groups)} groups")
    by_picture = collections.defaultdict(list)
    for person in people:
        if not person.ignore:
            by_picture[person.picture].append(person)
    units = []
    for members in groups.values():
        strata = collections.Counter()
        for picture in members:
            for person in by_picture[picture.key]:
                strata.update(["", *_strata(person, picture)])
        # By a child where there is one, so that a further picture does not rename the group.
        name = max(f"subject {p.subject.id}" if p.subject.id else p.key for p in members)
        units.append(Unit(name, tuple(p.key for p in members), dict(strata)))
    return sorted(units, key=lambda unit: (unit.name, unit.keys))


def _own_splits(pictures, findings) -> dict[str, str]:
    """Return the split that the CSV names for every child, '' for none; adds NK302.

    By the child's id, or a picture's key without one. A line of an unlabelled picture counts as one
    of a labelled picture does, but need not repeat the split.
    """
    said = collections.defaultdict(set)
    for picture in sorted(pictures, key=lambda p: not p.labelled):
        splits = said[picture.subject.id or picture.key]
        if picture.labelled:
            splits.add(picture.subject.split)
        elif picture.subject.split:
            if splits == {""}:
                splits.clear()
            splits.add(picture.subject.split)
    own = {}
    for who, splits in sorted(said.items()):
        if len(splits) > 1:
            named = ", ".join(sorted(split or "no split" for split in splits))
            findings.add("NK302", f"{who}: {named} in the subjects file")
        # In doubt on the side that is not learned from.
        own[who] = next((split for split in (*HELD_OUT, "train") if split in splits), "")
    return own


def _fixed(labelled, units, own) -> dict[str, str]:
    """Return the split of all pictures that stay together with a child whose split is named."""
    by_key, fixed = {p.key: p for p in labelled}, {}
    for unit in units:
        whose = {key: own[by_key[key].subject.id or key] for key in unit.keys}
        others = next((s for s in (*HELD_OUT, "train") if s in whose.values()), "")
        fixed.update({key: split or others for key, split in whose.items() if others})
    return fixed


def _tell_shares(units, have, shares, findings) -> None:
    sizes = [unit.strata[""] for unit in units if unit.strata.get("")]
    told = []
    for split, share in shares.items() if sizes else ():
        found = have[split][""] / sum(sizes)
        # Just above: 0.1 + 0.2 is not 0.3.
        tolerance = max(SHARE_TOLERANCE * share, min(sizes) / 2 / sum(sizes)) + 1e-9
        if abs(found - share) > tolerance:
            told.append(f"{split} {100 * found:.1f} % for {100 * share:.1f} %")
    if told:
        findings.add("NK310", ", ".join(told))


def _unlabelled(pictures, splits, own, findings) -> dict[str, str]:
    held_out = [p for p in pictures if splits.get(p.key) in HELD_OUT]
    others = sorted((p for p in pictures if not p.labelled), key=lambda p: p.key)
    subjects = {p.subject.id for p in held_out} - {""}
    files = {p.sha256 for p in held_out}
    near = {row for row, _, _ in _near_across(others, held_out)}
    kept = {}
    for i, picture in enumerate(others):
        who = picture.subject.id or picture.key
        child_held_out = picture.subject.id in subjects or own[who] in HELD_OUT
        if child_held_out or picture.sha256 in files or i in near:
            findings.add("NK143", picture.key)
        else:
            kept[picture.key] = UNLABELLED
    return kept


def _near_across(a: Sequence[Picture], b: Sequence[Picture]):
    """Yield (i, j, bits that differ) for near-identical pictures of two lists, in their order."""
    first, second = (np.array([p.phash for p in pictures], np.uint64) for pictures in (a, b))
    rows = max(1, CHUNK // max(1, len(b)))
    for start in range(0, len(a), rows):
        part = first[start : start + rows, None]
        bits = np.bitwise_count(part ^ second[None])
        # A hash of 0 is like nothing (`fingerprints.dhash`).
        for i, j in np.argwhere((bits <= fingerprints.NEAR) & (part != 0) & (second[None] != 0)):
            yield start + int(i), int(j), int(bits[i, j])


def _root(parents, key):
    while parents[key] != key:
        parents[key] = key = parents[parents[key]]
    return key


def _join(parents, a, b):
    low, high = sorted((_root(parents, a), _root(parents, b)))
    parents[high] = low
