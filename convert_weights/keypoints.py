"""Give a pose head the keypoints of another skeleton, keeping the filters of shared joints."""

import dataclasses

import numpy as np

from convert_weights.files import BadFile
from nkjax import skeleton, skeleton_formats
from nkjax.models import sapiens
from nkjax.skeleton import Skeleton

NEW_FILTER_STD = 1e-3  # as the reference initialises its last layer


@dataclasses.dataclass(frozen=True)
class Rehead:
    """A new skeleton, and for each of its joints the old channel that it keeps, or None."""

    skeleton: Skeleton
    sources: tuple[int | None, ...]

    @property
    def new(self) -> list[str]:
        """Names of the joints that the old head does not know."""
        joints = zip(self.skeleton.keypoints, self.sources, strict=True)
        return [joint for joint, source in joints if source is None]


def plan_rehead(path: str, spec: sapiens.Spec, keypoints_file: str) -> Rehead:
    """Match the joints of a skeleton file to the channels of a pose network, by name.

    Raises BadFile when the network has no named keypoints or shares no joint with the file, and
    BadSkeleton when the file is no skeleton.
    """
    target = skeleton_formats.load(keypoints_file)
    if spec.skeleton is None:
        raise BadFile(
            f"{path} is a {spec.task} network without named joints, so --keypoints has nothing to "
            "match; name a pose file, and its own joints with --skeleton where nothing else does"
        )
    sources = skeleton.match(spec.skeleton, target)
    if all(source is None for source in sources):
        raise BadFile(
            f"{keypoints_file} shares no joint name with {spec.skeleton.name} "
            f"({', '.join(spec.skeleton.keypoints[:3])}, ...); spell shared joints alike"
        )
    return Rehead(target, sources)


def new_spec(spec: sapiens.Spec, rehead: Rehead) -> sapiens.Spec:
    """Return the spec of the network with its new head."""
    head = dataclasses.replace(spec.head, outputs=len(rehead.sources))
    return dataclasses.replace(spec, head=head, skeleton=rehead.skeleton)


def pick(rehead: Rehead, values: np.ndarray) -> np.ndarray:
    """Return the last layer's kernel (..., K) or bias (K,) for the new joints.

    New joints get small random filters, always the same ones, and a bias of zero.
    """
    shape = (*values.shape[:-1], len(rehead.sources))
    out = np.zeros(shape, np.float32)
    if values.ndim > 1:
        out += np.random.default_rng(0).normal(0, NEW_FILTER_STD, shape)
    for joint, source in enumerate(rehead.sources):
        if source is not None:
            out[..., joint] = values[..., source]
    return out.astype(values.dtype)
