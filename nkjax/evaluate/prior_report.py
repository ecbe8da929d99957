"""All figures of a fitted prior, on people it never saw, as plain data and as a page of tables.

In flow the prior folder's content, controls, and people of a split; out a dict for prior.json and
text for prior.md. Source: notes method 2.3, 2.8, 4.2; chapter 7, rows 1, 5, 9, 13.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from nkjax.evaluate import prior_denoising, prior_flattening, prior_scores
from nkjax.losses.developmental import Developmental
from nkjax.prior import coordinates
from nkjax.prior.people import People
from nkjax.prior.saved import Prior
from nkjax.skeleton import Skeleton

GAIN_RATIOS = (0.1, 0.2)
# People spread over the split: enough for every digit shown, and minutes rather than an hour.
MOST, MOST_ATYPICAL, MOST_REPAIRED = 600, 300, 96
STYLE_RATIOS = (0.1, 0.2, 0.8)
REPAIR_RATIO = 0.2


class Asked(NamedTuple):
    """What a prior is measured on and against.

    people: held-out ones; atypical: people of postures that are absent from training; shuffled,
    adult: control priors; seen: people with the points that a network found, and its mean
    confidence of each (N,). Any but the first may be None.
    """

    people: People
    atypical: People | None
    shuffled: Prior | None
    adult: Prior | None
    seen: tuple[People, np.ndarray] | None


def measure(prior: Prior, asked: Asked, say: Callable[[str], None]) -> dict:
    """Return all figures as plain data; say: told what is measured next."""
    everybody, skeleton = asked.people, prior.skeleton
    found = {"people": len(everybody.subject_n), "subjects": len(set(everybody.subject_n))}
    asked = asked._replace(
        people=_spread(everybody, MOST),
        atypical=asked.atypical and _spread(asked.atypical, MOST_ATYPICAL),
    )
    people = asked.people
    found["measured"] = len(people.subject_n)
    for name, part in prior.parts.items():
        say(f"denoising: {name}")
        poses, _ = coordinates.take(part.part, people, skeleton)
        of_part = prior_denoising.in_units(part, poses)
        found[f"gain_{name}"] = {
            str(ratio): prior_denoising.gain(part, of_part, ratio) for ratio in GAIN_RATIOS
        }
    body = prior.parts["body"]
    poses, _ = coordinates.take(body.part, people, skeleton)
    say("denoising: bones, joints, variance")
    found["table"] = prior_denoising.table(body, poses, people.points_nk2, skeleton)
    say("completion")
    found["completion"] = prior_denoising.completion(
        body, poses, people.subject_n, skeleton
    )
    say("controls")
    found["controls"] = _controls(prior, asked, poses, skeleton)
    if asked.atypical is not None:
        say("flattening: atypical postures under gradient descent")
        found |= _flattening(prior, asked, poses, skeleton)
    say("plausibility")
    found["kps"] = _kps(prior, asked._replace(people=everybody), skeleton)
    return found


def _spread(people: People, most: int) -> People:
    count = len(people.subject_n)
    return people.chosen(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _controls(prior: Prior, asked: Asked, poses, skeleton: Skeleton) -> dict:
    points = asked.people.points_nk2
    found = {}

    def repaired(of):
        part = of.parts["body"]
        return prior_denoising.repaired_forearms(part, poses, points, skeleton, REPAIR_RATIO)

    if asked.shuffled is not None:
        found["shuffled"] = {"prior": repaired(prior), "shuffled": repaired(asked.shuffled)}
    if asked.adult is not None:
        found["adult"] = {
            str(ratio): {
                name: prior_flattening.one_step(of.parts["body"], poses, points, skeleton, ratio)
                for name, of in (("prior", prior), ("adult", asked.adult))
            }
            for ratio in STYLE_RATIOS
        }
    return found


def _flattening(prior: Prior, asked: Asked, common, skeleton: Skeleton) -> dict:
    body, people, strange = prior.parts["body"], asked.people, asked.atypical
    odd, _ = coordinates.take(body.part, strange, skeleton)
    styles = {
        str(ratio): {
            name: prior_flattening.one_step(body, poses, of.points_nk2, skeleton, ratio)
            for name, poses, of in (("common", common, people), ("atypical", odd, strange))
        }
        for ratio in STYLE_RATIOS
    }
    limit = prior.calibration["limits"]["body"]
    settings = Developmental()
    few = _spread(people, MOST_REPAIRED)
    common_few, _ = coordinates.take(body.part, few, skeleton)
    count, share = prior_flattening.repair(
        body, common_few, few.points_nk2, skeleton, limit, settings
    )
    repaired = prior_flattening.least_rate(share)
    rate = list(repaired)[-1]
    after = {
        name: prior_flattening.after_descent(
            body, odd, strange, skeleton, limit, of_settings, rate
        )
        for name, of_settings in (
            ("abstaining", settings), ("not abstaining", Developmental(abstain=1.0)))
    }  # fmt: skip
    return {
        "styles": styles,
        "descent": {
            "rate": rate, "repaired": repaired[rate], "forearms": count,
            "rates": {str(k): v for k, v in repaired.items()}, "limit": limit, "atypical": after,
        },
    }  # fmt: skip


def _kps(prior: Prior, asked: Asked, skeleton: Skeleton) -> dict:
    kps, people = prior_scores.plausibility_of(prior), asked.people
    p = prior_scores.p_values(kps, people)
    found = {
        "rejected": prior_scores.rejected(p["p"], people.posture_n),
        "broken": prior_scores.found_broken(kps, people, skeleton, p["p"]),
    }
    if asked.atypical is not None:
        strange = asked.atypical
        of_strange = prior_scores.p_values(kps, strange)
        found["atypical"] = prior_scores.rejected(of_strange["p"], strange.posture_n)
    if asked.seen is not None:
        of_seen, confidence = asked.seen
        p_of_seen = prior_scores.p_values(kps, of_seen)["p"]
        found["confidence"] = prior_scores.correlations(p_of_seen, confidence)
    return found


def page(found: Mapping) -> str:
    """Return all figures as Markdown."""
    sections = [
        f"# A prior, measured on {found['people']:,} people of {found['subjects']:,} subjects that "
        "neither fitted nor calibrated it",
        f"Plausibility is of all of them, the rest of {found['measured']:,} spread over them. "
        "Distances are data units, in which coordinates have variance 1; so are noise ratios.",
        *_gain_lines(found),
        "## One denoising step, mean of 8 noise draws",
        _table(
            ("noise", "true pose moved", "forearm x 1.8 repaired", "ankle + .5 repaired",
             "variance kept"),
            [(r["ratio"], _n(r["moved"]), _p(r["forearm"]), _p(r["ankle"]), _p(r["variance"]))
             for r in found["table"]],
        ),
        *_completion_lines(found), *_control_lines(found), *_flattening_lines(found),
        *_kps_lines(found["kps"]),
    ]  # fmt: skip
    return "\n\n".join(sections) + "\n"


def _gain_lines(found):
    rows = [
        (name, ratio, *(_n(g[who], 4) for who in ("identity", "gaussian", "prior")), g["n"])
        for name in ("body", "hand")
        for ratio, g in found.get(f"gain_{name}", {}).items()
    ]
    head = ("part", "noise", "identity", "Gaussian", "prior", "poses")
    return ["## Error of removing noise (RMS per coordinate)", _table(head, rows)]


def _completion_lines(found):
    rows = [
        (name, *(_n(c[who]) for who in ("prior", "sampled", "gaussian", "mean")),
         _p(c["prior"] / c["mean"]), " to ".join(map(_n, c["interval"])), _n(c["spread"]), c["n"])
        for name, c in found["completion"].items()
    ]  # fmt: skip
    head = ("hidden", "prior", "Gaussian, sampled alike", "Gaussian's mean", "population mean",
            "of the latter", "Gaussian's mean less prior", "spread said", "poses")  # fmt: skip
    return ["## A hidden joint found again (mean distance)", _table(head, rows)]


def _control_lines(found):
    lines = []
    if control := found["controls"].get("shuffled"):
        lines += [
            "## Control: joints from different people",
            f"Forearm repaired at {REPAIR_RATIO}: {_p(control['prior'])} by the prior, "
            f"{_p(control['shuffled'])} by one that learned skeletons whose joints are shuffled.",
        ]
    if control := found["controls"].get("adult"):
        lines += ["## Control: a prior of adults", _style_table(control)]
    return lines


def _style_table(by_ratio):
    rows = [
        (ratio, who, _p(c["kept"]), _p(c["step_width"]), f"{c['elevation']:.2f}",
         f"{c['elevation_signed']:+.2f}", c["people"], c["arms"])
        for ratio, of in by_ratio.items() for who, c in of.items()
    ]  # fmt: skip
    head = ("noise", "who", "step width kept", "changed by", "elbow elevation changed, degrees",
            "signed", "people", "arms")  # fmt: skip
    return _table(head, rows)


def _flattening_lines(found):
    if "descent" not in found:
        return []
    d = found["descent"]
    return [
        "## Postures absent from training: one denoising step",
        _style_table(found["styles"]),
        f"## The same after {prior_flattening.STEPS} steps of gradient descent on L_dev",
        f"Step size {d['rate']:.3g}, the smallest (to 5 %) that repairs at least "
        f"{_p(prior_flattening.ENOUGH)} of a forearm x 1.8 on common poses: {_p(d['repaired'])}, "
        f"mean of {d['forearms']}.",
        _table(
            ("", "step width kept", "changed by", "elbow elevation changed, degrees", "abstained",
             "people", "arms"),
            [(name, _p(c["kept"]), _p(c["step_width"]), f"{c['elevation']:.2f}",
              _p(c["abstained"]), c["people"], c["arms"]) for name, c in d["atypical"].items()],
        ),
    ]  # fmt: skip


def _kps_lines(kps):
    head = ("posture", "rejected at p < .05", "95 % interval", "people")
    lines = ["## Plausibility: annotations rejected", _table(head, _rejected_rows(kps["rejected"]))]
    broken = kps["broken"].items()
    rows = [(name, f"{b['auc']:.3f}", _p(b["rejected"]), b["n"]) for name, b in broken]
    head_of_broken = ("mistake", "AUC", "rejected", "people")
    lines += ["## Plausibility: broken poses", _table(head_of_broken, rows)]
    if "atypical" in kps:
        lines += ["## Plausibility: postures absent from training",
                  _table(head, _rejected_rows(kps["atypical"]))]  # fmt: skip
    if "confidence" in kps:
        c = kps["confidence"]
        lines.append(
            f"Rank correlation of p with the network's confidence: {c['spearman']:.2f} "
            f"({c['n']} people)."
        )
    return lines


def _rejected_rows(found):
    everybody = {"all": found["all"], **found["postures"]}
    return [(name, _p(x["share"]), f"{_p(x['low'])} to {_p(x['high'])}", x["n"])
            for name, x in everybody.items()]  # fmt: skip


def _table(head, rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _n(value, digits=3):
    return f"{value:.{digits}f}"


def _p(share):
    return f"{100 * share:.1f} %"
