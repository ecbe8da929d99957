"""Which dtype computes what: one policy object, passed down explicitly."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Policy:
    """Say which dtype stores parameters, computes the network and computes losses.

    Matrix products of an fp32 network run at precision `highest`, because accelerators otherwise
    round fp32 operands to TF32 or bf16 (notes/jax.md B6). Losses are always fp32.
    """

    param: str = "float32"
    compute: str = "float32"
    loss: str = "float32"

    def matmul(self):
        """Return the context in which the network's products are traced."""
        return jax.default_matmul_precision("highest" if self.compute == "float32" else "default")


FP32 = Policy()
BF16 = Policy(compute="bfloat16")


def cast(tree, dtype):
    """Cast the floating leaves of a tree to `dtype`, leaving integers and keys alone."""

    def cast_leaf(x):
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast_leaf, tree)
