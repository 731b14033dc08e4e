#!/bin/sh
# SPDX-License-Identifier: MIT
# pkg-config and a plain compiler command, shared and static.  usage: with_pkgconfig.sh PREFIX LIBDIR
set -eu

command -v pkg-config >/dev/null || { echo "pkg-config is not installed"; exit 77; }
source=$(dirname "$0")/cmake/main.c
libdir=$1/$2
PKG_CONFIG_PATH=$libdir/pkgconfig
export PKG_CONFIG_PATH
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# prints NAME COMMAND...: the command says what it should
prints() {
    name=$1 && shift
    printed=$("$@")
    echo "$name: $printed"
    [ "$printed" = "6 times 7 is 42" ]
}

# shellcheck disable=SC2046
"${CC:-cc}" "$source" $(pkg-config --cflags --libs cfutures) -o "$scratch/shared"
prints shared env LD_LIBRARY_PATH="$libdir" "$scratch/shared"

# shellcheck disable=SC2046
"${CC:-cc}" "$source" -Wl,-Bstatic $(pkg-config --cflags --libs --static cfutures) -Wl,-Bdynamic \
    -o "$scratch/static"
prints static "$scratch/static"
