"""AdamW, its rates and its schedules, against what the reference's own optimiser did.

Goldens of tests/data/train: layer-decay tables, learning rates by iteration, four steps of a tiny
network (notes sapiens A7). Names are compared through the map of convert_weights.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convert_weights import convert, mapping
from convert_weights.detect import Overrides
from nkjax import config as configs
from nkjax import trees, views
from nkjax.losses import heatmap
from nkjax.models import sapiens
from nkjax.train import optimizer as optimizers
from nkjax.train import state as states
from tests.convert_weights.test_manifests import FACTS, expand, write_sparse

DATA = Path(__file__).parents[1] / "data"
RATE = 5e-4
# As the goldens were made: no schedule, no warm-up.
PLAIN = configs.Optimizer(learning_rate=RATE, schedule="constant", warmup=0)


def tiny_pose():
    return convert.plan(DATA / "fixtures" / "tiny_pose.pth", Overrides(heads=4))


def by_their_names(plan, tree) -> dict:
    """Return {their name: our array of that layer} of a tree that has a leaf for every parameter.

    Values are spread over the shape of the parameter, as a rate for each layer is.
    """
    flat, named = trees.flatten(tree), {}
    for leaf in plan.leaves:
        spread = np.broadcast_to(np.asarray(flat[leaf.path], np.float64), leaf.shape)
        for i, key in enumerate(leaf.keys):
            named[plan.found.names[key]] = spread[i] if leaf.stacked else spread
    return named


@pytest.mark.parametrize("size", ["tiny", "0.3b"])
def test_every_parameter_has_the_rate_and_decay_of_the_reference(size, tmp_path):
    if size == "tiny":
        plan, file = tiny_pose(), "layer_decay_tiny_pose.json"
    else:
        write_sparse(tmp_path / "w.safetensors", expand(FACTS["0.3b_pose_coco17"]["keys"]))
        plan = convert.plan(tmp_path / "w.safetensors", Overrides())
        file = "layer_decay_sapiens_0.3b_pose.json"
    wanted = json.loads((DATA / "train" / file).read_text())["params"]
    params = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), plan.spec))
    scales = by_their_names(plan, optimizers.rate_scales(params, 0.85))
    decayed = by_their_names(plan, optimizers.is_decayed(params))
    assert set(scales) == set(wanted)
    for name, (scale, decay) in wanted.items():
        np.testing.assert_allclose(scales[name], scale, rtol=1e-7, err_msg=name)
        np.testing.assert_array_equal(decayed[name] * PLAIN.weight_decay, decay, err_msg=name)


# ---- learning rates ------------------------------------------------------------------------


def curve(steps, **settings):
    rate = optimizers.schedule(dataclasses.replace(PLAIN, **settings), steps)
    return np.asarray(jax.jit(jax.vmap(rate))(jnp.arange(steps)), np.float64)


def golden_curve(name):
    with np.load(DATA / "train" / "lr_schedules.npz") as curves:
        return curves[name]


def test_the_rate_of_the_pose_recipe_at_every_step():
    wanted = golden_curve("pose_linear500_multistep170_200_ep210_it5")
    found = curve(1050, schedule="steps", warmup=500, milestones=(170 / 210, 200 / 210))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_the_polynomial_is_the_reference_s_as_its_epochs_begin():
    """Theirs stands at 1 - e / (epochs - 1) for an epoch, ours falls to 0 at the last step.

    With n steps an epoch, e / (E - 1) - en / (En - 1) is at most (n - 1) / (En - 1), at the end.
    """
    wanted, epochs, length = golden_curve("dense_linear400_poly1_ep200_it5"), 200, 5
    found = curve(1000, schedule="polynomial", warmup=400)
    starts = np.arange(epochs) * length
    ahead = found[starts] - wanted[starts]
    bound = RATE * (length - 1) / (epochs * length - 1)
    assert (ahead > -1e-6 * RATE).all() and (ahead < bound + 1e-6 * RATE).all()
    np.testing.assert_allclose(ahead[-1] / RATE, (length - 1) / (epochs * length - 1), rtol=1e-4)
    assert wanted[-1] == 0 and abs(found[-1]) < 1e-6 * RATE
    assert (np.diff(found[400:]) < 0).all()


def test_the_cosine_is_the_reference_s_as_its_epochs_begin():
    wanted = golden_curve("lip_linear400_cosine_ep40_it25")
    found = curve(1000, schedule="cosine", warmup=400)
    np.testing.assert_allclose(found[::25], wanted[::25], atol=1e-6 * RATE, rtol=0)
    # Within an epoch ours goes on to fall, to where theirs jumps.
    assert (np.diff(found[400:]) < 0).all()
    held = wanted[400:].reshape(-1, 25)
    falling = found[400:].reshape(-1, 25)
    assert (falling <= held * (1 + 1e-6)).all()
    assert (falling[:-1] >= held[1:] * (1 - 1e-6)).all()


@pytest.mark.parametrize("warmup", [0, 1, 2])
@pytest.mark.parametrize("schedule", configs.SCHEDULES)
def test_short_runs_have_finite_rates(schedule, warmup):
    for steps in (warmup + 1, 5):
        found = curve(steps, schedule=schedule, warmup=warmup)
        assert np.isfinite(found).all()
        assert (found >= 0).all() and (found <= RATE * (1 + 1e-6)).all()


# ---- four steps ----------------------------------------------------------------------------


def torch_order(leaf, theirs_shape, array):
    """Return an array of ours in the order that the same numbers have in their file."""
    places = leaf.transform(np.arange(np.prod(theirs_shape)).reshape(theirs_shape))
    return np.asarray(array, np.float64).ravel()[np.argsort(places.ravel())]


@pytest.fixture(scope="module")
def four_steps():
    """Return losses before each step and after the last, gradient norms and the last parameters."""
    plan = tiny_pose()
    params = trees.unflatten({
        leaf.path: jnp.asarray(mapping.read(plan.found, leaf, np.float32)) for leaf in plan.leaves
    })  # fmt: skip
    with np.load(DATA / "fixtures" / "tiny_pose.npz") as g:
        images = views.normalise(g["image_bgr_u8"][..., ::-1])
        target = jnp.asarray(np.moveaxis(np.asarray(g["loss_target_u8"], np.float32) / 255, 1, -1))
        weights = jnp.asarray(g["loss_weights"])
    optimizer = optimizers.make(PLAIN, 4)

    def loss(params):
        return heatmap.mse(sapiens.apply(params, plan.spec, images)["pose"], target, weights)

    @jax.jit
    def step(state):
        value, gradient = jax.value_and_grad(loss)(state.params)
        new = states.update(state, gradient, jnp.isfinite(value), optimizer, 0.999)
        return new, value, optax.tree.norm(gradient)

    state, losses, norms = states.init(params, optimizer), [], []
    for _ in range(4):
        state, value, norm = step(state)
        losses.append(float(value))
        norms.append(float(norm))
    return [*losses, float(jax.jit(loss)(state.params))], norms, state.params, plan


def test_losses_and_gradient_norms_of_four_steps(four_steps):
    losses, norms, _, _ = four_steps
    with np.load(DATA / "train" / "tiny_pose_4_steps.npz") as g:
        np.testing.assert_allclose(losses, g["losses"], rtol=1e-5)
        np.testing.assert_allclose(norms, g["grad_norm_before_clip"], rtol=1e-5)


def test_parameters_after_four_steps(four_steps):
    """Values to 1e-5 of their tensor's largest, norms to 1e-5 of themselves.

    But where the true gradient is zero Adam takes steps of rounding noise, each at most its rate,
    and so did the reference: the biases before an instance norm, and those of the keys, a third of
    qkv.bias, of which the first eight values are queries'.
    """
    _, _, params, plan = four_steps
    flat, noise = trees.flatten(params), 2 * 4 * RATE
    with np.load(DATA / "train" / "tiny_pose_4_steps.npz") as g:
        wanted = dict(g)
    for leaf in plan.leaves:
        for i, key in enumerate(leaf.keys):
            name = plan.found.names[key]
            ours = flat[leaf.path][i] if leaf.stacked else flat[leaf.path]
            ours = torch_order(leaf, plan.found.tensors[key].shape, ours)
            first, norm = wanted.pop(f"param_first8/{name}"), wanted.pop(f"param_l2/{name}")
            is_noise = "conv_layers" in name and name.endswith("bias")
            at_most = noise if is_noise else 1e-5 * np.abs(ours).max()
            assert np.abs(ours[:8] - first[: len(ours)]).max() <= at_most, name
            noisy = len(ours) if is_noise else len(ours) // 3 if name.endswith("qkv.bias") else 0
            at_most = noise * noisy**0.5 + 1e-5 * norm
            assert abs(np.linalg.norm(ours) - norm) <= at_most, name
    assert {name.split("/")[0] for name in wanted} <= {"losses", "grad_norm_before_clip"}


def test_stored_statistics_of_a_batch_norm_are_never_trained():
    plan = convert.plan(DATA / "fixtures" / "tiny_pose_batchnorm.pth", Overrides(heads=4))
    params = jax.jit(lambda: sapiens.init(jax.random.key(0), plan.spec))()
    optimizer = optimizers.make(PLAIN, 4)
    images = jax.random.normal(jax.random.key(1), (1, *plan.spec.image_size, 3))

    def spread(params):
        return sapiens.apply(params, plan.spec, images)["pose"].var()

    @jax.jit
    def step(state):
        return states.update(state, jax.grad(spread)(state.params), True, optimizer, 0.5)

    before = trees.flatten(params["head"])
    after = step(step(states.init(params, optimizer)))
    statistics = [name for name in before if name.endswith(("/mean", "/var"))]
    assert len(statistics) == 8
    for tree in (after.params, after.ema):
        found = trees.flatten(tree["head"])
        for name, value in before.items():
            assert np.array_equal(found[name], value) == (name in statistics), name
