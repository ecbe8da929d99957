"""The fit of a prior: the same on any mesh and in any number of sessions, and of labelled joints.

Its people are drawn at random: what a body looks like is no matter of these tests.
"""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax.checkpoints import BadCheckpoint
from nkjax.config import BadConfig, Mesh
from nkjax.mesh import make_mesh
from nkjax.prior import diffusion
from nkjax.train import job, loop, prior, prior_data
from tests.train import small_run
from tests.train.small_prior_run import SKELETONS, compile_once, config, pack, use_devices


@pytest.fixture(autouse=True, scope="module")
def one_device():
    """Fit on one of the eight devices, which compiles faster."""
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 1)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a function: the data folder of a skeleton, packed once."""

    @functools.cache
    def of(name):
        return pack(tmp_path_factory.mktemp(name) / "data", SKELETONS[name])

    return of


WORK = dataclasses.replace(prior.PRIOR, compile=compile_once)
ONE_DEVICE = make_mesh(1, 1, jax.devices()[:1])


def train(settings, workdir, stop=None, work=WORK):
    return loop.train(work, settings, str(workdir), preempted=lambda step: step == stop)


def leaves(workdir, step=6):
    return small_run.record(workdir, step)["leaves"]


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A fit of 6 steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("prior") / "run"
    assert train(config(data("coco17")), folder) == 6
    return folder


def test_a_fit_moves_the_parameters_and_is_looked_at(run):
    lines = small_run.lines(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4, 5, 6, 6]
    looks = [line for line in lines if "val/loss" in line]
    assert [sorted(line) for line in looks] == 2 * [["step", "val/body_gain@0.1", "val/loss"]]
    first, last = (leaves(run, step) for step in (2, 6))
    names = [name for name in first if name.startswith("params/body/")]
    assert names and all(first[name] != last[name] for name in names)


@pytest.mark.slow
def test_bodies_and_hands_are_fitted_together(data, tmp_path):
    assert train(config(data("toddlersim65"), steps=4), tmp_path / "run") == 4
    look = [line for line in small_run.lines(tmp_path / "run") if "val/loss" in line][-1]
    assert {"val/body_gain@0.1", "val/hand_gain@0.1"} < set(look)
    first, last = (leaves(tmp_path / "run", step) for step in (2, 4))
    moved = [name for name in first if name.startswith("params/") and first[name] != last[name]]
    assert {name.split("/")[1] for name in moved} == {"body", "hand"}


def test_steps_in_two_parts_are_the_same_steps(data, run, tmp_path, capsys):
    settings = config(data("coco17"))
    assert train(settings, tmp_path / "half", stop=3) == 3
    assert train(settings, tmp_path / "half") == 6
    assert leaves(tmp_path / "half") == leaves(run)
    assert small_run.lines(tmp_path / "half") == small_run.lines(run)
    said = capsys.readouterr().err
    assert " poses/s  " in said and "images" not in said and "val/body_gain@0.1 " in said


def test_equal_fits_are_equal(data, run, tmp_path):
    train(config(data("coco17")), tmp_path / "same")
    assert leaves(tmp_path / "same") == leaves(run)


def test_another_seed_is_another_fit(data, monkeypatch):
    settings = config(data("coco17"), calibration=1e-9)
    start, seeds = prior_data.begin(settings), (1, 2)
    two = [dataclasses.replace(settings, seed=seed) for seed in seeds]
    orders = [next(prior_data.batches(start, one, 0))["body"]["points"] for one in two]
    assert not np.array_equal(*orders, equal_nan=True)
    params = [prior.first_params(start, one, ONE_DEVICE)["body"]["joints"] for one in two]
    assert not np.array_equal(*params)
    batch = next(prior_data.batches(start, settings, 0))
    for one, other in zip(*(drawn(start, each, batch, monkeypatch) for each in two), strict=True):
        assert not np.array_equal(one, other)  # of the same people


def drawn(start, settings, batch, monkeypatch):
    """Return what the loss gives the network of bodies: poses, steps, noise, observed joints."""
    found = []

    def keep(known, u, t, noise, given, dropout, key):
        found.append([np.asarray(x) for x in (u, t, noise, given.observed_bj)])
        return 0.0

    monkeypatch.setattr(diffusion, "loss", keep)
    prior.make_loss(start.parts, settings)({"body": {}}, batch)
    return found[0]


def test_what_a_pose_is_given_belongs_to_its_index(data, monkeypatch):
    settings = config(data("coco17"))
    start = prior_data.begin(settings)
    batches = prior_data.batches(start, settings, 0)
    batch, later = next(batches)["body"], next(batches)["body"]
    turned = np.roll(np.arange(8), 3)
    moved = {name: field[turned] for name, field in batch.items()}
    same_people = batch | {"index": later["index"]}
    ours, theirs, others = (
        drawn(start, settings, {"body": each}, monkeypatch) for each in (batch, moved, same_people)
    )
    for one, other, new in zip(ours, theirs, others, strict=True):
        np.testing.assert_array_equal(one[turned], other)
        assert not np.array_equal(one, new)
    # Nor are the poses of a batch varied alike: what they are turned and scaled by differs.
    plain, *_ = prior._poses(start.parts["body"], batch, 0)
    size = np.linalg.norm(ours[0] - ours[0][:, :1], axis=-1).sum(1)
    size /= np.linalg.norm(np.asarray(plain) - np.asarray(plain)[:, :1], axis=-1).sum(1)
    assert len({*np.round(size, 3)}) > 4


@pytest.mark.parametrize("sizes", [(8, 1), pytest.param((2, 4), marks=pytest.mark.slow)])
def test_a_fit_is_the_same_on_any_mesh(data, run, tmp_path, sizes, monkeypatch):
    use_devices(monkeypatch, 8)
    settings = config(data("coco17"), mesh=Mesh(*sizes))
    train(settings, tmp_path / "run")
    loss = [
        [line["train/loss"] for line in small_run.lines(folder) if "train/loss" in line]
        for folder in (tmp_path / "run", run)
    ]
    assert len(loss[0]) == 6
    np.testing.assert_allclose(*loss, rtol=1e-6)


def test_places_of_joints_that_nobody_labelled_are_never_read(data):
    settings = config(data("toddlersim65"))
    start = prior_data.begin(settings)
    batch = next(prior_data.batches(start, settings, 0))
    for of_part in batch.values():
        assert np.isnan(of_part["points"][~of_part["valid"]]).all() and (~of_part["valid"]).any()
        assert np.isfinite(of_part["points"][of_part["valid"]]).all()

    def filled(number):
        points = {
            name: np.where(part["valid"][..., None], part["points"], number)
            for name, part in batch.items()
        }
        return {
            name: part | {"points": points[name].astype(np.float32)} for name, part in batch.items()
        }

    step = jax.jit(jax.value_and_grad(prior.make_loss(start.parts, settings)))
    params = prior.first_params(start, settings, ONE_DEVICE)
    # A new network says 0, and none but its last layer would have a gradient.
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    value, gradient = step(params, batch)
    for name in ("body", "hand"):
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient[name]["blocks"]))
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    for number in (0.0, 1e3):
        again, same = step(params, filled(number))
        assert again == value
        for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(same), strict=True):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_poses_are_varied_as_the_notes_say(data):
    """Flip, scale, shift and turn, each read off a pose that is known."""
    settings = config(data("coco17"), age_drop=0.25)
    known = prior_data.begin(settings).parts["body"]
    count, joints = 4000, 17
    u = jnp.zeros((count, joints, 2)).at[:, 5].set(jnp.array([1.0, 0.5])).at[:, 6].set(2.0)
    context = jnp.tile(jnp.array([[0.5, 1.0, 0.0, 1.0, 1.0]]), (count, 1))
    given = diffusion.nothing_observed(jnp.ones((count, joints), bool), context)
    keys = jax.random.split(jax.random.key(0), count)
    varied, _ = prior._varied(keys, u, given, known)
    varied, radius = np.asarray(varied), np.asarray(known.units.unit)
    across = varied[:, 5] - varied[:, 6]  # shift is gone: (-1, -1.5) or in a mirror (-1, 1.5)
    flipped = across[:, 1] > 0
    assert abs(flipped.mean() - 0.5) < 0.03  # 4 standard deviations
    scale = np.abs(across[:, 0])
    assert 0.9 <= scale.min() < 0.91 and 1.09 < scale.max() <= 1.1
    shift = varied[:, 0] * radius  # of a joint at the root
    assert 0.049 < np.abs(shift).max() <= 0.0501
    turned, after = prior._turned(keys, u, given, known, settings)
    angle = np.arctan2(*np.asarray(turned)[:, 6].T[::-1]) - np.pi / 4
    assert 14 < np.rad2deg(angle).max() <= 15.01 and -15.01 <= np.rad2deg(angle).min() < -14
    context = np.asarray(after.context_bc)
    forearm = np.arctan2(context[:, 3], context[:, 2]) - np.pi / 2
    np.testing.assert_allclose(forearm, angle, atol=1e-5)
    ageless = context[:, 1] == 0
    assert abs(ageless.mean() - 0.25) < 0.03 and (context[ageless, 0] == 0).all()
    assert (context[~ageless, 0] == 0.5).all() and (context[:, 4] == 1).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"near": 0.4}, "near was 0.5 and is 0.4"), ({"control": "shuffled"}, "control was ''")],
)
def test_a_changed_fit_is_refused(data, run, changes, words):
    with pytest.raises(BadConfig) as caught:
        train(config(data("coco17"), **changes), run)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_runs_of_two_kinds_are_not_mixed(data, run, tmp_path):
    with pytest.raises(BadCheckpoint, match="model.json"):
        loop.train(job.POSE, small_run.config(data=data("coco17")), str(run))
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "model.json").write_text('{"format": "nkjax run 1", "spec": {}}')
    with pytest.raises(BadCheckpoint, match="not of the fit of a prior") as caught:
        train(config(data("coco17")), copy)
    assert "\n" not in str(caught.value)
