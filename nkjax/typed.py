"""Nested dicts into typed dataclasses, strictly: nothing unknown, nothing missing, nothing lost.

Settings are named by their path, such as 'optimizer.clip'. Problems are gathered rather than
raised, so that one error can name them all.
"""

import dataclasses
import difflib
import functools
import math
import numbers
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence

MOST_NAMED = 5  # problems, in one error


class Rules(typing.NamedTuple):
    """What single values of some settings must keep, whatever the others are.

    names: the texts that a setting may be, by its path; values: paths with blanks between, the rule
    in words, and whether a value keeps it.
    """

    names: Mapping[str, Sequence[str]]
    values: Sequence[tuple[str, str, Callable]]


def broken_rules(rules: Rules, plain: Mapping) -> list[str]:
    """Return what is wrong with single values; a key that is not there is no matter of these."""

    def value(key):
        return functools.reduce(lambda node, part: (node or {}).get(part), key.split("."), plain)

    broken = []
    for key, names in rules.names.items():
        if (name := value(key)) is not None and name not in names:
            hint = did_you_mean(name, names)
            known = ", ".join(known or "''" for known in names)
            broken.append(f"{key} is {name!r}: use one of {known}{hint}")
    for keys, rule, holds in rules.values:
        found = [(key, value(key)) for key in keys.split()]
        broken += [f"{key} is {x!r}: {rule}" for key, x in found if x is not None and not holds(x)]
    return broken


def sections(kind: type) -> dict[str, type]:
    """Return the fields of a dataclass that are dataclasses themselves."""
    fields = dataclasses.fields(kind)
    return {field.name: field.type for field in fields if dataclasses.is_dataclass(field.type)}


def kinds(kind: type) -> dict[str, type]:
    """Return the type of every setting of a dataclass, such as {'optimizer.clip': float}."""
    flat = {}
    for field in dataclasses.fields(kind):
        inner = kinds(field.type) if dataclasses.is_dataclass(field.type) else {"": field.type}
        flat |= {f"{field.name}.{name}".rstrip("."): type_ for name, type_ in inner.items()}
    return flat


def read(kind: type, plain: Mapping, problems: list[str], at: str = "") -> dict:
    """Return the values of a dataclass's fields that are well formed; add the others to problems.

    at: path of `plain`, 'optimizer.', where it is a part of the whole. Whole numbers may be written
    1000.0, any number as a whole one, tuples as lists. Texts are never read as numbers.
    """
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    for name in plain:
        if name not in fields:
            problems.append(f"{at}{name} is unknown{nearest(kind, name, at)}")
    missing = [f"{at}{name}" for name in fields if name not in plain]
    if missing:
        problems.append(_are_missing(missing, at.rstrip(".")))
    values = {}
    for name, wanted in fields.items():
        if name in plain and dataclasses.is_dataclass(wanted):
            section = plain[name] if isinstance(plain[name], Mapping) else {}
            values[name] = read(wanted, section, problems, f"{at}{name}.")
        elif name in plain:
            try:
                values[name] = _convert(wanted, plain[name])
            except ValueError as error:
                problems.append(f"{at}{name} is {shortened(plain[name])}: want {error}")
    return values


def _are_missing(keys: list[str], section: str) -> str:
    what = f"{keys[0]} and {len(keys) - 1} more are" if keys[1:] else f"{keys[0]} is"
    if section:
        return f"{what} missing: was `{section}` replaced as a whole? set its keys one by one"
    return f"{what} missing: give every setting"


def _convert(wanted, value):
    """Return a value as the type of its field. Raises ValueError, saying what is wanted."""
    if typing.get_origin(wanted) is tuple:
        each, *others = typing.get_args(wanted)
        size = None if others == [...] else 1 + len(others)
        items = value if isinstance(value, list | tuple) else ()
        if items is not value or size not in (None, len(items)):
            raise ValueError(f"{size or 'any number of'} numbers, such as 1,2")
        return tuple(_convert(each, item) for item in items)
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if wanted is int and is_number and abs(value) < 2**63 and value == int(value):
        return int(value)
    if wanted is float and is_number and _is_finite(value):
        return float(value)
    if wanted in (str, bool) and isinstance(value, wanted):
        return value
    raise ValueError(in_words(wanted))


def _is_finite(value) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:  # a whole number too large for a float
        return False


def in_words(kind: type) -> str:
    """Say what a setting of a type must be: 'a whole number'."""
    names = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false"}
    return names.get(kind, "numbers, such as 1,2")


def nearest(kind: type, key: str, at: str = "") -> str:
    """Return ' (did you mean ...?)' with the setting of a dataclass that an unknown key may mean.

    One of the same name in another section comes first: 'clip' may mean 'optimizer.clip'.
    """
    known = {f"{at}{name}" for name in kinds(kind)} | {
        f"{at}{field.name}" for field in dataclasses.fields(kind)
    }
    name = key.rpartition(".")[2]
    same = sorted(k for k in known if k.rpartition(".")[2] == name)
    return f" (did you mean {same[0]}?)" if same else did_you_mean(f"{at}{key}", sorted(known))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ' (did you mean ...?)' with the nearest known word, or nothing."""
    near = difflib.get_close_matches(str(word), list(known), 1, 0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def shortened(value) -> str:
    """Return a value's repr in one short line, for an error."""
    text = " ".join(repr(value).split())
    return text if len(text) < 60 else f"{text[:57]}..."


def one_line(problems: list[str]) -> str:
    """Join problems to one line, naming the first MOST_NAMED."""
    more = f"; and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
    return "; ".join(problems[:MOST_NAMED]) + more
