#!/bin/sh
# SPDX-License-Identifier: MIT
# pip builds and installs the package from the tree, with what is here already and no index to ask; what
# it has installed works, and is complete.  usage: pip.sh ROOT PYTHON
set -eu

root=$1 python=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/tree"
(cd "$root" && cp -R CMakeLists.txt cmake include packaging python src "$scratch/tree")
rm -rf "$scratch/tree/python/build"

unset PYTHONPATH
cd "$scratch"
"$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation \
    --target installed tree/python
for file in __init__.py __init__.pyi py.typed; do
    test -f "installed/cfutures/$file"
done
PYTHONPATH=installed "$python" -c '
import importlib.metadata
import cfutures
print(importlib.metadata.version("cfutures"), cfutures.__file__)
with cfutures.ThreadPoolExecutor() as pool:
    assert pool.submit(pow, 2, 10).result(timeout=10) == 1024'
