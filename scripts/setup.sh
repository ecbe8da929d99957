# shellcheck shell=bash
# Sourced by test.sh and quickstart.sh, in bash with `set -euo pipefail`: makes the clone's virtual
# environment, installs what requirements.lock names and the package itself, once, and leaves
# `root` (the clone, also the working folder from here on) and `python` (the environment's) set.
#
#   PYTHON      interpreter to use; default: the first of python3, python3.13, python3.12 and
#               python3.11 that is Python 3.11 or newer
#   NKJAX_VENV  folder of the environment, default .venv in the clone

root="$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
venv="${NKJAX_VENV:-.venv}"
case "$venv" in /*) ;; *) venv="$root/$venv" ;; esac
python="$venv/bin/python"

setup_fails() {
    echo "setup: $1" >&2
    exit "${2:-2}"
}

# Prints the version of interpreter $1 if it is new enough. Running it is the test: a shim may stand
# on PATH for a Python that is not there.
setup_version() {
    "$1" -c 'import sys; sys.version_info >= (3, 11) or sys.exit(1); print(sys.version)' 2>/dev/null
}

setup_interpreter() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        setup_version "$PYTHON" >/dev/null ||
            setup_fails "PYTHON=$PYTHON is not a Python 3.11 or newer; name another interpreter"
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11; do
        if setup_version "$candidate" >/dev/null; then
            echo "$candidate"
            return
        fi
    done
    setup_fails "no Python 3.11 or newer found; install one, or name it: PYTHON=/path/to/python3.12"
}

# What the environment was made from; it is as good as new while this text is the same.
setup_state() {
    echo "$root"
    setup_version "$1"
    cat pyproject.toml requirements.lock
}

setup_install() {
    local interpreter="$1" stamp="$2"
    if [ -e "$venv" ] && [ ! -e "$stamp" ]; then
        setup_fails "$venv was not made by this script; remove it, or set NKJAX_VENV to another folder"
    fi
    echo "setup: installing into $venv (about 1.7 GB unpacked; a few minutes the first time)" >&2
    mkdir -p "$venv"
    : >"$stamp" # marks the folder as ours, and as not finished
    "$interpreter" -m venv --clear "$venv" ||
        setup_fails "$interpreter cannot make virtual environments; install its venv package" 1
    : >"$stamp"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    [ -t 1 ] || export PIP_QUIET=1
    # setuptools first: what has no wheel is then built with the lock's, so no hash goes unchecked.
    sed -n '/^setuptools==/,/^    #/p' requirements.lock >"$venv/setuptools.lock"
    "$python" -m pip install --require-hashes -r "$venv/setuptools.lock" &&
        "$python" -m pip install --require-hashes --no-build-isolation -r requirements.lock &&
        "$python" -m pip install --no-deps --no-build-isolation --no-index --editable . ||
        setup_fails "pip could not install requirements.lock (its reason stands above). Without a \
network, set PIP_NO_INDEX=1 and PIP_FIND_LINKS to a folder of the wheels that the lock names" 1
    setup_state "$interpreter" >"$stamp"
}

setup_main() {
    local interpreter stamp="$venv/nkjax-setup"
    interpreter="$(setup_interpreter)"
    [ -f "$stamp" ] && setup_state "$interpreter" | cmp -s - "$stamp" && return
    setup_install "$interpreter" "$stamp"
}

setup_main
