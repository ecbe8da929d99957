"""The house rules of README.md's architecture section, read off the syntax trees of all files.

`broken_rules(root)` returns one line per breach; it is run on this clone, where it must find none,
and on small trees with one planted breach each, where it must find exactly that one.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("nkjax", "convert_weights", "configs", "scripts", "tests")
CODE = PACKAGES[:-1]

# (floor, folder, files). A file imports from lower floors, and from files of its own folder that
# stand before it on its own floor. This table is the only place that says so: put new files in.
FLOORS = (
    (0, "nkjax",
     "typed config prior_config precision ids skeleton skeleton_formats trees collectives"),
    (1, "nkjax", "mesh sharding checkpoints snapshots journal provenance"),
    (2, "nkjax.geometry", "affine heatmaps centroids sampling"),
    (3, "nkjax.models", "attention vit heads sapiens denoiser"),
    (3, "nkjax.data",
     "jpeg images videos fingerprints coco records crops augment dense_labels samples streams"),
    (4, "nkjax.lab",
     "findings rows folders files scan joints annotations labels subjects detected listed sources"
     " unlabelled suspicious divide split check shards layout private pack purge"),
    (4, "nkjax", "costs runs photometric occlusion views geometry_cache"),
    # The simulated world, in storeys: what is seen, who and what is there, whole pictures.
    (4.1, "nkjax.toddlersim", "solids camera examples hits casting truth"),
    (4.2, "nkjax.toddlersim.people",
     "bodies poses reaching flesh acts grasps stance supports touching playing walking standing"
     " floor embracing holding adults atypical atypical_floor postures"),
    (4.2, "nkjax.toddlersim.looks", "patterns paints clothes furniture rooms photo"),
    (4.3, "nkjax.toddlersim", "scenes world"),
    (4.4, "nkjax.toddlersim.lab_folder",
     "detector lists folder spoiling handed_over mistakes defects adults"),
    (4, "nkjax.prior", "people coordinates gaussian diffusion refine saved"),
    (5, "nkjax.kinematics",
     "limbs scale statistics corruptions calibration energies plausibility"),
    (6, "nkjax.losses",
     "heatmap dense consistency developmental rigidity surface guidance total"),
    (7, "nkjax.evaluate",
     "draw sheets training_views pictures networks topdown tables predict simulated"
     " simulated_measures simulated_sheets simulated_charts bootstrap scores oks packed detected"
     " split_boxes cases curves evaluation_tables report_tables report evaluation prior_denoising"
     " prior_flattening prior_scores prior_drawings prior_histograms prior_scenes"
     " prior_pictures prior_confidence prior_report prior_study"),
    (8, "nkjax.train",
     "state optimizer teachers step work begin job prior_data prior loop prior_folder"),
    (9, "nkjax", "plan"),  # compiles what it finds below for hardware that is not there
    # A package beside nkjax: it may import all of nkjax, and nothing of nkjax imports it.
    (10, "convert_weights",
     "files pickles numpy_pickles archives allowlist safetensors exports plain readers detect"
     " keypoints mapping convert __main__"),
)  # fmt: skip
PLACES = {
    f"{folder}.{name}": (floor, folder, position)
    for floor, folder, names in FLOORS
    for position, name in enumerate(names.split())
}

# What only some files may import. An empty tuple: none of the code, tests aside.
ONLY_IN = {
    "flax": ("nkjax/models/",),
    "orbax": ("nkjax/checkpoints.py",),
    "grain": ("nkjax/data/streams.py",),
    "cv2": ("nkjax/data/images.py", "nkjax/data/videos.py", "nkjax/evaluate/draw.py",
            "scripts/benchmark_input.py"),
    "matplotlib": ("nkjax/evaluate/",),
    "torch": ("scripts/torch_twin.py", "scripts/benchmark_model.py", "scripts/benchmark_input.py",
              "scripts/benchmark_train.py"),
    **dict.fromkeys(["tensorflow", "torchvision"], ()),
    # Unpickling runs what the file says.
    **dict.fromkeys("pickle _pickle cloudpickle dill joblib marshal shelve".split(), ()),
    # Nothing is ever fetched (a bucket that the user names goes through etils and tensorstore).
    **dict.fromkeys("requests urllib3 urllib.request http.client httpx aiohttp".split(), ()),
}
ATTICS = ("utils", "util", "helpers", "helper", "common", "misc")
MAX_LINES = {package: 400 if package == "tests" else 300 for package in PACKAGES}


def broken_rules(root: Path) -> list[str]:
    """Return one line for every breach of a house rule in the Python files under root."""
    files = {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8")
             for package in PACKAGES for file in sorted((root / package).rglob("*.py"))}
    modules = {_module(path) for path in files} | set(PLACES)
    found = []
    for path, text in files.items():
        tree = ast.parse(text, path)
        found += _size_and_name(path, text)
        if not path.startswith("tests/"):
            imports = list(_imports(path, tree, modules))
            found += _place(path) + _directions(path, imports) + _outsiders(path, imports)
            found += _unpickling(path, tree)
        if path.startswith(("nkjax/", "convert_weights/")):
            found += _docstrings(path, tree)
    return found


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(path, tree, modules):
    """Yield (line, module) of every import, inside functions and by name in a call too."""
    folder = path.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                # `from nkjax import trees` imports a file, `from nkjax.trees import f` a name.
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if whole in modules | set(ONLY_IN) else base
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def _place(path: str) -> list[str]:
    if path.startswith(("configs/", "scripts/")) or path.endswith("__init__.py"):
        return []
    if _module(path) in PLACES:
        return []
    return [f"{path}: has no floor; add it to FLOORS in tests/test_architecture.py, on the lowest"
            " floor above all it imports, and to the architecture section of README.md"]


def _directions(path: str, imports) -> list[str]:
    found = []
    package = path.split("/")[0]
    forbidden = {"nkjax": {"convert_weights", "configs", "scripts", "tests"},
                 "convert_weights": {"configs", "scripts", "tests"},
                 "configs": {"scripts", "convert_weights", "tests"}, "scripts": {"tests"}}[package]
    for line, module in imports:
        top = module.split(".")[0]
        if top in forbidden:
            found.append(f"{path}:{line}: {package} must not import {top}")
        elif top not in ("nkjax", "convert_weights") or package in ("configs", "scripts"):
            continue
        elif path.endswith("__init__.py"):
            found.append(f"{path}:{line}: an __init__.py imports nothing of ours; import the file")
        elif not _may_import(PLACES.get(_module(path)), PLACES.get(module)):
            found.append(f"{path}:{line}: must not import {module}, which is not on a lower floor"
                         " nor before it in its folder (FLOORS in tests/test_architecture.py)")
    return found


def _may_import(here, there) -> bool:
    if here is None or there is None:  # no floor: _place says so; a package itself holds nothing
        return True
    (floor, folder, position), (other_floor, other_folder, other_position) = here, there
    earlier = folder == other_folder and other_position < position
    return other_floor < floor or (other_floor == floor and earlier)


def _outsiders(path: str, imports) -> list[str]:
    found = []
    for line, module in imports:
        for outsider, places in ONLY_IN.items():
            inside = module == outsider or module.startswith(outsider + ".")
            if inside and not path.startswith(places):
                where = " and ".join(places) or "no file"
                found.append(f"{path}:{line}: {outsider} may be imported in {where} only")
    return found


def _unpickling(path: str, tree) -> list[str]:
    return [f"{path}:{node.value.lineno}: allow_pickle runs what the file says"
            for node in ast.walk(tree)
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle"
            and not (isinstance(node.value, ast.Constant) and node.value.value is False)]


def _size_and_name(path: str, text: str) -> list[str]:
    found = []
    lines, most = len(text.splitlines()), MAX_LINES[path.split("/")[0]]
    if lines > most:
        found.append(f"{path}: {lines} lines, above {most}; part it by what it does")
    if set(Path(path).with_suffix("").parts) & set(ATTICS):
        found.append(f"{path}: is named after nothing; name what it does")
    return found


def _docstrings(path: str, tree) -> list[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in tree.body
              if isinstance(node, functions) and not node.name.startswith("_")]
    found = [f"{path}:{node.lineno}: {node.name} has no docstring"
             for node in public if not ast.get_docstring(node)]
    if tree.body and not ast.get_docstring(tree):
        found.append(f"{path}: has no docstring that says what flows in and out")
    return found


def test_this_clone_breaks_no_rule():
    found = broken_rules(ROOT)
    assert not found, "\n" + "\n".join(found)


def test_the_clone_is_really_read():
    read = {path.relative_to(ROOT).as_posix() for path in (ROOT / "nkjax").rglob("*.py")}
    assert {"nkjax/__init__.py", "nkjax/models/vit.py", "nkjax/geometry/affine.py"} <= read


def test_every_file_has_one_place():
    listed = [f"{folder}.{name}" for _, folder, names in FLOORS for name in names.split()]
    assert len(listed) == len(set(listed))


DOC = '"""What flows."""\n'


@pytest.mark.parametrize(("path", "text", "rule"), [
    # floors
    ("nkjax/geometry/affine.py", "from nkjax.models import vit", "must not import nkjax.models"),
    ("nkjax/geometry/affine.py", "from nkjax.models.vit import x", "must not import nkjax.models"),
    ("nkjax/geometry/affine.py", "import nkjax.models.vit", "must not import nkjax.models.vit"),
    ("nkjax/geometry/affine.py", "from ..models import vit", "must not import nkjax.models.vit"),
    ("nkjax/geometry/affine.py", "from . import heatmaps", "must not import nkjax.geometry.heatm"),
    ("nkjax/data/coco.py", "from nkjax.models import vit", "must not import nkjax.models.vit"),
    ("nkjax/data/coco.py", "from nkjax import views", "must not import nkjax.views"),
    ("nkjax/mesh.py", "from nkjax import sharding", "must not import nkjax.sharding"),
    ("nkjax/trees.py", "def f():\n    '''.'''\n    from nkjax import mesh", "import nkjax.mesh"),
    ("nkjax/trees.py", "import importlib\nimportlib.import_module('nkjax.mesh')", "nkjax.mesh"),
    ("convert_weights/files.py", "from convert_weights import readers", "convert_weights.readers"),
    ("nkjax/models/__init__.py", "from nkjax.models import vit", "an __init__.py imports nothing"),
    # one direction between the top folders
    ("nkjax/trees.py", "import convert_weights.files", "nkjax must not import convert_weights"),
    ("nkjax/trees.py", "from configs import smoke", "nkjax must not import configs"),
    ("nkjax/trees.py", "import scripts.train", "nkjax must not import scripts"),
    ("nkjax/trees.py", "from tests import conftest", "nkjax must not import tests"),
    ("convert_weights/files.py", "import scripts.info", "convert_weights must not import scripts"),
    ("scripts/info.py", "import tests", "scripts must not import tests"),
    # outsiders
    ("nkjax/train/state.py", "import flax.linen as nn", "flax may be imported in nkjax/models/"),
    ("nkjax/models/vit.py", "from orbax.checkpoint import v1", "orbax may be imported in nkjax/ch"),
    ("nkjax/data/records.py", "import grain", "grain may be imported in nkjax/data/streams.py"),
    ("nkjax/evaluate/predict.py", "import cv2", "cv2 may be imported in nkjax/data/images.py and"),
    ("nkjax/journal.py", "from matplotlib import pyplot", "matplotlib may be imported in nkjax/ev"),
    ("convert_weights/readers.py", "import torch", "torch may be imported in scripts/torch_twin"),
    ("scripts/train.py", "def f():\n    import torch.nn", "torch may be imported in scripts/torch"),
    ("nkjax/data/records.py", "import tensorflow as tf", "tensorflow may be imported in no file"),
    ("convert_weights/pickles.py", "import pickle", "pickle may be imported in no file only"),
    ("convert_weights/pickles.py", "from _pickle import Unpickler", "_pickle may be imported in"),
    ("nkjax/data/records.py", "from urllib import request", "urllib.request may be imported in no"),
    ("nkjax/data/records.py", "import numpy\nnumpy.load('x', allow_pickle=True)", "allow_pickle"),
    # files and words
    ("nkjax/kinematics/knees.py", "", "has no floor; add it to FLOORS"),
    ("convert_weights/magic.py", "", "has no floor; add it to FLOORS"),
    ("scripts/utils.py", "", "is named after nothing"),
    ("tests/common/test_x.py", "", "is named after nothing"),
    ("nkjax/trees.py", "x = 1\n" * 300, "301 lines, above 300"),
    ("tests/test_x.py", "x = 1\n" * 400, "401 lines, above 400"),
    ("nkjax/trees.py", "def count(tree):\n    return 1", "count has no docstring"),
    ("convert_weights/files.py", "class BadFile(Exception):\n    pass", "BadFile has no docstring"),
])  # fmt: skip
def test_a_planted_breach_is_found(tmp_path, path, text, rule):
    found = _broken_in(tmp_path, path, DOC + text)
    assert len(found) == 1 and rule in found[0] and found[0].startswith(path)


def test_a_file_without_docstring_is_found(tmp_path):
    assert "has no docstring that says" in _broken_in(tmp_path, "nkjax/trees.py", "x = 1")[0]


@pytest.mark.parametrize(("path", "text"), [
    ("nkjax/models/vit.py", "import flax.linen\nfrom nkjax.models import attention\nimport jax"),
    ("nkjax/models/sapiens.py", "from nkjax import checkpoints\nfrom nkjax.geometry import affine"),
    ("nkjax/sharding.py", "from nkjax.mesh import make_mesh\nfrom nkjax.trees import count"),
    ("nkjax/data/records.py", "import tensorflow_datasets as tfds\nimport urllib.parse"),
    ("convert_weights/convert.py", "from nkjax import checkpoints\nimport pickletools"),
    ("scripts/torch_twin.py", "import torch"),
    ("scripts/train.py", "from nkjax.train import loop\nfrom configs import smoke"),
    ("tests/test_x.py", "import torch\nimport pickle\nfrom nkjax.models import vit"),
    ("nkjax/trees.py", "def _hidden(tree):\n    return 1\n" + "x = 1\n" * 297),
])  # fmt: skip
def test_what_is_allowed_is_not_found(tmp_path, path, text):
    assert _broken_in(tmp_path, path, DOC + text) == []


def _broken_in(tmp_path: Path, path: str, text: str) -> list[str]:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return broken_rules(tmp_path)
