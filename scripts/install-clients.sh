#!/usr/bin/env bash
# Installs the clients that `make clients` tests with and that are missing: system packages as bench/install.sh does, and
# DuckDB from PyPI into a virtual environment. Its extension that reads over HTTP is a package there too.
#
#   scripts/install-clients.sh FOLDER        # where the virtual environment is, or is made
set -eu -o pipefail
cd "$(dirname "$0")/.."

folder=$1
duckdb_version=1.5.5

packages=(curl:curl aria2c:aria2 ffmpeg:ffmpeg ffprobe:ffmpeg)
# Debian's python3 comes without what makes environments. That is no program, so it counts as missing.
python3 -c 'import ensurepip' 2>/dev/null || packages+=(ensurepip:python3-venv)
bench/install.sh "${packages[@]}"

if ! "$folder/bin/python" -c "import duckdb, duckdb_extension_httpfs; assert duckdb.__version__ == '$duckdb_version'" 2>/dev/null; then
    echo "clients: pip install duckdb $duckdb_version"
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check \
        "duckdb==$duckdb_version" "duckdb-extension-httpfs==$duckdb_version"
fi
