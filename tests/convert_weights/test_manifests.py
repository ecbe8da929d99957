"""All 41 Sapiens-1 checkpoints, by their recorded keys and shapes, pass the dry run.

Facts: data/keys, from the reference's own configurations (notes/sapiens.md A1 to A3). The files
are made sparse: the real reader runs on 35 to 2200 million weights that take no room on disk.
"""

import json
import math
import re
import struct
from pathlib import Path

import pytest

from convert_weights.__main__ import main

KEYS = Path(__file__).parents[1] / "data" / "keys" / "sapiens1.json"
FACTS = json.loads(KEYS.read_text())
PIXELS = {"data_preprocessor.mean": [3, 1, 1], "data_preprocessor.std": [3, 1, 1]}


def expand(rows) -> dict[str, list[int]]:
    """Write out a manifest; repeated layers are kept once, '#' stands for their number."""
    shapes = {}
    for row in rows:
        blocks = [row["keys"]] * row["repeat"] if isinstance(row, dict) else [[row]]
        for i, block in enumerate(blocks):
            for key, shape in block:
                shapes[key.replace("#", str(i))] = shape
    return shapes


def write_sparse(path: Path, shapes: dict[str, list[int]], width: int = 4, dtype="F32") -> None:
    """Write a safetensors file of zeros, of its full length, that takes a few kB on disk."""
    header, end = {}, 0
    for key, shape in shapes.items():
        begin, end = end, end + width * math.prod(shape)
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)


def one_match(pattern: str, text: str) -> tuple[str, ...]:
    """Return the groups of the only line that fits."""
    found = [m for m in (re.fullmatch(pattern, line) for line in text.splitlines()) if m]
    assert len(found) == 1, (pattern, text[-1500:])
    return found[0].groups()


def dry_run(path: Path, capsys, *options: str) -> str:
    code = main([str(path), "--dry_run", *options])
    said = capsys.readouterr()
    assert (code, said.err) == (0, ""), said.err
    return said.out


def test_there_are_41_of_them():
    tasks = {name.split("_", 1)[1] for name in FACTS}
    assert len(FACTS) == 41 and len(tasks) == 11
    assert {name.split("_", 1)[0] for name in FACTS} == {"0.3b", "0.6b", "1b", "2b"}


@pytest.mark.parametrize("name", FACTS)
def test_dry_run(name, tmp_path, capsys):
    facts = FACTS[name]
    shapes = expand(facts["keys"])
    assert len(shapes) == facts["num_keys"]
    assert sum(map(math.prod, shapes.values())) == facts["num_elements"]
    path = tmp_path / f"{name}.safetensors"
    write_sparse(path, shapes)
    assert path.stat().st_blocks * 512 < 1 << 20
    out = dry_run(path, capsys)

    size, _, task = name.partition("_")
    kind = task.split("_")[0].replace("pretrain", "backbone")
    outputs = re.search(r"\d+$", task) or {"depth": [1], "normal": [3]}.get(kind, [""])
    found = one_match(r"task (\w+): (?:(\d+) \w+, instance norm|no head) .*", out)
    assert (found[0], found[1] or "") == (kind, str(outputs[0]))

    width, layers = shapes[next(k for k in shapes if k.endswith("pos_embed"))][-1], depth_of(shapes)
    found = one_match(r"size (\S+): width (\d+), (\d+) blocks \(from the keys\)", out)
    assert found == (size, str(width), str(layers))
    assert one_match(r"attention heads (\d+) .*", out) == (str(facts["heads"]),)
    (padding,) = one_match(r"patch padding (\w+) .*", out)
    assert padding == (facts["adaptive_padding"] or str(facts["conv_padding"][0]))
    h, w = facts["grid"]
    assert one_match(r"token grid (\d+)x(\d+) .*", out) == (str(h), str(w))

    mapped = [line.split(" ")[0] for line in out.splitlines() if " -> " in line and "[" in line]
    assert set(mapped) | {k for k in shapes if k.startswith("neck.")} == set(shapes)
    twice = {key for key in mapped if mapped.count(key) > 1}
    prefix = "" if task == "pretrain_clean" else "backbone."
    assert twice == ({f"{prefix}pos_embed"} if facts["class_token"] else set())
    keys, elements = one_match(r"(\d+) keys, ([\d,]+) numbers -> \d+ parameters, float32", out)
    decoder = facts["num_keys"] - int(keys)
    total = facts["backbone_elements" if kind == "backbone" else "num_elements"]
    assert elements.replace(",", "") == str(total)
    if task == "pretrain_mae_full":
        (left,) = one_match(r"left out, decoder of the pretraining: (\d+) keys .*", out)
        assert int(left) == decoder == sum(key.startswith("neck.") for key in shapes)
    else:
        assert decoder == 0 and "left out" not in out
    assert list(tmp_path.iterdir()) == [path]


def depth_of(shapes) -> int:
    layers = (re.match(r"(?:backbone\.)?layers\.(\d+)\.", key) for key in shapes)
    return 1 + max(int(match[1]) for match in layers if match)


@pytest.mark.parametrize("name", ["0.3b_pose_goliath308", "2b_depth"])
def test_exports_carry_buffers_and_bfloat16(name, tmp_path, capsys):
    assert FACTS[name]["buffers"] == list(PIXELS)
    shapes = {f"module.{key}": shape for key, shape in expand(FACTS[name]["keys"]).items()}
    path = tmp_path / "export"
    write_sparse(path, shapes | PIXELS, width=2, dtype="BF16")
    out = dry_run(path, capsys)
    assert "left out, no weights (normalisation, counters): 2 keys" in out
    keys, elements = one_match(r"(\d+) keys, ([\d,]+) numbers -> \d+ parameters, bfloat16", out)
    assert int(keys) == FACTS[name]["num_keys"]
    assert int(elements.replace(",", "")) == FACTS[name]["num_elements"]


@pytest.mark.parametrize(
    ("drop", "add", "said"),
    [
        ("backbone.layers.23.ffn.layers.1.bias", {}, "lacks backbone.layers.23.ffn.layers.1.bias"),
        ("backbone.ln1.weight", {}, "lacks backbone.ln1.weight"),
        ("head.final_layer.bias", {}, "lacks head.final_layer.bias"),
        ("", {"backbone.layers.7.attn.gamma": [1024]}, "know: backbone.layers.7.attn.gamma"),
        ("", {"backbone.cls_token2": [1, 1, 1024]}, "know: backbone.cls_token2"),
        ("", {"head.deconv_layers.6.weight": [768, 768, 4, 4]}, "--patch_padding"),
        ("", {"head.conv_layers.6.weight": [768, 768, 1, 1]}, "lacks head.conv_layers.6.bias"),
        ("", {"backbone.layers.9.ln2.bias": [1025]}, "layers.9.ln2.bias has shape [1025]"),
        ("", {"head.final_layer.weight": [17, 768, 3, 3]}, "final_layer.weight has shape [17, 7"),
        ("", {"backbone.pos_embed": [1, 3073, 1024]}, "3073 positions"),
    ],
)
def test_a_key_too_few_too_many_or_misshapen_is_named(drop, add, said, tmp_path, capsys):
    shapes = expand(FACTS["0.3b_pose_coco17"]["keys"]) | add
    shapes.pop(drop, None)
    write_sparse(tmp_path / "x", shapes)
    assert main([str(tmp_path / "x"), "--dry_run"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"error: {tmp_path / 'x'}")
    assert said in err, err
