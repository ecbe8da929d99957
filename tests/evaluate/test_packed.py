"""Keypoints of a packed split: every row in its place, whatever mesh and batch computes it."""


import jax
import numpy as np
import pytest

from nkjax import mesh as meshes
from nkjax import sharding, views
from nkjax.data import augment, crops, streams
from nkjax.data.records import Rows
from nkjax.data.samples import Look
from nkjax.evaluate import packed as packed_split
from nkjax.evaluate import scores, topdown
from nkjax.geometry import affine, heatmaps
from nkjax.models import sapiens
from nkjax.precision import FP32
from tests.data_io import packed

SPEC = sapiens.make_spec("tiny", "pose", image_size=(64, 48))
ONE = meshes.make_mesh(1, 1, jax.devices()[:1])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Pack eleven drawn people, the fourth of whom cannot be read."""
    drawn = packed.drawn_rows(11)
    drawn[3] = (drawn[3][0], drawn[3][1] | {"image": b"\xff\xd8 no picture"})
    manifest = packed.write(tmp_path_factory.mktemp("data") / "d", {"val": drawn})
    return Rows(manifest, "val")


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda: sapiens.init(jax.random.key(0), SPEC))()


def find(rows, params, mesh, batch, flip_test=False, tick=lambda people: None):
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, sharding.shardings(params, mesh))
        network = packed_split.compile_network(
            SPEC, placed, mesh, batch, topdown.make_forward(SPEC, FP32, flip_test)
        )
        return packed_split.find(network, placed, rows, SPEC, mesh, batch, 2, tick)


@pytest.fixture(scope="module")
def alone(rows, params):
    told = []
    return find(rows, params, ONE, 4, tick=told.append), told


def test_every_row_is_in_its_place(rows, params, alone):
    """Against one person at a time: crop, network, codec and the way back to the picture.

    Points to 1e-4 of themselves: on noise the codec's Newton step may leave the picture far behind.
    """
    found, told = alone
    assert found.points_nk2.shape == (11, 17, 2) and found.scores_nk.shape == (11, 17)
    assert found.read_n.tolist() == [i != 3 for i in range(11)]
    assert sum(told) == 11
    stream = streams.Stream(rows, Look((48, 64), (("v", augment.PLAIN),)), 1)
    forward = jax.jit(lambda x: sapiens.apply(params, SPEC, views.normalise(x))["pose"])
    for i, one in enumerate(streams.finite(stream, threads=1)):
        if i == 3:
            continue
        maps = forward(one["views"]["v"]["image"])
        points, peaks = heatmaps.decode(maps, (48, 64))
        center, scale = crops.center_scale(rows.person(i)["box"], 48 / 64, crops.BODY_PADDING)
        wanted = affine.crop_to_picture(np.asarray(points, np.float64)[0], center, scale, (48, 64))
        np.testing.assert_allclose(found.points_nk2[i], wanted, rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(found.scores_nk[i], peaks[0], atol=1e-4)


@pytest.mark.parametrize(("sizes", "batch"), [((2, 4), 8), ((1, 8), 16)], ids=str)
def test_any_mesh_and_batch_finds_the_same(rows, params, alone, sizes, batch):
    if len(jax.devices()) < 8:
        pytest.skip("wants eight devices")
    found = find(rows, params, meshes.make_mesh(*sizes), batch)
    np.testing.assert_array_equal(found.read_n, alone[0].read_n)
    np.testing.assert_allclose(found.scores_nk, alone[0].scores_nk, atol=1e-4)
    np.testing.assert_allclose(found.points_nk2, alone[0].points_nk2, rtol=1e-4, atol=1e-2)


def test_a_row_that_was_not_read_does_not_count(rows, alone):
    found = packed_split.found(rows, alone[0], SPEC)
    kept = [i for i in range(11) if i != 3]
    assert [p["person_id"] for p in found.people] == [rows.person(i)["person_id"] for i in kept]
    np.testing.assert_array_equal(found.points_nk2, alone[0].points_nk2[kept])
    for place, i in enumerate(kept):
        person = rows.person(i)
        np.testing.assert_array_equal(found.truth_nk2[place], person["keypoints"][:, :2])
        np.testing.assert_array_equal(found.visible_nk[place], person["keypoints"][:, 2])
        np.testing.assert_array_equal(found.box_n4[place], person["box"])
    # A crop of 48 px shows the box, 1.25 times as large and as wide as the crop's shape asks.
    x, y, width, height = np.moveaxis(found.box_n4, 1, 0)
    shown = 1.25 * np.maximum(width, height * 48 / 64)
    np.testing.assert_allclose(found.crop_px_n, 48 / shown, rtol=1e-5)
    exact = found._replace(points_nk2=found.truth_nk2)
    assert scores.measure(exact, rows.manifest.skeleton)["pck_box@0.05"] == 1.0


def test_a_batch_that_the_devices_cannot_share_is_refused(params):
    mesh = meshes.make_mesh(1, 2, jax.devices()[:2])
    with pytest.raises(ValueError, match="a batch of 3 people for 2 devices"):
        packed_split.compile_network(SPEC, params, mesh, 3, None)


class Damaged(Rows):
    """Rows of which one person's record cannot be read."""

    def person(self, row):
        """Return the person, or fail as array_record does."""
        if row == 5:
            raise RuntimeError("Invalid chunk: hash mismatch")
        return super().person(row)


def test_a_damaged_record_is_a_row_that_was_not_read(rows, params, alone):
    damaged = Damaged(rows.manifest, "val")
    assert [who is None for who in packed_split.people(damaged)] == [i == 5 for i in range(11)]
    keypoints = find(damaged, params, ONE, 4)
    kept = [i for i in range(11) if i not in (3, 5)]
    assert keypoints.read_n.nonzero()[0].tolist() == kept
    np.testing.assert_array_equal(keypoints.points_nk2[kept], alone[0].points_nk2[kept])
    # Also where it was whole when the picture was looked at.
    for of in (keypoints, alone[0]):
        found = packed_split.found(damaged, of, SPEC)
        wanted = [rows.person(i)["person_id"] for i in kept]
        assert [who["person_id"] for who in found.people] == wanted
        np.testing.assert_array_equal(found.points_nk2, of.points_nk2[kept])
