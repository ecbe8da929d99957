"""Charts and a table of what a simulated folder holds."""

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np

from nkjax.evaluate import simulated_measures as measures
from nkjax.evaluate.simulated import Picture
from nkjax.skeleton import Skeleton

BINS = np.linspace(0, 0.5, 26)  # trunk lengths


def chart(pictures: Sequence[Picture], skeleton: Skeleton) -> bytes:
    """Draw, as PNG, likeness of poses between people and the base of every kind of walk."""
    from matplotlib.figure import Figure  # slow to import, and only this needs it

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    likeness, base = figure.subplots(1, 2)
    roles = {picture.role for picture in pictures}
    if roles == {"labelled", "test"}:
        test, others, _ = measures.nearest_histogram(pictures, skeleton.keypoints, BINS)
        for share, name in ((others, "labelled to other labelled"), (test, "test to labelled")):
            likeness.stairs(share, BINS, label=name, fill=name.startswith("test"), alpha=0.7)
        likeness.legend(fontsize=8)
    likeness.set(xlim=(0, BINS[-1]), ylabel="share of poses")
    likeness.set(xlabel="mean joint distance to the nearest pose\nof anybody else (trunk lengths)")
    ratios = step_ratios(pictures, skeleton)
    if ratios:
        base.boxplot(list(ratios.values()), orientation="horizontal", tick_labels=list(ratios))
    base.set(xlabel="lateral distance of the ankles / hip-joint distance")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    return stream.getvalue()


def step_ratios(pictures: Sequence[Picture], skeleton: Skeleton) -> dict[str, list[float]]:
    """Return the signed step-width ratios of every kind of walk that is there."""
    found = {}
    for picture in pictures:
        if picture.posture in measures.WALKS:
            joints = picture.joints_k3
            ratio = measures.step_ratio(joints, skeleton.keypoints, *picture.ways_23)
            found.setdefault(picture.posture, []).append(ratio)
    return dict(sorted(found.items()))


def table(pictures: Sequence[Picture], skeleton: Skeleton) -> str:
    """Write, as Markdown, what the pictures hold: counts, proportions, base, visibility."""
    names = skeleton.keypoints
    subjects = {picture.subject for picture in pictures}
    change = measures.largest_change(pictures, names)
    lines = [
        f"{len(pictures)} pictures of {len(subjects)} people. Largest change of a bone within a"
        f" person: {change:.1e} of its length.",
        "", "| bone | mean over thigh + shank | sd |", "|---|---|---|",
    ]  # fmt: skip
    for bone, (mean, deviation) in measures.proportions(pictures, names).items():
        lines.append(f"| {bone} | {mean:.3f} | {deviation:.3f} |")
    lines += ["", "| walk | ankles over hips: mean | sd | lowest | highest | n |", "|---" * 6 + "|"]
    for walk, ratios in step_ratios(pictures, skeleton).items():
        lines.append(f"| {walk} | {np.mean(ratios):.2f} | {np.std(ratios):.2f} |"
                     f" {min(ratios):.2f} | {max(ratios):.2f} | {len(ratios)} |")  # fmt: skip
    lines += ["", "| joints | outside | hidden | seen |", "|---|---|---|---|"]
    for group, shares in measures.visibility(pictures, skeleton).items():
        lines.append(f"| {group} | " + " | ".join(f"{100 * s:.1f} %" for s in shares) + " |")
    for title, counts in (("posture", Counter(p.posture for p in pictures)),
                          ("grasp", Counter(p.grasp for p in pictures))):  # fmt: skip
        lines += ["", f"| {title} | pictures |", "|---|---|"]
        lines += [f"| {name} | {count} |" for name, count in sorted(counts.items())]
    if {picture.role for picture in pictures} == {"labelled", "test"}:
        nearest = measures.nearest_histogram(pictures, names, BINS)[2]
        lines += ["", f"Nearest test pose to a labelled one: {nearest:.3f} trunk lengths a joint."]
    return "\n".join(lines) + "\n"
