"""Sets the stage before jax is imported: which devices, how strict, no network.

Eight forced CPU devices by default; NKJAX_TEST_PLATFORM=gpu or tpu runs on what is there instead.
All of it stands in the environment rather than in jax.config: commands that tests start inherit it.
"""

import importlib.util
import os
from pathlib import Path

import pytest

PLATFORM = os.environ.get("NKJAX_TEST_PLATFORM", "cpu")
NO_NETWORK = Path(__file__).parent / "no_network"

if PLATFORM == "cpu":
    os.environ["JAX_PLATFORMS"] = "cpu"
    devices = "--xla_force_host_platform_device_count=8"
    # Eight devices on two busy cores: one may be late for a sum, which is no reason to abort.
    devices += " --xla_cpu_collective_call_terminate_timeout_seconds=900"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {devices}".strip()
# An array never gains axes silently: x_bnd + bias_d is an error, x_bnd + bias_d[None, None] is not.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

# Python loads a file of this name at its start; for this process it is too late, so load it here.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(NO_NETWORK), *filter(None, [os.environ.get("PYTHONPATH")])]
)
spec = importlib.util.spec_from_file_location("no_network", NO_NETWORK / "sitecustomize.py")
spec.loader.exec_module(importlib.util.module_from_spec(spec))


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config, items):
    for item in items:
        for platform in ("gpu", "tpu"):
            if item.get_closest_marker(platform) and PLATFORM != platform:
                reason = f"needs a {platform.upper()}: NKJAX_TEST_PLATFORM={platform} runs it there"
                item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="takes long: --slow runs it"))


def pytest_sessionstart(session):
    """Stop early when the platform asked for is not there, rather than test another one."""
    if PLATFORM == "cpu":
        return
    import jax

    found, extra = jax.default_backend(), {"gpu": "cuda"}.get(PLATFORM, PLATFORM)
    if found != PLATFORM:
        why = f"NKJAX_TEST_PLATFORM={PLATFORM}, but jax found only {found} devices"
        pytest.exit(f"{why}; install jax for it: pip install 'nkjax[{extra}]'", returncode=2)
