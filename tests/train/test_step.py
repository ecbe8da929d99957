"""The step: what it skips, what a part of a batch and a person that is not valid are worth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax import mesh as meshes
from nkjax import trees, views
from nkjax.config import Config, Evaluation, Heatmaps, Optimizer
from nkjax.data.streams import stream_seed
from nkjax.losses import heatmap
from nkjax.models import sapiens
from nkjax.train import job, optimizer, state, step
from tests.losses import precision_walk

ONE = meshes.make_mesh(1, 1, jax.devices()[:1])
POSE = Config(
    size="tiny", image_hw=(64, 48), batch=8, compute="float32", remat="none", augment="plain",
    steps=10, optimizer=Optimizer(warmup=0, schedule="constant"), heatmaps=Heatmaps(sigma=1.0),
)  # fmt: skip
SEG = dataclasses.replace(
    POSE, task="seg", image_hw=(32, 32), heatmaps=Heatmaps(), evaluation=Evaluation(best="loss")
)


def spec_of(config):
    return sapiens.make_spec(config.size, config.task, image_size=config.image_hw)


def random_params(config):
    return jax.jit(lambda: sapiens.init(jax.random.key(0), spec_of(config)))()


def batch_of(config, seed=0):
    """Draw a batch: joints within the crop, one in four occluded or not labelled; random parts."""
    rng, (height, width), count = np.random.default_rng(seed), config.image_hw, config.batch
    batch = {
        "image": rng.integers(0, 256, (count, height, width, 3), np.uint8),
        "index": np.arange(count, dtype=np.uint32),
        "valid": np.ones(count, bool),
    }
    if config.task == "pose":
        batch["points"] = rng.uniform(0, (width - 1, height - 1), (count, 17, 2)).astype(np.float32)
        batch["visible"] = rng.choice([2, 2, 2, 1, 0], (count, 17)).astype(np.int8)
    else:
        batch["label"] = rng.integers(0, 28, (count, height, width)).astype(np.uint8)
    return jax.tree.map(jnp.asarray, batch)


def loss_and_gradient(config, parts=1):
    loss = step.make_loss(spec_of(config), config)
    return jax.jit(lambda p, b: step._gradient(loss, p, b, parts))


@pytest.fixture(scope="module")
def pose():
    """Return loss and gradient of POSE, compiled once, and random parameters."""
    return loss_and_gradient(POSE), random_params(POSE)


def bits(tree):
    return {k: np.asarray(x).tobytes() for k, x in trees.flatten(tree).items()}


def assert_close(found, wanted, share):
    """Compare to a share of each tensor's largest value, or of the tree's where all is rounding."""
    found, wanted = trees.flatten(found), trees.flatten(wanted)
    of_tree = max(float(jnp.abs(x).max()) for x in wanted.values())
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        largest = float(jnp.abs(value).max())
        atol = share * (largest if largest > 1e-4 * of_tree else of_tree)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=atol, err_msg=name)


def test_a_step_that_is_not_finite_is_skipped():
    """A label that is no class makes the loss NaN: nothing before the loss can refuse it."""
    config, spec = SEG, spec_of(SEG)
    compiled = job.lower_step(spec, config, ONE).compile()
    made = optimizer.make(config.optimizer, config.steps)
    new = jax.jit(lambda p: state.init(p, made))(random_params(config))
    # Donation: all of the state is the memory of the one before, but for padding.
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(new))
    assert compiled.memory_analysis().alias_size_in_bytes >= size
    good = batch_of(config)
    bad = good | {"label": good["label"].at[3, 5, 7].set(100)}
    now, metrics = compiled(new, good)
    kept = {part: bits(getattr(now, part)) for part in ("params", "ema", "moments", "updates")}
    assert np.isfinite(metrics["train/loss"]) and metrics["train/skipped"] == 0
    now, metrics = compiled(now, bad)
    assert np.isnan(metrics["train/loss"]) and metrics["train/skipped_in_a_row"] == 1
    assert kept == {part: bits(getattr(now, part)) for part in kept}
    now, metrics = compiled(now, good)
    assert np.isfinite(metrics["train/loss"]) and metrics["train/skipped_in_a_row"] == 0
    assert (int(now.step), int(now.updates), int(now.skipped)) == (3, 2, 1)
    assert bits(now.params) != kept["params"]


def test_a_point_that_is_nowhere_weighs_nothing(pose):
    of, params = pose
    batch = batch_of(POSE)
    away = batch | {"visible": batch["visible"].at[2, 4].set(0)}
    for number in (np.nan, np.inf):
        points, visible = batch["points"].at[2, 4].set(number), batch["visible"].at[2, 4].set(2)
        nowhere = batch | {"points": points, "visible": visible}
        assert bits(of(params, nowhere)[1]) == bits(of(params, away)[1])


@pytest.mark.parametrize("config", [POSE, SEG], ids=["pose", "seg"])
def test_four_parts_are_one_batch(config, pose):
    """The mean of four means of two: the same sums in another order, in fp32.

    5e-6 of a tensor's largest value, as between meshes: some eighty roundings of 2^-24.
    """
    params, batch = random_params(config), batch_of(config)
    whole = pose[0] if config is POSE else loss_and_gradient(config)
    (value, gradient), (parts, of_parts) = (
        of(params, batch) for of in (whole, loss_and_gradient(config, parts=4))
    )
    np.testing.assert_allclose(parts, value, rtol=1e-6)
    assert_close(of_parts, gradient, 5e-6)


def test_a_person_that_is_not_valid_only_counts(pose):
    """The loss is the mean over all, so that of the other seven, times 7 / 8."""
    of, params = pose
    batch = batch_of(POSE)
    out = batch | {"valid": batch["valid"].at[5].set(False)}
    value, gradient = of(params, out)
    other = batch_of(POSE, seed=9)
    replaced = {
        name: out[name].at[5].set(other[name][5]) for name in ("image", "points", "visible")
    }
    again, of_replaced = of(params, out | replaced)
    assert value == again and bits(gradient) == bits(of_replaced)
    by_person = jax.jit(heatmap_errors)(params, batch)
    np.testing.assert_allclose(value, np.delete(np.asarray(by_person), 5).sum() / 8, rtol=1e-6)


def heatmap_errors(params, batch):
    """Mean errors (B,) of one person at a time, by the functions that the loss is made of."""
    maps = sapiens.apply(params, spec_of(POSE), views.normalise(batch["image"]))["pose"]
    weights_k = jnp.array(spec_of(POSE).skeleton.joint_weights)
    targets, weights = views.targets(
        batch["points"], batch["visible"], weights_k, (48, 64), (12, 16), 1.0
    )
    one = jax.vmap(lambda m, t, w: heatmap.mse(m[None], t[None], w[None]))
    return one(maps, targets, weights)


def test_the_view_is_of_seed_and_index_alone():
    """The same person elsewhere in a batch, among others: the same loss; another index another."""
    config = dataclasses.replace(POSE, augment="sapiens")
    seven = dataclasses.replace(config, seed=7)
    of = {c.seed: jax.jit(step.make_loss(spec_of(c), c)) for c in (config, seven)}
    params, batch = random_params(config), batch_of(config)
    only = batch | {"valid": jnp.arange(8) == 2}
    value = of[0](params, only)
    assert value == of[0](params, only) and value > 0
    turned = jax.tree.map(lambda x: jnp.roll(x, 3, 0), only)
    np.testing.assert_allclose(of[0](params, turned), value, rtol=1e-6)
    moved = only | {"index": only["index"].at[2].set(77)}
    assert abs(float(of[0](params, moved)) / float(value) - 1) > 1e-5
    assert abs(float(of[7](params, only)) / float(value) - 1) > 1e-5
    assert stream_seed(0, step.STREAM) != stream_seed(7, step.STREAM)


@pytest.mark.parametrize("heatmaps", [Heatmaps(sigma=1.0), Heatmaps(sigma=1.0, hardest=8)],
                         ids=["all", "hardest"])  # fmt: skip
def test_a_loss_after_a_bf16_network_is_fp32(heatmaps, monkeypatch):
    """Walked from the network's output on: what the network computes is meant to be bf16."""
    config = dataclasses.replace(POSE, compute="bfloat16", heatmaps=heatmaps)
    out = {}
    monkeypatch.setattr(step.sapiens, "apply", lambda *args, **named: out)
    loss = step.make_loss(spec_of(config), config)

    def after(maps, batch):
        out["pose"] = maps
        return loss({}, batch)

    maps = jnp.zeros((8, 16, 12, 17), jnp.bfloat16)
    assert precision_walk.faults(after, maps, batch_of(config)) == []


def test_the_network_of_a_bf16_run_is_bf16():
    config = dataclasses.replace(POSE, compute="bfloat16")
    shapes = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), spec_of(config)))
    loss = step.make_loss(spec_of(config), config)
    made = jax.eval_shape(jax.value_and_grad(loss), shapes, batch_of(config))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(made)} == {"float32"}
    program = jax.make_jaxpr(loss)(shapes, batch_of(config)).jaxpr
    operands = {var.aval.dtype.name for product in products(program) for var in product.invars}
    assert operands == {"bfloat16"}


def products(program):
    """Yield the matrix products of a program and of those inside it."""
    for equation in program.eqns:
        if equation.primitive.name in precision_walk.PRODUCTS:
            yield equation
        for inner in precision_walk._programs(equation):
            yield from products(inner)


def test_hardest_joints_are_asked_for_by_the_config(pose):
    config = dataclasses.replace(POSE, heatmaps=Heatmaps(sigma=1.0, hardest=17))
    params, batch = pose[1], batch_of(POSE)
    value = pose[0](params, batch)[0]
    np.testing.assert_allclose(
        jax.jit(step.make_loss(spec_of(config), config))(params, batch), value, rtol=1e-6
    )
    config = dataclasses.replace(POSE, heatmaps=Heatmaps(sigma=1.0, hardest=3))
    assert jax.jit(step.make_loss(spec_of(config), config))(params, batch) > 1.5 * value


@pytest.mark.parametrize("task", ["depth", "normal"])
def test_the_loss_of_a_split_is_that_of_its_people(task, monkeypatch):
    """Five people in two batches of four: rows that fill the last batch up do not count."""
    config = dataclasses.replace(SEG, task=task, batch=4)
    config = dataclasses.replace(config, evaluation=Evaluation(best="loss", batch=4))
    rng, width = np.random.default_rng(0), 3 if task == "normal" else 1
    labels = rng.uniform(0.2, 1, (8, 32, 32, width)).astype(np.float32)
    labels = labels[..., 0] if task == "depth" else labels
    images = rng.integers(0, 256, (8, 32, 32, 3), np.uint8)

    def batches(valid):
        return [{
            "views": {"plain": {
                "image": images[i : i + 4],
                "label": np.where(
                    valid[i : i + 4].reshape(-1, *[1] * (labels.ndim - 1)), labels[i : i + 4], -1000
                ).astype(np.float32),
            }},
            "index": np.arange(i, i + 4, dtype=np.uint32), "valid": valid[i : i + 4],
        } for i in (0, 4)]  # fmt: skip

    spec = spec_of(config)
    shapes = job.abstract_state(spec, config, ONE).params
    params = jax.device_put(random_params(config), jax.tree.map(lambda x: x.sharding, shapes))
    look = job._look_at_loss(spec, config, ONE, shapes)

    def loss(valid):
        monkeypatch.setattr(job.streams, "finite", lambda *args, **named: iter(batches(valid)))
        return look(params, [])[0]["loss"]

    alone = [loss(np.arange(8) == i) for i in range(5)]
    np.testing.assert_allclose(loss(np.arange(8) < 5), np.mean(alone), rtol=1e-5)
    assert np.isnan(loss(np.zeros(8, bool)))
