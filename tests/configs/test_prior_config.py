"""The fits of configs/prior.py, and what a fit's settings are refused for."""

import json

import pytest
import run_config
from run_config import Option

from configs import prior
from nkjax import config as configs
from nkjax import typed
from nkjax.config import BadConfig, Optimizer
from nkjax.prior_config import PriorConfig
from tests.configs.test_configs import ROOT

TINY = f"--config={ROOT}/configs/prior.py:tiny"
OPTIONS = {"data": Option(None, "packed folder"), "out": Option(None, "folder of the prior")}


def fit_of(argument: str) -> PriorConfig:
    return configs.from_config_dict(prior.get_config(argument), "a.py", PriorConfig)


def planted(key, value) -> dict:
    """Return the default fit as nested dicts with one setting changed."""
    plain = configs.to_config_dict(PriorConfig()).to_dict()
    section, _, name = key.rpartition(".")
    (plain[section] if section else plain)[name] = value
    return plain


def refusal(plain) -> str:
    with pytest.raises(BadConfig) as caught:
        configs.from_config_dict(plain, "a.py", PriorConfig)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_fit_is_that_of_the_notes():
    """Numbers of notes method 2.2 and 8."""
    config = fit_of("")
    assert (config.width, config.depth, config.heads) == (128, 4, 4)
    assert (config.steps, config.batch, config.ema) == (40_000, 512, 0.999)
    assert (config.dropout, config.condition_drop, config.age_drop) == (0.1, 0.1, 0.2)
    assert config.calibration == 0.1 and config.control == ""
    assert config.optimizer == Optimizer(
        learning_rate=1e-3, weight_decay=1e-4, schedule="cosine", layer_decay=1.0, warmup=500
    )


@pytest.mark.parametrize("argument", ["", "tiny", "shuffled", "tiny,shuffled", "shuffled, tiny"])
def test_every_fit_loads_and_survives_json(argument):
    config = fit_of(argument)
    assert config.width == (64 if "tiny" in argument else 128)
    assert config.control == ("shuffled" if "shuffled" in argument else "")
    text = json.dumps(configs.to_json(config), allow_nan=False)
    assert configs.from_json(json.loads(text), "config.json", PriorConfig) == config
    for devices, processes in ((1, 1), (8, 8)):
        configs.check_devices(config, devices, processes)


def test_another_word_is_refused():
    with pytest.raises(BadConfig, match="'tny' is no word of the prior: use tiny, shuffled"):
        prior.get_config("tny")


@pytest.mark.parametrize(("key", "value", "words"), [
    *[(key, 0, "must be at least 1") for key in (
        "width depth heads steps batch save_every keep log_every abort_after evaluation.every"
        " evaluation.batch optimizer.accumulate").split()],
    *[(key, value, "must be from 0 to 1")
      for key in ("near", "condition_drop", "age_drop") for value in (-0.1, 1.1)],
    *[("dropout", value, "at least 0 and below 1") for value in (-0.1, 1.0)],
    *[("calibration", value, "above 0 and at most 0.5") for value in (0.0, 0.6)],
    ("control", "shufled", "use one of '', shuffled (did you mean shuffled?)"),
    ("optimizer.schedule", "step", "(did you mean steps?)"),
    ("ema", 1.0, "below 1"), ("seed", -1, "from 0 to 2147483647"),
])  # fmt: skip
def test_a_value_out_of_its_range_is_refused(key, value, words):
    text = refusal(planted(key, value))
    assert text.startswith(f"a.py: {key} is {value!r}: ") and words in text


@pytest.mark.parametrize(("key", "value", "words"), [
    ("width", 62, "width is 62: must be a multiple of heads, 4"),
    ("optimizer.layer_decay", 0.9, "optimizer.layer_decay is 0.9: must be 1 for a prior"),
    ("optimizer.accumulate", 3, "batch is 512: must be a multiple of optimizer.accumulate, 3"),
    ("steps", 500, "optimizer.warmup is 500: must be below steps, 500"),
])  # fmt: skip
def test_values_that_do_not_fit_together_are_refused(key, value, words):
    assert refusal(planted(key, value)) == f"a.py: {words}"


@pytest.mark.parametrize("key", ["task", "image_hw", "heatmaps"])
def test_settings_of_pictures_are_none_of_a_fit(key):
    assert f"{key} is unknown" in refusal(planted(key, 1))
    assert key not in typed.sections(PriorConfig) and key not in typed.kinds(PriorConfig)


def test_a_command_line_changes_a_fit():
    config, options = run_config.parse(
        [TINY, "--config.steps=1e3", "--config.near", "0.25", "--data=d", "--out=o"],
        "Fit.", OPTIONS, PriorConfig,
    )  # fmt: skip
    assert (config.steps, config.near, config.width) == (1000, 0.25, 64)
    assert options == {"data": "d", "out": "o"}


@pytest.mark.parametrize(("words", "wanted"), [
    ([TINY, "--config.dropuot=1", "--data=d", "--out=o"], "(did you mean dropout?)"),
    ([TINY, "--config.image_hw=64,48", "--data=d", "--out=o"], "--config.image_hw is no setting"),
    ([TINY, "--out=o"], "--data is missing: packed folder"),
    ([TINY, "--data=d"], "--out is missing: folder of the prior"),
    (["--data=d", "--out=o"], "name one file, --config=configs/prior.py:tiny"),
    ([f"--config={ROOT}/configs/stage0_warmup.py:tiny", "--data=d", "--out=o"], "is unknown"),
])  # fmt: skip
def test_what_a_command_line_must_not_say(capsys, words, wanted):
    with pytest.raises(SystemExit) as stopped:
        run_config.parse(words, "Fit.", OPTIONS, PriorConfig)
    out, err = capsys.readouterr()
    assert stopped.value.code == 2 and out == "" and err.count("\n") == 1 and wanted in err


def test_help_lists_what_a_fit_has(capsys):
    with pytest.raises(SystemExit):
        run_config.parse(["--help"], "Fit.", OPTIONS, PriorConfig)
    out = capsys.readouterr().out
    assert all(f" {key}=" in out for key in typed.kinds(PriorConfig))
    assert "nkjax/prior_config.py says what each means" in out and " task=" not in out
