"""A camera blurs, shakes and crackles without moving anything."""

import numpy as np
import pytest

from nkjax.toddlersim.looks import photo


def dot(y=20, x=30, size=(48, 64)):
    image = np.zeros((*size, 3), np.float32)
    image[y, x] = 1
    return image


def centroid(image):
    y, x = np.indices(image.shape[:2])
    weight = image[..., 0] / image[..., 0].sum()
    return (weight * x).sum(), (weight * y).sum()


@pytest.mark.parametrize("spread", [0.3, 0.45, 0.7, 0.9])
def test_blur_keeps_the_middle_and_spreads_as_it_says(spread):
    blurred = photo.blur(dot(), spread)
    np.testing.assert_allclose(centroid(blurred), (30, 20), atol=0.02)
    np.testing.assert_allclose(blurred.sum((0, 1)), 1, rtol=1e-5)
    away = (np.arange(64) - 30) ** 2
    variance = (blurred[..., 0].sum(0) * away).sum()
    if spread >= 0.5:  # less is less than what pixels can show
        assert abs(variance**0.5 - spread) < 0.12 * spread
    assert (np.diff(blurred[20, 30:, 0]) <= 0).all() and blurred[20, 31, 0] > 0
    flat = photo.blur(np.full((9, 8, 3), 0.4, np.float32), spread)
    np.testing.assert_allclose(flat, 0.4, rtol=1e-5)


@pytest.mark.parametrize(
    "way", [(7.0, 0.0), (0.0, 5.0), (6.3, 4.1), (-8.2, 3.7), (0.4, 0.2), (2.5, -2.5)]
)
def test_motion_keeps_the_middle_and_is_as_long_as_it_says(way):
    image = dot()
    smeared = photo.smear(image, way)
    np.testing.assert_array_equal(image, dot())
    np.testing.assert_allclose(centroid(smeared), (30, 20), atol=0.02)
    np.testing.assert_allclose(smeared.sum((0, 1)), 1, rtol=1e-5)
    rows, columns = np.nonzero(smeared[..., 0])
    assert abs(np.ptp(columns) - abs(way[0])) <= 1 and abs(np.ptp(rows) - abs(way[1])) <= 1
    slope = ((rows - 20) * (columns - 30)).sum()
    assert slope * way[0] * way[1] >= 0  # down the right diagonal, or up
    flat = photo.smear(np.full((12, 9, 3), 0.3, np.float32), way)
    np.testing.assert_allclose(flat, 0.3, rtol=1e-5)


def test_noise_has_mean_0_and_the_variance_it_says():
    image = np.zeros((200, 300, 3), np.float32)
    image[:, 150:] = 0.64
    noise = photo.noise(image, np.random.default_rng(0), 0.01, 0.05)
    dark, light = noise[:, :150], noise[:, 150:]
    for part, std in ((dark, 0.01), (light, (0.01**2 + 0.05**2 * 0.64) ** 0.5)):
        assert abs(part.mean()) < 4 * std / part.size**0.5
        assert abs(part.std() / std - 1) < 0.02
    assert abs(np.corrcoef(light[:, :-1].ravel(), light[:, 1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(light[..., 0].ravel(), light[..., 1].ravel())[0, 1]) < 0.02


def test_vignette_darkens_the_corners_by_what_it_says():
    light = photo.vignette((48, 65), 0.3)
    np.testing.assert_allclose(light[[0, 0, -1, -1], [0, -1, 0, -1]], 0.7, rtol=1e-6)
    np.testing.assert_allclose(light, light[::-1, ::-1], rtol=1e-6)
    assert light[24, 32] > 0.999 and light.min() >= 0.7 - 1e-6


@pytest.mark.parametrize("held_out", [False, True])
def test_pictures_are_pictures_and_nothing_moves(held_out):
    # A bright square on grey: its middle stays, whatever the camera does.
    image = np.full((48, 64, 3), 0.3, np.float32)
    image[15:30, 20:41] = 0.75
    before = image.copy()
    for seed in range(60):
        picture = photo.develop(image, np.random.default_rng(seed), held_out)
        assert picture.dtype == np.uint8 and picture.shape == image.shape
        bright = picture.astype(float).mean(-1)
        bright /= photo.vignette((48, 64), 0.2)
        inner, outer = bright[18:27, 23:38].mean(), np.median(bright)
        inside = bright > (inner + outer) / 2
        inside[:8], inside[38:], inside[:, :12], inside[:, 50:] = False, False, False, False
        rows, columns = np.nonzero(inside)
        assert abs(rows.mean() - 22) < 0.35 and abs(columns.mean() - 30) < 0.35
        assert abs(inside.sum() - 15 * 21) < 0.25 * 15 * 21
    np.testing.assert_array_equal(image, before)


def test_a_quarter_of_the_pictures_moves(monkeypatch):
    ways, smear = [], photo.smear

    def noted(image, way):
        ways.append(way)
        return smear(image, way)

    monkeypatch.setattr(photo, "smear", noted)
    for seed in range(400):
        photo.develop(np.full((9, 12, 3), 0.5, np.float32), np.random.default_rng(seed), False)
    assert 75 < len(ways) < 125
    length, angle = np.hypot(*np.transpose(ways)), np.arctan2(*np.transpose(ways)[::-1])
    assert length.min() >= 0.01 * 12 and length.max() <= 0.022 * 12
    assert (np.histogram(angle, 4, (0, np.pi))[0] > 10).all()  # every direction


def test_the_camera_of_test_people_is_noisier_and_has_another_cast():
    grey = np.full((40, 40, 3), 0.45, np.float32)

    def crackle_and_cast(held_out):
        taken = [photo.develop(grey, np.random.default_rng(s), held_out) / 255 for s in range(80)]
        middle = np.array([t[12:28, 12:28] for t in taken])
        cast = np.log(middle.mean((1, 2))).std(1)
        return middle.std((1, 2)).mean(1), cast

    (noise, cast), (other_noise, other_cast) = (crackle_and_cast(h) for h in (False, True))
    assert (other_noise[:, None] > noise[None]).mean() > 0.85
    assert cast.mean() > 0.01 and other_cast.mean() > 1.4 * cast.mean()


def test_dark_and_light_rooms_are_exposed_alike_but_not_the_same():
    rooms = (np.full((40, 40, 3), v, np.float32) for v in (0.2, 0.7))
    dark, light = (photo.develop(room, np.random.default_rng(1), False) for room in rooms)
    ratio = light.mean() / dark.mean()
    assert 1.3 < ratio < 1.7  # (0.7 / 0.2) ** (1 - EXPOSING)


def test_the_same_generator_gives_the_same_picture():
    image = np.random.default_rng(3).random((48, 64, 3)).astype(np.float32)
    first, second = (photo.develop(image, np.random.default_rng(4), True) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert (first != photo.develop(image, np.random.default_rng(5), True)).mean() > 0.5
