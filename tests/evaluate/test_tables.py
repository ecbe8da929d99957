"""The score of a person in COCO results, and what of a command line is written down."""

import numpy as np
import pytest

from nkjax.evaluate import tables
from nkjax.evaluate.topdown import Person


def test_the_instance_score_is_the_reference_s():
    def person(scores):
        return Person((0, 0, 1, 1), 0.5, np.zeros((3, 2)), np.array(scores, np.float32))

    assert tables.instance_score(person([0.9, 0.3, 0.2])) == pytest.approx(0.5 * 0.6)
    assert tables.instance_score(person([0.1, 0.0, 0.2])) == 0


def test_private_paths_are_not_written_down():
    said = ["--input", "a=b/c", "--detections=x=y=z.json", "--out=a=b/c/d", "--input=a=b/c", "--no"]
    told = tables.without_private(said, {"a=b/c", "x=y=z.json"})
    assert told == ["--input", "[private]", "--detections=[private]", "--out=a=b/c/d",
                    "--input=[private]", "--no"]  # fmt: skip
