"""AdamW as the Sapiens recipes use it: layer-wise rates on stacked blocks, decay, warm-up, clip.

Source: notes sapiens A7. The reference gives each layer a parameter group of its own; here a leaf
of the blocks has a leading layer axis, so a rate per layer is a vector broadcast over that axis.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nkjax import config as configs
from nkjax.trees import path_name

WARMUP_FROM = 1e-3
FALL = 0.1  # at every milestone
EPS = 1e-8
EMBEDDINGS = ("backbone/pos_embed", "backbone/patch_embed/", "backbone/class_token/")
PLACES = ("pos_embed", "joints", "modulation")  # learnt for each place: neither matrix nor kernel
STACKED = "/blocks/"  # of a backbone, or of a prior's part


def rate_scales(params, decay: float):
    """Return the factor on the learning rate of every leaf: fp32, broadcast against the leaf.

    1 for all where decay is 1, whatever the network. Else of a backbone and its head:
    decay ** (layers + 1) for the embeddings, decay ** (layers - i) for block i, 1 for the rest, the
    final norm and the head among it. params: arrays or ShapeDtypeStructs.
    """

    def scale(path, leaf):
        name = path_name(path)
        if decay == 1.0:
            return np.float32(1.0)
        if STACKED in name:
            depth = leaf.shape[0]
            by_layer = np.power(decay, depth - np.arange(depth), dtype=np.float64)
            return by_layer.reshape(-1, *[1] * (len(leaf.shape) - 1)).astype(np.float32)
        layers = params["backbone"]["blocks"]["ln1"]["scale"].shape[0]
        return np.float32(decay ** (layers + 1) if name.startswith(EMBEDDINGS) else 1.0)

    return jax.tree_util.tree_map_with_path(scale, params)


def is_decayed(params):
    """Return for every leaf whether weight decay takes hold: matrices and kernels alone.

    Not biases, norms (one axis, the stacked one aside) nor what is learnt of places.
    """

    def decayed(path, leaf):
        name = path_name(path)
        axes = len(leaf.shape) - (STACKED in name)
        return axes > 1 and not name.endswith(PLACES)

    return jax.tree_util.tree_map_with_path(decayed, params)


def schedule(settings: configs.Optimizer, steps: int):
    """Return rate(update) over a run of so many steps, fp32; update counts from 0.

    The reference's decays by epoch; here they fall with every step.
    """

    def rate(update):
        update = jnp.asarray(update, jnp.float32)
        warm = jnp.float32(1.0)
        if settings.warmup:
            done = jnp.minimum(update / max(settings.warmup - 1, 1), 1.0)
            warm = WARMUP_FROM + (1 - WARMUP_FROM) * done
        share = update / max(steps - 1, 1)
        if settings.schedule == "steps":
            passed = [(update >= round(m * steps)).astype(jnp.float32) for m in settings.milestones]
            fallen = FALL ** sum(passed, jnp.float32(0.0))
        elif settings.schedule == "polynomial":
            fallen = jnp.maximum(1.0 - share, 0.0)
        elif settings.schedule == "cosine":
            fallen = 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(update / steps, 1.0)))
        else:
            fallen = jnp.float32(1.0)
        return settings.learning_rate * warm * fallen

    return rate


def make(settings: configs.Optimizer, steps: int) -> optax.GradientTransformation:
    """Return the optimiser of a run of so many steps; its moments are fp32 trees like the params.

    Gradients are clipped to a global norm first; decay and step are both scaled layer by layer.
    """

    def by_layer(updates, params):
        scales = rate_scales(params, settings.layer_decay)
        return jax.tree.map(lambda update, scale: update * scale, updates, scales)

    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.scale_by_adam(settings.b1, settings.b2, EPS),
        optax.add_decayed_weights(settings.weight_decay, is_decayed),
        optax.stateless(by_layer),
        optax.scale_by_learning_rate(schedule(settings, steps)),
    )
