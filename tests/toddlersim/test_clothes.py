"""Dressed bodies: what is skin and what is cloth, on the right side, and never thinner."""

import colorsys

import numpy as np
import pytest

from nkjax.toddlersim import solids
from nkjax.toddlersim.looks import clothes
from nkjax.toddlersim.solids import BALL, CONE, PARTS, SEGMENTS

KINDS = [(kind, held_out) for kind in ("toddler", "adult") for held_out in (False, True)]


def bare_body():
    """Make one ball and one cone of every segment, in order, sizes different."""
    count = len(SEGMENTS)
    sizes = np.linspace(0.05, 0.2, count)[:, None] * [1.0, 0.4, 0.3]
    places = np.arange(3 * count).reshape(count, 3) / 10
    parts = [solids.make(kind, places, np.eye(3), sizes, np.arange(count)) for kind in (BALL, CONE)]
    return solids.join(*parts)


def outfit(top, bottom, feet):
    drawn = clothes.draw_outfit(np.random.default_rng(0), "toddler", False)
    return drawn._replace(top=top, bottom=bottom, feet=feet, thickness=(0.003, 0.005, 0.007))


def parts_of(top, bottom, feet):
    """Return the part of every segment, by name, asserting that it is one and the same."""
    dressed, _ = clothes.wear(bare_body(), outfit(top, bottom, feet), 1, 0)
    ball, cone = dressed.part_p.reshape(2, -1)
    np.testing.assert_array_equal(ball, cone)
    return {name: PARTS[part] for name, part in zip(SEGMENTS, ball, strict=True)}


def test_a_child_in_a_nappy_is_skin_on_its_own_sides():
    assert parts_of("bare", "nappy", "bare") == {
        "none": "background", "skull": "face_neck", "face": "face_neck", "hair": "hair",
        "nose": "face_neck", "ear": "face_neck", "eye": "face_neck", "iris": "face_neck",
        "upper_lip": "upper_lip", "lower_lip": "lower_lip",
        "neck": "face_neck", "chest": "torso", "belly": "torso",
        "pelvis": "lower_clothing",
        "left_upper_arm": "left_upper_arm", "right_upper_arm": "right_upper_arm",
        "left_forearm": "left_lower_arm", "right_forearm": "right_lower_arm",
        "left_hand": "left_hand", "right_hand": "right_hand",
        "left_thigh": "left_upper_leg", "right_thigh": "right_upper_leg",
        "left_shank": "left_lower_leg", "right_shank": "right_lower_leg",
        "left_foot": "left_foot", "right_foot": "right_foot",
    }  # fmt: skip


def test_sleeves_trousers_and_shoes_cover_what_they_say():
    short = parts_of("short", "shorts", "socks")
    assert short["chest"] == short["belly"] == short["right_upper_arm"] == "upper_clothing"
    assert short["right_forearm"] == "right_lower_arm" and short["left_hand"] == "left_hand"
    assert short["pelvis"] == short["left_thigh"] == "lower_clothing"
    assert short["left_shank"] == "left_lower_leg"
    assert (short["left_foot"], short["right_foot"]) == ("left_sock", "right_sock")
    long = parts_of("long", "trousers", "shoes")
    assert long["left_forearm"] == "upper_clothing" and long["right_shank"] == "lower_clothing"
    assert (long["left_foot"], long["right_foot"]) == ("left_shoe", "right_shoe")
    assert long["right_hand"] == "right_hand" and long["neck"] == "face_neck"


def test_cloth_adds_its_thickness_to_radii_and_nothing_else_changes():
    bare = bare_body()
    dressed, paints = clothes.wear(bare, outfit("short", "shorts", "shoes"), 2, 7)
    grown = dressed.size_p3 - bare.size_p3
    names = [SEGMENTS[s] for s in bare.segment_p]
    thick = {"chest": 0.003, "belly": 0.003, "left_upper_arm": 0.003, "right_upper_arm": 0.003,
             "pelvis": 0.005, "left_thigh": 0.005, "right_thigh": 0.005,
             "left_foot": 0.007, "right_foot": 0.007}  # fmt: skip
    for name, kind, more in zip(names, bare.kind_p, grown, strict=True):
        want = thick.get(name, 0) * np.array([kind == BALL, 1, 1])
        np.testing.assert_allclose(more, want, atol=1e-12, err_msg=name)
    assert (dressed.person_p == 2).all()
    assert dressed.paint_p.min() == 7 and dressed.paint_p.max() == 7 + len(paints) - 1
    for field in ("kind_p", "centre_p3", "frame_p33", "segment_p"):
        np.testing.assert_array_equal(getattr(dressed, field), getattr(bare, field))


@pytest.mark.parametrize("kind, held_out", KINDS)
def test_whatever_is_drawn_can_be_worn(kind, held_out):
    rng, bare = np.random.default_rng(1), bare_body()
    for _ in range(150):
        drawn = clothes.draw_outfit(rng, kind, held_out)
        dressed, paints = clothes.wear(bare, drawn, 1, 0)
        grown = dressed.size_p3 - bare.size_p3
        assert grown.min() >= 0 and grown.max() <= 0.008
        assert kind == "toddler" or (drawn.top != "bare" and drawn.bottom != "nappy")
        assert len(paints) == len(clothes.MATERIALS)
        for paint in paints:
            numbers = np.array(paint.colours)
            assert numbers.shape[1] == 3 and numbers.min() >= 0 and numbers.max() <= 1
            assert paint.pitch > 0 and 0 <= paint.gloss <= 1
        skin, feet = drawn.paints[0], drawn.paints[clothes.MATERIALS.index("feet")]
        assert (feet == skin) == (drawn.feet == "bare")


def test_skin_spans_all_tones_whoever_it_is_and_hair_is_drawn_apart():
    for kind, held_out in KINDS:
        rng = np.random.default_rng(2)
        drawn = [clothes.draw_outfit(rng, kind, held_out).paints for _ in range(300)]
        light = np.array([np.mean(paints[0].colours[0]) for paints in drawn])
        hair = np.array([np.mean(paints[1].colours[1]) for paints in drawn])
        assert light.min() < 0.2 and light.max() > 0.85 and 0.35 < light.mean() < 0.65
        assert abs(np.corrcoef(light, hair)[0, 1]) < 0.2


def looks(kind, held_out, count=400):
    """Return hues as unit vectors, saturations, pitches and patterns of many tops."""
    rng = np.random.default_rng(3)
    tops = [clothes.draw_outfit(rng, kind, held_out).paints[5] for _ in range(count)]
    hsv = np.array([colorsys.rgb_to_hsv(*top.colours[0]) for top in tops])
    hue = np.exp(2j * np.pi * hsv[:, 0])
    pitch = np.array([top.pitch for top in tops if top.pattern != "speckle"])
    return hue, hsv[:, 1], pitch, np.array([top.pattern for top in tops])


def share_over(low, high):
    """Return the probability that a draw from high lies above one from low (0.5: the same)."""
    return (high[:, None] > low[None]).mean()


@pytest.mark.parametrize("kind", ["toddler", "adult"])
def test_test_people_dress_differently_from_those_trained_on(kind):
    (hue, _, pitch, pattern), (other_hue, _, other_pitch, other) = (looks(kind, h) for h in (0, 1))
    assert np.cos(np.angle(hue.mean() * np.conj(other_hue.mean()))) < 0.3
    assert share_over(pitch, other_pitch) > 0.85
    assert (other == "checks").mean() > 0.15 and not (pattern == "checks").any()


def test_toddlers_are_bright_and_patterned_and_adults_muted_and_plain():
    for held_out in (False, True):
        _, bright, _, pattern = looks("toddler", held_out)
        _, muted, _, plain = looks("adult", held_out)
        assert share_over(muted, bright) > 0.9
        assert (pattern == "plain").mean() < 0.25 and (plain == "plain").mean() > 0.45


def test_the_same_person_in_other_clothes():
    rng = np.random.default_rng(4)
    for _ in range(30):
        looks, other = (clothes.draw_outfit(rng, "toddler", False) for _ in range(2))
        both = clothes.same_person(looks, other)
        assert both.paints[:5] == looks.paints[:5] and both.paints[5:7] == other.paints[5:7]
        assert (both.top, both.thickness) == (other.top, other.thickness)
        assert both.paints[7] == (looks.paints[0] if other.feet == "bare" else other.paints[7])


def test_the_same_generator_draws_the_same_outfit():
    first, second = (clothes.draw_outfit(np.random.default_rng(5), "adult", True) for _ in range(2))
    assert first == second
