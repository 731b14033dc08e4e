#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the build, and moves what was installed.  usage: install.sh CMAKE BUILD_DIR PREFIX
set -eu

rm -rf "$3" "$3.made"
"$1" --install "$2" --prefix "$3.made"
mv "$3.made" "$3"
