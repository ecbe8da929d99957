"""Sapiens-1 as one pair of functions: `load` a weights folder, `apply` it to pictures.

A `Spec` says what the network is; parameters are {'backbone': ..., 'head': ...}, nested dicts.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp
from etils import epath

from nkjax import checkpoints, sharding, skeleton, trees
from nkjax.models import heads, vit
from nkjax.models.heads import Head
from nkjax.models.vit import Backbone
from nkjax.precision import FP32, Policy
from nkjax.skeleton import Skeleton

IMAGE_HW = (1024, 768)
PRETRAIN_HW = (1024, 1024)

# Width, depth and heads (notes/sapiens.md A1). `tiny` is ours, for tests and first steps.
SIZES = {
    "tiny": (64, 3, 4),
    "0.3b": (1024, 24, 16),
    "0.6b": (1280, 32, 16),
    "1b": (1536, 40, 24),
    "2b": (1920, 48, 32),
}

# Deconvolution widths and 1x1 widths of the released heads (notes/sapiens.md A2).
HEADS = {
    "pose": ((768, 768), (768, 768)),
    "seg": ((768,) * 3, (768,) * 3),
    "normal": ((768,) * 3, (768,) * 3),
    "depth": ((384,) * 4, (384,) * 2),
}
TASKS = ("pose", "seg", "depth", "normal", "backbone")


@dataclasses.dataclass(frozen=True)
class Spec:
    """Describe a Sapiens network: all that is needed to apply its parameters.

    `image_size` is the (H, W) in px it was made for (others work too). `skeleton` names the
    channels of a pose head, where it is known. `size` is a name of SIZES or 'custom'.
    """

    task: Literal["pose", "seg", "depth", "normal", "backbone"]
    size: str
    image_size: tuple[int, int]
    backbone: Backbone
    head: Head | None = None
    skeleton: Skeleton | None = None

    def __post_init__(self):
        if self.task not in TASKS:
            raise ValueError(f"task {self.task!r} is unknown: use one of {', '.join(TASKS)}")
        if (self.head is None) != (self.task == "backbone"):
            raise ValueError(f"task {self.task!r} {'needs a' if not self.head else 'has no'} head")
        if self.skeleton and len(self.skeleton.keypoints) != self.head.outputs:
            raise ValueError(
                f"skeleton {self.skeleton.name} has {len(self.skeleton.keypoints)} keypoints, "
                f"the head {self.head.outputs} outputs"
            )


def patch_padding(task: str, outputs: int = 0) -> int | Literal["corner"] | None:
    """Return the patch padding of a released network; no checkpoint shows it (sapiens.md A1).

    None where there is no such release: a segmentation head of other than 28, 20 or 19 classes.
    """
    if task == "seg":
        return {28: "corner", 19: "corner", 20: 2}.get(outputs)
    return {"pose": 2, "normal": 2, "depth": "corner", "backbone": "corner"}[task]


def released_skeleton(task: str, outputs: int) -> Skeleton | None:
    """Return the skeleton that a released pose head of so many channels uses, if there is one."""
    name = {17: "coco17", 133: "wholebody133", 308: "goliath308"}.get(outputs)
    return skeleton.load(name) if task == "pose" and name else None


def make_spec(
    size: str, task: str, outputs: int = 0, image_size: tuple[int, int] | None = None
) -> Spec:
    """Return the spec of a standard network of a size and a task.

    `outputs` is the number of keypoints or classes, by default 17 and 28; depth and normal have
    1 and 3. A backbone has a class token and the square pictures of pretraining.
    """
    width, depth, num_heads = SIZES[size]
    outputs = outputs or {"pose": 17, "seg": 28, "depth": 1, "normal": 3, "backbone": 0}[task]
    image_size = image_size or (PRETRAIN_HW if task == "backbone" else IMAGE_HW)
    padding = patch_padding(task, outputs)
    backbone = Backbone(width, depth, num_heads, (1, 1), 2 if padding is None else padding)
    backbone = dataclasses.replace(
        backbone, grid=vit.grid_of(backbone, image_size), class_token=task == "backbone"
    )
    head = None
    if task != "backbone":
        deconvs, convs = HEADS[task]
        if size == "tiny":
            deconvs, convs = (32,) * len(deconvs), (32,) * len(convs)
        head = Head(deconvs, convs, outputs)
    return Spec(task, size, image_size, backbone, head, released_skeleton(task, outputs))


def init(key, spec: Spec) -> dict:
    """Return random fp32 parameters of a network; use under `jax.eval_shape` for shapes alone."""
    backbone_key, head_key = jax.random.split(key)
    params = {"backbone": vit.init(backbone_key, spec.backbone)}
    if spec.head:
        params["head"] = heads.init(head_key, spec.head, spec.backbone.width)
    return params


def apply(
    params: dict,
    spec: Spec,
    images_bhwc,
    *,
    policy: Policy = FP32,
    attention: str = "auto",
    remat: str = "none",
) -> dict:
    """Run a network on normalised RGB pictures (B, H, W, 3) of any size; raw outputs.

    Returns 'features' (B, h, w, C), 'class_token' (B, C) where there is one, and by task 'pose'
    (B, 4h, 4w, K), 'seg' (B, 8h, 8w, classes), 'normal' (B, 8h, 8w, 3) or 'depth'
    (B, 16h, 16w, 1), in the compute dtype; h, w are H/16, W/16. `remat` is a name of vit.REMAT,
    `attention` of attention.BACKENDS. Source: notes/sapiens.md A1, A2.
    """
    with policy.matmul():
        out = vit.apply(
            params["backbone"],
            spec.backbone,
            images_bhwc,
            policy=policy,
            attention=attention,
            remat=remat,
        )
        if spec.head:
            out[spec.task] = heads.apply(
                params["head"], spec.head, out["features"], policy.compute
            )
    return out


def to_json(spec: Spec) -> dict:
    """Return a spec as plain JSON values."""
    plain = dataclasses.asdict(dataclasses.replace(spec, skeleton=None))
    plain["skeleton"] = skeleton.to_json(spec.skeleton) if spec.skeleton else None
    return plain


def spec_sha256(plain: dict) -> str:
    """Return the sha256 of a spec as `to_json` gives it, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def from_json(plain: dict, source: str) -> Spec:
    """Rebuild the spec that `to_json` wrote; `source` names the file in errors.

    Raises BadCheckpoint.
    """

    def tuples(section):
        return {k: tuple(v) if isinstance(v, list) else v for k, v in section.items()}

    try:
        plain = tuples(plain)
        plain["backbone"] = Backbone(**tuples(plain["backbone"]))
        plain["head"] = Head(**tuples(plain["head"])) if plain["head"] else None
        if plain["skeleton"]:
            plain["skeleton"] = skeleton.parse(plain["skeleton"], source)
        return Spec(**plain)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise checkpoints.BadCheckpoint(f"{source}: its spec is damaged ({reason})") from None


def read_model(folder) -> tuple[Spec, dict]:
    """Read `model.json` of a weights folder: the spec and the whole document.

    Raises BadCheckpoint when it is missing, damaged, or its spec was edited.
    """
    path = epath.Path(folder) / "model.json"
    try:
        document = json.loads(path.read_text())
        plain = document["spec"]
        if document["spec_sha256"] != spec_sha256(plain):
            raise checkpoints.BadCheckpoint(
                f"{path}: its spec has changed since conversion; convert again with other options"
            )
        return from_json(plain, str(path)), document
    except OSError:
        raise checkpoints.BadCheckpoint(
            f"{folder}: no model.json here, so no weights folder; make one with "
            "python -m convert_weights"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, checkpoints.BadCheckpoint):
            raise
        raise checkpoints.BadCheckpoint(
            f"{path}: not a model.json of nkjax ({' '.join(str(error).split())})"
        ) from None


def load(folder, mesh: jax.sharding.Mesh | None = None) -> tuple[Spec, dict]:
    """Load a weights folder: (spec, parameters), each leaf checked against its checksum.

    With a mesh the parameters are sharded by `nkjax.sharding.RULES`, without on the first device.
    Raises BadCheckpoint, in one line, when folder, spec, arrays and checksums do not agree.
    """
    spec, document = read_model(folder)
    return spec, trees.unflatten(dict(load_leaves(folder, spec, document, mesh)))


def load_leaves(folder, spec: Spec, document: dict, mesh=None) -> Iterator[tuple[str, jax.Array]]:
    """Yield ('a/b/c', array) of a weights folder one at a time, each checked as in `load`."""
    wanted = abstract(spec, document, folder)
    checkpoints.check_files(epath.Path(folder) / "params", _files(document, folder))
    single = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = {
        name: jax.sharding.NamedSharding(mesh, sharding.partition_spec(name, leaf.shape, mesh))
        if mesh
        else single
        for name, leaf in wanted.items()
    }
    for name, leaf in checkpoints.load_leaves(epath.Path(folder) / "params", wanted, placed):
        # A leaf spread over other hosts cannot be read here; `verify` reads it on one.
        if leaf.is_fully_addressable and trees.checksum(leaf) != document["leaves"][name]["sha256"]:
            raise checkpoints.BadCheckpoint(
                f"{folder}: the values of {name} have changed since conversion; convert again"
            )
        yield name, leaf


def _files(document: dict, folder) -> dict:
    files = document.get("files")
    if not isinstance(files, dict) or not files:
        raise checkpoints.BadCheckpoint(
            f"{folder}: model.json does not list its files; convert again"
        )
    return files


def abstract(spec: Spec, document: dict, folder) -> dict[str, jax.ShapeDtypeStruct]:
    """Return {'a/b/c': shape and stored dtype} of a weights folder.

    Raises BadCheckpoint when model.json does not list the parameters of its spec.
    """
    shapes = trees.flatten(jax.eval_shape(lambda: init(jax.random.key(0), spec)))
    try:
        listed = {name: tuple(entry["shape"]) for name, entry in document["leaves"].items()}
        if listed != {name: leaf.shape for name, leaf in shapes.items()}:
            raise KeyError("it lists other names or shapes than its spec has")
        if not all("sha256" in entry for entry in document["leaves"].values()):
            raise KeyError("a checksum is gone")
        return {
            name: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(document["leaves"][name]["dtype"]))
            for name, leaf in shapes.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise checkpoints.BadCheckpoint(
            f"{folder}: model.json does not list its parameters ({error}); convert again"
        ) from None
