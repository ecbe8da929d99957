"""Settings of a run: what is refused and in which words, conversion both ways, meshes and batches.

Rules are tested by planting one broken setting each in a run that is good, and the words a reader
needs are spelt out here by hand.
"""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from nkjax import config as configs
from nkjax import skeleton, typed
from nkjax.config import BadConfig, Config, Evaluation, Mesh, Optimizer
from nkjax.data import augment
from nkjax.evaluate import scores
from nkjax.models import sapiens, vit


def planted(key, value) -> dict:
    """Return the default run as nested dicts with one setting changed."""
    plain = configs.to_config_dict(Config()).to_dict()
    *sections, name = key.split(".")
    node = plain
    for section in sections:
        node = node[section]
    node[name] = value
    return plain


def refusal(plain) -> str:
    with pytest.raises(BadConfig) as caught:
        configs.from_config_dict(plain, "a.py")
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("key", "value", "words"), [
    ("task", "poze", "use one of pose, depth, normal, seg (did you mean pose?)"),
    ("size", "0.6B", "use one of tiny, 0.3b, 0.6b, 1b, 2b (did you mean 0.6b?)"),
    ("compute", "float16", "use one of float32, bfloat16 (did you mean bfloat16?)"),
    ("remat", "lite", "use one of none, light, full"),
    ("augment", "sapien", "(did you mean sapiens?)"),
    ("optimizer.schedule", "step", "(did you mean steps?)"),
    *[(key, 0, "must be at least 1") for key in (
        "steps batch save_every keep log_every threads abort_after optimizer.accumulate"
        " evaluation.every evaluation.batch").split()],
    *[(key, -1, "must be at least 0")
      for key in ("labels", "heatmaps.hardest", "optimizer.warmup")],
    ("optimizer.weight_decay", -0.1, "must be at least 0"),
    *[(key, value, "must be from 0 to 2147483647")
      for key in ("seed", "labels_seed") for value in (-1, 2**31)],
    *[(key, 0.0, "must be above 0")
      for key in ("optimizer.learning_rate", "optimizer.clip", "heatmaps.sigma")],
    *[("optimizer.layer_decay", value, "must be above 0 and at most 1") for value in (0.0, 1.1)],
    *[(key, value, "must be at least 0 and below 1")
      for key in ("ema", "optimizer.b1", "optimizer.b2") for value in (-0.1, 1.0)],
    *[(key, value, "must be from 0 to 1")
      for key in ("max_failed", "heatmaps.occluded_weight") for value in (-0.1, 1.1)],
    *[(key, value, "or -1") for key in ("mesh.data", "mesh.fsdp") for value in (0, -2)],
    *[("image_hw", value, "a multiple of 16 and at least 32")
      for value in ((256, 200), (16, 192), (0, 0))],
    *[("optimizer.milestones", value, "ascending between 0 and 1")
      for value in ((0.9, 0.8), (0.5, 0.5), (0.0,), (1.0,), (170.0, 200.0))],
    ("profile", (-1, 5), "neither below 0"),
    ("prior", "runs/prior", "belongs to a later stage"),
    ("geometry", "data/geometry", "belongs to a later stage"),
    ("evaluation.best", " ", "use one of pck_torso@0.05, pck_torso@0.1, "),
    ("evaluation.best", "pck_torso@0.15", "(did you mean pck_torso@0.1?)"),
    ("evaluation.best", "people", "use one of"),
])  # fmt: skip
def test_a_value_out_of_its_range_is_refused(key, value, words):
    text = refusal(planted(key, value))
    assert text.startswith(f"a.py: {key} is {value!r}: ") and words in text


@pytest.mark.parametrize(("changes", "words"), [
    ({"steps": 500}, "optimizer.warmup is 500: must be below steps, 500"),
    ({"batch": 30, "optimizer": Optimizer(accumulate=4)},
     "batch is 30: must be a multiple of optimizer.accumulate, 4"),
    ({"mesh": Mesh(-1, -1)}, "mesh.data and mesh.fsdp are both -1"),
    ({"profile": (19_996, 5)}, "profile is (19996, 5): must end before steps, 20000"),
    ({"task": "seg", "augment": "dense"}, "evaluation.best is 'pck_torso@0.1': only for pose"),
    ({"task": "seg", "augment": "dense", "evaluation": Evaluation(best="auc_box")},
     "evaluation.best is 'auc_box': only for pose; use 'loss' for seg"),
    ({"evaluation": Evaluation(best="loss")},
     "evaluation.best is 'loss': not for pose; use one of pck_torso@0.05, "),
    ({"task": "normal", "evaluation": Evaluation(best="loss")},
     "augment is 'sapiens': only for pose; use dense or plain for normal"),
    ({"task": "depth", "augment": "plain", "evaluation": Evaluation(best="loss", flip_test=True)},
     "evaluation.flip_test is only for pose"),
    ({"task": "depth", "augment": "dense", "evaluation": Evaluation(best="loss"),
      "heatmaps": configs.Heatmaps(hardest=8)}, "heatmaps.hardest is 8: only for pose"),
])  # fmt: skip
def test_values_that_do_not_fit_together_are_refused(changes, words):
    with pytest.raises(BadConfig) as caught:
        Config(**changes)
    assert str(caught.value).startswith(words)


def test_edges_of_the_rules_are_good():
    Config(
        steps=501, batch=1, image_hw=(32, 48), ema=0.0, max_failed=0.0, profile=(20, 481),
        optimizer=Optimizer(layer_decay=1.0, milestones=(), b1=0.0, weight_decay=0.0),
    )  # fmt: skip
    Config(task="normal", augment="dense", evaluation=Evaluation(best="loss"))
    for mesh in (Mesh(-1, 1), Mesh(8, -1), Mesh(2, 4)):
        Config(mesh=mesh)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_must_be_finite(bad):
    assert "want a finite number" in refusal(planted("optimizer.clip", bad))
    with pytest.raises(BadConfig, match="optimizer.clip is"):
        Config(optimizer=Optimizer(clip=bad))


@pytest.mark.parametrize(("key", "value", "wanted"), [
    ("steps", 1e3, 1000), ("steps", 1000.0, 1000), ("batch", np.int64(8), 8),
    ("ema", 0, 0.0), ("optimizer.clip", 2, 2.0), ("ema", np.float32(0.5), 0.5),
    ("image_hw", [256, 192], (256, 192)), ("image_hw", (256.0, 192), (256, 192)),
    ("optimizer.milestones", [], ()), ("optimizer.milestones", [0.25], (0.25,)),
    ("evaluation.flip_test", True, True),
])  # fmt: skip
def test_a_value_is_read_as_its_type(key, value, wanted):
    read = dataclasses.asdict(configs.from_config_dict(planted(key, value), "a.py"))
    for part in key.split("."):
        read = read[part]
    assert read == wanted and type(read) is type(wanted)
    if isinstance(wanted, tuple):
        assert list(map(type, read)) == list(map(type, wanted))


@pytest.mark.parametrize(("key", "value", "words"), [
    ("steps", 1.5, "want a whole number"), ("steps", True, "want a whole number"),
    ("steps", "1e3", "want a whole number"), ("steps", None, "want a whole number"),
    ("steps", 1e300, "want a whole number"),
    ("ema", "0.9", "want a finite number"), ("ema", False, "want a finite number"),
    ("ema", 10**400, "want a finite number"),
    ("data", 3, "want a text"), ("data", None, "want a text"),
    ("evaluation.flip_test", 1, "want true or false"),
    ("evaluation.flip_test", "true", "want true or false"),
    ("image_hw", 256, "want 2 numbers"), ("image_hw", (1, 2, 3), "want 2 numbers"),
    ("image_hw", "256", "want 2 numbers"), ("image_hw", (256, 1.5), "want a whole number"),
    ("optimizer.milestones", 0.5, "want any number of numbers"),
    ("optimizer.milestones", ("x",), "want a finite number"),
])  # fmt: skip
def test_a_value_of_another_type_is_refused(key, value, words):
    text = refusal(planted(key, value))
    assert text.startswith(f"a.py: {key} is ") and words in text


def test_unknown_keys_come_with_the_nearest_known():
    plain = configs.to_config_dict(Config()).to_dict()
    assert "a.py: stpes is unknown (did you mean steps?)" == refusal(plain | {"stpes": 5})
    assert "(did you mean optimizer.clip?)" in refusal(plain | {"clip": 5})
    assert "xyzzy is unknown" in refusal(plain | {"xyzzy": 5})
    nested = plain | {"optimizer": plain["optimizer"] | {"layer_dcay": 1}}
    wanted = "optimizer.layer_dcay is unknown (did you mean optimizer.layer_decay?)"
    assert wanted in refusal(nested)


def test_a_section_never_loses_keys_silently():
    plain = configs.to_config_dict(Config())
    del plain.optimizer.layer_decay
    assert refusal(plain) == (
        "a.py: optimizer.layer_decay is missing: was `optimizer` replaced as a whole? "
        "set its keys one by one"
    )
    plain = configs.to_config_dict(Config())
    plain.optimizer = {"learning_rate": 1e-3}
    assert "optimizer.weight_decay and 8 more are missing: was `optimizer`" in refusal(plain)
    assert "mesh.data and 1 more are missing" in refusal(planted("mesh", 8))
    del (plain := configs.to_config_dict(Config())).steps
    assert refusal(plain) == "a.py: steps is missing: give every setting"


def test_all_problems_come_in_one_line_five_of_them_named():
    plain = configs.to_config_dict(Config()).to_dict()
    five = {"ema": 2.0, "task": "x", "keep": 0, "threads": 0, "seed": -1}
    plain |= five | {"stpes": 1, "batch": 1.5}
    text = refusal(plain)
    assert text.count("; ") == 5 and text.endswith("; and 2 more")
    assert "stpes is unknown" in text and "batch is 1.5" in text
    del plain["stpes"]
    text = refusal(plain | {"batch": 8})
    assert all(f"{key} is " in text for key in five) and "more" not in text


@pytest.mark.parametrize("what", [None, [1], "text", 3])
def test_what_is_no_config_is_refused(what):
    assert "want a ConfigDict or nested dicts, not " in refusal(what)


CHANGED = Config(
    steps=123_456, image_hw=(64, 48), data="gs://bucket/a b", labels=50, mesh=Mesh(2, -1),
    optimizer=Optimizer(learning_rate=1 / 3, milestones=(0.1, 0.2, 0.7)), profile=(10, 5),
    evaluation=Evaluation(flip_test=True),
)  # fmt: skip


def test_json_and_back_is_exact():
    text = json.dumps(configs.to_json(CHANGED), allow_nan=False)
    assert json.loads(text)["optimizer"]["milestones"] == [0.1, 0.2, 0.7]
    assert configs.from_json(json.loads(text), "config.json") == CHANGED


def test_config_dict_and_back_is_exact():
    plain = configs.to_config_dict(CHANGED)
    assert isinstance(plain, ConfigDict) and isinstance(plain.optimizer, ConfigDict)
    assert plain.image_hw == (64, 48) and isinstance(plain.optimizer.milestones, tuple)
    assert configs.from_config_dict(plain, "a.py") == CHANGED
    plain.optimizer.clip = 0.5
    assert configs.from_config_dict(plain, "a.py").optimizer.clip == 0.5


def test_the_hash_is_of_the_values_alone():
    backwards = dict(reversed(configs.to_json(CHANGED).items()))
    text = json.dumps(backwards, sort_keys=True)
    assert configs.sha256(CHANGED) == hashlib.sha256(text.encode()).hexdigest()
    by_key = {configs.sha256(dataclasses.replace(CHANGED, seed=seed)) for seed in range(3)}
    assert len(by_key) == 3 and all(len(digest) == 64 for digest in by_key)


def test_settings_are_listed_by_path():
    kinds = typed.kinds(Config)
    assert kinds["steps"] is int and kinds["optimizer.clip"] is float and "mesh" not in kinds
    assert len(kinds) == sum(
        len(dataclasses.fields(typed.sections(Config).get(f.name, Mesh)))
        if f.name in typed.sections(Config) else 1 for f in dataclasses.fields(Config)
    )  # fmt: skip


@pytest.mark.parametrize(("mesh", "devices", "sizes"), [
    (Mesh(1, -1), 8, (1, 8)), (Mesh(-1, 1), 8, (8, 1)), (Mesh(2, -1), 8, (2, 4)),
    (Mesh(-1, 4), 8, (2, 4)), (Mesh(4, 2), 8, (4, 2)), (Mesh(1, -1), 1, (1, 1)),
])  # fmt: skip
def test_a_mesh_is_resolved(mesh, devices, sizes):
    assert configs.check_devices(Config(mesh=mesh), devices, 1) == sizes


@pytest.mark.parametrize("mesh", [Mesh(3, -1), Mesh(-1, 16), Mesh(2, 2), Mesh(4, 4)])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(mesh):
    with pytest.raises(BadConfig, match=rf"mesh is {mesh.data} x {mesh.fsdp} .*8 devices"):
        configs.check_devices(Config(mesh=mesh), 8, 1)


@pytest.mark.parametrize(("batch", "accumulate", "devices", "processes", "nearest"), [
    (30, 1, 8, 1, "use 24 or 32"), (64, 4, 32, 4, "use 128"), (64, 1, 48, 2, "use 48 or 96"),
    (68, 2, 2, 8, "use 64 or 72"), (60, 3, 8, 8, "use 48 or 72"),
])  # fmt: skip
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_do(
    batch, accumulate, devices, processes, nearest
):
    config = Config(
        batch=batch, optimizer=Optimizer(accumulate=accumulate),
        evaluation=Evaluation(batch=devices * processes),
    )  # fmt: skip
    with pytest.raises(BadConfig) as caught:
        configs.check_devices(config, devices, processes)
    text = str(caught.value)
    assert text.startswith(f"batch is {batch}, but ") and text.endswith(nearest)
    for good in map(int, nearest.removeprefix("use ").split(" or ")):
        configs.check_devices(dataclasses.replace(config, batch=good), devices, processes)


def test_a_batch_of_evaluation_must_divide_too():
    with pytest.raises(BadConfig, match="evaluation.batch is 64, .* multiple of 256: use 256"):
        configs.check_devices(Config(batch=512), 256, 32)
    with pytest.raises(BadConfig, match="evaluation.batch is 30, .* multiple of 8: use 24 or 32"):
        configs.check_devices(Config(evaluation=Evaluation(batch=30)), 8, 1)
    parted = Config(optimizer=Optimizer(accumulate=8), evaluation=Evaluation(batch=8))
    configs.check_devices(parted, 8, 1)  # evaluation is not done in parts


def test_names_are_those_of_the_code_they_choose_from():
    assert configs.SIZES == tuple(sapiens.SIZES) and configs.REMATS == tuple(vit.REMAT)
    assert set(configs.TASKS) == set(sapiens.TASKS) - {"backbone"}
    assert all(isinstance(getattr(augment, name.upper()), augment.Recipe)
               for name in configs.AUGMENTS)  # fmt: skip
    assert all(np.dtype(name).kind in "fV" for name in configs.DTYPES)
    nobody = scores.Found(
        np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros((0, 17, 2)), np.zeros((0, 17), int),
        np.zeros((0, 4)), np.zeros(0), np.zeros(0), (), np.zeros(0),
    )  # fmt: skip
    counts = {"joints", "people", "people_without_torso"}
    assert {*configs.FIGURES} == scores.measure(nobody, skeleton.load("coco17")).keys() - counts
