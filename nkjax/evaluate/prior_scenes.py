"""Draw what a prior does to a pose: it denoises mistakes away, and completes what is hidden.

In: the prior of bodies and labelled people. Out: figures of matplotlib, None where nobody shows the
joints that are needed. Poses are drawn in data units, each in the frame of what it was given.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nkjax import skeleton as skeletons
from nkjax.evaluate import draw, prior_denoising
from nkjax.evaluate import prior_drawings as drawings
from nkjax.kinematics import corruptions, limbs
from nkjax.prior import coordinates, diffusion, refine
from nkjax.prior.coordinates import Part
from nkjax.prior.people import People
from nkjax.skeleton import Skeleton

RATIOS = (0.05, 0.1, 0.2, 0.4, 0.8)
DRAWS = 8
EXAMPLES = 6  # people per kind of hidden joint
STEPS = 10
# A kind, the joints of a side of which it hides what is there; the foot would give the ankle away.
HIDDEN = (("wrist", ("wrist",)), ("elbow", ("elbow",)), ("elbow and wrist", ("elbow", "wrist")),
          ("ankle and foot", ("ankle", "foot")))  # fmt: skip
MOST = 0.8  # of the joints of who is shown are labelled
TRUTH, FAINT, CHOSEN = "#000000", "#9a9a9a", "#c51b7d"

LEGEND = (
    (f"{DRAWS} samples", {"color": FAINT, "lw": 1}),
    ("the sample nearest to the others", {"color": CHOSEN, "lw": 2.4}),
    ("truth", {"color": TRUTH, "lw": 1.2, "ls": "--"}),
    ("spread of the samples", {"color": CHOSEN, "lw": 0, "marker": "o", "ms": 9, "mfc": "none"}),
)


class Example(NamedTuple):
    """A person, by number, of whom joints (by index in the part) are hidden."""

    title: str
    person: int
    hidden: tuple[int, ...]


def denoising_figure(prior: diffusion.PartPrior, skeleton: Skeleton, people: People, seed: int):
    """Draw a true pose, one with a long forearm, one with swapped legs; and each denoised."""
    from matplotlib.figure import Figure  # slow to import, and only pictures need it

    poses, rows = _mistakes(prior.part, skeleton, people, seed)
    if not rows:
        return None
    inputs = prior_denoising.in_units(prior, poses).u_bj2
    given = diffusion.nothing_observed(poses.valid_bj, poses.context_bc)
    means = np.asarray(_denoised(jax.random.key(seed), prior, inputs, given))
    of = drawings.sketch(prior.part, skeleton)
    figure = Figure(figsize=(14, 2.45 * len(rows) + 0.8), layout="constrained")
    title = f"One-step denoising: mean of {DRAWS} estimates (colours) over the pose given (grey)"
    figure.suptitle(title, fontsize=12)
    cells = figure.subplots(len(rows), 1 + len(RATIOS), squeeze=False)
    for r, name in enumerate(rows):
        valid = poses.valid_bj[r]
        everything = np.concatenate([inputs[r][None], means[:, r]])
        frame = drawings.extent(of, everything, [valid] * len(everything))
        for c, axes in enumerate(cells[r]):
            if c:
                drawings.add(axes, of, inputs[r], valid, colour=FAINT, width=2.2, alpha=0.55)
                drawings.add(axes, of, means[c - 1, r], valid)
            else:
                drawings.add(axes, of, inputs[r], valid)
                axes.set_ylabel(name, fontsize=10)
            drawings.window(axes, *frame)
            if not r:
                axes.set_title(f"noise ratio {RATIOS[c - 1]:g}" if c else "given", fontsize=10)
    drawings.sides_legend(figure)
    return figure


@jax.jit
def _denoised(key, prior, u_bj2, given):
    """Return for every ratio the mean of DRAWS estimates, all from the same noise."""
    noise = refine.antithetic(key, DRAWS, u_bj2.shape)

    def at(ratio):
        return refine.denoised(prior, u_bj2, given, jnp.full(DRAWS, ratio), noise).mean(0)

    return jax.lax.map(at, jnp.array(RATIOS, jnp.float32))


def _mistakes(part: Part, skeleton, people: People, seed):
    """Return poses with and without a mistake, and what is said of each; one person if possible."""
    points = people.points_nk2
    try:
        long = corruptions.stretched_bone(points, skeleton, seed, bones=("forearm",))
        swapped = corruptions.swapped_sides(points, skeleton, seed)
    except ValueError:  # a skeleton without arms and legs
        return None, []
    ankles = [i for side in _named(skeleton)["ankle"] for i in side]
    legs = swapped.usable_n & swapped.moved_nk[:, ankles].any(1)
    complete = np.isfinite(points[:, list(part.joints)]).all((1, 2))
    order = np.random.default_rng(seed).permutation(len(points))
    every = long.usable_n.astype(int) + legs + complete

    def best(able_n):
        return order[np.argmax(np.where(able_n, every, -1)[order])]

    kinds = (
        ("as labelled", points, np.isfinite(points).any((1, 2))),
        (f"forearm {corruptions.STRETCH:g} × as long", long.points_nk2, long.usable_n),
        ("legs swapped", swapped.points_nk2, legs),
    )
    shown = [(name, changed, best(able)) for name, changed, able in kinds if able.any()]
    changed = np.stack([changed[n] for _, changed, n in shown])
    of_these = people.chosen([n for *_, n in shown])._replace(points_nk2=changed)
    return coordinates.take(part, of_these, skeleton)[0], [name for name, *_ in shown]


def completion_figure(prior: diffusion.PartPrior, skeleton: Skeleton, people: People, seed: int):
    """Draw people with a joint hidden: samples of it faint, the chosen one strong, truth dashed."""
    from matplotlib.figure import Figure

    examples = _examples(prior.part, skeleton, people, seed)
    if not examples:
        return None
    of_these = people.chosen([example.person for example in examples])
    poses, _ = coordinates.take(prior.part, of_these, skeleton)
    hidden_bj = np.zeros_like(poses.valid_bj)
    for b, example in enumerate(examples):
        hidden_bj[b, list(example.hidden)] = poses.valid_bj[b, list(example.hidden)]
    u, given = prior_denoising.hiding(prior, poses, hidden_bj)
    made = _completed(jax.random.key(seed), prior, given)
    drawn, chosen, spread = (np.asarray(array) for array in made)
    titles = list(dict.fromkeys(example.title for example in examples))
    of = drawings.sketch(prior.part, skeleton)
    figure = Figure(figsize=(14, 2.4 * len(titles) + 0.9), layout="constrained")
    figure.suptitle("What is hidden, completed from the other joints", fontsize=12)
    cells = figure.subplots(len(titles), EXAMPLES, squeeze=False)
    for axes in cells.ravel():
        axes.axis("off")
    free = {title: list(row) for title, row in zip(titles, cells, strict=True)}
    for b, example in enumerate(examples):
        axes = free[example.title].pop(0)
        if len(free[example.title]) == EXAMPLES - 1:
            axes.set_ylabel(example.title, fontsize=10)
        _completion(axes, of, u[b], drawn[:, b], chosen[b], spread[b],
                    poses.valid_bj[b], hidden_bj[b])  # fmt: skip
    drawings.sides_legend(figure, LEGEND)
    return figure


def _completion(axes, of, truth, drawn_sj2, chosen, spread_j, valid, hidden):
    from matplotlib.patches import Circle

    axes.axis("on")
    drawings.add(axes, of, truth, valid & ~hidden)
    joints = np.flatnonzero(hidden)
    for sample in drawn_sj2:
        drawings.add(axes, of, sample, valid, joints, FAINT, width=0.9, alpha=0.8)
    drawings.add(axes, of, chosen, valid, joints, CHOSEN, width=2.6)
    drawings.add(axes, of, truth, valid, joints, TRUTH, width=1.3, style=(0, (3, 2)))
    for joint in joints:
        looks = {"color": CHOSEN, "alpha": 0.7, "linewidth": 0.8}
        axes.add_patch(Circle(chosen[joint], spread_j[joint], fill=False, **looks))
    reach = spread_j[:, None] * hidden[:, None]
    everything = np.stack([truth, chosen - reach, chosen + reach, *drawn_sj2])
    drawings.window(axes, *drawings.extent(of, everything, [valid] * len(everything)))


@jax.jit
def _completed(key, prior, given):
    """Return the samples, the chosen one and the spread: one key, so of the same samples."""
    drawn = refine.samples(key, prior, given, DRAWS, STEPS)
    return drawn, *refine.complete(key, prior, given, DRAWS, STEPS)


def _examples(part: Part, skeleton, people: People, seed) -> list[Example]:
    """Choose people who show what shall be hidden, and most of the rest: EXAMPLES for each kind."""
    at = _named(skeleton)
    place = {joint: i for i, joint in enumerate(part.joints)}
    valid = np.isfinite(people.points_nk2[:, list(part.joints)]).all(-1)
    rng = np.random.default_rng(seed)
    found = []
    for title, names in HIDDEN:
        sides = [tuple(place[i] for name in names for i in at[name][side] if i in place)
                 for side in (0, 1)]  # fmt: skip
        if not all(at[name][side] for name in names if name != "foot" for side in (0, 1)):
            continue  # a skeleton without such a joint
        order = rng.permutation(len(valid))
        able = [n for n in order if valid[n][list(sides[0] + sides[1])].all()
                and valid[n].mean() >= MOST]  # fmt: skip
        chosen = enumerate(able[:EXAMPLES])
        found += [Example(f"{title} hidden", number, sides[i % 2]) for i, number in chosen]
    return found


def _named(skeleton) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return {joint: (those of the left, those of the right)}: indices into the skeleton."""
    joints = skeletons.match(skeleton, limbs.BODY)
    found = dict(zip(limbs.BODY.keypoints, joints, strict=True))
    sides = draw.joint_sides(skeleton)
    feet = [tuple(i for i in skeleton.groups["feet"] if sides[i] == side) for side in limbs.SIDES]
    named = {
        name: tuple((found[f"{s}_{name}"],) if found[f"{s}_{name}"] is not None else ()
                    for s in limbs.SIDES)
        for name in limbs.JOINTS
    }  # fmt: skip
    return named | {"foot": tuple(feet)}
