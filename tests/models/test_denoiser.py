"""The network of the prior: against numpy, who sees whom, what reaches which parameter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax.models import denoiser
from nkjax.models.denoiser import Spec

SPEC = Spec(joints=5, context=5, width=16, depth=2, heads=2)
B, J = 3, 5
apply = jax.jit(functools.partial(denoiser.apply, spec=SPEC), static_argnames="dropout")


@pytest.fixture(scope="module")
def params():
    """Parameters none of which is 0, as after training."""
    shapes = jax.eval_shape(lambda: denoiser.init(jax.random.key(0), SPEC))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: 0.25 * rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def inputs():
    """One pose that is whole, two with a joint that is not valid, some joints observed."""
    rng = np.random.default_rng(1)
    valid, observed = np.ones((B, J), bool), rng.random((B, J)) < 0.5
    valid[1, 2] = valid[2, 4] = False
    observed[0], observed[:, 2] = [True, False, True, False, False], True
    first, away = (rng.normal(size=(B, J, 2)).astype(np.float32) for _ in range(2))
    return {
        "first_bj2": first, "away_bj2": away, "valid_bj": valid, "observed_bj": observed,
        "spread_bj2": rng.uniform(0.1, 1, (B, J, 2)).astype(np.float32),
        "log_ratio_b": np.log(np.array([0.05, 0.4, 5], np.float32)),
        "context_bc": rng.normal(size=(B, SPEC.context)).astype(np.float32),
    }  # fmt: skip


def waves(x, frequencies):
    angles = (x[..., None] * np.array(frequencies)).reshape(*x.shape[:-1], -1)
    return np.concatenate([np.sin(angles), np.cos(angles)], -1)


def in_numpy(p, first, away, valid, observed, spread, log_ratio, context):
    """Compute one pose in float64, with the joints that are not valid taken out beforehand."""
    def dense(name, x, of=p):
        return x @ of[name]["kernel"] + of[name]["bias"]

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    flags = np.stack([valid[valid], observed[valid]], 1)
    first, away, spread = first[valid], away[valid], spread[valid]
    told = [first, waves(first, (1, 2, 4, 8)), away, np.log(spread), flags]
    x = dense("embed", np.concatenate(told, 1)) + p["joints"][valid]
    time = waves(log_ratio[None], 0.25 * 64 ** (np.arange(12) / 11))
    about = dense("time", time) + dense("context", context)
    shared = dense("modulate", about / (1 + np.exp(-about))).reshape(6, -1)
    for layer in range(SPEC.depth):
        block = jax.tree.map(lambda leaf: leaf[layer], p["blocks"])  # noqa: B023
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = shared + block["modulation"]
        q, k, v = np.split(dense("qkv", norm(x) * (1 + scale_1) + shift_1, block), 3, 1)
        heads = []
        for own in np.split(np.arange(SPEC.width), SPEC.heads):
            weights = softmax(q[:, own] @ k[:, own].T / np.sqrt(len(own)))
            heads.append(weights @ v[:, own])
        x = x + (1 + gate_1) * dense("proj", np.concatenate(heads, 1), block)
        y = gelu(dense("fc1", norm(x) * (1 + scale_2) + shift_2, block))
        x = x + (1 + gate_2) * dense("fc2", y, block)
    return dense("out", norm(x))


def test_it_computes_what_numpy_computes(params, inputs):
    found = np.asarray(apply(params, **inputs))
    assert found.shape == (B, J, 2) and found.dtype == np.float32
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    names = ("first_bj2", "away_bj2", "valid_bj", "observed_bj", "spread_bj2", "log_ratio_b",
             "context_bc")  # fmt: skip
    for b in range(B):
        wanted = in_numpy(exact, *(inputs[name][b] for name in names))
        assert np.abs(found[b, inputs["valid_bj"][b]] - wanted).max() < 1e-4


def test_joints_are_told_apart_by_their_embeddings_alone(params, inputs):
    order = np.array([2, 0, 1, 4, 3])
    per_joint = [name for name in inputs if "bj" in name]
    moved = inputs | {name: inputs[name][:, order] for name in per_joint}
    found, permuted = np.asarray(apply(params, **inputs)), np.asarray(apply(params, **moved))
    assert np.abs(permuted - found[:, order]).max() > 0.01
    renamed = params | {"joints": params["joints"][order]}
    assert np.abs(apply(renamed, **moved) - found[:, order]).max() < 1e-4


def test_an_invalid_joint_is_seen_by_nobody(params, inputs):
    there = inputs["valid_bj"][..., None]

    def outputs(place, observed):
        places = {
            name: np.where(there, inputs[name], np.float32(place))
            for name in ("first_bj2", "away_bj2", "spread_bj2")
        }
        told = np.where(inputs["valid_bj"], inputs["observed_bj"], observed)
        return np.asarray(apply(params, **inputs | places | {"observed_bj": told}))

    near = outputs(1.0, False)
    assert (near[~inputs["valid_bj"]] == 0).all() and np.isfinite(near).all()
    for place in (1e3, 0.0, np.nan):
        assert (outputs(place, True) == near).all(), place
    # What is valid is seen by all.
    moved = inputs["first_bj2"].copy()
    moved[0, 1] += 1
    change = np.asarray(apply(params, **inputs | {"first_bj2": moved})) != near
    assert change[0].any(-1).all() and not change[1:].any()


@pytest.mark.parametrize("name", ["first_bj2", "away_bj2", "spread_bj2", "log_ratio_b",
                                  "context_bc", "observed_bj"])  # fmt: skip
def test_everything_it_is_told_counts(params, inputs, name):
    changed = ~inputs[name] if name == "observed_bj" else inputs[name] * np.float32(1.5)
    difference = apply(params, **inputs | {name: changed}) - apply(params, **inputs)
    assert np.abs(np.asarray(difference)).max((1, 2)).min() > 1e-3


def test_dropout_only_with_a_key(params, inputs):
    plain = np.asarray(apply(params, **inputs))
    assert (np.asarray(apply(params, **inputs, dropout=0.5)) == plain).all()
    one, again, other = (
        np.asarray(apply(params, **inputs, dropout=0.5, key=jax.random.key(seed)))
        for seed in (0, 0, 1)
    )
    assert (one == again).all() and (one != plain).any() and (one != other).any()
    assert (one[~inputs["valid_bj"]] == 0).all()


@pytest.mark.parametrize("branch", ["proj", "fc2"])
def test_each_branch_of_each_layer_drops_what_it_likes(params, branch):
    """Two layers write 1 to channels 0 and 1 of a wide stream: half dropped, 0, 2 or 4 of 2."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    writes = zeros["blocks"][branch] | {"bias": jnp.zeros((2, 16)).at[:, :2].set(1.0)}
    wide = 1e3 * np.random.default_rng(0).normal(size=16).astype(np.float32)
    whole = zeros | {
        "embed": zeros["embed"] | {"bias": wide},
        "blocks": zeros["blocks"] | {branch: writes},
        "out": {"kernel": jnp.eye(16)[:, :2] * wide.std(), "bias": jnp.zeros(2)},
    }
    several = np.ones((16, J), bool)
    places, context = np.ones((16, J, 2), np.float32), np.zeros((16, 5), np.float32)
    told = (places, places, places, np.zeros(16, np.float32), several, several, context)

    @jax.jit
    def written(key):
        return denoiser.apply(whole, SPEC, *told, 0.5, key)

    change = np.asarray(written(jax.random.key(0)) - written(None))
    counts = np.bincount(np.round(change / 2).astype(int).ravel() + 1, minlength=3) / change.size
    assert np.abs(counts - [0.25, 0.5, 0.25]).max() < 0.12, counts


def test_a_gradient_reaches_every_parameter(params, inputs):
    weights = np.random.default_rng(2).normal(size=(B, J, 2)).astype(np.float32)

    def loss(params, first_bj2):
        found = denoiser.apply(params, SPEC, **inputs | {"first_bj2": first_bj2})
        return (weights * found).sum()

    nowhere = np.where(inputs["valid_bj"][..., None], inputs["first_bj2"], np.nan)
    of_params, of_first = jax.jit(jax.grad(loss, (0, 1)))(params, nowhere)
    for path, leaf in jax.tree_util.tree_flatten_with_path(of_params)[0]:
        rows = np.abs(np.asarray(leaf)).reshape(len(leaf), -1).max(1)
        assert np.isfinite(leaf).all() and (rows > 0).all(), jax.tree_util.keystr(path)
    assert np.isfinite(of_first).all()
    assert ((np.abs(np.asarray(of_first)).max(-1) > 0) == inputs["valid_bj"]).all()


def test_before_training_it_adds_nothing(inputs):
    untrained = jax.jit(lambda: denoiser.init(jax.random.key(0), SPEC))()
    found = np.asarray(apply(untrained, **inputs))
    assert found.shape == (B, J, 2) and found.dtype == np.float32 and (found == 0).all()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(untrained))
    assert all(len(leaf) == SPEC.depth for leaf in jax.tree.leaves(untrained["blocks"]))
    first, second = untrained["blocks"]["qkv"]["kernel"]
    assert not np.allclose(first, second)
    # Joints begin apart; what time and context change of a block, small.
    assert 0.3 < untrained["joints"].std() < 0.7
    assert 0.05 < untrained["modulate"]["kernel"].std() * np.sqrt(SPEC.width) < 0.2
