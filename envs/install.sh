#!/bin/sh
# Create .venv with everything pinned in this folder. Called by `make`; safe to run again.
#   PYTHON=python3.12 sh envs/install.sh    with another interpreter
# A machine without an NVIDIA GPU gets PyTorch's CPU build (200 MB) instead of the CUDA build (several GB).
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=.venv

fail() {
    echo "evo-sdpa: $*" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "$python was not found; install Python 3.11 or 3.12, or set PYTHON"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' ||
    fail "$("$python" --version) is not supported; install Python 3.11 or 3.12, or set PYTHON"
command -v "${CXX:-g++}" >/dev/null || fail "no C++ compiler was found; on Debian: apt-get install g++"
[ -x $venv/bin/python ] || "$python" -m venv $venv ||
    fail "python's venv module does not work; on Debian: apt-get install python3-venv"

pip() {
    $venv/bin/python -m pip --disable-pip-version-check install --quiet --constraint envs/constraints.txt "$@"
}

torch=$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' envs/requirements.txt)
if ! command -v nvidia-smi >/dev/null && ! $venv/bin/python -c 'import torch' 2>/dev/null; then
    # Without its dependencies (they come with the rest below), so that nothing else is looked up on this index.
    pip --no-deps --retries 1 --index-url https://download.pytorch.org/whl/cpu "$torch" ||
        fail "PyTorch's CPU build ($torch) could not be installed. With an index of your own that has it, set PIP_FIND_LINKS;" \
            "to accept the CUDA build of several GB: $venv/bin/python -m pip install $torch, then make again"
fi
pip --requirement envs/requirements.txt
if ! PYTHONPATH=scripts $venv/bin/python -c 'import sys; from evosdpa import machine; sys.exit(not machine.tool("nvcc"))'; then
    echo "evo-sdpa: no fit nvcc here; installing it from Python packages"
    pip --requirement envs/nvcc.txt
fi
touch $venv/ready
