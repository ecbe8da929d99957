"""The plain pre-norm ViT of Sapiens: patches, positions, stacked blocks, final norm.

Shapes: b batch, n tokens, d width, h and w the token grid, l layers.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from nkjax.models.attention import attend, chunked
from nkjax.precision import Policy

PATCH = 16
MLP_RATIO = 4
LAYER_NORM_EPS = 1e-6


@dataclasses.dataclass(frozen=True)
class Backbone:
    """Describe a backbone: everything that its parameters alone cannot tell.

    `grid` is the (h, w) of the stored position embedding. `patch_padding` is the zero padding in
    px on every side of the picture, or 'corner': as much as is missing at the bottom and right.
    """

    width: int
    depth: int
    heads: int
    grid: tuple[int, int]
    patch_padding: int | Literal["corner"]
    class_token: bool = False

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if self.patch_padding != "corner" and not 0 <= self.patch_padding < PATCH:
            raise ValueError(f"patch padding {self.patch_padding} is neither 0 to 15 nor 'corner'")


# What `jax.checkpoint` keeps of each block for the backward pass. 'light' keeps the results of
# the large products and of attention, and recomputes norms and activations: a third of the memory
# of 'none' for 2 % of the time. 'full' keeps each block's input alone and computes it twice.
_KEPT = ("qkv", "attended", "residual", "fc1")
REMAT: dict[str, Callable | None] = {
    "none": None,
    "light": jax.checkpoint_policies.save_only_these_names(*_KEPT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Block(nn.Module):
    """Residual attention and residual MLP, each behind a LayerNorm; (b, n, d) to (b, n, d)."""

    width: int
    heads: int
    dtype: jnp.dtype
    attend: Callable

    @nn.compact
    def __call__(self, x_bnd):
        """Apply the block."""
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        norm = functools.partial(_layer_norm, dtype=self.dtype)

        y = checkpoint_name(dense(3 * self.width, name="qkv")(norm(name="ln1")(x_bnd)), "qkv")
        q, k, v = einops.rearrange(y, "b n (three h d) -> three b n h d", three=3, h=self.heads)
        y = einops.rearrange(self.attend(q, k, v), "b n h d -> b n (h d)")
        y = dense(self.width, name="proj")(checkpoint_name(y, "attended"))
        x_bnd = checkpoint_name(x_bnd + y, "residual")

        y = dense(MLP_RATIO * self.width, name="fc1")(norm(name="ln2")(x_bnd))
        y = checkpoint_name(y, "fc1")
        return x_bnd + dense(self.width, name="fc2")(nn.gelu(y, approximate=False))


def _layer_norm(name=None, dtype=None):
    # Linen's default variance, E[x^2] - E[x]^2, loses fp32 digits (notes/jax.md B6).
    return nn.LayerNorm(epsilon=LAYER_NORM_EPS, use_fast_variance=False, dtype=dtype, name=name)


def grid_of(spec: Backbone, image_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the token grid (h, w) of a picture of `image_hw` px.

    Raises ValueError when the picture is smaller than one patch.
    """
    if spec.patch_padding == "corner":
        grid = tuple(-(-size // PATCH) for size in image_hw)
    else:
        grid = tuple((size + 2 * spec.patch_padding) // PATCH for size in image_hw)
    if min(grid) < 1:
        raise ValueError(f"a picture of {image_hw[0]}x{image_hw[1]} px holds no patch of {PATCH}")
    return grid


def patches(spec: Backbone, images_bhwc):
    """Cut padded pictures into flat patches (b, h*w, 16*16*3), row by row (notes/sapiens.md A1)."""
    h, w = grid_of(spec, images_bhwc.shape[1:3])
    low = 0 if spec.patch_padding == "corner" else spec.patch_padding
    # Pixels that no patch reaches are cut: with padding 2 the last two rows and columns.
    edges = [
        (low, n * PATCH - size - low, 0)
        for n, size in zip((h, w), images_bhwc.shape[1:3], strict=True)
    ]
    zero = jnp.zeros((), images_bhwc.dtype)
    padded = lax.pad(images_bhwc, zero, [(0, 0, 0), *edges, (0, 0, 0)])
    return einops.rearrange(padded, "b (h p) (w q) c -> b (h w) (p q c)", p=PATCH, q=PATCH)


def resize_positions(pos_nd, grid: tuple[int, int], new_grid: tuple[int, int]):
    """Resize a position embedding (h*w, d) to another grid, in fp32, as torch's bicubic does."""
    if grid == new_grid:
        return pos_nd
    pos_hwd = einops.rearrange(pos_nd.astype(jnp.float32), "(h w) d -> h w d", h=grid[0])
    shape = (*new_grid, pos_nd.shape[-1])
    resized = jax.image.resize(pos_hwd, shape, "cubic-pytorch", antialias=False)
    return einops.rearrange(resized, "h w d -> (h w) d")


def move(
    spec: Backbone, params: dict, image_hw: tuple[int, int], patch_padding: int | str
) -> tuple[Backbone, dict]:
    """Prepare a pretrained backbone for a picture size and patch padding, as fine-tuning does.

    The position embedding is resized to the new grid, the class token left out.
    """
    new = dataclasses.replace(spec, patch_padding=patch_padding, class_token=False)
    new = dataclasses.replace(new, grid=grid_of(new, image_hw))
    params = {name: leaf for name, leaf in params.items() if name != "class_token"}
    return new, params | {"pos_embed": resize_positions(params["pos_embed"], spec.grid, new.grid)}


def init(key, spec: Backbone) -> dict:
    """Return random fp32 parameters; each leaf of `blocks` has a leading layer axis."""
    patch_key, pos_key, block_key = jax.random.split(key, 3)
    block = Block(spec.width, spec.heads, jnp.float32, chunked)
    x_bnd = jnp.zeros((1, 1, spec.width))
    tokens = spec.grid[0] * spec.grid[1]
    params = {
        "patch_embed": _patch_embed(spec).init(patch_key, jnp.zeros((1, 1, PATCH * PATCH * 3)))[
            "params"
        ],
        "pos_embed": 0.02 * jax.random.truncated_normal(pos_key, -2, 2, (tokens, spec.width)),
        "blocks": jax.vmap(lambda k: block.init(k, x_bnd)["params"])(
            jax.random.split(block_key, spec.depth)
        ),
        "norm": _layer_norm().init(key, x_bnd)["params"],
    }
    if spec.class_token:
        params["class_token"] = {"token": jnp.zeros(spec.width), "position": jnp.zeros(spec.width)}
    return params


def _patch_embed(spec: Backbone, dtype=None):
    return nn.Dense(spec.width, dtype=dtype)


def embed(params: dict, spec: Backbone, images_bhwc, dtype):
    """Turn pictures into tokens with positions, (b, n, d); a class token comes first."""
    pixels = patches(spec, images_bhwc.astype(dtype))
    x_bnd = _patch_embed(spec, dtype).apply({"params": params["patch_embed"]}, pixels)
    grid = grid_of(spec, images_bhwc.shape[1:3])
    x_bnd = x_bnd + resize_positions(params["pos_embed"], spec.grid, grid)[None].astype(dtype)
    if not spec.class_token:
        return x_bnd
    first = (params["class_token"]["token"] + params["class_token"]["position"]).astype(dtype)
    first_b1d = jnp.broadcast_to(first, (x_bnd.shape[0], 1, spec.width))
    return jnp.concatenate([first_b1d, x_bnd], axis=1)


def apply(
    params: dict,
    spec: Backbone,
    images_bhwc,
    *,
    policy: Policy,
    attention: str = "auto",
    remat: str = "none",
) -> dict:
    """Run the backbone: {'features': (b, h, w, d)} and, where there is one, 'class_token' (b, d).

    `images_bhwc` are normalised RGB; any size of at least one patch.
    """
    if remat not in REMAT:
        raise ValueError(f"remat {remat!r} is unknown: use one of {', '.join(REMAT)}")
    dtype = jnp.dtype(policy.compute)
    block = Block(spec.width, spec.heads, dtype, functools.partial(attend, backend=attention))

    def run_block(x_bnd, block_params):
        return block.apply({"params": block_params}, x_bnd), None

    if REMAT[remat] is not None:
        run_block = jax.checkpoint(run_block, policy=REMAT[remat], prevent_cse=False)
    x_bnd = embed(params, spec, images_bhwc, dtype)
    x_bnd, _ = lax.scan(run_block, x_bnd, params["blocks"])
    x_bnd = _layer_norm(dtype=dtype).apply({"params": params["norm"]}, x_bnd)

    out = {}
    if spec.class_token:
        out["class_token"], x_bnd = x_bnd[:, 0], x_bnd[:, 1:]
    h, _ = grid_of(spec, images_bhwc.shape[1:3])
    out["features"] = einops.rearrange(x_bnd, "b (h w) d -> b h w d", h=h)
    return out
