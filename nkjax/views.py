"""What the device does to a batch of pictures: normalise, distort, cover, mix, flip, draw targets.

Pictures arrive as uint8 crops and become float32 RGB grey levels 0 ... 255; `normalise` comes last.
Points and matrices are fp32 throughout: in bf16 a joint at 1000 px is off by up to 2 px.
Everything is pure and may stand under `jit`. All draws come from one key per sample, so they do not
depend on batch size, place in the batch or number of processes; only mixing needs the next sample.
The same program gives the same bytes; one compiled for another batch may differ in the last bit.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nkjax import occlusion, photometric
from nkjax.geometry import affine, heatmaps

# ImageNet's, in grey levels of RGB. The reference's "lite" demos use other numbers.
MEAN_111C = np.array([[[[123.675, 116.28, 103.53]]]], np.float32)
STD_111C = np.array([[[[58.395, 57.12, 57.375]]]], np.float32)
# A person of whom mixing replaced more than this is no longer that person: mask the sample.
MOST_REPLACED = 0.4
MIXES = ("joint_cutout", "keypoint_cutmix", "cutout + keypoint_cutmix", "joint_cutout + cutmix")


def normalise(images_u8_bhwc):
    """Turn RGB grey levels 0 ... 255 into the float32 input of the networks, same shape.

    Source: notes sapiens A4.
    """
    return (jnp.asarray(images_u8_bhwc).astype(jnp.float32) - MEAN_111C) / STD_111C


def sample_keys(seed, index_b):
    """Make one random key per sample from a run's seed and the sample's global index.

    index_b: (B,) int32 or uint32, step x global batch + place. Raises ValueError for another dtype.
    """
    index = jnp.asarray(index_b)
    if index.dtype not in (jnp.int32, jnp.uint32):
        raise ValueError(f"want sample indices of int32 or uint32, not {index.dtype}")
    # Named, since other generators give a sample other numbers in another batch.
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def recipe(images_u8_bhwc, keys):
    """Make the supervised view of Sapiens: photometric distortion, blur, one hole.

    Returns float32 grey levels (B, H, W, 3). Source: notes sapiens A8.
    """
    colour, sharpness, hole = _split(keys, 3)
    images = jnp.asarray(images_u8_bhwc).astype(jnp.float32)
    images = photometric.photometric_distortion(images, colour)
    images = photometric.blur(images, sharpness)
    return occlusion.cutout(images, hole)


def strong(images_u8_bhwc, keys, points_bk2, valid_bk):
    """Make the student's strong view: photometric distortion, blur, one of MIXES per sample.

    points_bk2: fp32 crop px; valid_bk: whether a joint is known; one outside the crop is neither
    covered nor a source of patches. Returns float32 grey levels (B, H, W, 3) and share_b, the share
    of the person that mixing replaced (mask a sample above MOST_REPLACED). Targets stay as they
    are, for covered joints too. Raises ValueError for points that are not fp32. Source: notes
    method 4.4.
    """
    points, valid = _fp32(points_bk2, "points"), jnp.asarray(valid_bk).astype(bool)
    corner = np.array([[images_u8_bhwc.shape[2] - 1, images_u8_bhwc.shape[1] - 1]], np.float32)
    valid &= ((points >= 0) & (points <= corner[None])).all(-1)
    colour, sharpness, kind, discs, hole, patches, mix = _split(keys, 7)
    images = jnp.asarray(images_u8_bhwc).astype(jnp.float32)
    images = photometric.blur(photometric.photometric_distortion(images, colour), sharpness)

    mix_b = draw_mix(kind)
    patched, patched_share = occlusion.keypoint_cutmix(images, patches, points, valid)
    mixed, mixed_share = occlusion.cutmix(images, mix, points, valid)
    # Both take the next sample as it was: what is pasted is never a hole, nor the sample itself.
    takes_patches, takes_mix = (mix_b == 1) | (mix_b == 2), mix_b == 3
    images = _take(takes_patches, patched, _take(takes_mix, mixed, images))
    share_b = jnp.where(takes_patches, patched_share, jnp.where(takes_mix, mixed_share, 0.0))

    # A sample none of whose joints are asked for is left as it is.
    takes_discs = (mix_b == 0) | (mix_b == 3)
    images = occlusion.joint_cutout(images, discs, points, valid & takes_discs[:, None])
    return _take(mix_b == 2, occlusion.cutout(images, hole), images), share_b


def draw_mix(keys):
    """Draw for every sample an index of MIXES, all equally likely: (B,) int32."""
    return jax.vmap(lambda key: jax.random.randint(key, (), 0, len(MIXES)))(keys)


def flip(images_bhwc, points_bk2, visible_bk, matrices_b23, mirrored_b, flip_indices):
    """Mirror the samples that mirrored_b marks: pictures, points, visibility and matrices.

    points_bk2: fp32 crop px, x becomes W - 1 - x; points and visible_bk change places with their
    partners on the other side (flip_indices: K integers, `Skeleton.flip_indices`). matrices_b23:
    fp32, from any frame to crop px; the result leads to mirrored crop px. Returns the four; twice
    is nothing. Raises ValueError for points or matrices that are not fp32, or bad flip_indices.
    """
    points, matrices = _fp32(points_bk2, "points"), _fp32(matrices_b23, "matrices")
    visible, flip_indices = jnp.asarray(visible_bk), np.asarray(flip_indices)
    joints = np.arange(points.shape[1])
    if (
        sorted(flip_indices.tolist()) != joints.tolist()
        or (flip_indices[flip_indices] != joints).any()
    ):
        raise ValueError(
            f"flip_indices must pair each of the {len(joints)} joints with its partner"
        )
    width = images_bhwc.shape[2]
    mirror = jnp.array([[[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]]])
    swapped = affine.transform_points(mirror, points)[:, flip_indices]
    return (
        _take(mirrored_b, images_bhwc[:, :, ::-1], images_bhwc),
        _take(mirrored_b, swapped, points),
        _take(mirrored_b, visible[:, flip_indices], visible),
        _take(mirrored_b, affine.compose(mirror, matrices), matrices),
    )


def targets(
    points_bk2, visibility_bk, joint_weights_k, size_wh, map_wh, sigma, occluded_weight=1.0
):
    """Draw the heatmaps that a batch is trained on, and weigh them.

    points_bk2: fp32 crop px; visibility_bk: 0 not labelled, 1 occluded, 2 visible; joint_weights_k:
    `Skeleton.joint_weights`; size_wh, map_wh: static sizes of crop and maps; sigma: map px. Returns
    maps_bhwk and weights_bk = joint weight (x occluded_weight where the visibility is 1) where the
    joint is labelled and its window touches the map, else 0. Raises ValueError for points that are
    not fp32. Source: notes sapiens A5, ecosystem 2.1.
    """
    points, visibility = _fp32(points_bk2, "points"), jnp.asarray(visibility_bk)
    maps_bhwk, drawn_bk = heatmaps.encode(points, visibility > 0, size_wh, map_wh, sigma)
    joint_weights_1k = jnp.asarray(joint_weights_k, jnp.float32)[None]
    seen_bk = jnp.where(visibility == 1, jnp.float32(occluded_weight), jnp.float32(1.0))
    return maps_bhwk, drawn_bk * joint_weights_1k * seen_bk


def _split(keys, count):
    """Split every sample's key: `count` arrays of B keys."""
    return jax.vmap(lambda key: jax.random.split(key, count), out_axes=1)(keys)


def _take(chosen_b, one, other):
    """Take the samples of `one` that chosen_b marks, the rest of `other`."""
    return jax.vmap(jnp.where)(jnp.asarray(chosen_b), one, other)


def _fp32(array, what):
    array = jnp.asarray(array)
    if array.dtype != jnp.float32:
        raise ValueError(f"{what} must be fp32, not {array.dtype}: px need every bit of it")
    return array
