"""The fit of a developmental prior: the loss of a step, the look at people that calibrate.

In flow the batches of `prior_data`; out `PRIOR`, which the loop runs. One state holds all parts:
params = {'body': ..., 'hand': ...}. All arithmetic is fp32. Source: notes method 2.1, 2.2.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nkjax import sharding, views
from nkjax import skeleton as skeletons
from nkjax.checkpoints import BadCheckpoint
from nkjax.data.streams import stream_seed
from nkjax.models import denoiser
from nkjax.prior import coordinates, diffusion, saved
from nkjax.prior.coordinates import CONTEXT
from nkjax.prior.diffusion import Given, PartPrior
from nkjax.prior_config import PriorConfig
from nkjax.train import prior_data, work
from nkjax.train.prior_data import Start
from nkjax.train.work import Job, Work

FORMAT = "nkjax prior run 1"
FLIPPED = 0.5  # share of the bodies that are seen in a mirror
SCALED, SHIFTED, TURNED = 0.1, 0.05, np.deg2rad(15.0)  # at most; radii of the part; radians
GAIN_RATIO = 0.1  # noise at which one-step denoising is compared with leaving poses as they are
LOOK_SEED = 0  # its draws are those of no run, so that runs can be compared


def make_loss(parts: Mapping[str, PartPrior], config: PriorConfig):
    """Return loss(params, batch) -> fp32 scalar, the sum over parts of `diffusion.loss`.

    Poses are flipped, scaled, shifted and turned, noised and hidden by draws of (seed, index)
    alone; dropout by those of the batch.
    """

    def loss(params, batch):
        total = jnp.zeros((), jnp.float32)
        for name, prior in parts.items():
            index, seed = batch[name]["index"], stream_seed(config.seed, name)
            u, given, keys = _poses(prior, batch[name], seed)
            keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
            u, given = _varied(keys[:, 0], u, given, prior)
            u, given = _turned(keys[:, 1], u, given, prior, config)
            t, noise, given = _noise(keys[:, 2], u, given, config)
            drop_key = jax.random.fold_in(jax.random.key(seed), index.min())
            known = dataclasses.replace(prior, params=params[name])
            total += diffusion.loss(known, u, t, noise, given, config.dropout, drop_key)
        return total

    return loss


def _poses(prior: PartPrior, batch: dict, seed: int):
    """Return poses in data units, what is known of them, and a key each."""
    valid = batch["valid"]
    at = coordinates.frame(prior.part, prior.units, batch["points"], valid, batch["diagonal"])
    u = coordinates.normalise(batch["points"], valid, at, prior.units)
    keys = views.sample_keys(seed, batch["index"])
    return u, diffusion.nothing_observed(valid, batch["context"]), keys


def _varied(keys, u_bj2, given: Given, prior: PartPrior):
    """Flip bodies; scale and shift all."""

    def draw(key):
        flip, scale, shift = jax.random.split(key, 3)
        is_body = prior.part.name == "body"
        return (
            jax.random.bernoulli(flip, FLIPPED if is_body else 0.0),
            jax.random.uniform(scale, minval=1 - SCALED, maxval=1 + SCALED),
            jax.random.uniform(shift, (2,), minval=-SHIFTED, maxval=SHIFTED),
        )

    flipped, scale, shift = jax.vmap(draw)(keys)
    order = np.array(prior.part.flip)
    mirrored = u_bj2[:, order] * jnp.array([-1.0, 1.0])[None, None]
    u = jnp.where(flipped[:, None, None], mirrored, u_bj2)
    valid = jnp.where(flipped[:, None], given.valid_bj[:, order], given.valid_bj)
    u = u * scale[:, None, None] + shift[:, None] / prior.units.unit
    return jnp.where(valid[..., None], u, 0.0), given._replace(valid_bj=valid)


def _turned(keys, u_bj2, given: Given, prior: PartPrior, config: PriorConfig):
    """Turn poses and the forearm that a hand is told of; hide the age of some."""

    def draw(key):
        angle, age = jax.random.split(key)
        return (
            jax.random.uniform(angle, minval=-TURNED, maxval=TURNED),
            jax.random.bernoulli(age, config.age_drop),
        )

    angle, ageless = jax.vmap(draw)(keys)
    cos, sin = jnp.cos(angle), jnp.sin(angle)

    def turn(x, y, cos, sin):
        return jnp.stack([cos * x - sin * y, sin * x + cos * y], -1)

    u = turn(u_bj2[..., 0], u_bj2[..., 1], cos[:, None], sin[:, None])
    context = given.context_bc
    age = jnp.where(ageless[:, None], 0.0, context[:, :2])
    forearm = turn(context[:, 2], context[:, 3], cos, sin)
    context = jnp.concatenate([age, forearm, context[:, 4:]], 1)
    return u, given._replace(context_bc=context)


def _noise(keys, u_bj2, given: Given, config: PriorConfig):
    """Draw step, noise and observed joints of every pose."""

    def draw(key, valid_j):
        step, noise, observed = jax.random.split(key, 3)
        return (
            diffusion.draw_steps(step, 1, config.near)[0],
            jax.random.normal(noise, u_bj2.shape[1:]),
            diffusion.draw_observed(observed, valid_j[None], config.condition_drop)[0],
        )

    t, noise, observed = jax.vmap(draw)(keys, given.valid_bj)
    return t, noise, given._replace(observed_bj=observed, values_bj2=u_bj2)


def first_params(start: Start, config: PriorConfig, mesh: Mesh) -> dict:
    """Return random fp32 parameters by part, on the mesh."""
    placed = sharding.shardings(shapes(start.parts), mesh)
    with jax.set_mesh(mesh):
        return jax.jit(lambda: _random(start.parts, config.seed), out_shardings=placed)()


def _random(parts, seed):
    keys = jax.random.split(jax.random.key(seed), len(parts))
    return {
        name: denoiser.init(key, prior.spec)
        for key, (name, prior) in zip(keys, parts.items(), strict=True)
    }


def shapes(parts: Mapping[str, PartPrior]) -> dict:
    """Return the parameters of all parts as ShapeDtypeStructs."""
    return jax.eval_shape(lambda: _random(parts, 0))


def compile_job(start: Start, config: PriorConfig, mesh: Mesh) -> Job:
    """Compile all that a fit will call, so that nothing is compiled after its first step."""
    state = work.abstract_state(shapes(start.parts), config, mesh)
    batch = _abstract_batch(start.parts, config.batch, mesh)
    loss = make_loss(start.parts, config)
    return Job(
        mesh=mesh,
        abstract=state,
        first=work.compile_first(state, config, mesh),
        step=work.lower_step(loss, state, batch, config, mesh).compile(),
        look=_compile_look(start.parts, config, mesh, state.params),
    )


def _abstract_batch(parts, count, mesh):
    over_all = sharding.batch_sharding(mesh)

    def array(shape, dtype):
        return jax.ShapeDtypeStruct((count, *shape), dtype, sharding=over_all)

    return {
        name: {
            "points": array((prior.spec.joints, 2), jnp.float32),
            "valid": array((prior.spec.joints,), jnp.bool),
            "diagonal": array((), jnp.float32),
            "context": array((CONTEXT,), jnp.float32),
            "index": array((), jnp.uint32),
        }
        for name, prior in parts.items()
    }


def _compile_look(parts, config: PriorConfig, mesh: Mesh, params):
    """Return look(params, val) -> ({metric}, 0): the loss, and what one-step denoising gains."""
    count = config.evaluation.batch
    everywhere, abstract = NamedSharding(mesh, PartitionSpec()), _abstract_batch(parts, count, mesh)

    def compiled(name, prior):
        measure = jax.jit(functools.partial(_sums, prior, config), out_shardings=everywhere)
        with jax.set_mesh(mesh):
            return measure.lower(params[name], abstract[name]).compile()

    programs = {name: compiled(name, prior) for name, prior in parts.items()}

    def look(params, val):
        found, losses = {}, []
        for name, poses in val.items():
            shares = (sharding.share(batch, mesh) for batch in prior_data.finite(poses, count))
            sums = [jax.device_get(programs[name](params[name], share)) for share in shares]
            if not sums:
                continue
            loss, coordinates_, moved, left = np.sum(sums, 0, np.float64)
            losses.append(loss / max(coordinates_, 1))
            found[f"{name}_gain@{GAIN_RATIO}"] = float(np.sqrt(moved / max(left, 1e-12)))
        return ({"loss": float(sum(losses))} if losses else {}) | found, 0

    return look


def _sums(prior: PartPrior, config: PriorConfig, params, batch):
    """Return (4,) sums over valid coordinates: loss, their number, errors denoised and left."""
    u, given, keys = _poses(prior, batch, LOOK_SEED)
    t, noise, observing = _noise(keys, u, given, config)
    number = 2.0 * given.valid_bj.sum()
    known = dataclasses.replace(prior, params=params)
    loss = number * diffusion.loss(known, u, t, noise, observing)
    step = jnp.full(u.shape[:1], diffusion.level(GAIN_RATIO))
    cleaned = diffusion.clean(known, diffusion.noised(u, step, noise), step, given)
    there = given.valid_bj[..., None]
    moved = jnp.square(jnp.where(there, cleaned - u, 0.0)).sum()
    left = jnp.square(jnp.where(there, GAIN_RATIO * noise, 0.0)).sum()
    return jnp.stack([loss, number, moved, left])


def model_document(start: Start) -> dict:
    """Return what model.json of the run of a fit holds."""
    parts = {name: saved.to_json(prior) for name, prior in start.parts.items()}
    return {"format": FORMAT, "skeleton": skeletons.to_json(start.skeleton), "parts": parts}


def check_model(folder) -> None:
    """Raise BadCheckpoint where model.json of a run is damaged, or not of the fit of a prior."""
    path = epath.Path(folder) / "model.json"
    try:
        document = json.loads(path.read_text())
        if document["format"] == FORMAT and isinstance(document["parts"], dict):
            return
        raise KeyError("another format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadCheckpoint(
            f"{path}: not of the fit of a prior, or damaged ({reason}); name a new folder"
        ) from None


PRIOR = Work(
    begin=prior_data.begin,
    first_params=first_params,
    compile=compile_job,
    batches=prior_data.batches,
    model_document=model_document,
    check_model=check_model,
    best=lambda config: "",
    unit="poses",
)
