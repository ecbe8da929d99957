"""Dense losses by hand, against the reference's numbers, at degenerate inputs, and in fp32.

tests/convert_weights/test_fixtures.py compares them and their gradients through the network.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax.losses import dense
from tests.losses import precision_walk

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
ONES = np.ones(28, np.float32)


def reference(name, invalid):
    """The network's output (B, h, w, C), the target (B, H, W, C) and all arrays of a fixture."""
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        g = dict(arrays)
    target = np.asarray(g["loss_target_blocks"], np.float32).repeat(8, -1).repeat(8, -2)
    target[..., : int(g["loss_invalid_first_columns"])] = invalid
    return np.moveaxis(g["head_output"], 1, -1), np.moveaxis(target, 1, -1), g


def test_depth_against_the_reference():
    output, target, g = reference("tiny_depth", -1)
    np.testing.assert_allclose(dense.silog(output, target[..., 0]), g["loss/loss_silog"], rtol=1e-5)


def test_normals_against_the_reference():
    output, target, g = reference("tiny_normal", -1000)
    recorded = g["loss/loss_cosine_sim"] + g["loss/loss_l1"]
    np.testing.assert_allclose(dense.normals(output, target), recorded, rtol=1e-5)


def test_segmentation_by_hand():
    logits = np.log(np.array([[[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]]], np.float32))
    weights = np.array([1.0, 3.0, 5.0], np.float32)

    def value(*labels):
        return dense.segmentation(logits, np.array([[labels]], np.uint8), weights)

    np.testing.assert_allclose(value(0, 1), (np.log(2) - 3 * np.log(0.8)) / 2, rtol=1e-6)
    # An ignored pixel adds nothing, and is counted.
    np.testing.assert_allclose(value(2, 255), 5 * np.log(4) / 2, rtol=1e-6)
    # What is no class is not passed over in silence.
    assert np.isnan(value(0, 3))


def test_class_weights_are_those_of_the_28_parts():
    assert len(dense.CLASS_WEIGHTS) == 28
    # notes sapiens, seg_classes.json: background, face_neck, left_shoe and tongue.
    assert [dense.CLASS_WEIGHTS[i] for i in (0, 2, 8, 27)] == [0.1, 3, 6, 10]
    # Left and right weigh the same.
    for i in range(4, 12):
        assert dense.CLASS_WEIGHTS[i] == dense.CLASS_WEIGHTS[i + 9]


def test_silog_by_hand():
    depth = np.array([[1.0, 1.0, 1.0], [-3.0, 1.0, 1.0]], np.float32)[:, None, :, None]
    target = np.exp(np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0]], np.float32))[:, None]
    target[0, 0, 2] = -1
    target[1, 0, 1:] = 0  # the nearest px of a person: not valid in the reference either
    # d = -1 and -3: sqrt(5 - 4 / 2); then log(1e-6) alone: sqrt(d^2 - d^2 / 2).
    expected = (3**0.5 + abs(np.log(1e-6)) / 2**0.5) / 2
    np.testing.assert_allclose(dense.silog(depth, target), expected, rtol=1e-6)
    # A scale costs little, and a picture without a valid pixel counts 0.
    target[1] = -1
    np.testing.assert_allclose(dense.silog(depth, target), 3**0.5 / 2, rtol=1e-6)


def test_normals_by_hand():
    found = np.array([[[[0, 0, 2], [1, 0, 0], [0, 1, 0]]]], np.float32)
    target = np.array([[[[0, 0, 1], [0, 1, 0], [-1000] * 3]]], np.float32)
    # Cosines 1 and 0; differences 1 and 2.
    np.testing.assert_allclose(dense.normals(found, target), 1 / 2 + 3 / 2, rtol=1e-6)


def test_outputs_are_resized_to_the_label_without_aligned_corners():
    depth = np.array([[0.0, 4.0]], np.float32)[None, ..., None] + 1
    rows = np.array([[[1.0, 2.0, 4.0, 5.0]]], np.float32)
    assert dense.silog(depth, rows) < 1e-3
    assert dense.silog(depth, np.array([[[1.0, 7 / 3, 11 / 3, 5.0]]], np.float32)) > 0.05


def cases():
    rng = np.random.default_rng(3)
    shape = (2, 4, 3)
    labels = rng.integers(0, 28, (2, 8, 6))
    unit = rng.normal(size=(2, 8, 6, 3))
    unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
    depth = rng.uniform(0.1, 1, (2, 8, 6)).astype(np.float32)
    return {
        "seg": (dense.segmentation, rng.normal(size=(*shape, 28)).astype(np.float32),
                (labels.astype(np.uint8), np.asarray(dense.CLASS_WEIGHTS, np.float32))),
        "depth": (dense.silog, rng.uniform(0.1, 1, (*shape, 1)).astype(np.float32), (depth,)),
        "normal": (dense.normals, rng.normal(size=(*shape, 3)).astype(np.float32),
                   (unit.astype(np.float32),)),
    }  # fmt: skip


CASES = cases()
NOTHING = {"seg": 255, "depth": -1, "normal": -1000}


@pytest.mark.parametrize("task", CASES)
def test_fp32_from_the_first_line_to_the_gradient(task):
    loss, output, target = CASES[task]
    low = jnp.asarray(output, jnp.bfloat16)
    assert precision_walk.faults(loss, low, *target) == []
    assert loss(low, *target).dtype == jnp.float32
    with jax.numpy_dtype_promotion("strict"):
        exact = loss(np.asarray(low, np.float32), *target)
        np.testing.assert_allclose(loss(low, *target), exact, rtol=1e-7)


@pytest.mark.parametrize("task", CASES)
def test_a_batch_without_a_valid_pixel_teaches_nothing(task):
    loss, output, (target, *others) = CASES[task]
    nothing = np.full_like(target, NOTHING[task])
    value, gradient = jax.value_and_grad(loss)(output, nothing, *others)
    assert value == 0 and not np.asarray(gradient).any()


@pytest.mark.parametrize("fill", [0.0, 1e-20, -1.0, 1e4])
@pytest.mark.parametrize("task", CASES)
def test_gradients_stay_finite(task, fill):
    loss, output, (target, *others) = CASES[task]
    target = target.copy()
    target[1] = NOTHING[task]
    value, gradient = jax.value_and_grad(loss)(np.full_like(output, fill), target, *others)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert not np.asarray(gradient)[1].any()


def test_a_perfect_depth_has_a_gradient_of_zero():
    depth = np.full((1, 4, 3, 1), 0.5, np.float32)
    value, gradient = jax.value_and_grad(dense.silog)(depth, depth[..., 0])
    assert value == 0 and not np.asarray(gradient).any()


def test_all_class_weights_zero():
    _, logits, (labels, weights) = CASES["seg"]
    value, gradient = jax.value_and_grad(dense.segmentation)(logits, labels, 0 * weights)
    assert value == 0 and not np.asarray(gradient).any()


def test_gradients_are_those_of_finite_differences():
    """Independent of the walk through the graph: one step along a random direction."""
    for task, (loss, output, target) in CASES.items():
        way = np.random.default_rng(1).normal(size=output.shape).astype(np.float32)
        gradient = np.asarray(jax.grad(loss)(output, *target), np.float64)
        step = np.float32(1e-3)
        ahead, behind = (float(loss(output + s * way, *target)) for s in (step, -step))
        slope = (ahead - behind) / (2 * float(step))
        assert slope == pytest.approx((gradient * way).sum(), rel=0.02, abs=1e-3), task


@pytest.mark.parametrize(("loss", "fault"), [
    # A sum of bf16 is one of fp32 that is cast back.
    (lambda x: x.sum().astype(jnp.float32), "convert_element_type gives bfloat16"),
    (lambda x: (x * 2).astype(jnp.float32).sum(), "mul gives bfloat16"),
    (lambda x: x.astype(jnp.float32).astype(jnp.float16).astype(jnp.float32).sum(),
     "convert_element_type gives float16"),
    (lambda x: jnp.vdot(x.astype(jnp.float32), jnp.ones(4)), "dot_general at precision None"),
    (lambda x: jax.jit(lambda y: jnp.cos(y))(x).astype(jnp.float32).sum(), "cos gives bfloat16"),
    (lambda x: jax.lax.reduce_precision(x.astype(jnp.float32), 8, 7).sum(),
     "reduce_precision to 7 bits"),
    (lambda x: jax.lax.fori_loop(0, 2, lambda i, y: y * y, x).astype(jnp.float32).sum(),
     "mul gives bfloat16"),
    # Cast twice: the two halves of the gradient meet in bf16.
    (lambda x: (x.astype(jnp.float32) * jnp.sin(x.astype(jnp.float32))).sum(),
     "gradient: add_any gives bfloat16"),
])  # fmt: skip
def test_a_leaky_loss_is_found(loss, fault):
    found = precision_walk.faults(loss, jnp.ones(4, jnp.bfloat16))
    assert any(fault in line for line in found), found


def test_a_sound_loss_is_not_accused():
    def loss(x):
        x = x.astype(jnp.float32)
        return jnp.vdot(jnp.sin(x), jnp.ones(4), precision="highest")

    assert precision_walk.faults(loss, jnp.ones(4, jnp.bfloat16)) == []
    nested = jax.jit(jax.checkpoint(loss))
    assert precision_walk.faults(nested, jnp.ones(4, jnp.bfloat16)) == []


def test_readable_refusals():
    logits, labels = np.zeros((2, 4, 3, 28), np.float32), np.zeros((2, 8, 6), np.uint8)
    with pytest.raises(ValueError, match="a weight for each of 28 classes"):
        dense.segmentation(logits, labels, ONES[:20])
    with pytest.raises(ValueError, match=r"\(B, H, W\)"):
        dense.segmentation(logits, labels[..., None], ONES)
    with pytest.raises(ValueError, match="an output .* for a label"):
        dense.segmentation(logits[:1], labels, ONES)
    with pytest.raises(ValueError, match=r"want \(B, h, w, 1\)"):
        dense.silog(logits, labels)
    with pytest.raises(ValueError, match=r"want \(B, h, w, 3\)"):
        dense.normals(logits, np.zeros((2, 8, 6, 3), np.float32))
