"""Draw what a prior has learned: its samples, what it denoises and completes, what it measures.

In: a loaded prior and labelled people of its skeleton. Out: PNG files in a folder. Only joints are
drawn, never a photograph.
"""

import os
import textwrap
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from nkjax.evaluate import prior_denoising
from nkjax.evaluate import prior_drawings as drawings
from nkjax.evaluate import prior_histograms as histograms
from nkjax.evaluate import prior_scenes as scenes
from nkjax.prior import coordinates, diffusion, refine, saved
from nkjax.prior.coordinates import Poses
from nkjax.prior.people import People

ROWS, COLUMNS = 6, 8  # of poses in a grid
SAMPLES, STEPS = 240, 20  # drawn for the histograms, the first of them for the grid
LARGEST = 1.5  # window of a pose, by that of the largest labelled one
LABELLED, SAMPLED = "#b8b8b8", "#c51b7d"
EXPLAINED = (
    "x: p-value; y: share per bin; dashed: p = .05; line: the 5 % that the first bin should have "
    "at most; at 1: nothing stands out"
)
BONES_ACROSS, ANGLES_ACROSS = 5, 7


class Look(NamedTuple):
    """A part's labelled poses in data units, whose they are, and samples of its prior."""

    prior: diffusion.PartPrior
    sketch: drawings.Sketch
    poses: Poses
    labelled: histograms.Poses
    samples: histograms.Poses


def write(folder, prior: saved.Prior, people: People, plausibility=None, seed=0) -> list[str]:
    """Draw a prior beside labelled people into a folder; return the names of the files.

    samples_body.png, samples_hand.png, denoising.png, completion.png, bones.png, angles.png and,
    given plausibility (N,) p-values of the people, plausibility.png: those there is something to
    draw for. The same seed gives the same files. Raises ValueError for people of another skeleton,
    or nobody.
    """
    joints = len(prior.skeleton.keypoints)
    if not len(people.points_nk2) or people.points_nk2.shape[1] != joints:
        given = " people of ".join(map(str, people.points_nk2.shape[:2]))
        rule = f"{given} joints for a prior of {joints} ({prior.skeleton.name})"
        raise ValueError(f"{rule}; give at least one person of that skeleton")
    looks = {name: look(part, prior.skeleton, people, seed) for name, part in prior.parts.items()}
    looks = {name: found for name, found in looks.items() if len(found.labelled.points_bj2)}
    figures = {f"samples_{name}": samples_figure(found, seed) for name, found in looks.items()}
    if "body" in looks:
        body = looks["body"].prior
        figures["denoising"] = scenes.denoising_figure(body, prior.skeleton, people, seed)
        figures["completion"] = scenes.completion_figure(body, prior.skeleton, people, seed)
    figures["bones"] = bones_figure(looks, prior.skeleton)
    figures["angles"] = angles_figure(looks, prior.skeleton)
    if plausibility is not None:
        figures["plausibility"] = plausibility_figure(plausibility, people.posture_n)
    names = [f"{name}.png" for name, figure in figures.items() if figure is not None]
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        _write_png(folder / name, figures[name.removesuffix(".png")])
    return names


def look(prior: diffusion.PartPrior, skeleton, people: People, seed: int) -> Look:
    """Take the labelled poses of a part, and draw SAMPLES of its prior from nothing but noise.

    Samples have the joints that poses drawn at random have, and are told no age.
    """
    poses, _ = coordinates.take(prior.part, people, skeleton)
    if not len(poses.points_bj2):
        nothing = histograms.Poses(poses.points_bj2, poses.valid_bj)
        return Look(prior, drawings.sketch(prior.part, skeleton), poses, nothing, nothing)
    u = prior_denoising.in_units(prior, poses).u_bj2
    rng = np.random.default_rng((seed, len(prior.part.joints)))
    masks = poses.valid_bj[rng.choice(len(u), SAMPLES, replace=len(u) < SAMPLES)]
    sampled = _samples(jax.random.key(seed), prior, jnp.asarray(masks))
    return Look(
        prior, drawings.sketch(prior.part, skeleton), poses,
        histograms.Poses(u, poses.valid_bj), histograms.Poses(np.asarray(sampled), masks),
    )  # fmt: skip


@jax.jit
def _samples(key, prior, valid_bj):
    context = jnp.zeros((len(valid_bj), coordinates.CONTEXT))
    given = diffusion.nothing_observed(valid_bj, context)
    return refine.samples(key, prior, given, 1, STEPS)[0]


def samples_figure(of: Look, seed: int):
    """Draw labelled poses at random beside as many samples, ROWS x COLUMNS each, in one scale."""
    from matplotlib.figure import Figure  # slow to import, and only pictures need it

    name = {"body": "people", "hand": "hands"}[of.prior.part.name]
    shown = np.random.default_rng(seed).permutation(len(of.labelled.points_bj2))[: ROWS * COLUMNS]
    labelled = _centred(of.sketch, *(array[shown] for array in of.labelled))
    samples = _centred(of.sketch, *(array[: ROWS * COLUMNS] for array in of.samples))
    halves = [drawings.extent(of.sketch, *poses)[1] for poses in (labelled, samples)]
    # A sample that has burst must not make all the others too small to see.
    side = 2 * min(max(halves), LARGEST * halves[0])
    figure = Figure(figsize=(15, 6.4), layout="constrained")
    titles = (
        f"labelled {name}: {len(shown)} of {len(of.labelled.points_bj2):,} at random",
        f"samples of the prior: {len(samples[0])}, from noise alone, joints missing as in {name}",
    )
    cells = zip(figure.subplots(1, 2), titles, (labelled, samples), strict=True)
    for axes, title, poses in cells:
        axes.set_title(title, fontsize=12)
        _grid(axes, of.sketch, *poses, side)
    if of.prior.part.name == "body":
        drawings.sides_legend(figure)
    else:
        figure.supxlabel("right hands mirrored; every finger has its own colour", fontsize=9)
    return figure


def _centred(sketch, points_bj2, valid_bj):
    """Return poses, each with the middle of its window at (0, 0)."""
    one_by_one = zip(points_bj2, valid_bj, strict=True)
    middles = [drawings.extent(sketch, p[None], v[None])[0] for p, v in one_by_one]
    return points_bj2 - np.stack(middles)[:, None], valid_bj


def _grid(axes, sketch, points_bj2, valid_bj, side):
    for number, (points, valid) in enumerate(zip(points_bj2, valid_bj, strict=True)):
        row, column = divmod(number, COLUMNS)
        drawings.add(axes, sketch, points + side * np.array([column, row]), valid, width=1.3)
    axes.set(xlim=(-side / 2, side * (COLUMNS - 0.5)), ylim=(side * (ROWS - 0.5), -side / 2))
    axes.set(aspect="equal", xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color="#cccccc")


def bones_figure(looks: dict[str, Look], skeleton):
    """Draw how long bones are, relative to the person, in labelled poses and in samples."""
    rows = []
    for name, of in looks.items():
        found = histograms.lengths(of.prior.part, skeleton, of.labelled, of.samples)
        rows += _in_rows([(_titled(name, h.name), h) for h in found], BONES_ACROSS)
    title = "Projected length of bones relative to the person, left and right together"
    return _sheet(title, rows, "relative length, all longer ones in the last bin")


def angles_figure(looks: dict[str, Look], skeleton):
    """Draw how joints turn, a row for each way a body is held, and below them the hands."""
    rows = []
    for name, of in looks.items():
        found = histograms.angles(of.prior.part, skeleton, of.labelled, of.samples)
        for held, row in found.items():
            what = [(_titled(name, h.name) + ("" if held == name else f", {held}"), h) for h in row]
            rows += _in_rows(what, ANGLES_ACROSS)
    title = "Projected turn at joints, 0° is straight; of the right side with the other sign"
    return _sheet(title, rows, "degrees, clockwise in the picture")


def _titled(part, name):
    return f"hand: {name}" if part == "hand" else name


def _in_rows(cells, across):
    return [cells[i : i + across] for i in range(0, len(cells), across)]


def _sheet(title, rows, unit):
    """Draw rows of histograms: shares of labelled values filled, of samples as a line."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if not rows:
        return None
    across = max(map(len, rows))
    figure = Figure(figsize=(2.3 * max(across, 4), 1.75 * len(rows) + 1.0), layout="constrained")
    figure.suptitle(title, fontsize=12)
    for axes_row, row in zip(figure.subplots(len(rows), across, squeeze=False), rows, strict=True):
        for axes in axes_row[len(row) :]:
            axes.axis("off")
        for axes, (name, h) in zip(axes_row[: len(row)], row, strict=True):
            _histogram(axes, name, h)
    handles = [
        Patch(color=LABELLED, label="labelled"),
        Line2D([], [], color=SAMPLED, lw=1.6, label="samples of the prior"),
    ]
    explained = f"x: {unit}; y: share per bin; numbers: labelled values / values of samples"
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9,
                  title=explained, title_fontsize=9)  # fmt: skip
    return figure


def _histogram(axes, name, h):
    numbers = [int(counts.sum()) for counts in (h.labelled, h.samples)]
    shares = [c / max(n, 1) for c, n in zip((h.labelled, h.samples), numbers, strict=True)]
    axes.stairs(shares[0], h.edges, fill=True, color=LABELLED)
    axes.stairs(shares[1], h.edges, color=SAMPLED, linewidth=1.3)
    axes.set_title("\n".join(textwrap.wrap(name, 28)), fontsize=8.5)
    top = max(float(np.max(s)) for s in shares) or 1.0
    axes.set(xlim=(h.edges[0], h.edges[-1]), ylim=(0, 1.3 * top), yticks=[])
    axes.tick_params(labelsize=7)
    if h.edges[0] == -180:
        axes.set_xticks([-180, -90, 0, 90, 180])
    text = f"{numbers[0]:,} / {numbers[1]:,}"
    axes.text(0.02, 0.96, text, transform=axes.transAxes, fontsize=7, va="top")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def plausibility_figure(p_n, posture_n):
    """Draw p-values per posture: of labels, no more than 5 % should lie below .05, dashed.

    None where nobody is judged (all NaN).
    """
    from matplotlib.figure import Figure

    if not np.isfinite(p_n).any():
        return None
    found = histograms.rejections(p_n, posture_n)
    across = min(4, len(found))
    rows, wide = -(-len(found) // across), max(across, 2)
    figure = Figure(figsize=(3.1 * wide, 2.1 * rows + 0.9), layout="constrained")
    figure.suptitle("Plausibility of labelled people", fontsize=12)
    edges = histograms.P_EDGES
    even = 1 / (len(edges) - 1)
    top = 1.35 * max(2 * even, *(np.max(g.counts) / max(g.people, 1) for g in found))
    cells = figure.subplots(rows, across, squeeze=False).ravel()
    for axes in cells[len(found) :]:
        axes.axis("off")
    for axes, group in zip(cells, found, strict=False):
        people = max(group.people, 1)
        axes.stairs(group.counts / people, edges, fill=True, color="#9ecae1")
        axes.axhline(even, color="#4d4d4d", linewidth=0.8)
        axes.axvline(histograms.REJECTED, color="#b2182b", linewidth=1.2, linestyle="--")
        axes.set(xlim=(0, 1), ylim=(0, top), yticks=[])
        axes.set_title("\n".join(textwrap.wrap(group.posture, 32)), fontsize=9.5)
        axes.tick_params(labelsize=8)
        text = f"{group.rejected} of {group.people:,} at p < {histograms.REJECTED:g}"
        text += f" ({100 * group.rejected / people:.1f} %)"
        axes.text(0.98, 0.95, text, transform=axes.transAxes, fontsize=8, va="top", ha="right")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    figure.supxlabel("\n".join(textwrap.wrap(EXPLAINED, 45 * wide)), fontsize=9)
    return figure


def _write_png(path, figure) -> None:
    """Write a figure in one go: a file is never seen half written."""
    if "://" in os.fspath(path):
        with path.open("wb") as stream:  # an object of a bucket appears whole or not at all
            figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
        return
    beside = os.fspath(path) + ".partial"
    figure.savefig(beside, format="png", dpi=110, metadata={"Software": None})
    os.replace(beside, path)
