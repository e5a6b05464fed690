#!/bin/sh
# Makes the locks beside this script anew: names, versions and hashes, for every platform and every Python from 3.11.
#
#   requirements/compile.sh            takes what is in the locks already and adds what is missing
#   requirements/compile.sh --upgrade  takes the newest of everything that pyproject.toml and the .in files allow
#
# Needs uv on PATH. dev.txt holds the same versions as tour.txt and more; floor.txt is the oldest supported stack.
set -eu
cd -- "$(dirname -- "$0")/.."

lock() { # OUTPUT ARGS...
    output=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --no-emit-package jaxopt-tour --no-emit-package jaxopt-tour-data --custom-compile-command requirements/compile.sh \
        --output-file "$output" "$@" >/dev/null
    echo "$output: $(grep -c '==' "$output") packages"
}

lock requirements/bootstrap.txt requirements/bootstrap.in "$@"
lock requirements/tour.txt pyproject.toml --extra tour --constraint requirements/pins.in "$@"
lock requirements/dev.txt --group dev --group docs --constraint requirements/pins.in \
    --constraint requirements/tour.txt "$@"
lock requirements/floor.txt requirements/floor.in "$@"
