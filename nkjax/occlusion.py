"""Parts of pictures covered, or replaced by parts of the next picture of the batch.

Pictures are (B, H, W, 3) float32 grey levels, `keys` B random keys, one per sample
(`views.sample_keys`), points (B, K, 2) fp32 crop px, valid (B, K) bool: known and in the crop.
Joints that are covered keep their targets: the network learns to see through. Radii are px of a
crop 256 px high and grow with it. Everything is pure and may stand under `jit`. Source: notes
method 4.4, MultiAugs.
"""

import jax
import jax.numpy as jnp
import numpy as np

HOLE = (0.2, 0.4)  # of each side
RADIUS = (10.0, 20.0)
CUTOUT_JOINTS = 5
CUTMIX_JOINTS = 2


def cutout(images_bhwc, keys):
    """Blacken one rectangle of 0.2 to 0.4 of each side, as the recipe's CoarseDropout does."""
    inside_bhw = _rectangles(images_bhwc.shape, keys)
    return jnp.where(inside_bhw[..., None], 0.0, images_bhwc)


def joint_cutout(images_bhwc, keys, points_bk2, valid_bk, joints=CUTOUT_JOINTS, radius=RADIUS):
    """Cover up to `joints` random valid joints of each sample with discs of the mean colour.

    radius: smallest and largest. The mean colour of the picture, since it is neither an extreme
    nor a texture the network could take for content, and needs no second picture of noise in
    memory. A sample without a valid joint stays as it is.
    """

    def one(image, key, points, valid):
        which, sizes = jax.random.split(key)
        chosen, taken = _choose(which, valid, joints)
        radii = _radii(sizes, len(chosen), image.shape[0], radius)
        covered = _discs(image.shape, points[chosen], radii, taken)
        return jnp.where(covered[..., None], image.mean((0, 1))[None, None], image)

    return jax.vmap(one)(images_bhwc, keys, points_bk2, valid_bk)


def cutmix(images_bhwc, keys, points_bk2, valid_bk):
    """Replace one rectangle of 0.2 to 0.4 of each side by the same one of the next sample.

    Returns the pictures and share_b, the replaced share (0 ... 1) of the box of the valid joints; a
    batch of one stays as it is.
    """
    if len(images_bhwc) == 1:
        return images_bhwc, jnp.zeros(1)
    inside_bhw = _rectangles(images_bhwc.shape, keys)
    mixed = jnp.where(inside_bhw[..., None], jnp.roll(images_bhwc, -1, 0), images_bhwc)
    return mixed, jax.vmap(_share)(inside_bhw, points_bk2, valid_bk)


def keypoint_cutmix(images_bhwc, keys, points_bk2, valid_bk, joints=CUTMIX_JOINTS, radius=RADIUS):
    """Paste discs cut around joints of the next sample near up to `joints` random valid joints.

    The disc's middle lies within a radius of the joint, so that a pasted wrist is a false one.
    radius: smallest and largest. Returns the pictures and share_b, the replaced share (0 ... 1) of
    the box of the valid joints. Samples without a valid joint, or whose next sample has none, stay
    as they are, and so does a batch of one: nothing is ever pasted onto itself.
    """
    if len(images_bhwc) == 1:
        return images_bhwc, jnp.zeros(1)

    def one(image, key, points, valid, other, other_points, other_valid):
        here, there, sizes, places = jax.random.split(key, 4)
        chosen, taken = _choose(here, valid, joints)
        sources, found = _choose(there, other_valid, joints)
        taken &= found
        radii = _radii(sizes, len(chosen), image.shape[0], radius)
        away = jax.random.uniform(places, (len(chosen), 2), minval=-1.0, maxval=1.0)
        corner = np.array([image.shape[1] - 1, image.shape[0] - 1], np.float32)
        middles = jnp.clip(points[chosen] + away * radii[:, None], 0.0, corner[None])
        largest = _largest(image.shape, radius)
        for i in range(len(chosen)):
            image = _paste(
                image, other, middles[i], other_points[sources[i]], radii[i] * taken[i], largest
            )
        return image, _share(_discs(image.shape, middles, radii, taken), points, valid)

    following = (jnp.roll(array, -1, 0) for array in (images_bhwc, points_bk2, valid_bk))
    return jax.vmap(one)(images_bhwc, keys, points_bk2, valid_bk, *following)


def _rectangles(shape_bhwc, keys):
    """Draw one rectangle per sample: (B, H, W) bool, true inside."""
    height, width = shape_bhwc[1:3]

    def along(key, size):
        length_key, start_key = jax.random.split(key)
        share = jax.random.uniform(length_key, minval=HOLE[0], maxval=HOLE[1])
        length = jnp.floor(share * size).astype(jnp.int32)
        start = jax.random.randint(start_key, (), 0, size - length + 1)
        at = jnp.arange(size)
        return (at >= start) & (at < start + length)

    def one(key):
        rows, columns = jax.random.split(key)
        return along(rows, height)[:, None] & along(columns, width)[None, :]

    return jax.vmap(one)(keys)


def _choose(key, valid_k, count):
    """Choose up to `count` random valid joints: indices, and whether each is one."""
    order = jnp.where(valid_k, jax.random.uniform(key, valid_k.shape), -1.0)
    scores, indices = jax.lax.top_k(order, min(count, len(valid_k)))
    return indices, scores >= 0


def _radii(key, count, height, radius):
    return jax.random.uniform(key, (count,), minval=radius[0], maxval=radius[1]) * (height / 256)


def _largest(shape_hwc, radius):
    """The side of a window that holds any disc, px."""
    return min(2 * int(np.ceil(radius[1] * shape_hwc[0] / 256)) + 1, *shape_hwc[:2])


def _discs(shape_hwc, middles_n2, radii_n, taken_n):
    """Whether a pixel lies in one of the discs taken: (H, W) bool."""
    y, x = jnp.arange(shape_hwc[0])[:, None], jnp.arange(shape_hwc[1])[None, :]
    covered = jnp.zeros(shape_hwc[:2], bool)
    for i in range(len(radii_n)):
        away = (x - middles_n2[i, 0]) ** 2 + (y - middles_n2[i, 1]) ** 2
        covered |= taken_n[i] & (away <= radii_n[i] ** 2)
    return covered


def _paste(image, other, middle_2, source_2, radius, side):
    """Paste the disc of `other` around `source_2` around `middle_2`; nothing where radius is 0."""
    limits = [image.shape[0] - side, image.shape[1] - side]

    def start(at_2):
        # Kept inside: near an edge the joint is off the middle of its window, never outside.
        at = jnp.round(jnp.nan_to_num(at_2[::-1])).astype(jnp.int32) - side // 2
        return [jnp.clip(at[axis], 0, limits[axis]) for axis in (0, 1)]

    row, column = start(middle_2)
    patch = jax.lax.dynamic_slice(other, (*start(source_2), 0), (side, side, 3))
    under = jax.lax.dynamic_slice(image, (row, column, 0), (side, side, 3))
    y, x = row + jnp.arange(side)[:, None], column + jnp.arange(side)[None, :]
    inside = (x - middle_2[0]) ** 2 + (y - middle_2[1]) ** 2 <= radius**2
    inside &= radius > 0
    pasted = jnp.where(inside[..., None], patch, under)
    return jax.lax.dynamic_update_slice(image, pasted, (row, column, 0))


def _share(covered_hw, points_k2, valid_k):
    """The covered share of the box of the valid joints, by pixels inside the picture."""
    inside = jnp.ones(covered_hw.shape, bool)
    for axis, size in ((0, covered_hw.shape[1]), (1, covered_hw.shape[0])):
        at = points_k2[:, axis]
        low = jnp.where(valid_k, at, jnp.inf).min()
        high = jnp.where(valid_k, at, -jnp.inf).max()
        pixels = jnp.arange(size)
        along = (pixels >= jnp.floor(low)) & (pixels <= jnp.ceil(high))
        inside &= along[None, :] if axis == 0 else along[:, None]
    return (covered_hw & inside).sum() / jnp.maximum(inside.sum(), 1)
