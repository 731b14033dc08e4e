# SPDX-License-Identifier: MIT
# Shared by the scripts here: what must be installed, and building without noise.  Sourced, not run.
# shellcheck shell=sh disable=SC2034

cd "$(dirname "$0")/.." || exit
jobs=$(nproc 2>/dev/null || echo 2)
missing=
# The distribution's own, for which the packages below are, unless another is asked for.
python=${PYTHON:-/usr/bin/python3}

say() { printf '== %s\n' "$*"; }

# need PACKAGE COMMAND...: the package is missing where the command does not succeed
need() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

need_build_tools() {
    need build-essential sh -c 'cc --version && c++ --version && { ninja --version || make --version; }'
    need cmake cmake --version
    need pkg-config pkg-config --version
    need libcurl4-openssl-dev pkg-config --exists libcurl
    need libmicrohttpd-dev pkg-config --exists libmicrohttpd
    need libjansson-dev pkg-config --exists jansson
    need libturbojpeg0-dev pkg-config --exists libturbojpeg
}

# need_module PACKAGE MODULE, for the distribution's Python: another has what it has
need_module() {
    case $python in
    /usr/bin/python3*)
        need "$1" "$python" -c "import importlib.util, sys; sys.exit(not importlib.util.find_spec('$2'))"
        ;;
    esac
}

# What an extension for this Python takes.
need_python() {
    case $python in
    /usr/bin/python3*)
        need python3 "$python" --version
        need "$(basename "$python")-dev" "$python" -c \
            'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")'
        ;;
    esac
}

# Prints what stands before a command that is to run as root; fails where nothing would help.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        echo env
    elif sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null; }; then
        echo sudo env
    else
        return 1
    fi
}

# quietly LOG COMMAND...: shows what the command says only if it fails
quietly() {
    log=$1
    shift
    mkdir -p "$(dirname "$log")"
    if ! "$@" >"$log" 2>&1 </dev/null; then
        cat "$log"
        say "This failed: $*"
        exit 1
    fi
}

# install_missing LOG
install_missing() {
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null || ! root=$(as_root); then
        printf 'Please install these packages (their names on Debian and Ubuntu), and start again:\n  %s\n' \
            "${missing# }" >&2
        exit 1
    fi
    say "Installing$missing"
    apt="$root DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120"
    # shellcheck disable=SC2086  # a list of words each
    {
        $apt update || say "The package lists could not be updated; trying with those that are here"
        quietly "$1" $apt --no-install-recommends install $missing
    }
}

# configure DIRECTORY CMAKE_ARGUMENT...: with ninja where it is, unless the directory has begun with another
configure() {
    directory=$1
    shift
    if command -v ninja >/dev/null && [ ! -e "$directory/CMakeCache.txt" ]; then
        set -- -G Ninja "$@"
    fi
    quietly "$directory/configure.log" cmake "$@"
    sed -n 's/^-- \(.* left out: .*\)/\1/p' "$directory/configure.log"
}
