"""Losses of the dense tasks of Sapiens: parts, depth and normals, per pixel of the label.

Raw network outputs are resized to the size of the label first, bilinear as the reference does
(corners not aligned, not antialiased). Source: notes sapiens A6.
"""

import jax
import jax.numpy as jnp

IGNORED = 255  # a pixel without a part
# For the 28 parts of Sapiens, in their order (notes sapiens A6, seg_classes.json).
CLASS_WEIGHTS = (
    0.1, 10, 3, 2, 4, 4, 2, 2, 6, 10, 3, 3, 1, 4, 4, 2, 2, 6, 10, 3, 3, 1, 1, 10, 10, 10, 10, 10,
)  # fmt: skip
NEAREST = 1e-6  # depth: a target at or below is none, an output below is raised to it
NO_NORMAL = -100.0  # a target at or below is none
SHORTEST = 1e-5  # normals: a shorter output has no direction yet, and a bounded gradient


def segmentation(logits_bhwc, labels_bhw, class_weights):
    """Average the class-weighted cross-entropy over all pixels, those IGNORED too: a scalar, fp32.

    logits_bhwc: raw output, any float and size; labels_bhw: integers 0 ... C - 1 or IGNORED, which
    adds 0; class_weights: C numbers, such as CLASS_WEIGHTS. The weights do not divide. Any other
    label makes the loss NaN, as traced values cannot be refused. Raises ValueError for shapes that
    do not fit. Source: notes sapiens A6.
    """
    logits = jnp.asarray(logits_bhwc).astype(jnp.float32)
    labels = jnp.asarray(labels_bhw).astype(jnp.int32)
    weights = jnp.asarray(class_weights, jnp.float32)
    classes = logits.shape[-1]
    if labels.ndim != 3 or weights.shape != (classes,):
        raise ValueError(
            f"want labels (B, H, W) and a weight for each of {classes} classes, not "
            f"{labels.shape} and {weights.shape}"
        )
    log_bhwc = jax.nn.log_softmax(_resize(logits, labels.shape), axis=-1)
    # A comparison rather than a gather, whose gradient scatters pixel by pixel.
    picked_bhw = jnp.sum(log_bhwc * weights[None, None, None] * jax.nn.one_hot(labels, classes), -1)
    known_bhw = (labels >= 0) & (labels < classes)
    wrong_bhw = jnp.where(labels == IGNORED, 0.0, jnp.nan)
    return jnp.mean(jnp.where(known_bhw, -picked_bhw, wrong_bhw))


def silog(depth_bhw1, target_bhw):
    """Average over pictures sqrt(mean(d^2) - mean(d)^2 / 2), d = log(depth) - log(target): fp32.

    depth_bhw1: raw output, any float and size, raised to NEAREST; target_bhw: relative depth, valid
    above NEAREST. Means are over the valid pixels of a picture; one without any counts 0. Raises
    ValueError for shapes that do not fit. Source: notes sapiens A6.
    """
    depth = jnp.asarray(depth_bhw1).astype(jnp.float32)
    target = jnp.asarray(target_bhw).astype(jnp.float32)
    if target.ndim != 3 or depth.shape[-1] != 1:
        raise ValueError(f"want (B, h, w, 1) and (B, H, W), not {depth.shape} and {target.shape}")
    depth = _resize(depth, target.shape)[..., 0]
    valid = target > NEAREST
    # Safe numbers go in where the result is not used: their gradient must not be NaN either.
    apart = jnp.log(jnp.maximum(depth, NEAREST)) - jnp.log(jnp.where(valid, target, 1.0))
    apart = jnp.where(valid, apart, 0.0)
    count_b = jnp.maximum(jnp.sum(valid, (1, 2)), 1).astype(jnp.float32)
    squares_b = jnp.sum(jnp.square(apart), (1, 2)) / count_b
    mean_b = jnp.sum(apart, (1, 2)) / count_b
    within_b = squares_b - 0.5 * jnp.square(mean_b)
    # The root of 0 has no gradient.
    some_b = within_b > 0
    return jnp.mean(jnp.where(some_b, jnp.sqrt(jnp.where(some_b, within_b, 1.0)), 0.0))


def normals(normals_bhwc, target_bhwc):
    """Average 1 - cosine plus the absolute differences (summed over x, y, z) over valid pixels.

    normals_bhwc: raw output, any float, size and length; target_bhwc: unit vectors, valid where all
    three are above NO_NORMAL. Returns a scalar, fp32. The means are over the valid pixels of the
    whole batch; without any the loss is 0. Raises ValueError for shapes that do not fit. Source:
    notes sapiens A6.
    """
    found = jnp.asarray(normals_bhwc).astype(jnp.float32)
    target = jnp.asarray(target_bhwc).astype(jnp.float32)
    if target.ndim != 4 or not found.shape[-1] == target.shape[-1] == 3:
        raise ValueError(f"want (B, h, w, 3) and (B, H, W, 3), not {found.shape}, {target.shape}")
    found = _resize(found, target.shape[:3])
    valid = jnp.all(target > NO_NORMAL, -1, keepdims=True)
    target = jnp.where(valid, target, 1.0)
    count = jnp.maximum(jnp.sum(valid), 1).astype(jnp.float32)
    dot = jnp.sum(found * target, -1, keepdims=True)
    away = jnp.where(valid, 1 - dot / (_length(found) * _length(target)), 0.0)
    apart = jnp.where(valid, jnp.abs(found - target), 0.0)
    return jnp.sum(away) / count + jnp.sum(apart) / count


def _length(vectors):
    """Return the length of the vectors on the last axis, kept, at least SHORTEST."""
    squares = jnp.sum(jnp.square(vectors), -1, keepdims=True)
    return jnp.sqrt(jnp.maximum(squares, SHORTEST**2))


def _resize(raw_bhwc, shape_bhw):
    if raw_bhwc.ndim != 4 or raw_bhwc.shape[0] != shape_bhw[0]:
        raise ValueError(f"an output {raw_bhwc.shape} for a label of (B, H, W) {shape_bhw}")
    shape = (*shape_bhw, raw_bhwc.shape[-1])
    return jax.image.resize(raw_bhwc, shape, "bilinear", antialias=False)
