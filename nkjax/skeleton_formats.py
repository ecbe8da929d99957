"""Read skeletons from the files labs have: JSON, YAML, COCO categories, mmpose dataset_info.

Nothing in a file is executed: Python is parsed, and only literals are taken from it.
"""

import ast
import json
import operator
from pathlib import Path

import yaml

from nkjax import skeleton
from nkjax.skeleton import BUILT_IN, BadSkeleton, Skeleton

# Far above the largest skeleton; parsing time stays short whatever a file holds.
MOST_CHARACTERS = 1_000_000
MOST_JOINTS = 10_000
ARITHMETIC = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv
}  # fmt: skip


def load(name_or_path) -> Skeleton:
    """Load a built-in skeleton by its name, or a file by its path.

    Takes the format of `skeleton.parse` as JSON or YAML (.yaml, .yml), a COCO annotation file
    (its category), and mmpose's dataset_info as Python (.py), JSON or YAML. Raises BadSkeleton.
    """
    name = str(name_or_path)
    if name in BUILT_IN:
        return skeleton.load(name)
    text, ending = _text(name), Path(name).suffix.lower()
    if ending == ".py":
        return from_dataset_info(text, name)
    data = _naming(name, _read_yaml if ending in (".yaml", ".yml") else _read_json, text)
    if isinstance(data, dict) and "keypoint_info" in data:
        return skeleton.parse(_naming(name, _dataset_info, data), name)
    if isinstance(data, dict) and "categories" in data:
        return from_coco_category(_naming(name, _person_category, data["categories"]), name)
    return skeleton.parse(data, name)


def from_coco_category(category: dict, source: str) -> Skeleton:
    """Make a Skeleton from an entry of 'categories' of a COCO keypoint file.

    category: {"name", "keypoints": [str], "skeleton": [[int, int]]}, the numbers counted from 1 as
    COCO has them. `flip_idx` (K partners) and `flip_pairs`, both counted from 0, are honoured where
    a tool adds them, and checked against the names. source: names the file in messages. Raises
    BadSkeleton. Source: notes ecosystem 2.1.
    """
    return skeleton.parse(_naming(source, _category, category), source)


def from_dataset_info(path_or_text: Path | str, source: str) -> Skeleton:
    """Make a Skeleton from mmpose's dataset_info.

    path_or_text: a Path, or the content of a file: Python with `dataset_info = dict(...)`, or JSON.
    Joints stand in the order of their ids; limbs come from skeleton_info, pairs from the swaps,
    which must agree with one another and with the names. source: names the file in messages.
    Raises BadSkeleton. Source: notes ecosystem 2.1.
    """
    text = _text(path_or_text, source) if isinstance(path_or_text, Path) else path_or_text
    read = _read_json if text.lstrip().startswith("{") else _read_python
    info = _naming(source, read, text)
    return skeleton.parse(_naming(source, _dataset_info, info), source)


def _naming(source, make, data):
    """Return make(data), naming the file in the message where it refuses."""
    try:
        return make(data)
    except BadSkeleton as error:
        raise BadSkeleton(f"{source}: {error}") from None


def _text(path, source=None):
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = f"nor a file that opens ({error.strerror})"
    except ValueError:
        reason = "nor a file of UTF-8 text"
    raise BadSkeleton(
        f"{source or path}: neither a built-in skeleton ({', '.join(BUILT_IN)}) {reason}"
    )


def _require(condition, rule):
    if not condition:
        raise BadSkeleton(rule)


def _one_line(error):
    return " ".join(str(error).split())[:200] or type(error).__name__


# ---- what a file holds, as the plain dict that skeleton.parse reads ----


def _category(category):
    _require(isinstance(category, dict), "a category must be an object with 'keypoints'")
    data = {key: category[key] for key in ("name", "keypoints") if key in category}
    names = data.get("keypoints")
    if not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
        return data  # skeleton.parse says what is wrong
    count = len(names)
    limbs = _index_pairs(category, "skeleton")
    outside = [v for limb in limbs for v in limb if not 1 <= v <= count]
    _require(
        not outside,
        f"'skeleton' names joint {outside[:1]} of {count}, but COCO counts from 1 to {count}; "
        "add 1 to all numbers if they count from 0",
    )
    pairs = {frozenset(pair) for pair in _index_pairs(category, "flip_pairs")}
    partners = category.get("flip_idx")
    if partners is not None:
        good = isinstance(partners, list) and all(type(v) is int for v in partners)
        _require(
            good and sorted(partners) == list(range(count))
            and all(partners[j] == i for i, j in enumerate(partners)),
            f"'flip_idx' must name each joint 0 to {count - 1} once, and each partner's partner be "
            "the joint itself",
        )  # fmt: skip
        pairs |= {frozenset(pair) for pair in enumerate(partners)}
    outside = [v for pair in pairs for v in pair if not 0 <= v < count]
    _require(not outside, f"'flip_pairs' names joint {outside[:1]}, but counts 0 to {count - 1}")
    return data | {
        "limbs": [[names[a - 1], names[b - 1]] for a, b in limbs],
        "flip_pairs": [[names[min(pair)], names[max(pair)]] for pair in sorted(map(sorted, pairs))],
    }


def _index_pairs(category, key):
    pairs = category.get(key)
    pairs = [] if pairs is None else pairs
    good = isinstance(pairs, list) and all(
        isinstance(p, list) and len(p) == 2 and all(type(v) is int for v in p) for p in pairs
    )
    _require(good, f"{key!r} must be a list of pairs of joint numbers")
    return pairs


def _person_category(categories):
    _require(isinstance(categories, list), "'categories' must be a list")
    found = [c for c in categories if isinstance(c, dict) and c.get("keypoints")]
    _require(
        len(found) == 1,
        f"{len(found)} categories with keypoints; want one, in a file of its own",
    )
    return found[0]


def _dataset_info(info):
    rule = "'keypoint_info' must map 0, 1, ... to entries with 'name' and, if any, the same 'id'"
    _require(isinstance(info, dict) and isinstance(info.get("keypoint_info"), dict), rule)
    entries = {}
    for key, entry in info["keypoint_info"].items():
        _require(isinstance(entry, dict) and isinstance(entry.get("name"), str), rule)
        number = entry.get("id", int(key) if str(key).isdecimal() else None)
        _require(type(number) is int and number not in entries, rule)
        entries[number] = entry
    _require(entries and sorted(entries) == list(range(len(entries))), rule)
    ordered = [entries[i] for i in range(len(entries))]
    data = {
        "name": info.get("dataset_name"),
        "keypoints": [entry["name"] for entry in ordered],
        "limbs": _links(info.get("skeleton_info")),
        "flip_pairs": _swaps(ordered),
    }
    for key in ("joint_weights", "sigmas"):
        if info.get(key):
            data[key] = info[key]
    return data


def _links(links):
    rule = "'skeleton_info' must map 0, 1, ... to entries with a 'link' of two joint names"
    links = {} if links is None else links
    _require(isinstance(links, dict), rule)
    found = [entry.get("link") if isinstance(entry, dict) else None for entry in links.values()]
    _require(all(isinstance(link, list) and len(link) == 2 for link in found), rule)
    return found


def _swaps(entries):
    swaps = {entry["name"]: entry.get("swap") or entry["name"] for entry in entries}
    for name, partner in swaps.items():
        known = isinstance(partner, str) and partner in swaps
        _require(known, f"'swap' of {name!r} is {partner!r}, which is not among the keypoints")
        _require(
            swaps[partner] == name,
            f"{name!r} swaps with {partner!r}, but that with {swaps[partner]!r}; correct 'swap'",
        )
    return [[name, partner] for name, partner in swaps.items() if name <= partner]


# ---- text to plain data ----


def _read_json(text):
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except BadSkeleton:
        raise
    except (ValueError, RecursionError) as error:
        raise BadSkeleton(f"not a JSON file ({_one_line(error)}); see nkjax/skeletons") from None


def _unique(pairs):
    plain = {}
    for key, value in pairs:
        _require(key not in plain, f"the key {str(key)[:60]!r} stands twice in one object")
        plain[key] = value
    return plain


class _Yaml(yaml.SafeLoader):
    """Plain YAML only: an alias may unfold without bound, and a tag makes other objects."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            raise BadSkeleton(
                f"line {event.start_mark.line + 1}: YAML aliases (*x) and tags (!x) are not read; "
                "write the value out"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        _require(all(isinstance(k, (str, int)) for k in keys), "YAML keys must be text or numbers")
        _unique([(key, None) for key in keys])
        return super().construct_mapping(node, deep)


def _read_yaml(text):
    _require(len(text) <= MOST_CHARACTERS, f"longer than {MOST_CHARACTERS} characters")
    try:
        return yaml.load(text, _Yaml)
    except BadSkeleton:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise BadSkeleton(f"not a YAML file ({_one_line(error)})") from None


def _read_python(text):
    _require(len(text) <= MOST_CHARACTERS, f"longer than {MOST_CHARACTERS} characters")
    try:
        found = [node.value for node in ast.parse(text).body if _assigns_dataset_info(node)]
        _require(len(found) == 1, "want one assignment dataset_info = dict(...) at the top level")
        return _literal(found[0])
    except BadSkeleton:
        raise
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise BadSkeleton(f"not a Python file of plain values ({_one_line(error)})") from None


def _assigns_dataset_info(node):
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == "dataset_info" for target in node.targets
    )


def _literal(node):
    """Return the value of a syntax tree of literals, dict(...) and arithmetic; refuse the rest."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return node.value
        case ast.List() | ast.Tuple():
            return [_literal(item) for item in node.elts]
        case ast.Dict():
            _require(None not in node.keys, f"line {node.lineno}: ** is not read; write it out")
            keys = [_literal(key) for key in node.keys]
            _require(all(isinstance(k, (str, int)) for k in keys), "keys must be text or numbers")
            return _unique(zip(keys, map(_literal, node.values), strict=True))
        case ast.Call(func=ast.Name(id="dict"), args=[]) if all(k.arg for k in node.keywords):
            return _unique([(k.arg, _literal(k.value)) for k in node.keywords])
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()) if _is_number(value := _literal(node.operand)):
            return -value if isinstance(node.op, ast.USub) else value
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()):
            return _arithmetic(node, _literal(node.left), _literal(node.right))
    raise BadSkeleton(
        f"line {node.lineno}: {ast.unparse(node)[:60]!r} is no plain value, and "
        "nothing in the file is executed; write the value out"
    )


def _arithmetic(node, left, right):
    """Compute with two numbers, or repeat a list: [0.1] * 17."""
    repeats = isinstance(node.op, ast.Mult) and isinstance(left, list) and type(right) is int
    _require(
        (repeats and right <= MOST_JOINTS) or (_is_number(left) and _is_number(right)),
        f"line {node.lineno}: {ast.unparse(node)[:60]!r} is no plain arithmetic; write it out",
    )
    return ARITHMETIC[type(node.op)](left, right)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
