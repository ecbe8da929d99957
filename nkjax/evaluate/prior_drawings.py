"""Draw poses of a body, or of a hand, as stick figures on axes of matplotlib.

In: points (J, 2) of the joints of a `coordinates.Part` in any unit, y downwards, and which of them
are valid. Out: lines, heads and dots added to axes; the left side of a body in one colour and the
right in another, every finger in its own.
"""

from typing import NamedTuple

import numpy as np

from nkjax import skeleton as skeletons
from nkjax.evaluate import draw
from nkjax.kinematics import limbs
from nkjax.prior.coordinates import Part
from nkjax.skeleton import Skeleton

# Of the person, not of the picture; darker than on photographs, for white paper.
SIDE_COLOURS = {"left": "#d95f02", "right": "#1965b0", "middle": "#4d4d4d"}
FINGER_COLOURS = ("#b2182b", "#d95f02", "#1b7837", "#1965b0", "#762a83")
NOSE = skeletons.parse({"name": "nose", "keypoints": ["nose"]}, "nose")
HEAD_MARGIN = 1.15
ROOM = 1.08  # of the frame around what is drawn


class Sketch(NamedTuple):
    """What is drawn of a part; all joints by their index in it.

    lines: pairs, line_colours: one each; head: joints that a circle is drawn around, nose: which of
    them tells where it faces, or None; neck: the joints whose middle it sits above; dots: joints
    that no line ends at, dot_colours: one each.
    """

    lines: tuple[tuple[int, int], ...]
    line_colours: tuple[str, ...]
    head: tuple[int, ...]
    nose: int | None
    neck: tuple[int, ...]
    dots: tuple[int, ...]
    dot_colours: tuple[str, ...]


def sketch(part: Part, skeleton: Skeleton) -> Sketch:
    """Tell what is drawn of a part: its limbs, or the bones that follow from its joints' names."""
    place = {joint: i for i, joint in enumerate(part.joints)}
    head = tuple(place[i] for i in skeleton.groups["head"] if i in place)
    named = ((place.get(bone.a), place.get(bone.b)) for bone in limbs.bones(skeleton))
    lines = part.limbs or tuple(pair for pair in named if None not in pair)
    # From ear to shoulder is no bone: a circle and a neck stand for all of the head.
    lines = tuple(pair for pair in lines if not {*pair} & {*head})
    if part.name == "hand":
        joint_colours = _fingers(part, lines)
        line_colours = tuple(joint_colours[max(pair, key=_depth(part, lines))] for pair in lines)
    else:
        sides = draw.joint_sides(skeleton)
        joint_colours = [SIDE_COLOURS[sides[i]] for i in part.joints]
        line_colours = tuple(SIDE_COLOURS[_side(sides, part, pair)] for pair in lines)
    nose = skeletons.match(skeleton, NOSE)[0]
    dots = tuple(sorted({*range(len(part.joints))} - {i for pair in lines for i in pair} - {*head}))
    return Sketch(
        lines, line_colours, head, place.get(nose), part.fallback, dots,
        tuple(joint_colours[i] for i in dots),
    )  # fmt: skip


def add(
    axes, of: Sketch, points_j2, valid_j, touching=None,
    colour=None, width=1.6, alpha=1.0, style="-",
):  # fmt: skip
    """Add one pose to axes, as a collection of lines called 'pose', its head and its dots.

    points_j2: in the units of the axes; those of joints that are not valid are not read.
    touching: joints of which a line must touch one to be drawn, and the head is left out; all
    lines without it. colour: in place of those of the sides; style: as matplotlib names dashes.
    """
    from matplotlib.collections import LineCollection  # slow to import, and only this needs it

    points, valid = np.asarray(points_j2, np.float64), np.asarray(valid_j, bool)
    wanted = {*range(len(points))} if touching is None else {*touching}
    shown = [i for i, (a, b) in enumerate(of.lines)
             if valid[a] and valid[b] and {a, b} & wanted]  # fmt: skip
    segments = [points[list(of.lines[i])] for i in shown]
    colours = [colour or of.line_colours[i] for i in shown]
    looks = {"alpha": alpha, "linewidths": width, "linestyles": style}
    axes.add_collection(
        LineCollection(segments, colors=colours, capstyle="round", gid="pose", **looks)
    )
    dots = [i for i, joint in enumerate(of.dots) if valid[joint] and joint in wanted]
    if dots:
        at = points[[of.dots[i] for i in dots]]
        tints = [colour or of.dot_colours[i] for i in dots]
        axes.scatter(*at.T, s=3 * width, c=tints, alpha=alpha, linewidths=0, zorder=2)
    if touching is None:
        _add_head(axes, of, points, valid, colour, width, alpha, style)


def _add_head(axes, of, points, valid, colour, width, alpha, style):
    from matplotlib.patches import Circle

    middle, radius = _head(of, points, valid)
    if middle is None:
        return
    colour = colour or SIDE_COLOURS["middle"]
    looks = {"color": colour, "alpha": alpha, "linewidth": 0.8 * width}
    axes.add_patch(Circle(middle, radius, fill=False, linestyle=style, **looks))
    if of.nose is not None and valid[of.nose]:
        axes.scatter(*points[of.nose], s=4 * width, color=colour, alpha=alpha, linewidths=0)
    if of.neck and valid[list(of.neck)].all():
        way = points[list(of.neck)].mean(0) - middle
        if np.hypot(*way) > radius:
            start = middle + way * radius / np.hypot(*way)
            axes.plot(*np.stack([start, middle + way]).T, linestyle=style, **looks)


def _head(of: Sketch, points_j2, valid_j):
    """Return middle and radius of the circle that is drawn for a head; None, 0 without one."""
    seen = [i for i in of.head if valid_j[i]]
    if not seen:
        return None, 0.0
    middle = points_j2[seen].mean(0)
    return middle, HEAD_MARGIN * np.hypot(*(points_j2[seen] - middle).T).max()


def extent(of: Sketch, points_bj2, valid_bj) -> tuple[np.ndarray, float]:
    """Return the middle and half the side of the smallest square window that shows poses whole.

    In the units of the points, heads and a little room included; (0, 0) and 1 where no joint is
    valid.
    """
    corners = []
    for points, valid in zip(np.asarray(points_bj2, np.float64), valid_bj, strict=True):
        corners.append(points[valid])
        middle, radius = _head(of, points, valid)
        if middle is not None:
            corners += [middle[None] - radius, middle[None] + radius]
    known = np.concatenate([*corners, np.zeros((0, 2))])
    if not len(known):
        return np.zeros(2), 1.0
    low, high = known.min(0), known.max(0)
    return (low + high) / 2, float(max((high - low).max() / 2 * ROOM, 1e-6))


def window(axes, middle, half) -> None:
    """Show a square window of axes, y downwards, without ticks."""
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] + half, middle[1] - half))
    axes.set(xticks=[], yticks=[], aspect="equal")
    for spine in axes.spines.values():
        spine.set(color="#cccccc", linewidth=0.6)


def sides_legend(figure, extra=()) -> None:
    """Explain the colours of the sides below a figure; extra: further (label, line properties)."""
    from matplotlib.lines import Line2D

    looks = [(f"the child's {side}", {"color": SIDE_COLOURS[side]}) for side in ("left", "right")]
    handles = [Line2D([], [], label=label, **{"lw": 2, **look}) for label, look in (*looks, *extra)]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9
    )


def _side(sides, part, pair):
    """Return the side of a line; one from the mid-line to a side is of it, one across of none."""
    of_line = {sides[part.joints[i]] for i in pair} - {"middle"}
    return of_line.pop() if len(of_line) == 1 else "middle"


def _depth(part, lines):
    """Return a function that tells how many lines a joint is away from the root of its hand."""
    steps, border = {part.root[0]: 0}, [part.root[0]]
    while border:
        here = border.pop(0)
        for pair in lines:
            for joint in pair:
                if here in pair and joint not in steps:
                    steps[joint] = steps[here] + 1
                    border.append(joint)
    return lambda joint: steps.get(joint, 0)


def _fingers(part, lines):
    """Return a colour for every joint of a hand: what hangs together without the root has one."""
    root = part.root[0]
    finger = {i: i for i in range(len(part.joints))}
    for a, b in lines:
        if root not in (a, b):
            low, high = sorted((finger[a], finger[b]))
            finger = {i: low if f == high else f for i, f in finger.items()}
    named = sorted({finger[i] for pair in lines for i in pair if i != root})
    colour = {f: FINGER_COLOURS[n % len(FINGER_COLOURS)] for n, f in enumerate(named)}
    return [colour.get(finger[i], SIDE_COLOURS["middle"]) for i in range(len(part.joints))]
