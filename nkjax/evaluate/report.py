"""The page of an evaluation: one HTML file that needs nothing else, no network and no script."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import PurePath
from typing import NamedTuple

from nkjax.evaluate import report_tables
from nkjax.evaluate.cases import Case
from nkjax.evaluate.report_tables import DASH, FEW_PEOPLE, pixels, share, words

PARTS = {
    "posture": "By posture", "grasp": "By grasp", "group": "By part of the body",
    "visible": "Visible and occluded joints", "age": "By age", "subject": "By child",
}  # fmt: skip
HEADLINES = (
    ("pck_torso@0.1", "PCK@.1, torso"),
    ("pck_torso@0.2", "PCK@.2, torso"),
    ("pck_box@0.05", "PCK@.05, box"),
    ("auc_box", "AUC, box"),
    ("hand_pck_hand_box@0.2", "hands PCK@.2, hand box"),
)
LIMITS = (
    "It does not say how the network does on other children, cameras, rooms or labels than these.",
    "Labels are made by people: where they disagree or err, the figures count it as the network's.",
    "The predicted scores are not calibrated probabilities.",
    "Nothing here is about movement over time: every picture stands alone.",
    "Masking hides faces, it does not make a picture anonymous: look before you pass the page on.",
)
STYLE = """
:root{color-scheme:light}*{box-sizing:border-box}
body{margin:0;background:#f5f6f8;color:#1f2937;font:15px/1.5 system-ui,-apple-system,"Segoe UI",
Roboto,sans-serif}
main{max-width:1060px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:27px;line-height:1.25;margin:0 0 8px}h2{font-size:18px;margin:34px 0 10px}
h3{font-size:15px;margin:22px 0 6px}p{margin:6px 0;max-width:78ch}.lead{font-size:16.5px}
.card,figure,.scroll{background:#fff;border:1px solid #e3e6ec;border-radius:10px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:18px 0}
.card{padding:12px 14px}.card b{display:block;font-size:25px;line-height:1.2}
.card span{color:#5b6472;font-size:13px;display:block}
figure{margin:0;padding:10px}figure img{display:block;max-width:100%;margin:0 auto}
figcaption{color:#5b6472;font-size:12.5px;padding-top:6px}
.cases{display:grid;grid-template-columns:repeat(auto-fill,minmax(310px,1fr));gap:12px}
.scroll{overflow-x:auto;margin:6px 0}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;text-align:right;border-bottom:1px solid #eef0f4;white-space:nowrap}
th:first-child,td:first-child{text-align:left}thead th{color:#5b6472;font-weight:600}
tr:last-child td{border-bottom:0}tr.few td{color:#8a93a3}
td.bar{width:38%;min-width:150px}.track{display:block;background:#edf0f5;border-radius:4px}
.fill{display:block;height:9px;border-radius:4px;background:#2563eb}
.small,li{font-size:13.5px;color:#4b5563}code{font-size:12.5px;overflow-wrap:anywhere}
summary{cursor:pointer;font-weight:600;padding:6px 0}
@media print{body{background:#fff}.card,figure,tr{break-inside:avoid}}
"""


class Charts(NamedTuple):
    """SVG of the curves of training and of PCK over thresholds; None where there is none."""

    training: str | None
    pck: str | None


def page(
    document: Mapping, by_part: Mapping[str, Sequence[Mapping]], charts: Charts,
    worst: Sequence[Case], drawn: Sequence[Case],
) -> str:  # fmt: skip
    """Return the page as HTML.

    document: content of metrics.json; by_part: of `scores.tables`; worst, drawn: pictures of the
    people with the largest errors and of others drawn at random.
    """
    name = PurePath(document["network"]).name
    title = f"{name} on split {document['split']}"
    sections = [
        f"<h1>{escape(title)}</h1><p class='lead'>{_sentence(document, name)}</p>",
        _headlines(document),
        _detector(document),
        _figure("Training", charts.training, _about_training(document)),
        _figure("How near the joints are", charts.pck, "Dotted: the thresholds of the tables."),
        report_tables.joints(by_part["joint"]),
        *(report_tables.by_part(heading, by_part[part], part) for part, heading in PARTS.items()),
        report_tables.average_precision(document["oks"]),
        _normalisers(document["normalisers"]),
        _cases("Worst cases", worst),
        _cases("Drawn at random", drawn),
        _limits(document),
        _provenance(document),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(filter(None, sections))
        + "\n</main></body></html>\n"
    )


def _sentence(document, name):
    metrics, state = document["metrics"], document["state"]
    step = f", {state['state']} state, step {state['step']:,}," if state else ""
    children = document["subjects"]
    of_children = f" of {children:,} children" if children else ""
    boxes = "a detector's boxes" if document["boxes"] == "detected" else "their labelled boxes"
    mirrored = "with" if document["flip_test"] else "without"
    unread = document["unread"]
    lost = f" {unread:,} people could not be read; they do not count."
    about = (
        f"The network {name}{step} looked for {metrics['joints']:,} labelled joints of "
        f"{metrics['people']:,} people{of_children} in {boxes}, {mirrored} flip test."
    )
    return escape(about + (lost if unread else ""))


def _headlines(document):
    metrics, intervals, oks = document["metrics"], document["intervals"], document["oks"]
    cards = [
        (label, share(metrics[name]), _interval(intervals.get(name), share))
        for name, label in HEADLINES
        if metrics.get(name) is not None
    ]
    which, of = ("body ", " of the body") if "body AP" in oks else ("", "")
    half = f"AP .5: {share(oks.get(f'{which}AP .5'))}"
    cards.append((f"OKS AP{of}", share(oks.get(f"{which}AP")), half))
    mean = metrics["pixel_error_mean"]
    interval = _interval(intervals.get("pixel_error_mean"), pixels)
    cards.append(("mean error, px of the crop", pixels(mean), interval))
    made = "".join(
        f"<div class='card'><span>{escape(label)}</span><b>{value}</b><span>{more}</span></div>"
        for label, value, more in cards
    )
    lost = metrics["people_without_torso"]
    over = "children" if document["subjects"] else "people"
    note = (
        f"Shares in per cent; below each figure its 95 % interval over {over}. "
        f"Not in the torso figures: {lost:,} people whose torso is not labelled whole."
    )
    return f"<div class='cards'>{made}</div><p class='small'>{note}</p>"


def _detector(document):
    counts = document["detector"]
    if not counts:
        return ""
    missed = counts["people"] - counts["people_found"]
    rest = "".join(f" Not used: {n:,} {why}." for why, n in counts["not_used"].items())
    return (
        "<h2>The detector</h2><p>"
        + escape(
            f"It found {counts['people_found']:,} of {counts['people']:,} labelled people "
            f"({share(counts['recall'])} % recall at an overlap of {counts['same_box_iou']}); "
            f"{missed:,} it missed. All figures but the OKS AP are of those found alone, so they "
            f"flatter a detector that finds the easy ones; people found nowhere lower the AP and "
            f"AR. {counts['boxes_of_nobody_labelled']:,} of {counts['boxes']:,} boxes are of "
            f"nobody labelled.{rest}"
        )
        + "</p>"
    )


def _about_training(document):
    at = document["state"].get("step", 0)
    return (
        f"Left: every logged loss, faint, and their running mean. Right: the validation split as "
        f"it was seen in training. Dotted: step {at:,}, which this page is about."
    )


def _figure(heading, svg, caption):
    if svg is None:
        return ""
    data = base64.b64encode(svg.encode()).decode()
    return (
        f"<h2>{heading}</h2><figure><img alt='{escape(heading)}' "
        f"src='data:image/svg+xml;base64,{data}'><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _normalisers(normalisers):
    items = "".join(
        f"<li><b>{escape(words(name))}</b>: {escape(meaning)}</li>"
        for name, meaning in normalisers.items()
    )
    return (
        f"<h3>What errors are measured by</h3><ul>{items}</ul><p class='small'>Each labelled joint "
        f"has one vote. Rows of fewer than {FEW_PEOPLE} people are faint: they say little. {DASH}: "
        "nothing to tell from.</p>"
    )


def _cases(heading, cases):
    if not cases:
        return ""
    figures = "".join(
        f"<figure><img alt='{escape(case.caption)}' src='data:image/jpeg;base64,"
        f"{base64.b64encode(case.jpeg).decode()}'><figcaption>{escape(case.caption)}</figcaption>"
        "</figure>"
        for case in cases
    )
    note = (
        "Left: labels, rings are occluded joints. Right: predicted, of labelled joints only, rings "
        "are unsure ones. Orange: the child's left, blue: right. Faces are masked."
    )
    return f"<h2>{heading}</h2><p class='small'>{note}</p><div class='cases'>{figures}</div>"


def _limits(document):
    items = "".join(f"<li>{escape(line)}</li>" for line in (*document["notes"], *LIMITS))
    return (
        f"<h2>What this page does not say</h2><ul>{items}</ul>"
        f"<p class='small'>Licence of the network: {escape(document['licence'])}.</p>"
    )


def _provenance(document):
    weights, data = document["weights"], document["data"]
    facts = {
        "evaluation": f"{document['run_id']}, {document['started']}",
        "network": weights.get("record_sha256") or (weights.get("source") or {}).get("sha256"),
        "network's spec": weights.get("spec_sha256"),
        "data": data["sha256"],
        "skeleton": f"{data['skeleton']}, {data['joints']} joints",
        "licence of the data": data["licence"] or "none stated",
        "computed in": document["compute"],
        "device": f"{document['device']['count']} x {document['device']['kind']}",
        "versions": ", ".join(f"{name} {v}" for name, v in document["versions"].items()),
    }
    items = "".join(
        f"<li><b>{escape(name)}</b>: <code>{escape(str(value or 'not known'))}</code></li>"
        for name, value in facts.items()
    )
    return f"<details><summary>Where this comes from</summary><ul>{items}</ul></details>"


def _interval(ends, show):
    if not ends or any(report_tables.unknown(end) for end in ends):
        return DASH
    return f"{show(ends[0])} to {show(ends[1])}"
