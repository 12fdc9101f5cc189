#!/usr/bin/env bash
# Builds the simulated device and lays it into a folder under the names by which programs look for CUDA's libraries:
#   bash tests/cuda-sim/install.sh <folder>
# With the folder in LIBRARY_PATH, programs link against it; with it in LD_LIBRARY_PATH, they run on it.
set -euo pipefail

folder=${1:?usage: install.sh <folder>}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

cargo build --release --manifest-path "$here/Cargo.toml"
target=$(cargo metadata --no-deps --format-version 1 --manifest-path "$here/Cargo.toml" |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

mkdir -p "$folder"
# A file of its own, put in place in one step: programs that run keep the one that they have.
cp "$target/release/libcuda_sim.so" "$folder/.libcuda_sim.so.new"
mv "$folder/.libcuda_sim.so.new" "$folder/libcuda_sim.so"
# The loader knows a file under several names as one library.
for name in libcuda.so.1 libcublas.so.13 libcublasLt.so.13 libcurand.so.10 libcudart.so.13 libnvrtc.so.13; do
    ln -sfn libcuda_sim.so "$folder/$name"
    ln -sfn libcuda_sim.so "$folder/${name%.*}"
done
echo "the simulated device is in $folder"
