"""The simulated world does not change under the figures that were measured in it.

A dozen pictures of every domain and role, as they stand on disk. Whoever means to change the world
writes the new hashes here, and measures again what docs/toddlersim.md and docs/measurements.md say.
"""

import hashlib
from pathlib import Path

import pytest

from nkjax.toddlersim import world
from nkjax.toddlersim.lab_folder import folder

SIZE_WH, SEED = (96, 128), 0
COUNTS = {
    "adult": {"labelled": 12, "unlabelled": 0, "test": 4},
    "toddler": {"labelled": 12, "unlabelled": 4, "test": 8},
    "atypical": {"labelled": 0, "unlabelled": 0, "test": 12},
}
FROZEN = {
    "adult": "7305a49bd980422da7c033f45e7272344bcafd757778893e87b5accaaa685fbd",
    "toddler": "68b63acc60d092485260ac80702b95314842b9f0777a633363d32e471cb7b1e0",
    "atypical": "8f6243ec696a602ee4a832089a76338a5c92b9f3f3a54daea0b62d5320ddd312",
}


def seal(out: Path) -> str:
    """Return one hash of the names and contents of all files but the words of README.txt."""
    digest = hashlib.sha256()
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name != "README.txt":
            digest.update(path.relative_to(out).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@pytest.mark.parametrize("domain", sorted(COUNTS))
def test_the_world_is_the_one_that_was_measured(tmp_path, domain):
    out = tmp_path / domain
    folder.write(
        out, domain, COUNTS[domain], SIZE_WH, SEED, world.example, world.SKELETON, workers=1
    )
    assert seal(out) == FROZEN[domain]
