#!/usr/bin/env bash
# Writes requirements.lock anew from pyproject.toml: names, versions, markers and hashes, one file
# for every Python from 3.11 on. uv forks where a release dropped 3.11, so 3.11 keeps older jax.
# Needs uv. Arguments go to uv: `scripts/lock.sh --upgrade` takes newer releases.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

command -v uv >/dev/null || { echo "lock: uv is not on PATH; install it (pip install uv)" >&2; exit 2; }
uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
    --extra test --custom-compile-command scripts/lock.sh \
    --output-file requirements.lock "$@" pyproject.toml
echo "lock: requirements.lock names $(grep -c '==' requirements.lock) releases"
