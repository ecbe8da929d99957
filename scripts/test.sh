#!/usr/bin/env bash
# Checks the style and runs the tests, from a bare clone: `scripts/test.sh [pytest arguments]`.
# Paths in the arguments start at the clone. See setup.sh for PYTHON and NKJAX_VENV.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

"$python" -m ruff check .
exec "$python" -m pytest "$@"
