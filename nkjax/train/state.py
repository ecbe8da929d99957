"""The state of a run: everything that a step changes, as one tree."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

EMA_WARMUP = 10  # updates n take min(decay, (1 + n) / (10 + n)): early averages follow fast


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What a step changes. All fp32 and int32, all made inside `jit`.

    step: batches seen, so the position in the data; updates: steps that were taken, the count of
    optimiser, schedule and average; skipped, in_a_row: steps that were not, as loss or gradient
    were not finite; params: nested dicts; ema: their moving average; moments: the optimiser's.
    """

    step: jax.Array
    updates: jax.Array
    skipped: jax.Array
    in_a_row: jax.Array
    params: dict
    ema: dict
    moments: optax.OptState


def init(params: dict, optimizer: optax.GradientTransformation) -> State:
    """Return the state before the first step; the average starts at the parameters."""
    # Four counts and copies: a donated buffer must not be two leaves.
    step, updates, skipped, in_a_row = (jnp.zeros((), jnp.int32) for _ in range(4))
    ema = jax.tree.map(jnp.copy, params)
    return State(step, updates, skipped, in_a_row, params, ema, optimizer.init(params))


def update(
    state: State, gradient: dict, finite, optimizer: optax.GradientTransformation, decay: float
) -> State:
    """Return the state after one step: AdamW, then the average; the old one where not finite.

    gradient: as params; finite: bool scalar. Source: notes method 4.4 (EMA), jax C (NaN guard).
    """
    updates, moments = optimizer.update(gradient, state.moments, state.params)
    params = optax.apply_updates(state.params, updates)
    taken = state.updates + 1
    n = taken.astype(jnp.float32)
    blend = 1 - jnp.minimum(decay, (1 + n) / (EMA_WARMUP + n))
    ema = jax.tree.map(lambda old, new: old + blend * (new - old), state.ema, params)

    def keep(new, old):
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

    return State(
        step=state.step + 1,
        updates=jnp.where(finite, taken, state.updates),
        skipped=state.skipped + jnp.where(finite, 0, 1),
        in_a_row=jnp.where(finite, 0, state.in_a_row + 1),
        params=keep(params, state.params),
        ema=keep(ema, state.ema),
        moments=keep(moments, state.moments),
    )
