# Sourced by quickstart and test, in the project's top folder: a virtual environment in .venv with clipsearch in it.
# Usage: . scripts/setup.sh [EXTRA]     PYTHON names the interpreter (default python3).
# With the extra `dev`, the packages that tests compare with are installed in a separate folder: see scripts/reference.txt.

python="${PYTHON:-python3}"
wanted="-e .${1:+[$1]}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "clipsearch needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Name another with PYTHON=..." >&2
    exit 2
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
stamp=$(cat pyproject.toml constraints.txt scripts/reference.txt | cksum)
if [ "$(cat ".venv/installed${1:+-$1}" 2>/dev/null)" != "$stamp" ]; then
    echo "Setting up .venv (PyTorch is large: this can take minutes) ..." >&2
    # For one run of the tests, pip need not compile 16,000 modules of which a sixth is imported: that takes a minute.
    compile=${1:+--no-compile}
    if [ "${1:-}" = dev ]; then
        # Most of the time goes into unpacking these, on one core; so two do it. What fails here is tried again below.
        for part in "torch numpy sympy networkx" \
            "ray pyarrow playwright scipy transformers numkong imagecodecs faiss-cpu scikit-learn botocore moto"; do
            # shellcheck disable=SC2086  # many words on purpose
            .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
                -c constraints.txt $part >/dev/null 2>&1 &
        done
        wait
    fi
    # shellcheck disable=SC2086  # two words on purpose, or none
    .venv/bin/python -m pip install --quiet --disable-pip-version-check $compile -c constraints.txt $wanted
    [ "${1:-}" != dev ] ||
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --upgrade \
            --target .venv/reference -r scripts/reference.txt
    echo "$stamp" >".venv/installed${1:+-$1}"
fi
PATH="$PWD/.venv/bin:$PATH"
export PATH
