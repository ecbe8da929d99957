"""Devices to mesh, with axis types written out."""

import jax
from jax.sharding import AxisType, Mesh

BATCH_AXES = ("data", "fsdp")  # the batch is split over both; parameters over the second


def make_mesh(data: int, fsdp: int, devices=None) -> Mesh:
    """Return a (data, fsdp) mesh over `devices` (default: all), with automatic partitioning.

    Raises ValueError when the two sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if data * fsdp != len(devices):
        raise ValueError(
            f"mesh {data} x {fsdp} wants {data * fsdp} devices, there are {len(devices)}: "
            "change the mesh so that its sizes multiply to that"
        )
    # jax.make_mesh defaults to Explicit axes, under which convolutions with sharded weights and
    # products over a sharded dimension raise (notes/jax.md B3).
    return jax.make_mesh((data, fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)
