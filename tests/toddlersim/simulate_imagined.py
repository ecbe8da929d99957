"""scripts/simulate.py with imagined pictures in place of rendered ones; also as a program."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]


def load():
    """Return the script as a module of its own."""
    from tests.toddlersim import imagined

    spec = importlib.util.spec_from_file_location("simulate", ROOT / "scripts" / "simulate.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.world = imagined
    return script


if __name__ == "__main__":
    sys.exit(load().main(sys.argv[1:]))
