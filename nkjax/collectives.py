"""What chips send each other in a compiled program: kinds, how often, bytes. In flows HLO text.

A collective in the body of a loop runs as often as the loop: the count stands in the loop's
condition, which compares a counter with a constant (`lax.scan` and `lax.map` count from 0 by 1).
"""

import dataclasses
import math
import re

KINDS = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_RUNS = re.compile(rf"({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b(bf16|f16|f32|f64|[su]8|[su]16|[su]32|[su]64|pred)\[([\d,]*)\]")
_CALLED = re.compile(r"(calls|to_apply|condition|body)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_KNOWN_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONSTANT = re.compile(r"= [su]32\[\]\S* constant\((\d+)\)")
# One collective that runs beside others is written in pieces, which share its channel.
_PIECE = re.compile(r'channel_id=(\d+).*chain_id="')


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program: `times` it runs in it, among `group` chips.

    size: bytes of the whole arrays (what a gather makes, a reduction adds up, a permutation
    passes on); largest: of the largest of them.
    """

    kind: str
    times: int
    group: int
    size: int
    largest: int

    @property
    def sent(self) -> float:
        """Return the bytes that one chip sends in one program, by the best ring."""
        rounds = {"all-reduce": 2.0, "collective-permute": 1.0}.get(self.kind, 1.0)
        share = 1.0 if self.kind == "collective-permute" else (self.group - 1) / self.group
        return self.times * rounds * share * self.size


def read(hlo: str) -> list[Collective]:
    """Find every collective of an optimised program and count how often it runs.

    Raises ValueError for a loop that does not say how often it runs.
    """
    computations, entry = _computations(hlo)
    times = _how_often(computations, entry)
    devices = re.search(r"num_partitions=(\d+)", hlo[: hlo.find("\n")])
    chips = int(devices[1]) if devices else 1
    found: dict[str, Collective] = {}
    for computation, lines in computations.items():
        for line in lines:
            match = _RUNS.search(line)
            if not match or not times.get(computation):
                continue
            one = _collective(line, match, computation, times[computation], chips)
            piece = _PIECE.search(line)
            key = f"channel {piece[1]}" if piece else f"{computation} {line.split(' = ')[0]}"
            if key not in found or found[key].times < one.times:
                found[key] = one
    return list(found.values())


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    computations: dict[str, list[str]] = {}
    name = entry = ""
    for line in hlo.splitlines():
        header = _HEADER.match(line)
        if header:
            name = header[2]
            computations[name] = []
            entry = name if header[1] else entry
        elif name and line.startswith(" "):
            computations[name].append(line)
    return computations, entry


def _how_often(computations: dict[str, list[str]], entry: str) -> dict[str, int]:
    """Return how often each computation runs when the entry runs once."""
    total: dict[str, int] = {}

    def visit(name, times):
        total[name] = total.get(name, 0) + times
        for line in computations.get(name, ()):
            called = _CALLED.findall(line)
            for names in _BRANCHES.findall(line):
                called += [("branch", name.strip(" %")) for name in names.split(",")]
            count = _count(line, dict(called), computations) if " while(" in line else 1
            for how, other in called:
                visit(other, times * (count if how == "body" else 1))

    visit(entry, 1)
    return total


def _count(line: str, called: dict[str, str], computations: dict[str, list[str]]) -> int:
    known = _KNOWN_COUNT.search(line)
    if known:
        return int(known[1])
    condition = computations.get(called.get("condition", ""), [])
    constants = {int(n) for part in condition for n in _CONSTANT.findall(part)}
    if len(constants) != 1:
        raise ValueError(f"a loop does not say how often it runs: {line.strip()[:80]}")
    return constants.pop()


def _collective(line, match, computation, times, chips) -> Collective:
    kind, started = match[1], bool(match[2])
    result = line[line.index(" = ") : match.start()]
    sizes = [
        (math.prod(int(n) for n in shape.split(",") if n) * _item_bytes(dtype))
        for dtype, shape in _ARRAY.findall(result)
    ]
    if kind == "collective-permute" and started:
        sizes = sizes[1:2]  # of (operand, result, two counters)
    elif started and kind != "all-reduce":
        sizes = sizes[len(sizes) // 2 :]  # of (operands, results)
    group = _group(line, chips)
    if kind == "reduce-scatter":
        sizes = [size * group for size in sizes]
    elif kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # on TPUs a fusion that keeps a part of the sum
    return Collective(kind, times, group, sum(sizes), max(sizes))


def _item_bytes(dtype: str) -> int:
    return 1 if dtype == "pred" else int(dtype.lstrip("bfsu")) // 8


def _group(line: str, chips: int) -> int:
    """Return how many chips take part together: the size of the first of the replica groups."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(listed[1].split(","))
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]<=", line):
        return int(counted[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = dict(re.findall(r"('[^']+')=(\d+)", named[1]))
        axes = re.findall(r"('[^']+')(?::\(\d+\)(\d+))?", named[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return chips
