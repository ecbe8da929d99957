"""The command that measures a prior, up to where it reads data: what is named must be what it is.

All folders are copies of the prior that is shipped, said to be fitted otherwise.
"""

import json
import shutil
from pathlib import Path

import measure_prior
import pytest

SHIPPED = Path(__file__).parents[1] / "data" / "prior"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two priors that differ in what their origin says: the shipped one, and a shuffled one."""
    shuffled = shutil.copytree(SHIPPED, tmp_path_factory.mktemp("priors") / "shuffled")
    document = json.loads((shuffled / "model.json").read_text())
    document["origin"]["config"]["control"] = "shuffled"
    (shuffled / "model.json").write_text(json.dumps(document))
    return {"TRUE": str(SHIPPED), "SHUFFLED": str(shuffled)}


@pytest.mark.parametrize(("given", "said"), [
    ("--prior=TRUE --shuffled=TRUE",
     "error: --shuffled=TRUE: fitted with control '', not 'shuffled'; name a prior of"
     " configs/prior.py:tiny,shuffled"),
    ("--prior=SHUFFLED",
     "error: --prior=SHUFFLED: fitted with control 'shuffled', not ''; name a prior of"
     " configs/prior.py:tiny"),
    ("--prior=TRUE --adult=SHUFFLED", "error: --adult=SHUFFLED: fitted with control 'shuffled'"),
    ("--prior=TRUE --shuffled=SHUFFLED --adult=TRUE", "error: NOWHERE/manifest.json"),
    ("--prior=NOWHERE", "error: NOWHERE/model.json: cannot be opened"),
])  # fmt: skip
def test_a_prior_and_its_controls_are_what_they_are_named_as(
    folders, tmp_path, capsys, given, said
):
    places = folders | {"NOWHERE": str(tmp_path / "nowhere")}
    for name, place in places.items():
        given, said = given.replace(name, place), said.replace(name, place)
    out = tmp_path / "out"
    words = [*given.split(), f"--data={places['NOWHERE']}", f"--out={out}"]
    assert measure_prior.main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(said), lines
    assert not out.exists()
