#!/usr/bin/env bash
# shellcheck disable=SC2016 # what is printed expands in the caller's shell

# Puts nvcc 13.0 and the libraries that candle links with its feature `cuda` into target/cuda-toolkit, from NVIDIA's packages on
# PyPI, and sets the environment to build with them: the CUDA side builds and links on a machine with neither CUDA nor a GPU.
#
#     . scripts/cuda-toolkit.sh && cargo build --release --features cuda
#     eval "$(scripts/cuda-toolkit.sh)"    # the same from any shell that knows `export`: run, it prints what sourcing sets
#
# The first call downloads about 0.7 GiB and keeps 1 GiB; later ones take no time. CUDA_COMPUTE_CAP is kept where it is set, else
# it is the GPU's, else 80. Without an NVIDIA driver a stub of libcuda lets binaries start, and answers "no device".

# Sourced: a shell of its own does the work, so that nothing but the environment reaches the caller.
if [ -n "${BASH_VERSION:-}" ]; then
    if [ "${BASH_SOURCE[0]:-$0}" != "$0" ]; then
        eval "$(bash "${BASH_SOURCE[0]}" || echo false)"
        return
    fi
elif [ -n "${ZSH_VERSION:-}" ]; then
    # The inner quotes hide zsh's expansions from bash.
    eval 'eval "$(bash "${(%):-%x}" || echo false)"'
    return
else
    echo "cuda-toolkit: only bash and zsh can source this; elsewhere: eval \"\$(bash scripts/cuda-toolkit.sh)\"" >&2
    # shellcheck disable=SC2317 # reached where `return` is not allowed
    return 1 2>/dev/null || exit 1
fi

set -euo pipefail
unset CDPATH

# Only the environment goes to stdout.
exec 3>&1 1>&2

# CUDA 13.0.2, as the package cuda-toolkit 13.0.2 puts it together. Not newer: PTX newer than the driver does not load.
# The two disassemblers were first published later, and read older cubins.
packages=(
    nvidia-cuda-nvcc==13.0.88
    nvidia-nvvm==13.0.88
    nvidia-cuda-crt==13.0.88
    nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85
    nvidia-cuda-nvrtc==13.0.88
    nvidia-cublas==13.1.0.3
    nvidia-curand==10.4.0.35
    nvidia-cuda-cuobjdump==13.5.37
    nvidia-cuda-nvdisasm==13.5.37
)

said=
work=

say() {
    printf 'cuda-toolkit: %s\n' "$1"
}

die() {
    said=1
    say "$1"
    exit 1
}

finish() {
    local status=$?
    if [ -n "$work" ]; then
        rm -rf "$work"
    fi
    if [ "$status" -ne 0 ]; then
        if [ -z "$said" ]; then
            say "failed or interrupted; the next call begins anew"
        fi
        # For `eval "$(...)" && cargo build`, which would not see the status.
        echo false >&3
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
target=$(dirname "$scripts")/target
home=$target/cuda-toolkit
stub=$home/lib64/stubs
arch=$(uname -m)

# What is installed, written last: a changed pin, or a change in what becomes of the packages, makes it stale.
packages_stamp="layout 1, $arch, ${packages[*]}"
stub_stamp=$(cat "$scripts/libcuda-stub.txt" "${BASH_SOURCE[0]}" | cksum)

is_current() { # stamp file, expected content
    [ -f "$1" ] && [ "$(<"$1")" = "$2" ]
}

# Sets `pip` to a command that installs packages. A pip that is there is best; else a virtual environment brings one.
find_pip() {
    if ! command -v python3 >/dev/null; then
        die "python3 is missing, which downloads the packages: install it with pip (Debian, Ubuntu: apt install python3-pip; Fedora: dnf install python3-pip)"
    fi
    if ! python3 -c '' 2>/dev/null; then
        die "python3 does not run: $(python3 -c '' 2>&1 | head -n 1)"
    fi
    pip=(python3 -m pip)
    if ! "${pip[@]}" --version >/dev/null 2>&1; then
        pip=("$work/venv/bin/python3" -m pip)
        if ! python3 -m venv "$work/venv" >/dev/null 2>&1 || ! "${pip[@]}" --version >/dev/null 2>&1; then
            die "python3 has neither pip nor a venv module that brings it: install one (Debian, Ubuntu: apt install python3-pip; Fedora: dnf install python3-pip)"
        fi
    fi
}

install_packages() {
    if [ "$(uname -s)" != Linux ] || { [ "$arch" != x86_64 ] && [ "$arch" != aarch64 ]; }; then
        die "NVIDIA's packages are for Linux on x86_64 and aarch64, this is $(uname -s) on $arch"
    fi
    # Before the download, not after.
    find_compiler
    if [ -z "${NVCC_CCBIN:-}" ] && ! command -v g++ >/dev/null; then
        die "g++ is missing, through which nvcc compiles: install it (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++)"
    fi
    work=$(mktemp -d "$target/cuda-toolkit.part.XXXXXX") || die "cannot write to $target"
    find_pip
    say "installing ${#packages[@]} packages from PyPI into $home"
    # pip unpacks into TMPDIR, often a small file system in memory. The user's own settings of index and cache hold, those that
    # forbid an installation into a folder do not.
    mkdir "$work/tmp"
    TMPDIR=$work/tmp PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore "${pip[@]}" install --target "$work/site" \
        --no-deps --only-binary :all: --disable-pip-version-check --no-input --no-warn-script-location "${packages[@]}" ||
        die "pip could not install the packages (its message is above)"

    local new=$work/site/nvidia/cu13 library
    # A fifth of the space: a second nvrtc, and libraries that nothing here links.
    rm -rf "$new"/lib/lib{nvrtc.alt,nvrtc-builtins.alt,nvvm,nvblas}.so* "$new"/lib/cmake
    # The packages hold neither the name by which build scripts look for the libraries, nor the links by which linkers do.
    ln -s lib "$new/lib64"
    for library in "$new"/lib/*.so.*; do
        ln -s "$(basename "$library")" "${library%.so.*}.so"
    done
    "$new/bin/nvcc" --version >/dev/null || die "the installed nvcc does not run on this machine"
    printf '%s\n' "$packages_stamp" >"$new/packages.stamp"
    rm -rf "$home"
    mv "$new" "$home"
    rm -rf "$work"
    work=
}

find_compiler() {
    for compiler in cc gcc clang; do
        if command -v "$compiler" >/dev/null; then
            return
        fi
    done
    die "cc is missing, for the stub of libcuda and for nvcc: install a C++ compiler (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++)"
}

# A libcuda.so.1 with every function that cudarc declares, so that what is linked with it links, starts, and is told that there is
# no device. libcuda-stub.txt holds the names; after an update of cudarc:
#
#     grep -ohE '\bfn cu[A-Z]\w+' ~/.cargo/registry/src/*/cudarc-0.19.10/src/driver/sys/mod.rs | cut -c4- | LC_ALL=C sort -u >scripts/libcuda-stub.txt
install_stub() {
    find_compiler
    work=$(mktemp -d "$target/cuda-toolkit.part.XXXXXX") || die "cannot write to $target"
    {
        # cudarc reads what these point to whenever they return success, so they set it before they do.
        cat <<'EOF'
static int answer(int error, const char **text, const char *success, const char *no_device) {
    *text = error == 0 ? success : error == 100 ? no_device : (const char *)0;
    return *text ? 0 : 1;
}
int cuGetErrorName(int error, const char **text) {
    return answer(error, text, "CUDA_SUCCESS", "CUDA_ERROR_NO_DEVICE");
}
int cuGetErrorString(int error, const char **text) {
    return answer(error, text, "no error", "no CUDA-capable device is detected (stub)");
}
int cuDriverGetVersion(int *version) {
    *version = 13000;
    return 0;
}
EOF
        sed -nE -e '/^cu(GetErrorName|GetErrorString|DriverGetVersion)$/d' -e 's/^cu[A-Za-z0-9_]+$/int &(void) { return 100; }/p' \
            "$scripts/libcuda-stub.txt"
    } >"$work/libcuda.c"
    "$compiler" -shared -fPIC -O1 -Wl,-soname,libcuda.so.1 -o "$work/libcuda.so.1" "$work/libcuda.c" ||
        die "$compiler could not compile the stub of libcuda (its message is above)"
    mkdir -p "$stub"
    # By renaming: a program may be running on the old one.
    mv "$work/libcuda.so.1" "$stub/libcuda.so.1"
    ln -sf libcuda.so.1 "$stub/libcuda.so"
    printf '%s\n' "$stub_stamp" >"$stub/stub.stamp"
    rm -rf "$work"
    work=
}

if ! is_current "$home/packages.stamp" "$packages_stamp" || ! is_current "$stub/stub.stamp" "$stub_stamp"; then
    # PATH cannot hold the one, and nvcc expands the other.
    case $target in
    *[:$]*) die "the path $target has a colon or a dollar in it, with which nvcc does not work: move the repository" ;;
    esac
    mkdir -p "$target" || die "cannot create $target"
    # One installation at a time; whoever had to wait finds it done. A file system without locks goes without.
    if command -v flock >/dev/null; then
        exec 9>"$target/.cuda-toolkit.lock"
        if ! flock -n 9; then
            say "waiting for another installation"
            flock 9 || true
        fi
        # What a killed installation left: nobody else is at work.
        rm -rf "$target"/cuda-toolkit.part.*
    fi
    if ! is_current "$home/packages.stamp" "$packages_stamp"; then
        install_packages
    fi
    if ! is_current "$stub/stub.stamp" "$stub_stamp"; then
        install_stub
    fi
fi

# The folder that has to join the loader's path for it to find a libcuda.so.1: none where it finds one, else that of a driver, else the stub's.
driver_folder() {
    local folder folders
    IFS=: read -ra folders <<<"${LD_LIBRARY_PATH:-}"
    folders+=("/usr/lib/$arch-linux-gnu" /usr/lib64)
    for folder in "${folders[@]}"; do
        if [ -n "$folder" ] && [ "$folder" != "$stub" ] && [ -e "$folder/libcuda.so.1" ]; then
            return
        fi
    done
    # /sbin is not on everyone's PATH; the comma leaves out 32-bit libraries; without -q, since grep would leave early and ldconfig fail.
    if PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep 'libcuda\.so\.1 (libc6,' >/dev/null; then
        return
    fi
    # NixOS, WSL
    for folder in /run/opengl-driver/lib /usr/lib/wsl/lib; do
        if [ -e "$folder/libcuda.so.1" ]; then
            echo "$folder"
            return
        fi
    done
    echo "$stub"
}

# Behind what the caller has in the variable, once.
append() { # name of the variable, its value, folder
    case ":$2:" in
    *":$3:"*) ;;
    *) printf 'export %s="${%s:+$%s:}"%q\n' "$1" "$1" "$1" "$3" ;;
    esac
}

# The GPU's, or that of the first GPU, as candle takes it; "8.9" becomes 89.
compute_cap=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sed -nE '1s/^([0-9]+)\.([0-9])$/\1\2/p') || true

{
    printf 'export CUDA_HOME=%q\n' "$home"
    if [ "$(command -v nvcc)" != "$home/bin/nvcc" ]; then
        printf 'export PATH=%q:"$PATH"\n' "$home/bin"
    fi
    printf 'export CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-%s}"\n' "${compute_cap:-80}"
    append LIBRARY_PATH "${LIBRARY_PATH:-}" "$home/lib64"
    append LIBRARY_PATH "${LIBRARY_PATH:-}" "$stub"
    append LD_LIBRARY_PATH "${LD_LIBRARY_PATH:-}" "$home/lib64"
    driver=$(driver_folder)
    if [ -n "$driver" ]; then
        append LD_LIBRARY_PATH "${LD_LIBRARY_PATH:-}" "$driver"
    fi
} >&3
