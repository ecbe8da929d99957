"""Walks the program of a loss and of its gradient for numbers of too few bits.

On a CPU the results do not show it: there products are exact whatever the precision asked for, and
a sum in bf16 may hide between casts. The jaxpr shows it on any platform (notes jax B6).
"""

import jax
import jax.numpy as jnp
from jax.extend import core

PRODUCTS = ("dot_general", "conv_general_dilated")
HIGHEST = jax.lax.Precision.HIGHEST
# Programs that are called as they are: what they return is what their equation returns.
CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "custom_jvp_call",
         "custom_vjp_call", "custom_vjp_call_jaxpr")  # fmt: skip


def faults(loss, outputs, *others) -> list[str]:
    """Tell what in loss(outputs, *others) and its gradient by outputs has fewer bits than fp32.

    outputs: the network's, an array of bf16. A loss casts them to fp32 before anything else, so
    that a result of fewer bits is a fault wherever it stands; the cast that hands the gradient back
    to the network is none. So is a product without Precision.HIGHEST.
    """
    forward = jax.make_jaxpr(loss)(outputs, *others)
    backward = jax.make_jaxpr(jax.grad(loss))(outputs, *others)
    return [
        *(f"loss: {fault}" for fault in _walk(forward.jaxpr, set())),
        *(f"gradient: {fault}" for fault in _walk(backward.jaxpr, set(backward.jaxpr.outvars))),
    ]


def _walk(jaxpr, handed_back):
    """Yield the faults of a program; handed_back: its variables that a cast may make smaller."""
    for equation in jaxpr.eqns:
        name, inner = equation.primitive.name, list(_programs(equation))
        for program in inner:
            same = name in CALLS and len(program.outvars) == len(equation.outvars)
            pairs = zip(program.outvars, equation.outvars, strict=True) if same else ()
            yield from _walk(program, {var for var, out in pairs if out in handed_back})
        for out in equation.outvars if not inner else ():
            if _is_small(out.aval.dtype):
                if name != "convert_element_type" or out not in handed_back:
                    yield f"{name} gives {out.aval.dtype.name}"
        if name == "reduce_precision" and equation.params["mantissa_bits"] < 23:
            yield f"{name} to {equation.params['mantissa_bits']} bits"
        if name in PRODUCTS and jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating):
            if equation.params["precision"] not in (HIGHEST, (HIGHEST, HIGHEST)):
                yield f"{name} at precision {equation.params['precision']}"


def _programs(equation):
    """Yield the programs inside an equation: of calls, loops, branches."""
    for value in equation.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part


def _is_small(dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
