"""Fingerprints of pictures that survive re-encoding, and all pairs of pictures that look alike."""

from collections.abc import Iterator, Sequence

import numpy as np

GRID_WH = (9, 8)  # of the small grey picture (`images.thumbnail`) that `dhash` takes
# Bits of 64 in which two pictures may differ and still be one picture; measured in the tests.
NEAR = 6
# Grey levels between the darkest and the brightest part; below it a hash would be of noise only.
LEAST_CONTRAST = 8
_AT_ONCE = 2_000_000


def dhash(grey_hw: np.ndarray) -> int:
    """Hash a small grey picture: one bit for each pair of neighbours, set where it gets brighter.

    grey_hw: (8, 9) uint8. Returns 64 bits. The answer 0 means that nothing can be told: the
    contrast is below LEAST_CONTRAST grey levels, or nothing gets brighter to the right. Raises
    ValueError for another shape. Source: N. Krawetz, "Kind of like that" (2013).
    """
    if grey_hw.shape != GRID_WH[::-1]:
        raise ValueError(f"want a grey picture of (8, 9), not {grey_hw.shape}")
    grey = grey_hw.astype(np.int32)
    if grey.max() - grey.min() < LEAST_CONTRAST:
        return 0
    bits = (grey[:, 1:] > grey[:, :-1]).reshape(-1)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def differing_bits(a: int, b: int) -> int:
    """Count the bits in which two hashes differ; 64 where one is 0, which is like nothing."""
    return (a ^ b).bit_count() if a and b else 64


def near_pairs(hashes: Sequence[int], distance: int) -> list[tuple[int, int]]:
    """Find all pairs of 64-bit hashes that differ in at most so many bits.

    Returns index pairs (i, j), i < j, sorted. Hashes 0 are like nothing, not even each other. Equal
    hashes are chained: of indices a < b < c with one hash there are (a, b) and (b, c), and only a
    has pairs with other hashes; so the pairs connect all that is near, while a thousand copies give
    a thousand pairs. Exact: with distance // 2 + 1 bands of bits, near hashes differ by at most one
    bit in some band, so candidates are joined on equal bands and on bands one bit away.
    """
    values = np.array(hashes, np.uint64)
    known = np.flatnonzero(values)
    order = known[np.argsort(values[known], kind="stable")]
    equal = values[order[1:]] == values[order[:-1]]
    chained = np.stack([order[:-1][equal], order[1:][equal]], 1)
    first = order[np.concatenate([[True], ~equal])] if len(order) else order
    found = [chained, *_joined(first, values[first], distance)]
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return [(int(i), int(j)) for i, j in pairs]


def _joined(indices, values, distance) -> Iterator[np.ndarray]:
    """Yield arrays (n, 2) of index pairs of different hashes within the distance."""
    bands = distance // 2 + 1 if distance > 0 else 0
    for band in range(bands):
        # Every so-manieth bit: neighbouring bits are often equal (black bars, sky).
        bits = range(band, 64, bands)
        keys = _gather(values, bits)
        by_key = np.argsort(keys, kind="stable")
        ordered = keys[by_key]
        for mask in (0, *(1 << k for k in range(len(bits)))):
            wanted = ordered ^ np.uint64(mask)
            low = np.searchsorted(ordered, wanted, "left")
            counts = np.searchsorted(ordered, wanted, "right") - low
            for rows, columns in _expand(low, counts):
                a, b = by_key[rows], by_key[columns]
                near = (a < b) & (np.bitwise_count(values[a] ^ values[b]) <= distance)
                yield np.stack([indices[a[near]], indices[b[near]]], 1)


def _gather(values, bits):
    """Pack some bits of every hash side by side."""
    keys = np.zeros_like(values)
    for place, bit in enumerate(bits):
        keys |= ((values >> np.uint64(bit)) & np.uint64(1)) << np.uint64(place)
    return keys


def _expand(low, counts):
    """Yield (row, low[row] + 0 ... counts[row] - 1) for all rows, a bounded number at once."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _AT_ONCE, "right")))
        part = counts[start:stop]
        rows = np.repeat(np.arange(start, stop), part)
        offsets = np.arange(len(rows)) - np.repeat(ends[start:stop] - part - before, part)
        yield rows, low[rows] + offsets
        start = stop
