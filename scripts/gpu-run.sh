#!/usr/bin/env bash

# run.sh of the bundle that scripts/gpu-bundle.sh makes: runs the device tests, the benches and their peers on a machine with a
# GPU. It needs the driver, the CUDA libraries (of a toolkit, or of a Python package) and, for the peers, PyTorch.

set -uo pipefail
unset CDPATH

usage() {
    cat <<'TEXT'
usage: run.sh [--minutes N] [--out FOLDER] [--only tests|benches|peers]

Runs the tests on the device, times every op there, then PyTorch on the same shapes. All of it ends after N minutes (9 unless
said otherwise), with what was measured by then. Results go to FOLDER, else to $OUT, else to ./results:
tests.log, benches.log, peers.log, environment.txt, summary.txt, bench-cuda.csv.

Without a device it says so, reports the tests as skipped, and succeeds. The status is 1 where a test or a bench failed or
something is missing, 2 where the arguments are wrong.
TEXT
}

minutes=9
out=${OUT:-results}
only=
while [ $# -gt 0 ]; do
    case $1 in
    --minutes | --out | --only)
        if [ $# -lt 2 ]; then
            usage >&2
            exit 2
        fi
        case $1 in
        --minutes) minutes=$2 ;;
        --out) out=$2 ;;
        --only) only=$2 ;;
        esac
        shift
        ;;
    -h | --help)
        usage
        exit
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    shift
done
if ! [[ $minutes =~ ^[1-9][0-9]*$ && $only =~ ^(tests|benches|peers)?$ ]]; then
    usage >&2
    exit 2
fi
deadline=$((SECONDS + 60 * minutes))

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
: >"$out/summary.txt"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for binary in suite ops; do
    if ! gzip -dc "$here/$binary.gz" >"$scratch/$binary"; then
        echo "error: cannot unpack $here/$binary.gz into $scratch" >&2
        exit 1
    fi
    chmod +x "$scratch/$binary"
done

# The rules about the source tree, which is not here.
skipped=(layout_rules)

say() {
    printf '%s\n' "$*" | tee -a "$out/summary.txt"
}

left() {
    echo $((deadline - SECONDS > 1 ? deadline - SECONDS : 1))
}

wanted() { # stage
    [ -z "$only" ] || [ "$only" = "$1" ]
}

# What does not run here: the tests are counted, by the binary itself where it starts.
no_device() {
    say "no device${1:+: $1}"
    if ! "$scratch/suite" --list --format terse >"$scratch/tests.txt" 2>/dev/null; then
        cp "$here/tests.txt" "$scratch/tests.txt"
    fi
    local count
    count=$(grep ': test$' "$scratch/tests.txt" | grep -cvE "^($(join '|' "${skipped[@]}"))::")
    say "tests: 0 passed, 0 failed, $count skipped"
    say "benches: skipped"
    exit 0
}

join() { # separator, words
    local IFS=$1
    shift
    printf '%s' "$*"
}

# --- The libraries

folder_of() { # library, folders: the first that has it
    local library=$1 folder
    shift
    for folder; do
        if [ -e "$folder/$library" ]; then
            printf '%s\n' "$folder"
            return
        fi
    done
    return 1
}

in_loaders_path() { # library
    local folders
    IFS=: read -ra folders <<<"${LD_LIBRARY_PATH:-}"
    if [ ${#folders[@]} -gt 0 ] && folder_of "$1" "${folders[@]}" >/dev/null; then
        return
    fi
    # /sbin is not on everyone's PATH; the comma leaves out 32-bit libraries.
    PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -F "$1 (libc6," >/dev/null
}

# Folders of Python's packages: torch brings the CUDA libraries along as nvidia-* packages.
site_packages() {
    local python
    for python in python3 /opt/*/bin/python3 /opt/*/.venv/bin/python3; do
        command -v "$python" >/dev/null || continue
        "$python" - <<'PYTHON' 2>/dev/null
import site, sys, sysconfig

for folder in dict.fromkeys([*sys.path, sysconfig.get_path("purelib"), *site.getsitepackages(), site.getusersitepackages()]):
    if folder.endswith("-packages"):
        print(folder)
PYTHON
    done
}

shopt -s nullglob
arch=$(uname -m)
drivers=(/usr/local/nvidia/lib64 /usr/local/nvidia/lib "/usr/lib/$arch-linux-gnu" /usr/lib64 /usr/lib/wsl/lib /run/opengl-driver/lib)
toolkits=(${CUDA_HOME:+"$CUDA_HOME"/lib64 "$CUDA_HOME"/lib} ${CUDA_PATH:+"$CUDA_PATH"/lib64}
    /usr/local/cuda/lib64 /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib /opt/cuda/lib64 "/usr/lib/$arch-linux-gnu" /usr/lib64)
while IFS= read -r site; do
    toolkits+=("$site"/nvidia/cu[0-9]*/lib "$site"/nvidia/*/lib "$site"/torch/lib)
done < <(site_packages | awk '!seen[$0]++')
shopt -u nullglob

# For PyTorch, which brings libraries of its own.
outer_path=${LD_LIBRARY_PATH:-}
missing=()
while IFS= read -r library; do
    if in_loaders_path "$library"; then
        continue
    fi
    folders=("${toolkits[@]}")
    if [ "$library" = libcuda.so.1 ]; then
        folders=("${drivers[@]}")
    fi
    if folder=$(folder_of "$library" "${folders[@]}"); then
        export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"
    else
        missing+=("$library")
    fi
done <"$here/libraries.txt"

export PATH=$PATH:/usr/local/nvidia/bin
if [ ${#missing[@]} -gt 0 ]; then
    if [ -z "$(nvidia-smi -L 2>/dev/null)" ] && [ -z "$(compgen -G '/dev/nvidia[0-9]*')" ]; then
        no_device "neither a GPU nor ${missing[*]}"
    fi
    say "error: there is a GPU, but not ${missing[*]}. Looked in LD_LIBRARY_PATH, in ldconfig's list, and in:"
    while IFS= read -r folder; do
        if [ -d "$folder" ]; then
            say "  $folder"
        fi
    done < <(printf '%s\n' "${drivers[@]}" "${toolkits[@]}" | awk '!seen[$0]++')
    say "Install the driver, or a CUDA toolkit (13.0) or PyTorch for CUDA 13, or name the folders in LD_LIBRARY_PATH."
    exit 1
fi

# --- The device

# toolkit, compute_cap, revision
# shellcheck source=/dev/null
. "$here/build.txt"
export REPARAM_TOOLKIT=${toolkit:-} REPARAM_BENCH_DEVICE=cuda
# Where kernels are kept once they are compiled for the card: modules are loaded by several processes.
export CUDA_CACHE_PATH=${CUDA_CACHE_PATH:-$scratch/kernels}
RAYON_NUM_THREADS=${RAYON_NUM_THREADS:-$(nproc)}
export RAYON_NUM_THREADS

if ! "$scratch/ops" --list >"$scratch/probe.txt" 2>&1; then
    say "error: the device does not start:"
    cat "$scratch/probe.txt"
    exit 1
fi
device=$(sed -n 's/^CUDA: //p' "$scratch/probe.txt" | head -n 1)
if [ "$device" = "no device" ] || [ -z "$device" ]; then
    no_device
fi
{
    printf 'device: %s\nbundle: revision %s, toolkit %s, PTX for %s\n' "$device" "${revision:-}" "${toolkit:-}" "${compute_cap:-}"
    date -u
    uname -a
    nvidia-smi 2>&1
    "$(command -v python3 || echo false)" --version
    printf 'libraries from: %s\n' "${LD_LIBRARY_PATH:-the loader}"
} >"$out/environment.txt" 2>&1
say "device: $device"

# --- Tests, benches, peers

status=0
tests='not run'
if wanted tests; then
    skip=()
    for name in "${skipped[@]}"; do
        skip+=(--skip "$name::")
    done
    begun=$SECONDS
    REPARAM_REQUIRE_CUDA=1 timeout -k 10 "$(left)" "$scratch/suite" "${skip[@]}" 2>&1 | tee "$out/tests.log"
    code=${PIPESTATUS[0]}
    result=$(sed -n 's/^test result: [a-zA-Z]*\. \([0-9]* passed\); \([0-9]* failed\); \([0-9]*\) ignored.*/\1, \2, \3 skipped/p' "$out/tests.log" | tail -n 1)
    case $code in
    124 | 137) result="cut off by the time limit after $(grep -c '^test .* ok$' "$out/tests.log") passed" ;;
    esac
    tests="${result:-ended with status $code} in $((SECONDS - begun)) s"
    if [ "$code" -ne 0 ]; then
        status=1
        grep -E '^test .*FAILED$' "$out/tests.log" | tee -a "$out/summary.txt"
    fi
fi
say "tests: $tests"

benches='not run'
if wanted benches; then
    reserve=0
    if wanted peers && python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' 2>/dev/null; then
        reserve=$((20 * minutes))
    fi
    seconds=$(($(left) - reserve - 15))
    begun=$SECONDS
    CARGO_TARGET_DIR=$out CRITERION_HOME=$scratch/criterion REPARAM_BENCH_SECONDS=$((seconds > 1 ? seconds : 1)) \
        timeout -k 10 "$(left)" "$scratch/ops" --bench 2>&1 | tee "$out/benches.log"
    code=${PIPESTATUS[0]}
    benches="status $code in $((SECONDS - begun)) s"
    if [ "$code" -ne 0 ]; then
        status=1
    fi
fi
say "benches: $benches"

peers='not run'
if wanted peers && command -v python3 >/dev/null; then
    begun=$SECONDS
    LD_LIBRARY_PATH=$outer_path timeout -k 10 "$(left)" \
        python3 "$here/torch_peers.py" --csv "$out/bench-cuda.csv" --seconds "$(left)" 2>&1 | tee "$out/peers.log"
    peers="status ${PIPESTATUS[0]} in $((SECONDS - begun)) s"
fi
say "peers: $peers"

# --- The closing table: one shape that fills the card, or what there is instead

if [ -s "$out/bench-cuda.csv" ]; then
    awk -F, -v shape=8192x4096 '
        function us(key) { return key in seconds ? sprintf("%.1f", seconds[key] * 1e6) : "-" }
        NR > 1 {
            at = $4 "x" $5
            if (!(at in shapes)) { shapes[at]; last = at }
            row = $1 " " $2 " " $3 SUBSEP at
            if (!(row in seen)) { seen[row]; rows[++count] = row }
            seconds[row, $6] = $7
            if ($6 == "candle-reparam") percent[row] = $14
        }
        END {
            if (!(shape in shapes)) shape = last
            printf "\n%s, us a run\n%-46s %10s %6s %12s %12s %13s\n", shape, "op", "fused", "copy", "plain candle", "torch eager", "torch.compile"
            for (i = 1; i <= count; i++) {
                row = rows[i]
                split(row, part, SUBSEP)
                if (part[2] == shape)
                    printf "%-46s %10s %5d%% %12s %12s %13s\n", part[1], us(row SUBSEP "candle-reparam"), percent[row],
                        us(row SUBSEP "plain candle"), us(row SUBSEP "torch eager"), us(row SUBSEP "torch.compile")
            }
        }' "$out/bench-cuda.csv" | tee -a "$out/summary.txt"
fi
say "results: $out"
exit "$status"
