"""The state: its average against a loop in numpy, its counts, and a step that is not taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax import trees
from nkjax.config import Optimizer
from nkjax.train import optimizer as optimizers
from nkjax.train import state as states


def params():
    """Return a network's paths with a few numbers each: two layers."""
    draw = np.random.default_rng(0).normal
    shapes = {
        "backbone/pos_embed": (3, 4),
        "backbone/patch_embed/kernel": (5, 4),
        "backbone/blocks/ln1/scale": (2, 4),
        "backbone/blocks/fc1/kernel": (2, 4, 8),
        "head/final/bias": (6,),
    }
    return trees.unflatten({k: jnp.asarray(draw(size=s), jnp.float32) for k, s in shapes.items()})


@pytest.fixture(scope="module")
def updates():
    """Return the first state, and update(state, gradient, finite) with a decay of 0.9."""
    optimizer = optimizers.make(Optimizer(learning_rate=0.01, schedule="constant", warmup=0), 50)
    update = jax.jit(lambda s, g, finite: states.update(s, g, finite, optimizer, 0.9))
    return jax.jit(lambda p: states.init(p, optimizer))(params()), update


def gradient(step):
    rng = np.random.default_rng((1, step))
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params())


def bits(tree):
    return {k: np.asarray(x).tobytes() for k, x in trees.flatten(tree).items()}


def test_the_average_follows_fast_and_then_slowly(updates):
    """Decay min(0.9, (1 + n) / (10 + n)) of update n = 1, 2, ...: below 0.9 to the 80th."""
    state, update = updates
    mean = {k: np.asarray(x, np.float64) for k, x in trees.flatten(state.params).items()}
    assert bits(state.ema) == bits(state.params)
    for n in range(1, 101):
        state = update(state, gradient(n), True)
        decay = min(0.9, (1 + n) / (10 + n))
        for name, now in trees.flatten(state.params).items():
            mean[name] = decay * mean[name] + (1 - decay) * np.asarray(now, np.float64)
        if n in (1, 2, 50, 100):
            for name, found in trees.flatten(state.ema).items():
                # Each update rounds to half a last place or so of values below 4.
                np.testing.assert_allclose(found, mean[name], rtol=0, atol=n * 2.0**-22)
    assert (int(state.step), int(state.updates), int(state.skipped)) == (100, 100, 0)


def test_a_step_that_is_not_finite_changes_only_counts(updates):
    state, update = updates
    state = update(state, gradient(1), True)
    bad = jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(jnp.nan), gradient(2))
    now = state
    for i in (1, 2, 3):
        now = update(now, bad, False)
        counts = [int(x) for x in (now.step, now.updates, now.skipped, now.in_a_row)]
        assert counts == [1 + i, 1, i, i]
        for part in ("params", "ema", "moments"):
            assert bits(getattr(now, part)) == bits(getattr(state, part)), part
    after = update(now, gradient(3), True)
    counts = [int(x) for x in (after.step, after.updates, after.skipped, after.in_a_row)]
    assert counts == [5, 2, 3, 0]
    # As if the three had never been, but for their place in the data.
    straight = update(state, gradient(3), True)
    for part in ("updates", "params", "ema", "moments"):
        assert bits(getattr(after, part)) == bits(getattr(straight, part)), part


def test_no_two_leaves_of_a_new_state_share_memory(updates):
    leaves = jax.tree.leaves(updates[0])
    places = {leaf.unsafe_buffer_pointer() for leaf in leaves}
    assert len(places) == len(leaves)
    assert {leaf.dtype.name for leaf in leaves} == {"float32", "int32"}
