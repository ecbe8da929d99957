"""One step of training as a pure function of state and batch.

A batch is a dict of arrays with B people in front: image (B, H, W, 3) uint8 RGB, index (B,) uint32,
valid (B,) bool, and for pose points (B, K, 2) crop px and visible (B, K), for dense tasks label.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from einops import rearrange

from nkjax import photometric, views
from nkjax.config import Config
from nkjax.data.streams import stream_seed
from nkjax.losses import dense, heatmap
from nkjax.models import sapiens
from nkjax.models.sapiens import Spec
from nkjax.precision import Policy
from nkjax.train import state as states
from nkjax.train.state import State

STREAM = "labelled"
FIELDS = {"pose": ("points", "visible"), "depth": ("label",), "normal": ("label",),
          "seg": ("label",)}  # fmt: skip


def host_batch(batch: dict, task: str) -> dict:
    """Pick what the device needs of a batch of a stream with one view (`streams.endless`)."""
    (view,) = batch["views"].values()
    arrays = {"image": view["image"], "index": batch["index"], "valid": batch["valid"]}
    return arrays | {name: view[name] for name in FIELDS[task]}


def make_loss(spec: Spec, config: Config, attention: str = "auto") -> Callable:
    """Return loss(params, batch) -> fp32 scalar: what stage 0 and pre-training minimise.

    Pictures are varied as config.augment says, by draws of (seed, index) alone. A person that is
    not valid weighs nothing, but counts in the mean.
    """
    policy = Policy(compute=config.compute)

    def loss(params, batch):
        keys = views.sample_keys(stream_seed(config.seed, STREAM), batch["index"])
        images_bhwc = batch["image"].astype(jnp.float32)
        if config.augment == "sapiens":
            images_bhwc = views.recipe(images_bhwc, keys)
        elif config.augment == "dense":
            images_bhwc = photometric.photometric_distortion(images_bhwc, keys)
        out = sapiens.apply(
            params,
            spec,
            views.normalise(images_bhwc),
            policy=policy,
            attention=attention,
            remat=config.remat,
        )[spec.task]
        with jax.default_matmul_precision("highest"):
            return of_task(out, batch)

    def pose(maps_bhwk, batch):
        height, width = batch["image"].shape[1:3]
        targets_bhwk, weights_bk = views.targets(
            batch["points"],
            jnp.where(batch["valid"][:, None], batch["visible"], 0),
            jnp.array(spec.skeleton.joint_weights),
            (width, height),
            (maps_bhwk.shape[2], maps_bhwk.shape[1]),
            config.heatmaps.sigma,
            config.heatmaps.occluded_weight,
        )
        if config.heatmaps.hardest:
            return heatmap.hardest(maps_bhwk, targets_bhwk, weights_bk, config.heatmaps.hardest)
        return heatmap.mse(maps_bhwk, targets_bhwk, weights_bk)

    # Labels of rows that could not be read are invalid everywhere, so they need no mask.
    of_task = {
        "pose": pose,
        "depth": lambda out, batch: dense.silog(out, batch["label"]),
        "normal": lambda out, batch: dense.normals(out, batch["label"]),
        "seg": lambda out, batch: dense.segmentation(out, batch["label"], dense.CLASS_WEIGHTS),
    }[spec.task]
    return loss


def make_step(
    loss: Callable, config, optimizer: optax.GradientTransformation
) -> Callable[[State, dict], tuple[State, dict]]:
    """Return step(state, batch) -> (state, metrics), pure; jit it with the state donated.

    loss(params, batch) -> fp32 scalar; config: Config or PriorConfig.
    With config.optimizer.accumulate = a, the batch is worked through in a parts, one after the
    other, and the gradient is their mean: the same step in less memory (nearly so for normals,
    whose mean is over labelled px alone). Where the loss or the norm of the gradient is not finite,
    parameters, average and moments stay as they were, and the step is counted as skipped. metrics:
    fp32 scalars by name.
    """
    parts = config.optimizer.accumulate

    def step(state, batch):
        value, gradient = _gradient(loss, state.params, batch, parts)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        new = states.update(state, gradient, finite, optimizer, config.ema)
        metrics = {"train/loss": value, "train/grad_norm": norm}
        counts = {"train/skipped": new.skipped, "train/skipped_in_a_row": new.in_a_row}
        return new, metrics | counts

    return step


def _gradient(loss, params, batch, parts):
    of_part = functools.partial(jax.value_and_grad(loss), params)
    if parts == 1:
        return of_part(batch)
    # Strided, so that every device keeps the people it has: part i is each device's i-th share.
    split = jax.tree.map(lambda x: rearrange(x, "(b parts) ... -> parts b ...", parts=parts), batch)

    def add(total, part):
        return jax.tree.map(jnp.add, total, of_part(part)), None

    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, batch))
    total, _ = jax.lax.scan(add, zero, split)
    return jax.tree.map(lambda x: x / parts, total)
