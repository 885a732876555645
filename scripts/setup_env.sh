# Sourced by the other scripts: makes or reuses .venv, with the versions of
# constraints.txt, and goes to the repository's root. Defines $python, the
# interpreter to use.
#
#   setup_env EXTRAS     EXTRAS as in setup.py: "", "[dev]", "[gpu]"
#
# PYTHON=/path/to/python3.12 chooses the interpreter the .venv is made with.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
python=.venv/bin/python

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "No Python 3.10 to 3.13 found; set PYTHON=/path/to/one." >&2
  return 1
}

setup_env() {
  local extras=$1 base stamp
  if ! "$python" -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null; then
    base=$(find_python) || return 1
    echo "== Making .venv with $("$base" --version)"
    rm -rf .venv
    if ! "$base" -m venv .venv; then
      echo "Could not make a virtual environment: on Debian and Ubuntu, apt-get install python3-venv." >&2
      rm -rf .venv
      return 1
    fi
  fi
  # What is installed is known by the contents of setup.py and constraints.txt
  # and by the extras; a larger set of extras serves a smaller one.
  stamp=$(cat setup.py constraints.txt | cksum)
  if grep -qxF "$stamp $extras" .venv/installed 2>/dev/null; then
    echo "== Using .venv as it is"
    return
  fi
  echo "== Installing the packages of setup.py$extras into .venv, as pinned in constraints.txt (a minute or two)"
  "$python" -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable ".$extras" || return 1
  echo "$stamp $extras" >> .venv/installed
  if [ -n "$extras" ]; then echo "$stamp " >> .venv/installed; fi
}
