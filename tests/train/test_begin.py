"""How a run begins: what does not fit is refused in one line, what fits becomes fp32 parameters."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert_weights.__main__ import main as convert
from nkjax import mesh as meshes
from nkjax import runs, trees
from nkjax import skeleton as skeletons
from nkjax.checkpoints import BadCheckpoint
from nkjax.config import Config, Heatmaps
from nkjax.data.records import BadData
from nkjax.models import sapiens
from nkjax.snapshots import Snapshots
from nkjax.train import begin
from nkjax.train.begin import BadStart
from tests.data_io import packed

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
ONE = meshes.make_mesh(1, 1, jax.devices()[:1])
COCO17 = skeletons.load("coco17")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pack four drawn people to learn from and two to look at, of 17 joints."""
    folder, rows = tmp_path_factory.mktemp("data"), packed.drawn_rows(6)
    packed.write(folder / "17", {"train": rows[:4], "val": rows[4:]})
    packed.write(folder / "noval", {"train": rows[:4], "val": []})
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name, file, more in (
        ("pose", "tiny_pose.pth", []),
        ("bf16", "tiny_pose.pth", ["--dtype", "bfloat16"]),
        ("backbone", "tiny_pretrain_clean.pth", []),
        ("depth", "tiny_depth.pth", ["--input_size", "96x64"]),
    ):
        words = [str(FIXTURES / file), "--out", str(folder / name), "--heads", "4", *more]
        assert convert(words) == 0
    return folder


def config(data, init="", **changes):
    plain = Config(
        size="tiny", image_hw=(64, 48), data=str(data), init=str(init), steps=10,
        compute="float32", remat="none", heatmaps=Heatmaps(sigma=1.0),
        optimizer=dataclasses.replace(Config().optimizer, warmup=2),
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def refused(config, error=BadStart) -> str:
    with pytest.raises(error) as caught:
        begin.begin(config)
    message = str(caught.value)
    assert "\n" not in message and len(re.sub(r"/\S*/", "", message)) < 400  # folders aside
    return message


def test_data_must_be_named_and_hold_people_to_learn_from_and_to_look_at(data, tmp_path):
    assert "name the folder that pack_data.py made, --config.data=" in refused(config(""))
    assert str(tmp_path) in refused(config(tmp_path), BadData)
    assert "no people in train or in val" in refused(config(data / "noval"), BadData)


def test_labels_and_hardest_joints_must_be_there(data):
    said = refused(config(data / "17", labels=5))
    assert "labels is 5, but the train split has 4 people" in said
    said = refused(config(data / "17", heatmaps=Heatmaps(hardest=18)))
    assert "heatmaps.hardest is 18" in said and "17 joints" in said
    assert len(begin.begin(config(data / "17", labels=4)).train) == 4
    begin.begin(config(data / "17", heatmaps=Heatmaps(hardest=17)))


def test_weights_must_be_of_the_size_and_task(data, weights, monkeypatch):
    said = refused(config(data / "17", weights / "pose", size="0.3b"))
    assert "(64, 3, 4)" in said and "(1024, 24, 16)" in said and str(weights / "pose") in said
    assert said.endswith("take the config of its size (tiny)")
    assert refused(config(data / "17", weights / "depth")).endswith("name other weights")
    monkeypatch.setitem(sapiens.SIZES, "tiny", (32, 2, 4))
    said = refused(config(data / "17", weights / "depth"))
    assert "weights for depth, but task is pose" in said
    assert "no weights folder" in refused(config(data / "17", data / "none"), BadCheckpoint)


def test_weights_must_know_the_joints_of_the_data(data, weights, tmp_path):
    plain = skeletons.to_json(COCO17)
    renamed = json.loads(json.dumps(plain).replace("_ear", "_lobe"))
    turned = plain | {"keypoints": plain["keypoints"][:15] + plain["keypoints"][:14:-1]}
    for name, content, words in (
        ("renamed", renamed, "weights have left_ear, right_ear; only the data has left_lobe, "),
        ("turned", turned, "the same ones in another order"),
    ):
        other = skeletons.parse(content, name)
        rows = packed.drawn_rows(4)
        packed.write(tmp_path / name, {"train": rows[:2], "val": rows[2:]}, other)
        said = refused(config(tmp_path / name, weights / "pose"))
        assert words in said and f"--keypoints {tmp_path / name}/skeleton.json" in said


def test_fewer_labels_are_among_more(data):
    rows = begin.begin(config(data / "17")).train
    few = [{row["person_id"] for row in begin.choose(rows, n, 5)} for n in (1, 2, 3)]
    assert [len(ids) for ids in few] == [1, 2, 3] and few[0] < few[1] < few[2]
    chosen = begin.choose(rows, 3, 5)
    assert [chosen.person(i)["person_id"] for i in range(3)] == [r["person_id"] for r in chosen]


def flat(start, settings):
    params = begin.first_params(start, settings, ONE)
    return {name: np.asarray(leaf) for name, leaf in trees.flatten(params).items()}


def test_a_backbone_gets_a_random_head(data, weights, monkeypatch):
    monkeypatch.setitem(sapiens.SIZES, "tiny", (48, 2, 4))
    settings = config(data / "17", weights / "backbone", image_hw=(128, 128))
    start = begin.begin(settings)
    _, trained = sapiens.load(weights / "backbone")
    found, trained = flat(start, settings), trees.flatten(trained)
    shapes = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), start.spec))
    assert {n: x.shape for n, x in found.items()} == {
        n: x.shape for n, x in trees.flatten(shapes).items()
    }
    for name, leaf in found.items():
        if name.startswith("backbone/"):
            np.testing.assert_array_equal(leaf, trained[name], err_msg=name)
    kernel = found["head/deconv_0/kernel"]
    assert 0.0005 < kernel.std() < 0.002  # normal(0.001), as new heads have
    assert start.weights["licence"]["name"] == "CC BY-NC 4.0"
    other = flat(start, dataclasses.replace(settings, seed=1))
    assert not np.array_equal(other["head/deconv_0/kernel"], kernel)


def test_bf16_weights_become_fp32(data, weights):
    settings = config(data / "17", weights / "bf16", image_hw=(128, 96))
    found = flat(begin.begin(settings), settings)
    _, stored = sapiens.load(weights / "bf16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(stored)} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in found.values()} == {"float32"}
    for name, leaf in trees.flatten(stored).items():
        np.testing.assert_array_equal(found[name], np.asarray(leaf, np.float32), err_msg=name)


def test_a_run_hands_over_the_average_of_its_best_state(data, tmp_path):
    settings = config(data / "17")
    start = begin.begin(settings)
    (tmp_path / "config.json").write_text(json.dumps({"evaluation": {"best": "pck"}}))
    document = json.dumps(runs.model_document(start.spec, {"licence": "own"}))
    (tmp_path / "model.json").write_text(document)
    saved = Snapshots(tmp_path, keep=3, best="pck", higher_is_better=True)
    shapes = jax.eval_shape(lambda: sapiens.init(jax.random.key(0), start.spec))
    for step, pck in ((1, 0.2), (2, 0.9), (3, 0.4)):
        ema, params = (
            jax.tree.map(lambda x, n=n: jnp.full(x.shape, n, x.dtype), shapes)
            for n in (float(step), -1.0)
        )
        saved.save(step, {"ema": ema, "params": params}, {}, {"pck": pck})
    saved.wait()
    saved.close()
    settings = config(data / "17", tmp_path)
    start = begin.begin(settings)
    assert start.parent == {"folder": str(tmp_path), "step": 2}
    assert start.weights["licence"] == "own"
    assert all((leaf == 2.0).all() for leaf in flat(start, settings).values())
