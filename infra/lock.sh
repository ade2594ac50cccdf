#!/bin/sh
# Resolves pyproject.toml into locks/: one resolution for app, train and dev, one for Triton's environment.
set -eu
uv=$(command -v uv || echo .tools/uv/bin/uv)
flags="--generate-hashes --no-emit-index-url --universal --python-version 3.11 --no-header --no-annotate -q"
together=$(mktemp)
trap 'rm -f "$together"' EXIT
$uv pip compile pyproject.toml --extra train --group dev $flags -o locks/dev.txt
sed 's/ \\$//; /--hash/d' locks/dev.txt >"$together"
$uv pip compile pyproject.toml --extra app -c "$together" $flags -o locks/app.txt
$uv pip compile pyproject.toml --extra train -c "$together" $flags -o locks/train.txt
$uv pip compile --group triton $flags -o locks/triton.txt
