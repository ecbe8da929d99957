"""The score of a person in COCO results."""

import numpy as np
import pytest

from nkjax.evaluate import tables
from nkjax.evaluate.topdown import Person


def test_the_instance_score_is_the_reference_s():
    def person(scores):
        return Person((0, 0, 1, 1), 0.5, np.zeros((3, 2)), np.array(scores, np.float32))

    assert tables.instance_score(person([0.9, 0.3, 0.2])) == pytest.approx(0.5 * 0.6)
    assert tables.instance_score(person([0.1, 0.0, 0.2])) == 0
