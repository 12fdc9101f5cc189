#!/usr/bin/env bash

# Builds what runs on a machine with a GPU but without Rust and without this repository: the tests, the benches and a script
# that runs them there.
#
#     . scripts/cuda-toolkit.sh && scripts/gpu-bundle.sh
#
# The bundle is target/gpu-bundle/: copy the folder to the machine and start its run.sh (`run.sh --help`). Kernels travel as PTX for
# CUDA_COMPUTE_CAP, which runs on that capability and all later ones. Arguments are passed on to cargo.

set -euo pipefail
unset CDPATH

# Folders that travel are small.
most_mib=60

die() {
    printf 'gpu-bundle: %s\n' "$1" >&2
    exit 1
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bundle=$PWD/target/gpu-bundle

command -v nvcc >/dev/null || die "there is no nvcc: . scripts/cuda-toolkit.sh"
command -v strip >/dev/null || die "there is no strip: install binutils"
command -v readelf >/dev/null || die "there is no readelf: install binutils"
command -v gzip >/dev/null || die "there is no gzip"

# The path of the one binary that a cargo command builds.
built() {
    local messages
    messages=$(cargo "$@" --features cuda --no-run --message-format=json-render-diagnostics) || die "cargo $* failed"
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' <<<"$messages" | tail -n 1
}

suite=$(built test --release --test suite "$@")
ops=$(built bench --bench ops "$@")
if [ ! -x "$suite" ] || [ ! -x "$ops" ]; then
    die "cargo did not say what it built"
fi

part=$bundle.part
rm -rf "$part"
mkdir -p "$part"
# tests/memory.rs stays here: it counts what the ops allocate on the host.
for binary in suite ops; do
    strip -o "$part/$binary" "${!binary}"
done
cp benches/peers/torch_peers.py "$part"
cp scripts/gpu-run.sh "$part/run.sh"
chmod +x "$part/run.sh"

# What the binaries load, and the tests as they count themselves, for machines on which they cannot start.
needed() {
    readelf -d "$part/suite" "$part/ops" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u
}
needed | grep -E '^lib(cu|nv)' >"$part/libraries.txt" || die "the binaries load no CUDA library"
"$part/suite" --list --format terse >"$part/tests.txt" || die "$part/suite does not start here"
{
    printf 'toolkit=%q\n' "$(nvcc --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')"
    printf 'compute_cap=%q\n' "${CUDA_COMPUTE_CAP:-}"
    printf 'revision=%q\n' "$(git describe --always --dirty 2>/dev/null || echo unknown)"
} >"$part/build.txt"

# candle's own kernels are two thirds of each binary, and text.
gzip "$part/suite" "$part/ops"

kib=$(du -sk "$part" | cut -f1)
if [ "$kib" -gt $((most_mib * 1024)) ]; then
    du -ak "$part" >&2
    die "the bundle has $((kib / 1024)) MiB, more than $most_mib"
fi
rm -rf "$bundle"
mv "$part" "$bundle"
(cd "$bundle" && du -ak . | sort -k2)
awk -v kib="$kib" -v folder="$bundle" 'BEGIN { printf "%s: %.1f MiB\n", folder, kib / 1024 }'
