"""Weights folders made from the fixtures by the conversion command."""

from pathlib import Path

import pytest

from convert_weights.__main__ import main as convert

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    return _converted("tiny_pose.pth", tmp_path_factory)


@pytest.fixture(scope="session")
def seg_weights(tmp_path_factory):
    return _converted("tiny_seg.pth", tmp_path_factory, "--input_size", "96x64")


def _converted(name, tmp_path_factory, *options):
    folder = tmp_path_factory.mktemp("weights") / "out"
    assert convert([str(FIXTURES / name), "--out", str(folder), "--heads", "4", *options]) == 0
    return folder
