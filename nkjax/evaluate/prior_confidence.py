"""Keypoints of a network on a packed split, with calibrated confidence: what KPS is compared with.

Confidence is calibrated on half of the subjects and told of the other half. Source: notes method
4.1; chapter 7, row 5.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nkjax import mesh as meshes
from nkjax import views
from nkjax.data.records import Rows
from nkjax.evaluate import networks, packed, scores, topdown
from nkjax.evaluate.pictures import BadInput
from nkjax.geometry import heatmaps
from nkjax.kinematics import calibration
from nkjax.models import sapiens
from nkjax.precision import Policy
from nkjax.prior import people as peoples
from nkjax.prior.people import People

CORRECT = 0.1  # torso lengths that a joint may be off
SEED = 1


class Seen(NamedTuple):
    """What a network sees: N people with the points that it found, all joints of each.

    confidence_n: mean calibrated confidence of a person's joints; error: how far calibrated
    confidence is from the share that is correct (ECE), raw_error the same uncalibrated.
    """

    people: People
    confidence_n: np.ndarray
    error: float
    raw_error: float


def look(run: str, rows: Rows, batch: int, threads: int) -> Seen:
    """Find everybody in their labelled boxes, and calibrate confidence; half of the subjects stay.

    Raises BadInput and BadCheckpoint for a run that is none, or of another skeleton.
    """
    network = networks.find(None, run, "best", "measure_prior.py")
    spec, skeleton = network.spec, rows.manifest.skeleton
    if spec.skeleton.keypoints != skeleton.keypoints:
        raise BadInput(f"{run}: its keypoints are not those of the data; name another run")
    devices = meshes.make_mesh(1, meshes.REST, jax.local_devices())
    batch = max(batch // devices.size, 1) * devices.size
    params, policy = network.load(devices), Policy(compute=network.compute)
    found = []
    for forward in (topdown.make_forward(spec, policy, False), _in_a_mirror(spec, policy)):
        program = packed.compile_network(spec, params, devices, batch, forward)
        found.append(packed.find(program, params, rows, spec, devices, batch, threads))
    plain, mirrored = (packed.found(rows, keypoints, spec) for keypoints in found)
    apart = np.linalg.norm(plain.points_nk2 - mirrored.points_nk2, axis=-1)
    kappa = np.array(skeleton.sigmas or (0.05,) * len(skeleton.keypoints))
    raw = np.asarray(
        calibration.raw_confidence(plain.scores_nk, apart, kappa, np.sqrt(plain.area_n))
    )
    off = np.linalg.norm(plain.points_nk2 - plain.truth_nk2, axis=-1)
    torso = scores.torso(plain, skeleton)[:, None]
    correct = off < CORRECT * torso
    labelled = (plain.visible_nk > 0) & np.isfinite(torso)
    subjects = np.array([person["subject"] for person in plain.people])
    kept = peoples.held_out(subjects, 0.5, SEED)
    fitted = calibration.fit_confidence(
        raw[~kept][labelled[~kept]], correct[~kept][labelled[~kept]]
    )
    if fitted is None or not labelled[kept].any():
        raise BadInput(f"{run}: too few labelled joints in the split to calibrate confidence")
    confidence = np.asarray(calibration.confidence(fitted, jnp.asarray(raw)))[kept]
    known, right = labelled[kept], correct[kept]
    return Seen(
        peoples.gather(plain.people).chosen(kept)._replace(points_nk2=plain.points_nk2[kept]),
        confidence.mean(1),
        calibration.calibration_error(confidence[known], right[known]),
        calibration.calibration_error(np.clip(raw[kept][known], 0, 1), right[known]),
    )


def _in_a_mirror(spec, policy):
    """Return as `topdown.make_forward`, of the mirrored picture alone, joints back in place."""
    height, width = spec.image_size

    def forward(params, crops_u8_bhwc):
        images_bhwc = views.normalise(crops_u8_bhwc)[:, :, ::-1]
        maps = sapiens.apply(params, spec, images_bhwc, policy=policy)["pose"]
        back = maps[:, :, ::-1][..., np.array(spec.skeleton.flip_indices)]
        return heatmaps.decode(back, (width, height))

    return forward
