"""From a checkpoint file to a weights folder: plan it, show it, write it leaf by leaf."""

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from convert_weights import detect, keypoints, mapping
from convert_weights.files import BadFile
from convert_weights.readers import Checkpoint, open_checkpoint
from nkjax import checkpoints, provenance, trees
from nkjax.models import sapiens

FORMAT = "nkjax weights 1"
LICENCE = {
    "name": "CC BY-NC 4.0",
    "notice": (
        "Sapiens weights by Meta are licensed under Creative Commons Attribution-NonCommercial "
        "4.0 (creativecommons.org/licenses/by-nc/4.0). Converted and fine-tuned weights remain "
        "under it: no commercial use, and name the source. Research use; not a medical device."
    ),
}
_READ_BYTES = 1 << 22


@dataclasses.dataclass(frozen=True)
class Conversion:
    """All that is decided before anything is written."""

    checkpoint: Checkpoint
    found: detect.Detected
    leaves: list[mapping.Leaf]
    dtype: np.dtype
    rehead: keypoints.Rehead | None

    @property
    def spec(self) -> sapiens.Spec:
        """The spec of the network that is written."""
        spec = self.found.spec
        return keypoints.new_spec(spec, self.rehead) if self.rehead else spec


def plan(path, said: detect.Overrides, dtype=None, keypoints_file=None) -> Conversion:
    """Decide how a file becomes a weights folder, reading its index but no weights.

    `dtype` defaults to the file's own. Raises BadFile or BadSkeleton, one line.
    """
    checkpoint = open_checkpoint(path)
    found = detect.detect(checkpoint.path, checkpoint.tensors, said)
    leaves = mapping.plan(checkpoint.path, found)
    if dtype is None:
        dtypes = {tensor.dtype for tensor in found.tensors.values()}
        dtype = "bfloat16" if dtypes == {"bfloat16"} else "float32"
    rehead = None
    if keypoints_file:
        rehead = keypoints.plan_rehead(checkpoint.path, found.spec, keypoints_file)
    return Conversion(checkpoint, found, leaves, np.dtype(_numpy_dtype(dtype)), rehead)


def _numpy_dtype(name):
    import ml_dtypes

    return ml_dtypes.bfloat16 if name == "bfloat16" else name


def report(conversion: Conversion) -> list[str]:
    """Say what was found, what was looked up, what is left out and what is new, a line each."""
    found, rehead = conversion.found, conversion.rehead
    elements = sum(int(np.prod(t.shape)) for t in found.tensors.values())
    lines = [
        f"{conversion.checkpoint.path}: {conversion.checkpoint.layout}",
        *found.findings,
        f"{len(found.tensors)} keys, {elements:,} numbers -> {len(conversion.leaves)} parameters, "
        f"{conversion.dtype.name}",
    ]
    for reason, keys in found.left_out.items():
        lines.append(f"left out, {reason}: {len(keys)} keys ({', '.join(keys[:2])}, ...)")
    lines += [f"not read: {what}" for what in conversion.checkpoint.dropped]
    if rehead:
        kept = len(rehead.sources) - len(rehead.new)
        lines.append(f"skeleton {rehead.skeleton.name}: {kept} joints keep their filters")
        if rehead.new:
            lines.append(f"new joints, to be trained: {', '.join(rehead.new)}")
    return lines


def table(conversion: Conversion) -> Iterator[str]:
    """Yield a line per key: its name and shape in the file, and the parameter it becomes."""
    for leaf in conversion.leaves:
        for i, key in enumerate(leaf.keys):
            place = f"{leaf.path}[{i}]" if leaf.stacked else leaf.path
            shape = list(leaf.shape[1:] if leaf.stacked else leaf.shape)
            if conversion.rehead and leaf.path.startswith("head/final/"):
                shape[-1] = len(conversion.rehead.sources)
            source = list(conversion.found.tensors[key].shape)
            yield f"{conversion.found.names[key]} {source} -> {place} {shape}"


def file_sha256(path) -> str:
    """Return the sha256 of a file, with progress."""
    digest = hashlib.sha256()
    size = Path(path).stat().st_size
    with open(path, "rb") as file, _progress(size, "sha256") as bar:
        while block := file.read(_READ_BYTES):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _progress(total, what):
    # Silent where it takes a second, and in logs: tqdm draws only on a terminal.
    return tqdm(total=total, desc=what, unit="B", unit_scale=True, disable=None, delay=1)


def write(conversion: Conversion, out, sha256: str) -> None:
    """Write the weights folder `out`; it appears when it is complete.

    Raises BadFile when it exists already, or when a weight cannot be used.
    """
    out = Path(out).expanduser().resolve()
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # A folder of its own beside `out`: nothing that was there before is ever removed.
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=out.parent) as scratch:
        partial = Path(scratch) / "weights"
        partial.mkdir()
        sums: dict[str, dict] = {}
        checkpoints.save_leaves(partial / "params", _leaves(conversion, sums))
        files = checkpoints.list_files(partial / "params")
        document = _document(conversion, sums, sha256) | {"files": files}
        (partial / "model.json").write_text(json.dumps(document, indent=1) + "\n")
        if out.exists():
            out.rmdir()
        partial.rename(out)


def check_free(out: Path) -> None:
    """Raise BadFile unless `out` is absent or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadFile(f"{out} exists and is not empty: remove it, or name another --out")


def _leaves(conversion: Conversion, sums: dict) -> Iterator[tuple[str, np.ndarray]]:
    total = sum(int(np.prod(leaf.shape)) for leaf in conversion.leaves) * conversion.dtype.itemsize
    # Largest first: memory then peaks early and the allocator can reuse it.
    order = sorted(conversion.leaves, key=lambda leaf: -int(np.prod(leaf.shape)))
    with _progress(total, "convert") as bar:
        for leaf in order:
            array = mapping.read(conversion.found, leaf, conversion.dtype)
            if conversion.rehead and leaf.path.startswith("head/final/"):
                array = keypoints.pick(conversion.rehead, array)
            sums[leaf.path] = {
                "shape": list(array.shape),
                "dtype": array.dtype.name,
                "sha256": trees.checksum(array),
            }
            yield leaf.path, array
            bar.update(array.nbytes)
            del array


def _document(conversion: Conversion, sums: dict, sha256: str) -> dict:
    source = Path(conversion.checkpoint.path)
    packages = ("nkjax", "jax", "flax", "orbax-checkpoint", "numpy")
    spec = sapiens.to_json(conversion.spec)
    return {
        "format": FORMAT,
        "spec": spec,
        "spec_sha256": sapiens.spec_sha256(spec),
        "licence": LICENCE,
        "source": {
            "file": source.name,
            "bytes": source.stat().st_size,
            "sha256": sha256,
            "layout": conversion.checkpoint.layout,
        },
        "findings": report(conversion)[1:],
        "made_with": {name: provenance.version(name) for name in packages},
        "leaves": dict(sorted(sums.items())),
    }


def verify(folder) -> int:
    """Recompute every checksum of a weights folder; returns the number of parameters checked.

    Raises BadCheckpoint, one line, at the first that differs from model.json.
    """
    spec, document = sapiens.read_model(folder)
    total = trees.count(sapiens.abstract(spec, document, folder))
    count = 0
    with tqdm(total=total, desc="verify", unit_scale=True, disable=None, delay=1) as bar:
        for _, leaf in sapiens.load_leaves(folder, spec, document):
            bar.update(leaf.size)
            count += 1
    return count
