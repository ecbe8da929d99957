"""The readers against torch itself, wherever torch is installed."""

from pathlib import Path

import numpy as np
import pytest

from convert_weights.readers import BadFile, open_checkpoint

torch = pytest.importorskip("torch")
FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"


def _bits(array) -> bytes:
    plain = array.detach().contiguous()
    return (plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain).numpy().tobytes()


def _same_as_torch(found, reference: dict) -> None:
    assert list(found.tensors) == list(reference)
    for key, wanted in reference.items():
        mine = found.tensors[key]
        assert (mine.shape, f"torch.{mine.dtype}") == (tuple(wanted.shape), str(wanted.dtype)), key
        assert np.ascontiguousarray(mine.read()).tobytes() == _bits(wanted), key


@pytest.mark.parametrize("name", ["tiny_seg.pth", "tiny_normal.pth", "tiny_pretrain_clean.pth"])
def test_fixtures_that_torch_can_load(name):
    loaded = torch.load(FIXTURES / name, weights_only=True)
    _same_as_torch(open_checkpoint(FIXTURES / name), loaded.get("state_dict", loaded))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_file_that_torch_writes(tmp_path, protocol):
    torch.manual_seed(0)
    base = torch.randn(6, 10)
    state = {
        "plain": torch.randn(3, 4),
        "transposed": base.T,
        "slice": base[1:5, ::3],
        "shared": base,
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(5)),
        **{
            str(kind): torch.arange(-3, 5).to(kind)
            for kind in (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int16,
                         torch.int8, torch.uint8, torch.bool)
        },
    }  # fmt: skip
    facts = {
        "array": np.arange(6.0).reshape(2, 3), "columns": np.asfortranarray(np.eye(2, 3)),
        "number": np.float32(1.5), "names": np.array(["left", "right"]), "set": {1, 2},
        "bytes": b"\x00\xff", "mask": np.array([True, False]), "size": torch.Size([2]),
        "empty": np.zeros((0, 3)), "device": torch.device("cpu"),
    }  # fmt: skip
    torch.save({"state_dict": state, "meta": facts}, tmp_path / "x.pth", pickle_protocol=protocol)
    found = open_checkpoint(tmp_path / "x.pth")
    _same_as_torch(found, state)
    assert found.meta == {
        "array": [[0, 1, 2], [3, 4, 5]], "columns": [[1, 0, 0], [0, 1, 0]], "number": 1.5,
        "names": ["left", "right"], "set": {1, 2}, "bytes": b"\x00\xff", "mask": [True, False],
        "size": (2,), "empty": [],
    }  # fmt: skip
    assert found.dropped == ["meta.device"]


def test_modules_that_torch_saves(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval()
    picture = torch.zeros(2, 3)
    torch.jit.save(torch.jit.trace(net, picture), tmp_path / "traced")
    found = open_checkpoint(tmp_path / "traced")
    assert found.layout == "torchscript"
    _same_as_torch(found, net.state_dict())
    torch.export.save(torch.export.export(net, (picture,)), tmp_path / "exported.pt2")
    found = open_checkpoint(tmp_path / "exported.pt2")
    assert found.layout == "torch.export"
    _same_as_torch(found, net.state_dict())
    torch.save(net, tmp_path / "whole")
    with pytest.raises(BadFile, match="torch.nn.modules.container.Sequential"):
        open_checkpoint(tmp_path / "whole")
    torch.save(net.state_dict(), tmp_path / "old", _use_new_zipfile_serialization=False)
    with pytest.raises(BadFile, match="before 1.6"):
        open_checkpoint(tmp_path / "old")
