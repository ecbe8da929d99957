#!/usr/bin/env bash
# Checks the style and runs the tests, from a bare clone: `scripts/test.sh [pytest arguments]`.
# Paths in the arguments start at the clone. See setup.sh for PYTHON and NKJAX_VENV.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

"$python" -m ruff check .
# A process per core, four at most for their memory; a file stays whole, so that its fixtures are made
# once. An accelerator is not shared.
workers=()
[ "${NKJAX_TEST_PLATFORM:-cpu}" = cpu ] && workers=(-n auto --maxprocesses 4 --dist loadfile)
exec "$python" -m pytest "${workers[@]}" "$@"
