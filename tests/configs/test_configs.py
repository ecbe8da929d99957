"""The runs of configs/, and the command line that names and changes one.

The command is played in this process but for a few cases: exit codes and streams are those of a
real one there. Odd config files are written here, one for each way of going wrong.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import run_config
from run_config import Option

from configs import pretrain_adult, stage0_warmup
from nkjax import config as configs
from nkjax import typed
from nkjax.config import SIZES, TASKS, BadConfig, Config

ROOT = Path(__file__).parents[2]
STAGE0 = f"--config={ROOT}/configs/stage0_warmup.py:tiny"
OPTIONS = {
    "workdir": Option(None, "run folder"),
    "coordinator": Option("", "HOST:PORT of process 0"),
    "process": Option(-1, "number of this process"),
    "dry_run": Option(False, "only say what would be done"),
}


def parse(*words):
    return run_config.parse(words, "Train.", OPTIONS)


def run_of(*words) -> Config:
    return parse(STAGE0, "--workdir=r", *words)[0]


def refusal(capsys, *words) -> str:
    """Return the line on stderr of a command line that cannot be used."""
    with pytest.raises(SystemExit) as stopped:
        parse(*words)
    out, err = capsys.readouterr()
    assert stopped.value.code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    return err.removeprefix("error: ").rstrip()


ARGUMENTS = [(stage0_warmup, size, size, "pose") for size in SIZES]
ARGUMENTS += [(pretrain_adult, f"{size},{task}", size, task) for size in SIZES for task in TASKS]
ARGUMENTS += [(pretrain_adult, "normal,1b", "1b", "normal"),
              (pretrain_adult, "depth", "0.6b", "depth"), (pretrain_adult, "tiny", "tiny", "pose"),
              (pretrain_adult, "", "0.6b", "pose")]  # fmt: skip


@pytest.mark.parametrize(("file", "argument", "size", "task"), ARGUMENTS)
def test_every_run_loads_and_survives_json(file, argument, size, task):
    config = configs.from_config_dict(file.get_config(argument), "a.py")
    assert (config.size, config.task) == (size, task)
    text = json.dumps(configs.to_json(config), allow_nan=False)
    assert configs.from_json(json.loads(text), "config.json") == config
    for devices, processes in ((1, 1), (8, 8), (16, 4)):
        configs.check_devices(config, devices, processes)
    assert config.image_hw == ((256, 192) if size == "tiny" else (1024, 768))
    assert config.heatmaps.sigma == (1.5 if size == "tiny" else 6.0)


@pytest.mark.parametrize("file", [stage0_warmup, pretrain_adult])
def test_the_default_size_is_06b(file):
    assert file.get_config().size == "0.6b"


def test_stage0_is_the_recipe_of_sapiens():
    """Numbers of notes sapiens A7, COCO pose; sigma of its 256 x 192 maps."""
    config = configs.from_config_dict(stage0_warmup.get_config("0.3b"), "a.py")
    assert config.batch == 512
    assert config.optimizer == configs.Optimizer(
        learning_rate=5e-4, weight_decay=0.1, b1=0.9, b2=0.999, layer_decay=0.85,
        schedule="steps", warmup=500, milestones=(170 / 210, 200 / 210), clip=1.0, accumulate=1,
    )  # fmt: skip


@pytest.mark.parametrize("task", ["depth", "normal", "seg"])
def test_dense_runs_are_the_recipe_of_sapiens(task):
    config = configs.from_config_dict(pretrain_adult.get_config(f"0.3b,{task}"), "a.py")
    optimizer = config.optimizer
    assert (optimizer.schedule, optimizer.warmup) == ("polynomial", 400)
    assert (optimizer.learning_rate, optimizer.layer_decay) == (5e-4, 0.85)
    assert config.augment == "dense" and config.evaluation.best == "loss"


@pytest.mark.parametrize(("file", "argument", "words"), [
    (stage0_warmup, "0.5b", "did you mean 0.6b?"), (stage0_warmup, "", "use one of tiny, 0.3b"),
    (pretrain_adult, "tiny,dpth", "'tiny,dpth' is not a size (tiny, 0.3b, 0.6b, 1b, 2b) and a"),
    (pretrain_adult, "tiny,0.3b", "is not a size"), (pretrain_adult, "seg,depth", "is not a size"),
])  # fmt: skip
def test_an_unknown_size_or_task_is_refused(file, argument, words):
    with pytest.raises(BadConfig) as caught:
        file.get_config(argument)
    assert words in str(caught.value)


def test_a_command_line_changes_a_run():
    config, options = parse(
        "--process", "3", STAGE0, "--workdir=r", "--config.steps=1e3", "--config.image_hw=64,48",
        "--config.optimizer.learning_rate=1e-4", "--config.mesh.data", "-1",
        "--config.mesh.fsdp=2.0", "--config.evaluation.flip_test", "--config.data=a b",
        "--config.profile", "10,5", "--config.optimizer.milestones=0.5", "--config.ema=0",
    )  # fmt: skip
    plain = configs.from_config_dict(stage0_warmup.get_config("tiny"), "a.py")
    assert config == dataclasses.replace(
        plain,
        steps=1000, image_hw=(64, 48), mesh=configs.Mesh(-1, 2), data="a b", profile=(10, 5),
        ema=0.0, evaluation=dataclasses.replace(plain.evaluation, flip_test=True),
        optimizer=dataclasses.replace(plain.optimizer, learning_rate=1e-4, milestones=(0.5,)),
    )  # fmt: skip
    assert options == {"workdir": "r", "coordinator": "", "process": 3, "dry_run": False}


def test_a_second_command_line_knows_nothing_of_the_first():
    assert run_of("--config.steps=700").steps == 700
    assert run_of().steps == 2000
    assert run_of("--noconfig.evaluation.flip_test").evaluation.flip_test is False


@pytest.mark.parametrize(("text", "number"), [
    ("1e3", 1000), ("1E+3", 1000), ("1.5e3", 1500), ("1000.0", 1000), ("123456", 123456),
])  # fmt: skip
def test_whole_numbers_may_have_an_exponent(text, number):
    assert run_of(f"--config.steps={text}").steps == number
    assert run_of("--config.steps", text).steps == number


@pytest.mark.parametrize("text", ["1.5", "1e-3", "abc", "", "nan", "inf", "1e999999999", "True"])
def test_other_numbers_are_refused_for_a_whole_one(capsys, text):
    line = refusal(capsys, STAGE0, "--workdir=r", f"--config.steps={text}")
    assert line == f"--config.steps={text}: want a whole number"


@pytest.mark.parametrize(("words", "wanted"), [
    (["--config.optimizer.lerning_rate=1"], "(did you mean optimizer.learning_rate?)"),
    (["--config.clip=1"], "--config.clip is no setting (did you mean optimizer.clip?)"),
    (["--config.optimizer={'clip': 1}"], "set its keys one by one"),
    (["--config.mesh", "{'data': 1}"], "--config.mesh would replace all of it"),
    (["--config.ema=abc"], "--config.ema=abc: want a finite number"),
    (["--config.evaluation.flip_test=maybe"], "flip_test=maybe: want true or false"),
    (["--config.image_hw=[256,192"], "--config.image_hw=[256,192: want numbers"),
    (["--config.image_hw=256"], "image_hw is (256,): want 2 numbers"),
    (["--config.ema=nan"], "ema is nan: want a finite number"),
    (["--config.keep=0", "--config.ema=2"], "keep is 0: must be at least 1; ema is 2.0: must be"),
    (["--config.steps=100"], "optimizer.warmup is 100: must be below steps, 100"),
    (["--config.steps"], "--config.steps has no value"),
    (["--wrkdir=x"], "Unknown command line flag 'wrkdir'. Did you mean: workdir"),
    (["--process=x"], "--process=x: want a whole number"),
    (["more"], "'more' belongs to no option"),
    (["--flagfile=nowhere"], "Unable to open flagfile"),
    ([STAGE0], "--config is given twice"),
])  # fmt: skip
def test_what_a_command_line_must_not_say(capsys, words, wanted):
    assert wanted in refusal(capsys, STAGE0, "--workdir=r", *words)


@pytest.mark.parametrize(("words", "wanted"), [
    (["--workdir=r"], "--config is missing: name one file"),
    ([STAGE0], "--workdir is missing: run folder"),
    ([STAGE0, "--workdir="], "--workdir is missing: run folder"),
    (["--workdir=r", "--config.steps=3", STAGE0], "--config.steps=3 stands before --config"),
    (["more", STAGE0, "--workdir=r"], "'more' belongs to no option"),
    (["--workdir=r", "--config"], "there is no file ''"),
    (["--config=", "--workdir=r"], "--config=: there is no file ''"),
    (["--workdir=r", "--config=configs/nope.py:tiny"], "there is no file 'configs/nope.py'"),
    (["--workdir=r", f"{STAGE0}y"], "(did you mean tiny?)"),
])  # fmt: skip
def test_a_command_line_without_a_run_is_refused(capsys, words, wanted):
    assert wanted in refusal(capsys, *words)


MADE = "from nkjax.config import Config, to_config_dict\nmade = to_config_dict(Config())\n"


@pytest.mark.parametrize(("text", "wanted"), [
    ("def get_config():\n    return {}['gone']\n", "odd.py, line 2): KeyError: 'gone'"),
    ("def get_config():\n    raise ValueError('no\\ngood')\n", "line 2): ValueError: no good"),
    ("def get_config():\n    open('/no/such')\n", "line 2): FileNotFoundError: "),
    ("import sys\ndef get_config():\n    sys.exit('bye')\n", "line 3): SystemExit: bye"),
    ("def get_config(:\n", "line 1): SyntaxError"),
    ("import no_such_module\n", "line 1): ModuleNotFoundError"),
    ("x = 1\n", "has no attribute 'get_config'"),
    ("def get_config(size):\n    return 1\n", "missing 1 required positional argument: 'size'"),
    ("def get_config():\n    return None\n", "want a ConfigDict or nested dicts, not None"),
    (MADE + "made.optimizer = {'clip': 1.0}\ndef get_config(): return made\n",
     "optimizer.learning_rate and 8 more are missing: was `optimizer` replaced as a whole?"),
    (MADE + "made.optimizer.clpi = 1.0\ndef get_config(): return made\n",
     "optimizer.clpi is unknown (did you mean optimizer.clip?)"),
    (MADE + "made.batch = 'many'\ndef get_config(): return made\n", "line 3): TypeError: "),
])  # fmt: skip
def test_a_config_file_that_fails_is_named(capsys, tmp_path, text, wanted):
    file = tmp_path / "odd.py"
    file.write_text(text)
    line = refusal(capsys, f"--config={file}", "--workdir=r")
    assert line.startswith(f"--config={file}") and wanted in line


def test_help_says_all(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("--help")
    out, err = capsys.readouterr()
    assert stopped.value.code == 0 and err == "" and out.startswith("Train.\n")
    assert all(f"--{name}" in out and option.help in out for name, option in OPTIONS.items())
    assert all(f" {key}=" in out for key in typed.kinds(Config))


COMMAND = """import sys, run_config
options = {"workdir": run_config.Option(None, "run folder")}
config, options = run_config.parse(sys.argv[1:], "Train.", options)
print(config.steps, options["workdir"])"""


@pytest.mark.parametrize(("words", "code", "out", "err"), [
    (["--config=configs/stage0_warmup.py:tiny", "--workdir=r", "--config.steps=1e3"],
     0, "1000 r\n", ""),
    (["--config=configs/stage0_warmup.py:huge", "--workdir=r"],
     2, "", "--config=configs/stage0_warmup.py:huge: size is 'huge': use one of tiny, 0.3b, 0.6b,"
     " 1b, 2b"),
    (["--config=FORGETFUL", "--workdir=r"],
     2, "", "--config=FORGETFUL: want a ConfigDict or nested dicts, not None"),
    (["--workdir=r"], 2, "",
     "--config is missing: name one file, --config=configs/stage0_warmup.py:0.3b"),
])  # fmt: skip
def test_as_a_command(tmp_path, words, code, out, err):
    forgetful = tmp_path / "forgetful.py"
    forgetful.write_text("def get_config():\n    return None\n")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *(w.replace("FORGETFUL", str(forgetful)) for w in words)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip
    line = f"error: {err}\n".replace("FORGETFUL", str(forgetful)) if err else ""
    assert (done.returncode, done.stdout, done.stderr) == (code, out, line)
