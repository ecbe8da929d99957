"""Hashes of pictures: what they forgive, what they tell apart, and all near pairs."""

import itertools
import time

import cv2
import drawn
import numpy as np
import pytest

from nkjax.data import fingerprints, images
from nkjax.data.fingerprints import NEAR, near_pairs


def hash_of(image):
    return fingerprints.dhash(images.thumbnail(np.ascontiguousarray(image), fingerprints.GRID_WH))


def pictures(count, size_wh=(320, 240)):
    rng = np.random.default_rng(3)
    return [drawn.picture(rng, size_wh, [drawn.person(rng, size_wh)]) for _ in range(count)]


def test_bits_are_rows_of_brighter_neighbours():
    grey = np.zeros((8, 9), np.uint8)
    grey[0, 1] = grey[7, 8] = 200  # brighter than the left neighbour: first and last bit
    assert fingerprints.dhash(grey) == (1 << 63) + 1
    ramp = np.tile(np.arange(9, dtype=np.uint8) * 9, (8, 1))
    assert fingerprints.dhash(ramp) == (1 << 64) - 1
    with pytest.raises(ValueError, match=r"\(8, 9\)"):
        fingerprints.dhash(grey.T)


def test_without_contrast_nothing_is_told():
    noise = np.random.default_rng(0).integers(100, 107, (8, 9)).astype(np.uint8)
    assert fingerprints.dhash(noise) == fingerprints.dhash(np.zeros((8, 9), np.uint8)) == 0
    assert fingerprints.dhash(noise + np.eye(8, 9, dtype=np.uint8) * 20) != 0
    assert fingerprints.differing_bits(0, 0) == fingerprints.differing_bits(0, 1) == 64
    assert fingerprints.differing_bits(0b1011, 0b1101) == 2
    assert near_pairs([0] * 500 + [1, 1], 64) == [(500, 501)]


def same_picture_again(image):
    """The same picture as other programs and cameras hand it on."""
    height, width = image.shape[:2]
    yield cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1)
    yield image[2:, 2:]
    yield np.clip(image.astype(int) + 30, 0, 255).astype(np.uint8)
    yield np.clip(image * 1.2, 0, 255).astype(np.uint8)
    yield cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    yield cv2.resize(image, (width * 3 // 2, height * 3 // 2))


def test_near_keeps_the_same_picture_together_and_others_apart():
    originals = pictures(40)
    for image in originals[:10]:
        for again in same_picture_again(image):
            assert fingerprints.differing_bits(hash_of(image), hash_of(again)) <= NEAR
    hashes = [hash_of(image) for image in originals]
    apart = [fingerprints.differing_bits(a, b) for a, b in itertools.combinations(hashes, 2)]
    assert min(apart) > NEAR
    mirrored = [fingerprints.differing_bits(hash_of(i), hash_of(i[:, ::-1])) for i in originals]
    assert min(mirrored) > NEAR


@pytest.mark.parametrize("distance", [0, 1, 2, 3, 5, 6, 7, 12, 25])
def test_near_pairs_against_all_pairs(distance):
    rng = np.random.default_rng(distance)
    hashes = [int(v) for v in rng.integers(1, 1 << 63, 150, dtype=np.uint64)]
    for value in hashes[:]:
        flips = rng.choice(64, rng.integers(1, 2 * distance + 2), replace=False)
        hashes.append(value ^ sum(1 << int(bit) for bit in flips))
    rng.shuffle(hashes)
    hashes = [int(v) for v in hashes]
    want = [(i, j) for i, j in itertools.combinations(range(300), 2)
            if (hashes[i] ^ hashes[j]).bit_count() <= distance]  # fmt: skip
    assert 40 < len(want) or distance == 0
    assert near_pairs(hashes, distance) == want


def test_equal_hashes_are_chained_and_connect_to_others_once():
    assert near_pairs([9, 5, 9, 9, 8, 0, 0], 1) == [(0, 2), (0, 4), (2, 3)]
    assert near_pairs([], 6) == near_pairs([7], 6) == near_pairs([0, 0], 6) == []
    assert near_pairs([7, 7], 0) == [(0, 1)]


def test_a_hundred_thousand_hashes_of_which_half_are_equal():
    rng = np.random.default_rng(0)
    hashes = [int(v) for v in rng.integers(1, 1 << 63, 120_000, dtype=np.uint64)]
    hashes[60_000:] = [hashes[0]] * 60_000
    hashes[77] = hashes[1234] ^ 0b111 << 40
    start = time.perf_counter()
    pairs = near_pairs(hashes, NEAR)
    seconds = time.perf_counter() - start
    assert len(pairs) == 60_001 and (77, 1234) in pairs and (119_998, 119_999) in pairs
    assert seconds < 20
