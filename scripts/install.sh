#!/usr/bin/env bash
# Make .venv (by uv where present, else by venv and pip) and install in it a lock file and this package.
# usage: scripts/install.sh LOCK_FILE      PYTHON=... names another interpreter than the first that fits
set -euo pipefail
cd "$(dirname "$0")/.."
lock=$1

# The Pythons that the locked TensorFlow is built for.
fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if fits "$name"; then
            # The interpreter itself: a pyenv shim would answer otherwise in another folder.
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    echo "Python 3.11, 3.12 or 3.13 is needed and ${PYTHON:-python3} is not one: install one," \
        "or name it: make setup PYTHON=/path/to/python3.12" >&2
    return 1
}

has_uv() { command -v uv >/dev/null; }

make_venv() {
    local python
    python=$(find_python)
    rm -rf .venv
    if has_uv; then
        uv venv --quiet --seed --python "$python" .venv
    elif ! "$python" -m venv .venv >/dev/null 2>&1; then
        rm -rf .venv
        echo "$python cannot make a virtual environment: install its venv module" \
            "(Debian or Ubuntu: apt-get install python3-venv) or uv." >&2
        return 1
    fi
}

install() {
    if has_uv; then
        VIRTUAL_ENV=$PWD/.venv uv pip install --quiet "$@"
    else
        .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input "$@"
    fi
}

fits .venv/bin/python || make_venv
echo "Installing $lock in .venv ..." >&2
install -r "$lock"
install --no-deps --editable .
