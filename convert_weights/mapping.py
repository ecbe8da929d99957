"""The map from Sapiens keys to parameter paths: every key once, every path filled.

Layouts of torch and flax: notes/jax.md B7.
"""

import dataclasses
from collections.abc import Callable

import einops
import jax
import numpy as np

from convert_weights.detect import Detected
from convert_weights.files import BadFile
from nkjax import trees
from nkjax.models import sapiens


@dataclasses.dataclass(frozen=True)
class Leaf:
    """How one parameter is made: from `keys` (one a layer where `stacked`), each transformed."""

    path: str
    keys: tuple[str, ...]
    transform: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, ...]
    stacked: bool


def _same(x):
    return x


def _linear(x):
    return x.T


def _patch(x):
    return einops.rearrange(x, "c i p q -> (p q i) c")


def _deconv(x):
    # torch keeps (in, out, kh, kw) for the transposed operation: flip in space to correlate.
    return x.transpose(2, 3, 0, 1)[::-1, ::-1]


def _conv1x1(x):
    return einops.rearrange(x, "o i 1 1 -> i o")


def _positions(x):
    return einops.rearrange(x, "1 n d -> n d")


def _patch_positions(x):
    return _positions(x)[1:]


def _class_position(x):
    return _positions(x)[0]


def _class_token(x):
    return einops.rearrange(x, "1 1 d -> d")


_BLOCK = {
    "ln1/scale": ("ln1.weight", _same),
    "ln1/bias": ("ln1.bias", _same),
    "qkv/kernel": ("attn.qkv.weight", _linear),
    "qkv/bias": ("attn.qkv.bias", _same),
    "proj/kernel": ("attn.proj.weight", _linear),
    "proj/bias": ("attn.proj.bias", _same),
    "ln2/scale": ("ln2.weight", _same),
    "ln2/bias": ("ln2.bias", _same),
    "fc1/kernel": ("ffn.layers.0.0.weight", _linear),
    "fc1/bias": ("ffn.layers.0.0.bias", _same),
    "fc2/kernel": ("ffn.layers.1.weight", _linear),
    "fc2/bias": ("ffn.layers.1.bias", _same),
}
_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def _rules(spec: sapiens.Spec) -> dict[str, tuple[tuple[str, ...], Callable]]:
    """Return {parameter path: (keys, transform)} of a spec."""
    rules: dict[str, tuple[tuple[str, ...], Callable]] = {
        "backbone/patch_embed/kernel": (("backbone.patch_embed.projection.weight",), _patch),
        "backbone/patch_embed/bias": (("backbone.patch_embed.projection.bias",), _same),
        "backbone/pos_embed": (("backbone.pos_embed",), _positions),
        "backbone/norm/scale": (("backbone.ln1.weight",), _same),
        "backbone/norm/bias": (("backbone.ln1.bias",), _same),
    }
    if spec.backbone.class_token:
        rules["backbone/pos_embed"] = (("backbone.pos_embed",), _patch_positions)
        rules["backbone/class_token/position"] = (("backbone.pos_embed",), _class_position)
        rules["backbone/class_token/token"] = (("backbone.cls_token",), _class_token)
    for path, (key, transform) in _BLOCK.items():
        layers = range(spec.backbone.depth)
        keys = tuple(f"backbone.layers.{i}.{key}" for i in layers)
        rules[f"backbone/blocks/{path}"] = (keys, transform)
    if spec.head is None:
        return rules
    for part, widths in (("deconv", spec.head.deconvs), ("conv", spec.head.convs)):
        for i in range(len(widths)):
            layer = f"head.{part}_layers.{3 * i}"
            kernel = _deconv if part == "deconv" else _conv1x1
            rules[f"head/{part}_{i}/kernel"] = ((f"{layer}.weight",), kernel)
            if part == "conv":
                rules[f"head/{part}_{i}/bias"] = ((f"{layer}.bias",), _same)
            if spec.head.norm == "batch":
                for leaf, name in _NORM.items():
                    key = f"head.{part}_layers.{3 * i + 1}.{name}"
                    rules[f"head/{part}_norm_{i}/{leaf}"] = ((key,), _same)
    rules["head/final/kernel"] = (("head.final.weight",), _conv1x1)
    rules["head/final/bias"] = (("head.final.bias",), _same)
    return rules


def plan(path: str, found: Detected) -> list[Leaf]:
    """Return how each parameter of a detected network is made, checked against the file.

    Every key is used once (a position embedding with a class slot feeds two parameters). Raises
    BadFile naming the keys that are missing, unused or of the wrong shape.
    """
    shapes = trees.flatten(jax.eval_shape(lambda: sapiens.init(jax.random.key(0), found.spec)))
    rules = _rules(found.spec)
    if set(rules) != set(shapes):
        raise AssertionError(f"rules and parameters differ: {set(rules) ^ set(shapes)}")

    wanted = {key for keys, _ in rules.values() for key in keys}
    what = f"a {found.spec.size} {found.spec.task} network"
    missing = [_spelled(key, found.spec.task) for key in wanted if key not in found.tensors]
    if missing:
        raise BadFile(f"{path} lacks {_some(missing)} of {what}; fetch the file again")
    unused = [found.names[key] for key in found.tensors if key not in wanted]
    if unused:
        raise BadFile(
            f"{path} has keys that {what} does not know: {_some(unused)}; "
            "save the state_dict without them"
        )

    leaves = []
    for name, (keys, transform) in rules.items():
        stacked = name.startswith("backbone/blocks/")
        shape = shapes[name].shape
        for key in keys:
            source = found.tensors[key]
            _check(path, found.names[key], source, transform, shape[1:] if stacked else shape)
        leaves.append(Leaf(name, keys, transform, shape, stacked))
    return leaves


def _spelled(key: str, task: str) -> str:
    if not key.startswith("head."):
        return key
    if task == "pose":
        return key.replace("head.final.", "head.final_layer.")
    return "decode_" + key.replace("head.final.", "head.conv_seg.")


def _check(path, name, source, transform, shape):
    empty = np.broadcast_to(np.zeros((), np.int8), source.shape)
    try:
        fits = transform(empty).shape == shape
    except (ValueError, IndexError, einops.EinopsError):
        fits = False
    if not fits:
        raise BadFile(
            f"{path}: {name} has shape {list(source.shape)}, which does not give {list(shape)}; "
            "the file mixes networks: fetch it again"
        )
    if source.dtype not in ("float32", "bfloat16", "float16", "float64"):
        raise BadFile(f"{path}: {name} holds {source.dtype}, not floating weights; fetch it again")


def _some(keys) -> str:
    keys = sorted(keys)
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def read(found: Detected, leaf: Leaf, dtype) -> np.ndarray:
    """Read one parameter from the file, one key at a time, in the wanted dtype.

    Raises BadFile when a weight is NaN or infinite, or too large for the dtype.
    """
    out = np.empty(leaf.shape, dtype)
    for i, key in enumerate(leaf.keys):
        values = leaf.transform(found.tensors[key].read())
        target = out[i] if leaf.stacked else out
        target[...] = values
        if not np.isfinite(target.sum(dtype=np.float64)):
            file = found.tensors[key].span.file
            if np.isfinite(values.astype(np.float64)).all():
                rule = f"{found.names[key]} holds weights too large for {out.dtype.name}"
                raise file.bad(rule, "use --dtype float32")
            raise file.bad(f"{found.names[key]} holds NaN or infinite weights", "fetch it again")
    return out
