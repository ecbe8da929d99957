"""Compile a run's training step for a TPU topology that is not here, and read off what it holds.

The step is the run's own, `train.job.lower_step`: views, forward, loss, backward, clip, AdamW,
EMA, finite check, with state and batch sharded over all chips. No array is made; libtpu compiles
from shapes (notes/jax.md B5).
"""

import dataclasses
import importlib.util
import math
import os
import re
import time

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

from nkjax import collectives, costs, skeleton, trees
from nkjax import config as configs
from nkjax import mesh as meshes
from nkjax.collectives import Collective
from nkjax.config import Config
from nkjax.costs import CHIPS, Prediction
from nkjax.models import sapiens
from nkjax.models.sapiens import Spec
from nkjax.train import job

MIB, GIB = 1 << 20, 1 << 30

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
REMEDY = "try more --config.optimizer.accumulate, --config.remat=full, or a smaller --config.batch"
_SHAPE = re.compile(r"[1-9]\d*(x[1-9]\d*){1,2}")


class BadTopology(ValueError):
    """A topology that cannot be planned for; the message is one line for the user."""


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

    sizes: (data, fsdp) of the mesh; people: of one chip, in one part of its batch; layer_bytes: of
    the largest parameter in fp32, of one layer where stacked; collectives: of one step, or
    `uncounted`, why not; prediction: of a step, in bfloat16 alone.
    """

    topology: str
    sizes: tuple[int, int]
    parameters: int
    people: int
    layer_bytes: int
    hbm: int
    seconds: float
    memory: Memory | None = None
    collectives: tuple[Collective, ...] = ()
    prediction: Prediction | None = None
    uncounted: str = ""
    refusal: str = ""

    @property
    def fits(self) -> bool:
        """Return whether a chip's memory holds the step."""
        return self.memory is not None and self.memory.total <= self.hbm


def hbm_bytes(topology: str) -> int:
    """Return the HBM of one chip of a topology such as 'v5e:4x4', in bytes.

    Raises BadTopology for a family that is not in CHIPS and for what is no topology at all.
    """
    family, _, shape = topology.partition(":")
    if family not in CHIPS:
        raise BadTopology(
            f"topology {topology!r}: no chip called {family!r}; known are {', '.join(CHIPS)}, "
            "as in v5e:4x4"
        )
    if not _SHAPE.fullmatch(shape):
        raise BadTopology(f"topology {topology!r}: write chips as NxM or NxMxL, as in {family}:4x4")
    return CHIPS[family].hbm_gib * GIB


def find_devices(topology: str) -> list:
    """Return the chips of a topology that need not be here.

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
        return topologies.get_topology_desc(topology, "tpu", **cores).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise BadTopology(f"topology {topology!r}: {' '.join(str(error).split())[:300]}") from None


def make_spec(config: Config, keypoints: int) -> Spec:
    """Return the network of a run whose data would have so many keypoints."""
    outputs = keypoints if config.task == "pose" else 0
    spec = sapiens.make_spec(config.size, config.task, outputs, config.image_hw)
    if config.task != "pose" or spec.skeleton:
        return spec
    names = [f"joint{number}" for number in range(keypoints)]
    plain = skeleton.parse({"name": "plan", "keypoints": names}, "plan")
    return dataclasses.replace(spec, skeleton=plain)


def make_plan(config: Config, topology: str, keypoints: int = 17) -> Plan:
    """Compile a run's step for a topology and collect what one chip will hold and send.

    Raises BadTopology, and BadConfig for a mesh or batch that does not fit its chips; a step that
    the compiler cannot fit is a Plan with a `refusal`.
    """
    devices = find_devices(topology)
    hosts = len({device.process_index for device in devices})
    sizes = configs.check_devices(config, len(devices), hosts)
    spec = make_spec(config, keypoints)
    params = trees.flatten(jax.eval_shape(lambda: sapiens.init(jax.random.key(0), spec)))
    plan = Plan(
        topology=topology,
        sizes=sizes,
        parameters=trees.count(params),
        people=config.batch // len(devices) // config.optimizer.accumulate,
        layer_bytes=max(
            4 * math.prod(leaf.shape[1:] if "/blocks/" in name else leaf.shape)
            for name, leaf in params.items()
        ),
        hbm=hbm_bytes(topology),
        seconds=0.0,
    )
    start = time.monotonic()
    try:
        compiled = _compile(spec, config, meshes.make_mesh(*sizes, devices))
        found = _read(compiled, spec, config, topology, len(devices))
    except jax.errors.JaxRuntimeError as error:
        refusal = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" not in refusal or "hbm" not in refusal.lower():
            raise
        found = {"refusal": refusal.split(". ")[0][:300]}
    return dataclasses.replace(plan, seconds=time.monotonic() - start, **found)


def _compile(spec: Spec, config: Config, mesh: Mesh):
    # What 'auto' takes on a TPU; here it would ask the devices of this machine.
    attention = "splash" if jnp.dtype(config.compute).itemsize == 2 else "chunked"
    return job.lower_step(spec, config, mesh, attention).compile()


def _read(compiled, spec: Spec, config: Config, topology: str, chips: int) -> dict:
    account = compiled.memory_analysis()
    found = {
        "memory": Memory(
            arguments=account.argument_size_in_bytes,
            outputs=account.output_size_in_bytes,
            aliased=account.alias_size_in_bytes,
            temporary=account.temp_size_in_bytes,
            code=account.generated_code_size_in_bytes,
        )
    }
    try:
        found["collectives"] = tuple(collectives.read(compiled.as_text()))
    except ValueError as error:
        return found | {"uncounted": str(error)}
    if config.compute == "bfloat16":
        flops = config.batch / chips * costs.training_flops(spec, config.remat)
        chip = CHIPS[topology.partition(":")[0]]
        found["prediction"] = costs.predict(flops, found["collectives"], chip)
    return found


def report(plan: Plan) -> str:
    """Write a plan for people: memory per chip, collectives, and the verdict on the last line."""
    family, (data, fsdp) = plan.topology.partition(":")[0], plan.sizes
    lines = [
        f"{plan.topology}: {data * fsdp} chips of {plan.hbm / GIB:.0f} GiB ({family}), "
        f"mesh {data} x {fsdp} (data x fsdp), {plan.people} people at a time on each",
        f"{plan.parameters:,} parameters; compiled in {plan.seconds:.0f} s",
    ]
    if plan.memory is None:
        return "\n".join([*lines, f"does not fit: the compiler gave up ({plan.refusal}); {REMEDY}"])
    rows = dataclasses.asdict(plan.memory) | {"total": plan.memory.total}
    lines.append("GiB per chip (total = arguments + outputs - aliased + temporary + code)")
    lines += [f"  {name:<10} {size / GIB:8.3f}" for name, size in rows.items()]
    lines += _sending(plan)
    margin = (plan.hbm - plan.memory.total) / GIB
    fits = f"fits, {margin:.2f} GiB to spare"
    return "\n".join(
        [*lines, fits if plan.fits else f"does not fit, {-margin:.2f} GiB too much; {REMEDY}"]
    )


def _sending(plan: Plan) -> list[str]:
    if plan.uncounted:
        return [f"collectives are not counted: {plan.uncounted}"]
    layer = plan.layer_bytes / MIB
    lines = [f"collectives of one step (the largest parameter of one layer has {layer:.1f} MiB)"]
    for kind in collectives.KINDS:
        some = [one for one in plan.collectives if one.kind == kind]
        if some:
            lines.append(
                f"  {kind:<18} {sum(one.times for one in some):6d} times, a chip sends "
                f"{sum(one.sent for one in some) / MIB:.1f} MiB, arrays of at most "
                f"{max(one.largest for one in some) / MIB:.1f} MiB"
            )
    if len(lines) == 1:
        return [*lines, "  none"]
    guess = plan.prediction
    if guess:
        lines += [
            f"predicted, not measured: computing {1e3 * guess.compute:.3g} ms at "
            f"{costs.EFFICIENCY:.0%} of the peak; sending {1e3 * guess.sending:.3g} ms over all "
            f"links, {1e3 * guess.sending_slow:.3g} ms over half",
            f"predicted share of sending in a step: {guess.hidden:.0%} beside computing, "
            f"{guess.exposed:.0%} in turn over half of the links",
        ]
    return lines
