"""Proportions against the table of notes method 6.6, written out again here."""

import numpy as np
import pytest

from nkjax.toddlersim.people import bodies

# name: (toddler low, high, adult low, high), fractions of stature
TABLE = {
    "head": (0.19, 0.215, 0.13, 0.13), "neck": (0.02, 0.03, 0.05, 0.05),
    "shoulders": (0.19, 0.20, 0.20, 0.21), "hips": (0.10, 0.11, 0.10, 0.11),
    "upper_arm": (0.160, 0.170, 0.172, 0.186), "forearm": (0.130, 0.135, 0.146, 0.154),
    "hand": (0.11, 0.11, 0.108, 0.108), "thigh": (0.205, 0.215, 0.242, 0.245),
    "shank": (0.190, 0.200, 0.246, 0.250), "foot": (0.155, 0.155, 0.152, 0.152),
    "foot_height": (0.045, 0.045, 0.039, 0.039),
}  # fmt: skip
KINDS = ("toddler", "adult")
GIRTHS = {"toddler": ((0.17, 0.20), (0.20, 0.24)), "adult": ((0.12, 0.14), (0.14, 0.17))}


def draw(kind, count=400, held_out=False, seed=0):
    rng = np.random.default_rng(seed)
    ages = rng.integers(10, 36, count) if kind == "toddler" else rng.integers(240, 720, count)
    return [bodies.draw(rng, kind, age, held_out) for age in ages]


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_proportions_are_those_of_the_table(kind, held_out):
    drawn = draw(kind, held_out=held_out)
    for name, row in TABLE.items():
        low, high = row[:2] if kind == "toddler" else row[2:]
        fractions = np.array([np.mean(getattr(b, name)) / b.stature for b in drawn])
        assert low * 0.995 < fractions.mean() < high * 1.005, (name, fractions.mean())
        # +-8 % of the table for each subject, and a left-right difference on top of it
        assert low * 0.915 < fractions.min() and fractions.max() < high * 1.085, name
        # 4 to 6 %, and the error of 400 draws
        assert 0.038 < fractions.std() / fractions.mean() < 0.063, (name, fractions.std())
    for (low, high), name in zip(GIRTHS[kind], ("arm_girth", "leg_girth"), strict=True):
        girth = np.array([getattr(b, name) for b in drawn])
        assert low <= girth.min() and girth.max() <= high


@pytest.mark.parametrize(("kind", "low", "high"), [("toddler", 0.57, 0.60), ("adult", 0.50, 0.53)])
def test_sitting_height(kind, low, high):
    # from the seat, a little under the hip joints, to the vertex
    flesh = 0.04 if kind == "toddler" else 0.045
    seated = [(b.trunk + b.neck + b.head) / b.stature + flesh for b in draw(kind)]
    assert low < np.mean(seated) < high
    assert min(seated) > low * 0.92 and max(seated) < high * 1.08


@pytest.mark.parametrize("kind", KINDS)
def test_stature_is_the_sum_of_its_parts(kind):
    for body in draw(kind, 50):
        legs = np.mean(body.thigh) + np.mean(body.shank) + body.foot_height
        assert legs + body.trunk + body.neck + body.head == pytest.approx(body.stature, rel=1e-9)


def test_left_and_right_differ_by_one_to_one_and_a_half_percent():
    drawn = draw("toddler", 1500)
    for name in bodies.SIDED:
        left, right = np.array([getattr(b, name) for b in drawn]).T
        assert 0.010 < np.mean(np.abs(left - right) / right) < 0.015, name
        assert abs(np.mean(left / right) - 1) < 0.002, name


def test_toddlers_are_no_small_adults():
    toddlers, adults = draw("toddler"), draw("adult")
    for name, apart in (("head", 5), ("thigh", 1.5), ("shank", 3)):
        a, b = (np.array([np.mean(getattr(x, name)) / x.stature for x in group])
                for group in (toddlers, adults))  # fmt: skip
        assert abs(a.mean() - b.mean()) / np.sqrt((a.var() + b.var()) / 2) > apart, name
    assert max(b.stature for b in toddlers) < 1.1 < 1.4 < min(b.stature for b in adults)


def test_a_child_is_as_tall_as_its_age():
    rng = np.random.default_rng(1)
    for months, metres in ((12, 0.75), (24, 0.87), (36, 0.955)):  # WHO medians
        tall = np.mean([bodies.draw(rng, "toddler", months, False).stature for _ in range(300)])
        assert tall == pytest.approx(metres, rel=0.01)


def test_held_out_bodies_are_chubbier_in_the_mean_and_the_same_seed_gives_the_same_body():
    train, test = draw("toddler"), draw("toddler", held_out=True)
    for name in ("arm_girth", "leg_girth"):
        assert min(getattr(b, name) for b in test) >= max(getattr(b, name) for b in train) - 0.01
    assert draw("toddler", 5) == draw("toddler", 5) != draw("toddler", 5, seed=2)
