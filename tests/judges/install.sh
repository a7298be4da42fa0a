#!/usr/bin/env bash
# Creates .venv-judges beside .venv: the judges' needs and ours must not meet. Does nothing if it is up to date.
set -euo pipefail
cd "$(dirname "$0")/../.."
requirements=tests/judges/requirements.txt
stamp=.venv-judges/requirements.txt
if cmp --silent "$requirements" "$stamp"; then
  exit 0
fi
rm -rf .venv-judges
"${PYTHON:-python3}" -m venv .venv-judges
.venv-judges/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
cp "$requirements" "$stamp"
