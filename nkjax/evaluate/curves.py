"""Charts of a report, as SVG: a run's curves of training, and PCK over all thresholds."""

import contextlib
import io
import json
import math

import numpy as np
from etils import epath

from nkjax.evaluate.scores import HANDS, SHARES, Found
from nkjax.skeleton import Skeleton

INK, GREY, LINES = "#1f2937", "#9aa3b2", ("#2563eb", "#e0712c", "#1f9d6b", "#8b5cf6")
# Of the validation split: those that are shares, the coarsest first.
SHOWN = ("pck_torso@0.2", "pck_torso@0.1", "pck_torso@0.05", "auc_box")
SMOOTH = 0.02  # of all lines, in the mean around each
LONGEST_SHARE = 0.3  # of the box, on the axis of thresholds
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "nkjax", "font.size": 9, "text.color": INK,
    "font.family": "sans-serif", "axes.edgecolor": GREY, "axes.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#e6e9ef", "xtick.color": INK, "ytick.color": INK, "legend.frameon": False,
    "legend.fontsize": 8, "axes.titlesize": 9.5, "axes.titlelocation": "left",
}  # fmt: skip


def read_history(run) -> list[dict[str, float]]:
    """Return the lines of a run's metrics.jsonl; none where there is no such file.

    A line that a kill cut short is passed over.
    """
    path, lines = epath.Path(run) / "metrics.jsonl", []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append({name: float(value) for name, value in json.loads(text).items()})
        except (ValueError, TypeError, AttributeError):
            continue
    return [line for line in lines if math.isfinite(line.get("step", math.nan))]


def training(history: list[dict[str, float]], evaluated: int) -> str | None:
    """Draw the loss and the validation shares over steps, as SVG; None without a single loss.

    evaluated: step of the state that the report is about, marked.
    """
    losses = series(history, "train/loss")
    if not len(losses):
        return None
    with _styled() as Figure:
        figure = Figure(figsize=(9.2, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(*losses.T, color=LINES[0], alpha=0.25, linewidth=0.8)
        left.plot(losses[:, 0], smoothed(losses[:, 1]), color=LINES[0], linewidth=1.6)
        left.set(title="training loss", xlabel="step")
        if (losses[:, 1] > 0).all():
            left.set_yscale("log")
        shown = [name for name in SHOWN if len(series(history, f"val/{name}"))]
        for name, colour in zip(shown, LINES, strict=False):
            found = series(history, f"val/{name}")
            right.plot(*found.T, color=colour, marker="o", markersize=3, label=name)
        right.set(title="validation split", xlabel="step", ylim=(0, 1), xlim=left.get_xlim())
        if shown:
            right.legend(loc="best")
        for axes in (left, right):
            axes.axvline(evaluated, color=GREY, linestyle=":", linewidth=1)
        return _svg(figure)


def pck(found: Found, skeleton: Skeleton) -> str | None:
    """Draw the share of joints within each share of the box side, as SVG; None without joints."""
    lines = pck_lines(found, skeleton)
    if not lines:
        return None
    with _styled() as Figure:
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for (name, (shares, within)), colour in zip(lines.items(), (INK, *LINES), strict=False):
            axes.plot(shares, within, color=colour, label=name, linewidth=1.6)
        for share in SHARES:
            axes.axvline(share, color=GREY, linestyle=":", linewidth=0.8)
        axes.set(xlim=(0, LONGEST_SHARE), ylim=(0, 1), ylabel="share of joints (PCK)")
        axes.set(xlabel="error, as a share of the longer side of the person's box")
        axes.legend(loc="lower right")
        return _svg(figure)


def pck_lines(found: Found, skeleton: Skeleton) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return {part: (shares of the box side, share of joints within each)} of parts with joints.

    The same errors as `scores.measure` counts in pck_box.
    """
    visible = np.asarray(found.visible_nk)
    away = np.asarray(found.points_nk2, np.float64) - np.asarray(found.truth_nk2, np.float64)
    side = np.asarray(found.box_n4, np.float64)[:, 2:].max(1, initial=0)
    errors = np.hypot(away[..., 0], away[..., 1]) / np.where(side > 0, side, np.nan)[:, None]
    errors = np.where(np.isfinite(found.points_nk2).all(-1), errors, np.inf)
    counts = (visible > 0) & (side > 0)[:, None]
    hands = np.zeros(visible.shape[1], bool)
    hands[[i for hand in HANDS for i in skeleton.groups[hand]]] = True
    parts = {
        "all joints": counts,
        "visible": counts & (visible == 2),
        "occluded": counts & (visible == 1),
        "hands": counts & hands[None],
    }
    shares = np.linspace(0, LONGEST_SHARE, 121)
    return {
        name: (shares, (np.searchsorted(np.sort(errors[chosen]), shares, "right") / chosen.sum()))
        for name, chosen in parts.items()
        if chosen.any()
    }


def series(history, name) -> np.ndarray:
    """Return (step, value) of every line that has a finite value of this name, (N, 2)."""
    pairs = [(line["step"], line[name]) for line in history if name in line]
    return np.array([pair for pair in pairs if math.isfinite(pair[1])], float).reshape(-1, 2)


def smoothed(values) -> np.ndarray:
    """Return the mean around each value, over fewer at the ends."""
    half = max(1, round(SMOOTH * len(values)))
    total = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (total[last] - total[first]) / (last - first)


@contextlib.contextmanager
def _styled():
    """Give matplotlib's Figure, in the charts' own style."""
    import matplotlib  # slow to import, and only this needs it
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        yield Figure


def _svg(figure) -> str:
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    return text[text.index("<svg") :]
