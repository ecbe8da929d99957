"""Compile a training step for a TPU topology that is not here, and read off what it will hold.

The step is the real one in all that costs memory: forward, backward, AdamW, EMA, with state and
batch sharded over all chips. No array is made; libtpu compiles from shapes (notes/jax.md B5).
"""

import dataclasses
import importlib.util
import math
import os
import re
import time

import jax
import jax.numpy as jnp
import optax
from jax.experimental import topologies
from jax.sharding import Mesh

from nkjax import mesh as meshes
from nkjax import sharding, trees
from nkjax.models import sapiens
from nkjax.models.sapiens import Spec
from nkjax.precision import Policy

GIB = 1 << 30
EMA_DECAY = 0.999

# GiB of HBM on a chip, from the vendor's system architecture pages.
HBM_GIB = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}

# libtpu takes itself for the driver of a TPU in this machine. It is only a compiler here: it must
# not ask a metadata server, for minutes, what machine this is, nor hold the lock that allows one
# process per machine, nor leave logs.
_LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
_SHAPE = re.compile(r"[1-9]\d*(x[1-9]\d*){1,2}")


_COLLECTIVE = re.compile(
    r" = (\(.*?\)|\S+) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)"
    r"(?:-start)?\(.*?channel_id=(\d+)"
)
_ARRAY = re.compile(r"\b(bf16|f16|f32|s32|u32|pred)\[([\d,]*)\]")
_ITEM_BYTES = {"bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "pred": 1}


class BadTopology(Exception):
    """A topology that cannot be planned for; the message is one line for the user."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Say how the step computes; `remat` is a name of vit.REMAT, `attention` of its BACKENDS."""

    dtype: str = "bfloat16"
    attention: str = "splash"
    remat: str = "none"
    batch_per_chip: int = 1
    forward_only: bool = False


@dataclasses.dataclass(frozen=True)
class Memory:
    """Count the bytes that one chip holds while a compiled step runs."""

    arguments: int
    outputs: int
    aliased: int
    temporary: int
    code: int

    @property
    def total(self) -> int:
        """Return the bytes in use at once: donated arguments are reused as outputs."""
        return self.arguments + self.outputs - self.aliased + self.temporary + self.code


@dataclasses.dataclass(frozen=True)
class Plan:
    """Hold what the compiler said: `memory`, or the `refusal` of a step too large for a chip.

    `collectives` is {kind: (how many, bytes of the largest array that one of them makes)};
    `layer_bytes` is the size in fp32 of the largest parameter, of one layer where stacked.
    """

    topology: str
    chips: int
    parameters: int
    layer_bytes: int
    hbm: int
    seconds: float
    memory: Memory | None
    collectives: dict[str, tuple[int, int]]
    refusal: str = ""

    @property
    def fits(self) -> bool:
        """Return whether a chip's memory holds the step."""
        return self.memory is not None and self.memory.total <= self.hbm


def hbm_bytes(topology: str) -> int:
    """Return the HBM of one chip of a topology such as 'v5e:4x4', in bytes.

    Raises BadTopology for a family that is not in HBM_GIB and for what is no topology at all.
    """
    family, _, shape = topology.partition(":")
    if family not in HBM_GIB:
        raise BadTopology(
            f"topology {topology!r}: no chip called {family!r}; known are {', '.join(HBM_GIB)}, "
            "as in v5e:4x4"
        )
    if not _SHAPE.fullmatch(shape):
        raise BadTopology(f"topology {topology!r}: write chips as NxM or NxMxL, as in {family}:4x4")
    return HBM_GIB[family] * GIB


def topology_mesh(topology: str) -> Mesh:
    """Return the (data=1, fsdp=n) mesh over the chips of a topology that need not be here.

    Raises BadTopology when the topology does not exist, or libtpu is not installed.
    """
    hbm_bytes(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise BadTopology("libtpu, the TPU compiler, is not installed: pip install 'nkjax[plan]'")
    for name, value in _LIBTPU.items():
        os.environ.setdefault(name, value)
    try:
        # The two cores of a v4 chip are one device, as on a real one; others are so by default.
        cores = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
        devices = topologies.get_topology_desc(topology, "tpu", **cores).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise BadTopology(f"topology {topology!r}: {' '.join(str(error).split())[:300]}") from None
    return meshes.make_mesh(1, len(devices), devices)


def training_step(spec: Spec, options: Options):
    """Return step(state, images_bhwc, targets_bhwk) -> (state, loss), and init(key) -> state.

    The state is fp32: parameters, AdamW moments, EMA copy. The loss is the mean squared error.
    """
    optimizer = optax.adamw(1e-4)

    def init(key):
        params = sapiens.init(key, spec)
        ema = jax.tree.map(jnp.copy, params)
        return {"params": params, "optimizer": optimizer.init(params), "ema": ema}

    def step(state, images_bhwc, targets_bhwk):
        def loss_of(params):
            maps_bhwk = forward(params, spec, images_bhwc, options).astype(jnp.float32)
            return jnp.mean(jnp.square(maps_bhwk - targets_bhwk))

        loss, gradient = jax.value_and_grad(loss_of)(state["params"])
        updates, moments = optimizer.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        ema = optax.incremental_update(params, state["ema"], 1 - EMA_DECAY)
        return {"params": params, "optimizer": moments, "ema": ema}, loss

    return step, init


def forward(params: dict, spec: Spec, images_bhwc, options: Options):
    """Return the raw output of a network's task, or a backbone's features."""
    out = sapiens.apply(
        params,
        spec,
        images_bhwc,
        policy=Policy(compute=options.dtype),
        attention=options.attention,
        remat=options.remat,
    )
    return out.get(spec.task, out["features"])


def compile_step(spec: Spec, mesh: Mesh, options: Options):
    """Compile one training step (or forward pass) for a mesh, from shapes alone.

    Raises jax.errors.JaxRuntimeError when the compiler finds no way to fit it into memory.
    """
    step, init = training_step(spec, options)
    state = jax.eval_shape(init, jax.random.key(0))
    batch = options.batch_per_chip * mesh.size
    images = jax.ShapeDtypeStruct((batch, *spec.image_size, 3), jnp.float32)
    over_chips = sharding.batch_sharding(mesh)
    with jax.set_mesh(mesh):
        if options.forward_only:
            shardings = sharding.shardings(state["params"], mesh)
            apply = jax.jit(
                lambda params, x: forward(params, spec, x, options),
                in_shardings=(shardings, over_chips),
                out_shardings=over_chips,
            )
            return apply.lower(state["params"], images).compile()
        maps = jax.eval_shape(lambda p, x: forward(p, spec, x, options), state["params"], images)
        targets = jax.ShapeDtypeStruct(maps.shape, jnp.float32)
        shardings = sharding.shardings(state, mesh)
        jitted = jax.jit(
            step,
            in_shardings=(shardings, over_chips, over_chips),
            out_shardings=(shardings, None),
            donate_argnums=0,
        )
        return jitted.lower(state, images, targets).compile()


def memory(compiled) -> Memory:
    """Read the compiler's memory account of one chip."""
    account = compiled.memory_analysis()
    return Memory(
        arguments=account.argument_size_in_bytes,
        outputs=account.output_size_in_bytes,
        aliased=account.alias_size_in_bytes,
        temporary=account.temp_size_in_bytes,
        code=account.generated_code_size_in_bytes,
    )


def collectives(hlo: str) -> dict[str, tuple[int, int]]:
    """Count the collectives of an optimised program, and size the largest result of each kind.

    The compiler may write one gather as many `collective-permute`s between partial products. An
    array as large as the stacked layers here says that weights are gathered all at once, one as
    large as the activations of the whole batch that chips repeat each other's work.
    """
    channels: dict[str, dict[str, int]] = {}
    for result, kind, channel in _COLLECTIVE.findall(hlo):
        sizes = [
            _ITEM_BYTES[dtype] * math.prod(int(n) for n in shape.split(",") if n)
            for dtype, shape in _ARRAY.findall(result)
        ]
        largest = channels.setdefault(kind, {})
        largest[channel] = max([largest.get(channel, 0), *sizes])
    return {kind: (len(sizes), max(sizes.values())) for kind, sizes in sorted(channels.items())}


def make_plan(spec: Spec, topology: str, options: Options) -> Plan:
    """Compile for a topology and collect what one chip will hold.

    Raises BadTopology; a step that the compiler cannot fit is a Plan with a `refusal`.
    """
    mesh = topology_mesh(topology)
    params = trees.flatten(jax.eval_shape(lambda: sapiens.init(jax.random.key(0), spec)))
    layer_bytes = max(
        4 * math.prod(leaf.shape[1:] if "/blocks/" in name else leaf.shape)
        for name, leaf in params.items()
    )
    start = time.monotonic()
    account, found, refusal = None, {}, ""
    try:
        compiled = compile_step(spec, mesh, options)
        account, found = memory(compiled), collectives(compiled.as_text())
    except jax.errors.JaxRuntimeError as error:
        refusal = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" not in refusal or "hbm" not in refusal.lower():
            raise
        refusal = refusal.split(". ")[0][:300]
    return Plan(
        topology=topology,
        chips=mesh.size,
        parameters=trees.count(params),
        layer_bytes=layer_bytes,
        hbm=hbm_bytes(topology),
        seconds=time.monotonic() - start,
        memory=account,
        collectives=found,
        refusal=refusal,
    )


def report(plan: Plan) -> str:
    """Write a plan for people: memory per chip, collectives, and the verdict on the last line."""
    family = plan.topology.partition(":")[0]
    lines = [
        f"{plan.topology}: {plan.chips} chips of {plan.hbm / GIB:.0f} GiB ({family})",
        f"{plan.parameters:,} parameters; compiled in {plan.seconds:.0f} s",
    ]
    if plan.memory is None:
        return "\n".join([*lines, f"does not fit: the compiler gave up ({plan.refusal})"])
    rows = dataclasses.asdict(plan.memory) | {"total": plan.memory.total}
    lines.append("GiB per chip (total = arguments + outputs - aliased + temporary + code)")
    lines += [f"  {name:<10} {size / GIB:8.3f}" for name, size in rows.items()]
    layer = plan.layer_bytes / (1 << 20)
    lines.append(f"collectives (the largest parameter of one layer has {layer:.1f} MiB)")
    lines += [
        f"  {kind:<18} {number:4d}, at most {size / (1 << 20):.1f} MiB"
        for kind, (number, size) in plan.collectives.items()
    ] or ["  none"]
    margin = (plan.hbm - plan.memory.total) / GIB
    fits, misfits = f"fits, {margin:.2f} GiB to spare", f"does not fit, {-margin:.2f} GiB too much"
    return "\n".join([*lines, fits if plan.fits else misfits])
