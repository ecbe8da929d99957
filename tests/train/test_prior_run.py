"""The fit of a prior: the same on any mesh and in any number of sessions, and of labelled joints.

Its data are packed here from drawn people: what a body looks like is no matter of these tests.
"""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.checkpoints import BadCheckpoint
from nkjax.config import BadConfig, Mesh, Optimizer
from nkjax.data.records import BadData
from nkjax.mesh import make_mesh
from nkjax.prior import coordinates, diffusion
from nkjax.prior_config import Evaluation, PriorConfig
from nkjax.snapshots import Snapshots
from nkjax.train import job, loop, prior, prior_data
from nkjax.train.begin import BadStart
from tests.data_io import packed
from tests.prior import small_prior
from tests.train import small_run

SKELETONS = small_prior.SKELETONS
PICTURE = packed.jpeg(np.zeros((16, 16, 3), np.uint8))
PEOPLE = 24


def pack(folder, skeleton, count=PEOPLE, missing=0.1):
    """Write drawn people as a data folder, four of each subject."""
    people = small_prior.people(skeleton, count, missing=missing)
    keypoints = np.concatenate([np.nan_to_num(people.points_nk2), people.visible_nk[..., None]], -1)
    rows = [
        (
            packed.person_row(k, (0, 0, 100, 100), i, subject=f"{i // 4:016x}"),
            packed.picture_row(PICTURE, (16, 16), i),
        )
        for i, k in enumerate(keypoints)
    ]
    packed.write(folder, {"train": rows}, skeleton, shards=1)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a function: the data folder of a skeleton, packed once."""

    @functools.cache
    def of(name):
        return pack(tmp_path_factory.mktemp(name) / "data", SKELETONS[name])

    return of


def config(data, **changes) -> PriorConfig:
    small = PriorConfig(
        data=data, width=16, depth=2, heads=2, steps=6, batch=8, calibration=0.3, seed=1,
        mesh=Mesh(-1, 1), optimizer=Optimizer(learning_rate=1e-2, layer_decay=1.0, warmup=2),
        evaluation=Evaluation(every=4, batch=8), save_every=2, keep=9, log_every=1,
    )  # fmt: skip
    return dataclasses.replace(small, **changes)


_compiled = {}


def compile_once(start, settings, devices):
    """Return the programs of a fit, compiled once for all runs with the same ones."""
    key = (repr(dataclasses.replace(settings, data="")), repr(start.parts), devices)
    if key not in _compiled:
        _compiled[key] = prior.compile_job(start, settings, devices)
    return _compiled[key]


WORK = dataclasses.replace(prior.PRIOR, compile=compile_once)


def train(settings, workdir, stop=None, work=WORK):
    return loop.train(work, settings, str(workdir), preempted=lambda step: step == stop)


def leaves(workdir, step=6):
    return small_run.record(workdir, step)["leaves"]


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A fit of 6 steps that nothing happened to, of bodies and hands."""
    folder = tmp_path_factory.mktemp("prior") / "run"
    assert train(config(data("toddlersim65")), folder) == 6
    return folder


def test_a_fit_moves_both_parts_and_is_looked_at(run):
    lines = small_run.lines(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4, 5, 6, 6]
    looks = [line for line in lines if "val/loss" in line]
    assert [sorted(line) for line in looks] == 2 * [
        ["step", "val/body_gain@0.1", "val/hand_gain@0.1", "val/loss"]
    ]
    first, last = (leaves(run, step) for step in (2, 6))
    moved = [name for name in first if name.startswith("params/") and first[name] != last[name]]
    assert {name.split("/")[1] for name in moved} == {"body", "hand"}


def test_steps_in_two_parts_are_the_same_steps(data, run, tmp_path, capsys):
    settings = config(data("toddlersim65"))
    assert train(settings, tmp_path / "half", stop=3) == 3
    assert train(settings, tmp_path / "half") == 6
    assert leaves(tmp_path / "half") == leaves(run)
    assert small_run.lines(tmp_path / "half") == small_run.lines(run)
    said = capsys.readouterr().err
    assert " poses/s  " in said and "images" not in said and "val/body_gain@0.1 " in said


def test_equal_fits_are_equal(data, run, tmp_path):
    train(config(data("toddlersim65")), tmp_path / "same")
    assert leaves(tmp_path / "same") == leaves(run)


def test_another_seed_is_another_fit(data):
    settings = config(data("coco17"), calibration=1e-9)
    start, seeds = prior_data.begin(settings), (1, 2)
    two = [dataclasses.replace(settings, seed=seed) for seed in seeds]
    orders = [next(prior_data.batches(start, one, 0))["body"]["points"] for one in two]
    assert not np.array_equal(*orders, equal_nan=True)
    params = [prior.first_params(start, one, make_mesh(1, 8))["body"]["joints"] for one in two]
    assert not np.array_equal(*params)
    # The same people, varied and noised by other draws.
    batch = next(prior_data.batches(start, settings, 0))
    losses = [prior.make_loss(start.parts, one)(start_params(start), batch) for one in two]
    assert losses[0] != losses[1]


def start_params(start):
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), prior.shapes(start.parts))


def restored(workdir, parts, step=6):
    mesh = make_mesh(1, 8)
    abstract = prior.work.abstract_state(prior.shapes(parts), config(""), mesh)
    state, _ = Snapshots(workdir, keep=1).restore(step, abstract)
    return jax.tree.map(np.asarray, state)


@pytest.mark.parametrize(
    "mesh", ["one device", pytest.param(Mesh(2, 4), marks=pytest.mark.slow)]
)
def test_a_fit_is_the_same_on_any_mesh(data, run, tmp_path, mesh, monkeypatch):
    settings = config(data("toddlersim65"))
    if mesh == "one device":
        monkeypatch.setattr(jax, "device_count", lambda: 1)
        monkeypatch.setattr(
            loop.mesh, "make_mesh", lambda *sizes: make_mesh(1, 1, jax.devices()[:1])
        )
        mesh = Mesh(1, 1)
    train(dataclasses.replace(settings, mesh=mesh), tmp_path / "run")
    parts = prior_data.begin(settings).parts
    ours, theirs = restored(tmp_path / "run", parts), restored(run, parts)
    for one, other in zip(
        jax.tree.leaves(ours.params), jax.tree.leaves(theirs.params), strict=True
    ):
        # Adam divides by the gradient's size: where that is next to nothing, so is its accuracy.
        np.testing.assert_allclose(one, other, atol=2e-5)
    loss = [
        [line["train/loss"] for line in small_run.lines(folder) if "train/loss" in line]
        for folder in (tmp_path / "run", run)
    ]
    np.testing.assert_allclose(*loss, rtol=1e-6)


@pytest.mark.parametrize("name", ["coco17", "lab27"])
def test_other_skeletons_are_fitted_without_hands(data, tmp_path, name):
    assert train(config(data(name), steps=3), tmp_path / "run") == 3
    document = json.loads((tmp_path / "run" / "model.json").read_text())
    assert list(document["parts"]) == ["body"]
    # Face, limbs and trunk: 17 of COCO's 17, all of the lab's own.
    joints = {"coco17": 17, "lab27": 27}[name]
    assert document["parts"]["body"]["spec"]["joints"] == joints
    assert {name.split("/")[1] for name in leaves(tmp_path / "run", 3) if "/" in name} >= {"body"}


def first_step(settings, start, batch):
    mesh = make_mesh(-1, 1)
    loss = jax.jit(jax.value_and_grad(prior.make_loss(start.parts, settings)))
    return loss(prior.first_params(start, settings, mesh), batch)


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

    value, gradient = first_step(settings, start, batch)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    for number in (0.0, 1e3):
        again, same = first_step(settings, start, filled(number))
        assert again == value
        for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(same), strict=True):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_who_calibrates_is_of_other_subjects(data):
    start = prior_data.begin(config(data("coco17")))
    learning, calibrating = ({*people.subject_n} for people in (start.learning, start.calibrating))
    assert len(learning) + len(calibrating) == PEOPLE // 4
    assert calibrating and learning and not learning & calibrating
    assert len(start.train["body"].valid_bj) == 4 * len(learning)
    assert len(start.val["body"].valid_bj) == 4 * len(calibrating)


def test_an_order_goes_through_all_and_is_shared_by_processes():
    positions = np.arange(30)
    found = prior_data.order(10, 5, positions)
    for first in (0, 10, 20):
        assert sorted(found[first : first + 10]) == list(range(10))
    assert not np.array_equal(found[:10], found[10:20])
    for process in range(3):
        mine = prior_data.order(10, 5, positions[process::3])
        np.testing.assert_array_equal(mine, found[process::3])
    assert not np.array_equal(prior_data.order(10, 6, positions), found)


def test_a_batch_starts_where_the_step_is(data, monkeypatch):
    settings = config(data("toddlersim65"))
    start = prior_data.begin(settings)
    endless = prior_data.batches(start, settings, 0)
    steps = [next(endless) for _ in range(4)]
    later = next(prior_data.batches(start, settings, 3))
    jax.tree.map(np.testing.assert_array_equal, later, steps[3])
    np.testing.assert_array_equal(later["hand"]["index"], np.arange(24, 32))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    halves = []
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        halves.append(next(prior_data.batches(start, settings, 3)))
    for name in ("body", "hand"):
        for field, whole in later[name].items():
            for process in range(2):
                np.testing.assert_array_equal(halves[process][name][field], whole[process::2])


def bone_lengths(poses, pair=(5, 7)):
    a, b = (poses.points_bj2[:, joint] for joint in pair)
    return np.hypot(*(a - b).T)


def test_the_control_keeps_each_joint_and_breaks_what_joins_them(tmp_path):
    """A rod between two joints that lies anywhere: rigid in truth, of any length in the control."""
    skeleton = SKELETONS["coco17"]
    people = small_prior.people(skeleton, 400, missing=0.0)
    turn = np.random.default_rng(3).uniform(0, 2 * np.pi, 400)
    way = 15 * np.stack([np.cos(turn), np.sin(turn)], 1)
    points = people.points_nk2.copy()
    points[:, 7] = points[:, 5] + way
    people = people._replace(points_nk2=points.astype(np.float32))
    part = coordinates.parts(skeleton)["body"]
    poses, _ = coordinates.take(part, people, skeleton)
    units = coordinates.fit_units(part, poses)
    known = diffusion.PartPrior(part, units, None, {})
    dealt = prior_data.shuffled(known, poses, seed=0)
    np.testing.assert_allclose(bone_lengths(poses), 15, rtol=1e-4)
    assert bone_lengths(dealt).std() > 3

    def in_units(which):  # both about the roots of the true ones
        at = coordinates.frame(part, units, *poses[:3])
        return np.asarray(coordinates.normalise(which.points_bj2, poses.valid_bj, at, units))

    before, after = np.sort(in_units(poses), 0), np.sort(in_units(dealt), 0)
    np.testing.assert_allclose(before, after, atol=1e-3)  # every joint's own distribution
    same = prior_data.shuffled(known, poses, seed=0)
    np.testing.assert_array_equal(same.points_bj2, dealt.points_bj2)
    assert not np.array_equal(prior_data.shuffled(known, poses, 1).points_bj2, dealt.points_bj2)


def test_the_control_moves_no_label(data):
    settings = config(data("toddlersim65"))
    true, dealt = (
        prior_data.begin(dataclasses.replace(settings, control=name)) for name in ("", "shuffled")
    )
    for name, poses in true.train.items():
        np.testing.assert_array_equal(dealt.train[name].valid_bj, poses.valid_bj)
        missing = np.isnan(dealt.train[name].points_bj2).any(-1)
        np.testing.assert_array_equal(missing, ~poses.valid_bj)
        np.testing.assert_array_equal(dealt.val[name].points_bj2, true.val[name].points_bj2)


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
        train(config(data("toddlersim65"), **changes), run)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_runs_of_two_kinds_are_not_mixed(data, run, tmp_path):
    with pytest.raises(BadCheckpoint, match="model.json"):
        loop.train(job.POSE, small_run.config(data=data("coco17")), str(run))
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "model.json").write_text('{"format": "nkjax run 1", "spec": {}}')
    with pytest.raises(BadCheckpoint, match="not of the fit of a prior") as caught:
        train(config(data("toddlersim65")), copy)
    assert "\n" not in str(caught.value)


def test_bad_data_is_one_line(tmp_path):
    with pytest.raises(BadStart, match="--data=DATA"):
        prior_data.begin(config(""))
    with pytest.raises(BadData) as caught:
        prior_data.begin(config(str(tmp_path)))
    assert "\n" not in str(caught.value)
    empty = pack(tmp_path / "nobody", SKELETONS["coco17"], 4, missing=1.0)
    with pytest.raises(BadData, match="no labelled people in train"):
        prior_data.begin(config(empty))


def test_hands_that_nobody_labelled_are_left_out(tmp_path):
    skeleton = skeletons.load("wholebody133")
    hands = [*skeleton.groups["left_hand"], *skeleton.groups["right_hand"]]
    folder = tmp_path / "data"
    people = small_prior.people(skeleton, 8)
    keypoints = np.concatenate([np.nan_to_num(people.points_nk2), people.visible_nk[..., None]], -1)
    keypoints[:, hands] = 0
    rows = [
        (packed.person_row(k, (0, 0, 100, 100), i), packed.picture_row(PICTURE, (16, 16), i))
        for i, k in enumerate(keypoints)
    ]
    packed.write(folder, {"train": rows}, skeleton, shards=1)
    assert list(prior_data.begin(config(str(folder), calibration=0.01)).parts) == ["body"]
