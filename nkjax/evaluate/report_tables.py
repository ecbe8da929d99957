"""Tables of a report, as HTML, and how its figures are written."""

import math
from collections.abc import Mapping, Sequence
from html import escape

DASH = "–"
COLUMNS = {
    "n": "joints", "people": "people", "pck_torso@0.1": "PCK@.1 torso",
    "pck_torso@0.2": "PCK@.2 torso", "pck_box@0.05": "PCK@.05 box", "pck_box@0.1": "PCK@.1 box",
    "auc_box": "AUC box", "hand_pck_hand_box@0.2": "hands PCK@.2", "pixel_error_mean": "mean error",
    "pixel_error_median": "median error",
}  # fmt: skip
COUNTS, ERRORS = ("n", "people"), ("pixel_error_mean", "pixel_error_median")
# Below so many people a row is printed faint: it says little.
FEW_PEOPLE = 10
# More rows than these are folded away.
MANY_ROWS = 40


def joints(rows: Sequence[Mapping]) -> str:
    """Return the table of joints with a bar of PCK@.1 for each; many are folded away."""
    body = "".join(
        f"<tr><td>{escape(words(row['joint']))}</td>"
        f"<td class='bar'>{_bar(row['pck_box@0.1'])}</td>"
        f"<td>{share(row['pck_box@0.1'])}</td><td>{share(row['pck_torso@0.1'])}</td>"
        f"<td>{pixels(row['pixel_error_median'])}</td><td>{row['n']:,}</td></tr>"
        for row in rows
    )
    titles = ("joint", "", "PCK@.1 box", "PCK@.1 torso", "median error", "n")
    return "<h2>Joint by joint</h2>" + _folded(_framed(titles, body), len(rows), "joints")


def _bar(value):
    width = 0 if unknown(value) else 100 * min(max(value, 0), 1)
    return f"<span class='track'><span class='fill' style='width:{width:.1f}%'></span></span>"


def by_part(heading: str, rows: Sequence[Mapping], part: str) -> str:
    """Return a table of `scores.tables`, of rows that `part` names."""
    body = ""
    for row in rows:
        cells = "".join(f"<td>{_cell(column, row[column])}</td>" for column in COLUMNS)
        few = " class='few'" if row["people"] < FEW_PEOPLE else ""
        body += f"<tr{few}><td>{escape(words(row[part]))}</td>{cells}</tr>"
    table = _framed((part, *COLUMNS.values()), body)
    return f"<h3>{heading}</h3>" + _folded(table, len(rows), "rows")


def _cell(column, value):
    if column in COUNTS:
        return f"{value:,}"
    return pixels(value) if column in ERRORS else share(value)


def _framed(titles, body):
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    return (
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _folded(html, count, what):
    if count <= MANY_ROWS:
        return html
    return f"<details><summary>{count} {what}</summary>{html}</details>"


def average_precision(oks: Mapping[str, float | None]) -> str:
    """Return COCO's figures, nothing where there are none."""
    if not oks:
        return ""
    body = "".join(f"<tr><td>{escape(n)}</td><td>{share(v)}</td></tr>" for n, v in oks.items())
    return "<h3>COCO's figures (OKS)</h3>" + _framed(("figure", "per cent"), body)


def words(name) -> str:
    """Write a name with blanks."""
    return str(name).replace("_", " ")


def unknown(value) -> bool:
    """Tell whether a figure is missing or not finite."""
    return value is None or not math.isfinite(value)


def share(value) -> str:
    """Write a share as per cent, a dash for what is not known."""
    return DASH if unknown(value) else f"{100 * value:.1f}"


def pixels(value) -> str:
    """Write px; 'lost' where a prediction was no number."""
    return DASH if unknown(value) else f"{value:.1f}" if value < 1e4 else "lost"
