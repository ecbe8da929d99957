"""Tell what network a checkpoint is from its keys; look up what no key shows; say which is which.

Facts: notes/sapiens.md A1 to A3.
"""

import dataclasses
import math
import re

from convert_weights.files import BadFile, Tensor
from nkjax import skeleton_formats
from nkjax.models import sapiens, vit

# Keys that are no weights: the picture normalisation that exports carry along, and a counter.
_IGNORED = re.compile(r"data_preprocessor\.(mean|std)$|\.num_batches_tracked$")
_DECODER = re.compile(r"neck\.")


@dataclasses.dataclass(frozen=True)
class Overrides:
    """What the user says about a file; None where the file is to speak for itself."""

    task: str | None = None
    size: str | None = None
    heads: int | None = None
    input_size: tuple[int, int] | None = None
    patch_padding: int | str | None = None
    skeleton: str | None = None


@dataclasses.dataclass(frozen=True)
class Detected:
    """What a checkpoint is: its spec, the keys to map, the keys left out, a line per finding."""

    spec: sapiens.Spec
    tensors: dict[str, Tensor]  # to be mapped, under the names 'backbone.*' and 'head.*'
    names: dict[str, str]  # the same keys as the file spells them
    left_out: dict[str, list[str]]  # reason -> keys of the file
    findings: list[str]


def detect(path: str, tensors: dict[str, Tensor], said: Overrides) -> Detected:
    """Tell task, size and heads from keys and shapes, or from `said`.

    Raises BadFile, one line, when the keys are no Sapiens-1 network, when something that no key
    shows is neither known nor said, and when the user contradicts the file.
    """
    weights, names, left_out = _rename(path, tensors)
    findings: list[str] = []
    task, head = _head(path, weights, said.task)
    _agree(path, "task", said.task, task)
    findings.append(_task_line(task, head))

    width, depth = _width_and_depth(path, weights)
    size = next((n for n, s in sapiens.SIZES.items() if s[:2] == (width, depth)), "custom")
    _agree(path, "size", said.size, size)
    findings.append(f"size {size}: width {width}, {depth} blocks (from the keys)")

    heads, line = _heads(path, size, width, said)
    findings.append(line)
    padding, line = _padding(path, task, head, said)
    findings.append(line)
    class_token = "backbone.cls_token" in weights
    image_size, line = _image_size(path, weights, class_token, padding, said)
    findings.append(line)

    backbone = vit.Backbone(width, depth, heads, (1, 1), padding, class_token)
    backbone = dataclasses.replace(backbone, grid=vit.grid_of(backbone, image_size))
    joints, line = _skeleton(path, task, head, said)
    findings += line
    spec = sapiens.Spec(task, size, image_size, backbone, head, joints)
    return Detected(spec, weights, names, left_out, findings)


def _rename(path, tensors):
    left_out: dict[str, list[str]] = {}
    plain = {name.removeprefix("module."): name for name in tensors}
    if len(plain) != len(tensors):
        raise BadFile(f"{path} has keys that differ only in 'module.': save the state_dict again")
    prefixed = any(key.startswith("backbone.") for key in plain)
    weights, names = {}, {}
    for key, name in plain.items():
        if _IGNORED.search(key):
            left_out.setdefault("no weights (normalisation, counters)", []).append(name)
        elif _DECODER.match(key):
            left_out.setdefault("decoder of the pretraining", []).append(name)
        else:
            new = key if prefixed else f"backbone.{key}"
            new = re.sub(r"^decode_head\.", "head.", new).replace("head.conv_seg.", "head.final.")
            new = new.replace("head.final_layer.", "head.final.")
            if new in weights:
                raise BadFile(f"{path} has both {names[new]} and {name}: two heads in one file")
            weights[new], names[new] = tensors[name], name
    if "backbone.patch_embed.projection.weight" not in weights:
        first = ", ".join(list(tensors)[:3])
        raise BadFile(
            f"{path} is no Sapiens-1 network: it has no patch_embed.projection.weight "
            f"(its keys begin {first}); name a Sapiens file"
        )
    return weights, names, left_out


def _shape(path, weights, key, rank):
    if key not in weights:
        raise BadFile(
            f"{path} lacks {key}: it is cut short or no Sapiens-1 network; fetch it again"
        )
    if len(weights[key].shape) != rank:
        raise BadFile(f"{path}: {key} has shape {list(weights[key].shape)}, not {rank} axes")
    return weights[key].shape


def _width_and_depth(path, weights):
    width, channels, *patch = _shape(path, weights, "backbone.patch_embed.projection.weight", 4)
    if (channels, *patch) != (3, vit.PATCH, vit.PATCH):
        raise BadFile(
            f"{path}: patches of {channels}x{patch[0]}x{patch[1]}, where Sapiens-1 has 3x16x16; "
            "name a Sapiens-1 file"
        )
    layers = [re.match(r"backbone\.layers\.(\d{1,4})\.", key) for key in weights]
    depth = max((int(match[1]) + 1 for match in layers if match), default=0)
    if not depth:
        raise BadFile(f"{path} has no backbone.layers.*: no Sapiens-1 network; name a Sapiens file")
    return width, depth


def _head(path, weights, said_task):
    if not any(key.startswith("head.") for key in weights):
        return "backbone", None
    outputs = _shape(path, weights, "head.final.weight", 4)[0]
    deconvs, convs = (
        tuple(
            weights[key].shape[axis]
            for key in _numbered(weights, rf"head\.{part}_layers\.(\d+)\.weight")
            if len(weights[key].shape) == 4
        )
        for part, axis in (("deconv", 1), ("conv", 0))
    )
    norm = "batch" if any(key.endswith("running_mean") for key in weights) else "instance"
    head = sapiens.Head(deconvs, convs, outputs, norm)
    if len(deconvs) == 2:
        return "pose", head
    if len(deconvs) == 3:
        # Three outputs may be normals or three classes: normals, unless the user says otherwise.
        return ("normal" if outputs == 3 and said_task != "seg" else "seg"), head
    if len(deconvs) == 4 and outputs == 1:
        return "depth", head
    raise BadFile(
        f"{path} has a head of {len(deconvs)} deconvolutions and {outputs} outputs, which is no "
        "Sapiens-1 task (pose 2, seg and normal 3, depth 4); name a Sapiens-1 file"
    )


def _numbered(weights, pattern):
    found = ((re.fullmatch(pattern, key), key) for key in weights)
    return [key for _, key in sorted((int(match[1]), key) for match, key in found if match)]


def _agree(path, what, said, found):
    if said is not None and said != found:
        raise BadFile(
            f"{path}: --{what} {said}, but its keys are those of {what} {found}; "
            f"leave --{what} out, or name another file"
        )


def _task_line(task, head):
    if head is None:
        return "task backbone: no head (from the keys)"
    unit = "keypoints" if task == "pose" else "outputs"
    return f"task {task}: {head.outputs} {unit}, {head.norm} norm (from the keys)"


def _heads(path, size, width, said):
    usual = sapiens.SIZES[size][2] if size in sapiens.SIZES else None
    heads = said.heads or usual
    if heads is None:
        raise BadFile(
            f"{path}: width {width} is none of Sapiens' and no key shows the number of attention "
            "heads; say it with --heads"
        )
    if width % heads:
        raise BadFile(f"{path}: --heads {heads} does not divide its width {width}; correct --heads")
    how = "given" if said.heads else f"looked up for {size}"
    return heads, f"attention heads {heads} ({how}; no key shows it)"


def _padding(path, task, head, said):
    usual = sapiens.patch_padding(task, head.outputs if head else 0)
    padding = usual if said.patch_padding is None else said.patch_padding
    if padding is None:
        raise BadFile(
            f"{path}: no released segmentation has {head.outputs} classes and no key shows the "
            "patch padding; say it with --patch_padding 2 (LIP, CIHP recipes) or corner (others)"
        )
    how = f"looked up for {task}" if said.patch_padding is None else f"given; usual is {usual}"
    return padding, f"patch padding {padding} ({how}; no key shows it)"


def _skeleton(path, task, head, said):
    if task != "pose":
        if said.skeleton:
            raise BadFile(f"{path}: --skeleton names joints, but this is a {task} network; drop it")
        return None, []
    if not said.skeleton:
        joints = sapiens.released_skeleton(task, head.outputs)
        if joints is None:
            return None, [f"joints unnamed ({head.outputs} keypoints are no released set; "
                          "--skeleton FILE names them)"]  # fmt: skip
        return joints, [f"joints {joints.name} (looked up for {head.outputs}; no key shows it)"]
    joints = skeleton_formats.load(said.skeleton)
    if len(joints.keypoints) != head.outputs:
        raise BadFile(
            f"{path} has {head.outputs} keypoints, --skeleton {said.skeleton} names "
            f"{len(joints.keypoints)}; name the file's own joints, in its order"
        )
    return joints, [f"joints {joints.name} (given; no key shows it)"]


def _image_size(path, weights, class_token, padding, said):
    _, slots, _ = _shape(path, weights, "backbone.pos_embed", 3)
    tokens = slots - class_token
    if said.input_size:
        spec = vit.Backbone(1, 1, 1, (1, 1), padding)
        try:
            h, w = vit.grid_of(spec, said.input_size)
        except ValueError as error:
            raise BadFile(f"{path}: --input_size: {error}; correct it") from None
        if h * w != tokens:
            raise BadFile(
                f"{path}: --input_size {said.input_size[0]}x{said.input_size[1]} has {h}x{w} "
                f"patches, but its position embedding has {tokens}; correct --input_size"
            )
        return said.input_size, f"token grid {h}x{w} (from --input_size)"
    for rows, columns, name in ((4, 3, "4:3"), (1, 1, "square")):
        scale = math.isqrt(tokens // (rows * columns))
        if scale and rows * columns * scale**2 == tokens:
            h, w = rows * scale, columns * scale
            return (h * vit.PATCH, w * vit.PATCH), (
                f"token grid {h}x{w} ({name}, the only Sapiens shape of {tokens} positions)"
            )
    raise BadFile(
        f"{path}: {tokens} positions are neither a 4:3 nor a square grid; say --input_size HxW"
    )
