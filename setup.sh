#!/usr/bin/env bash
# Set up motorsweep in .venv: Debian's packages, torch, the pinned Python packages, petsc4py for the PETSc found.
# Run it as often as you like: it does only what is missing, and nothing at all (in a blink) where nothing changed.
#
#   ./setup.sh [EXTRA ...]        extras: dev eeg view cluster        (make run, make test and make setup call it)
#
# Choices, all from the environment (or `make run NAME=value`):
#   TORCH             what pip is to install as torch. Default: the version in constraints.txt, from wherever pip looks;
#                     the default registry's Linux build carries CUDA, several GB of it
#   TORCH_INDEX       a further package index with other builds of torch (its site lists one for the CPU and one per CUDA)
#   PYTHON            the Python to use. Default: python3.11 (the one Debian 12's pygalmesh is compiled for), else python3
#   PETSC_DIR         a PETSc of your own (with PETSC_ARCH, if it has one). Default: Debian's
#   HOROVOD_GPU_OPERATIONS and others of Horovod's own: how it is built (extras dev and cluster). Default: Gloo, no MPI
#   MOTORSWEEP_CACHE  where compiled wheels are kept. Default: ${XDG_CACHE_HOME:-~/.cache}/motorsweep
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly venv=.venv stamp=.venv/motorsweep-setup
readonly log=.venv/motorsweep-setup.log
readonly dist_packages=/usr/lib/python3/dist-packages
cache=${MOTORSWEEP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/motorsweep}

say() { printf 'set-up %4ds  %s\n' "$SECONDS" "$*" >&2; }
fail() { printf 'set-up stopped: %s\n' "$1" >&2; shift; [ $# = 0 ] || printf '  %s\n' "$@" >&2; exit 2; }
pinned() { sed -n "s/^$1==//p" constraints.txt; }

# Everything that can change what is installed; the same text twice means nothing to do.
state() {
    sha256sum pyproject.toml constraints.txt setup.sh
    printf '%s\n' "$PWD" "${TORCH:-}" "${TORCH_INDEX:-}" "${PYTHON:-}" "${PETSC_DIR:-}" "${PETSC_ARCH:-}"
    compgen -G "/usr/lib/petscdir/petsc*/*-real" || true
    compgen -G "$dist_packages/_pygalmesh*.so" || true
}

done_before() {
    local extra
    [ -x $venv/bin/python ] && [ -f $stamp ] && [ "$(head -n 1 $stamp)" = "$(state | sha256sum)" ] || return 1
    for extra in "$@"; do grep -qx "$extra" $stamp || return 1; done
}

choose_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
        # Asked, not only looked for: a pyenv shim exists for versions that are not active.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            return
        fi
    done
    [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON does not run, or is older than 3.11"
    python=
}

# The packages of Debian that this machine lacks, in the array `missing`.
find_missing() {
    missing=()
    choose_python
    if [ -z "$python" ]; then
        missing+=(python3 python3-venv python3-dev)
    else
        "$python" -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
        "$python" -c 'import os, sysconfig; open(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null ||
            missing+=(python3-dev)
    fi
    command -v gcc >/dev/null || missing+=(gcc)
    command -v g++ >/dev/null || missing+=(g++)
    if [ -z "${PETSC_DIR:-}" ]; then
        [ -n "$(compgen -G '/usr/lib/petscdir/petsc*/*-real/include/petscversion.h')" ] || missing+=(libpetsc-real-dev)
        # The BLAS under MUMPS: the reference one, which PETSc alone would bring, is several times slower.
        [ -n "$(compgen -G '/usr/lib/*/openblas-*/libblas.so.3')" ] || missing+=(libopenblas0-pthread)
    fi
    [ -n "$(compgen -G "$dist_packages/_pygalmesh*.so")" ] || missing+=(python3-pygalmesh)
    # What VTK draws with where there is no display.
    case " ${extras[*]} " in *" dev "* | *" view "*)
        [ -n "$(compgen -G '/usr/lib/*/libEGL.so.1')" ] || missing+=(libegl1 libgl1-mesa-dri) ;;
    esac
    ! wants_horovod || command -v cmake >/dev/null || missing+=(cmake)
    # A cluster and a browser of our own, for the tests.
    case " ${extras[*]} " in *" dev "*)
        command -v sbatch >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null ||
            missing+=(slurm-wlm munge)
        command -v mpirun >/dev/null || missing+=(openmpi-bin)
        command -v chromedriver >/dev/null || missing+=(chromium chromium-driver) ;;
    esac
}

install_missing() {
    local sudo=()
    if [ "$(id -u)" != 0 ]; then
        if sudo -n true 2>/dev/null; then
            sudo=(sudo -n)
        elif [ -t 0 ] && command -v sudo >/dev/null; then
            sudo=(sudo)
        else
            say "not root, and no sudo: cannot install ${missing[*]}"
            return
        fi
    fi
    say "apt-get install ${missing[*]}"
    local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
    local apt_log
    apt_log=$(mktemp)
    "${apt[@]}" update >"$apt_log" 2>&1 || say "apt-get update failed; going on with the package lists that are here"
    "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >>"$apt_log" 2>&1 ||
        { tail -n 20 "$apt_log" >&2; say "apt-get could not install all of: ${missing[*]}"; }
    rm -f "$apt_log"
}

# What cannot be done without, after apt-get had its chance.
require_system() {
    find_missing
    [ ${#missing[@]} -gt 0 ] || return 0
    local needed=() package
    for package in "${missing[@]}"; do
        case $package in
            python3-pygalmesh) say "no pygalmesh: label volumes and the template head cannot be meshed here," \
                "all else works; Debian's package python3-pygalmesh has it" ;;
            libegl1 | libgl1-mesa-dri) say "no $package: \`motorsweep show STUDY POSE\` may be unable to draw" ;;
            cmake) say "no cmake: Horovod cannot be built, training over ranks takes torch's own communication" ;;
            slurm-wlm | munge | openmpi-bin | chromium | chromium-driver) say "no $package: its tests will be skipped" ;;
            libopenblas0-pthread) say "no OpenBLAS from Debian (libopenblas0-pthread): the direct solver may be slow" ;;
            *) needed+=("$package") ;;
        esac
    done
    [ ${#needed[@]} -eq 0 ] || fail "this machine lacks: ${needed[*]}" \
        "on Debian or Ubuntu, someone with root runs: apt-get install --no-install-recommends ${missing[*]}" \
        "elsewhere: Python 3.11 or later with its headers (PYTHON=...), a C++ compiler, and PETSc with hypre and MUMPS" \
        "(PETSC_DIR=..., PETSC_ARCH=...; on a cluster often: module load petsc)"
}

find_petsc() {
    petsc_dir=${PETSC_DIR:-$(compgen -G '/usr/lib/petscdir/petsc*/*-real' | sort -V | tail -n 1)}
    local header=$petsc_dir/include/petscversion.h conf
    [ -f "$header" ] || fail "PETSC_DIR=$petsc_dir holds no include/petscversion.h: it must name the folder of a built PETSc"
    for conf in "$petsc_dir"/{${PETSC_ARCH:-.}/,}include/petscconf.h; do
        [ -f "$conf" ] && break
    done
    [ -f "$conf" ] || fail "PETSC_DIR=$petsc_dir holds no include/petscconf.h: give its PETSC_ARCH as well"
    ! grep -q 'define PETSC_USE_COMPLEX' "$conf" || fail "PETSC_DIR=$petsc_dir computes with complex numbers: a real build is needed"
    petsc_version=$(awk '$2 ~ /^PETSC_VERSION_(MAJOR|MINOR)$/ {v = v sep $3; sep = "."} END {print v}' "$header")
    # A petsc4py fits the PETSc of the same minor version; for ours the very version is pinned.
    petsc4py="petsc4py==$petsc_version.*"
    case $(pinned petsc4py) in "$petsc_version".*) petsc4py="petsc4py==$(pinned petsc4py)" ;; esac
}

# Build the petsc4py wheel into the cache ($wheels). Its setup.py needs an old setuptools and the numpy that it will run
# with, hence an environment of its own: setuptools of .venv is never touched. -O1, as a solve spends nothing in wrappers.
build_petsc4py() {
    mkdir -p "$cache/wheels"
    room=$(mktemp -d "$cache/wheels/build.XXXXXX")
    trap 'rm -rf "$room"' EXIT
    $venv/bin/python -m venv "$room/venv"
    "$room/venv/bin/python" -m pip install --no-input --disable-pip-version-check --no-compile \
        "setuptools==65.7.0" "wheel==0.44.0" "numpy==$(pinned numpy)"
    # Not from pip's own cache of built wheels, which does not ask which PETSc a wheel was built against.
    PETSC_DIR=$petsc_dir CFLAGS="-O1 -g0" "$room/venv/bin/python" -m pip wheel --no-input --disable-pip-version-check \
        --no-cache-dir --no-build-isolation --no-deps --wheel-dir "$room/wheels" "$petsc4py"
    mv -T "$room/wheels" "$wheels" 2>/dev/null || has_wheel   # another set-up may have been quicker
}
has_wheel() { compgen -G "$wheels/*.whl" >/dev/null; }

# Build the Horovod wheel into the cache ($horovod_wheels). Its CMake asks for C++14 and torch's headers need 17, hence
# the wrapper; without -g and with -O1 it takes a quarter of the time, and its work is in waiting for the network.
wants_horovod() { case " ${extras[*]} " in *" dev "* | *" cluster "*) true ;; *) false ;; esac; }
has_horovod_wheel() { compgen -G "$horovod_wheels/*.whl" >/dev/null; }
build_horovod() {
    mkdir -p "$cache/wheels"
    room=$(mktemp -d "$cache/wheels/build.XXXXXX")
    trap 'rm -rf "$room"' EXIT
    $venv/bin/python -m venv "$room/venv"
    "$room/venv/bin/python" -m pip install --no-input --disable-pip-version-check --no-compile \
        "setuptools==80.9.0" "wheel==0.45.1"
    # torch and what else Horovod's setup.py loads are those of .venv.
    $venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
        >"$("$room/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/motorsweep.pth"
    cat >"$room/cxx" <<'WRAPPER'
#!/usr/bin/env bash
arguments=()
for each in "$@"; do
    case $each in -std=*) each=-std=gnu++17 ;; -g) continue ;; -O3 | -O2) each=-O1 ;; esac
    arguments+=("$each")
done
exec g++ "${arguments[@]}" -w
WRAPPER
    chmod +x "$room/cxx"
    HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=${HOROVOD_WITH_GLOO-1} \
        HOROVOD_WITHOUT_MPI=${HOROVOD_WITHOUT_MPI-1} CXX=$room/cxx MAKEFLAGS=-j$(nproc) \
        "$room/venv/bin/python" -m pip wheel --no-input --disable-pip-version-check --no-cache-dir --no-build-isolation \
        --no-deps --wheel-dir "$room/wheels" "horovod==$(pinned horovod)"
    mv -T "$room/wheels" "$horovod_wheels" 2>/dev/null || has_horovod_wheel
}

# Horovod is an extra's extra: where it cannot be built, torch's own communication does the same job.
install_horovod() {
    horovod_wheels=$cache/wheels/horovod-$(printf '%s\n' "$(pinned horovod)" \
        "$($venv/bin/python -VV; uname -m; $venv/bin/python -c 'import torch; print(torch.__version__)')" \
        "$(env | grep ^HOROVOD_ | sort)" | sha256sum | cut -c 1-12)
    if ! has_horovod_wheel; then
        say "building Horovod, some minutes (log: $log.horovod)"
        build_horovod >"$log.horovod" 2>&1 </dev/null || {
            tail -n 5 "$log.horovod" >&2
            say "Horovod could not be built (all that was said: $log.horovod); training over ranks takes torch's own" \
                "communication, and tests of Horovod are skipped"
            return 0
        }
    fi
    pip install --no-deps "$horovod_wheels"/horovod-*.whl >>"$log" 2>&1 || failed "the Horovod wheel could not be installed"
}

# The requirements of motorsweep and of the extras asked for, one a line, without those that are not installed plainly.
requirements() {
    "$python" - "$@" <<'PYTHON'
import re, sys, tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
unknown = sorted(set(sys.argv[1:]) - set(extras))
if unknown:
    sys.exit(f"set-up stopped: no extra is called {', '.join(unknown)}; there are {', '.join(extras)}")
wanted = [*project["dependencies"], *(name for extra in sys.argv[1:] for name in extras[extra])]
apart = {"torch", "petsc4py", "horovod"}
print("\n".join(name for name in wanted if re.match(r"[\w.-]+", name)[0] not in apart))
PYTHON
}

pip() { $venv/bin/python -m pip "$@" --no-input --disable-pip-version-check --progress-bar off; }

# Show the end of a step's output where the step failed.
failed() { tail -n 25 "${2:-$log}" >&2; fail "$1; all that was said: ${2:-$log}"; }

install_python_packages() {
    local packages=$1 torch=${TORCH:-torch==$(pinned torch)} index=() builder=
    [ -z "${TORCH_INDEX:-}" ] || index=(--extra-index-url "$TORCH_INDEX")
    grep -vE '^(torch|petsc4py|horovod)==' constraints.txt >$venv/constraints.txt
    wheels=$cache/wheels/petsc4py-$petsc_version-$(printf '%s\n' "$petsc_dir" "${PETSC_ARCH:-}" "$petsc4py" \
        "$(pinned numpy)" "$($venv/bin/python -VV; uname -m)" | sha256sum | cut -c 1-12)
    if ! has_wheel; then
        say "building petsc4py for PETSc $petsc_version in $petsc_dir, beside the next steps"
        set -m   # a process group of its own, so that all of it can be ended
        build_petsc4py >"$log.petsc4py" 2>&1 </dev/null &
        builder=$!
        set +m
        # shellcheck disable=SC2064  # the number as it is now
        trap "kill -- -$builder 2>/dev/null || true" EXIT
    fi
    say "installing $torch and the pinned packages (log: $log)"
    # shellcheck disable=SC2086  # one requirement a line, none with a blank in it
    pip install --no-compile --constraint $venv/constraints.txt "${index[@]}" "$torch" \
        "setuptools==$(pinned setuptools)" $packages >"$log" 2>&1 || failed "pip could not install the Python packages"
    compile_modules
    [ -z "$builder" ] || wait "$builder" || failed "petsc4py could not be built" "$log.petsc4py"
    trap - EXIT
    say "installing petsc4py and motorsweep"
    pip install --no-deps "$wheels"/petsc4py-*.whl >>"$log" 2>&1 || failed "the petsc4py wheel could not be installed"
    pip install --no-deps --no-build-isolation --editable . >>"$log" 2>&1 || failed "motorsweep could not be installed"
}

# What pip leaves out (--no-compile), on all cores and without the packages' own tests.
compile_modules() {
    say "compiling modules"
    $venv/bin/python -m compileall -q -j 0 -x '[/\\]tests?[/\\]' "$($venv/bin/python -c \
        'import sysconfig; print(sysconfig.get_path("purelib"))')" >>"$log" 2>&1 || true   # some files are templates
}

# Debian's pygalmesh, two links into .venv: with all of dist-packages on the path, Debian's numpy would come along.
link_pygalmesh() {
    local site suffix
    site=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    suffix=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
    compgen -G "$dist_packages/_pygalmesh*.so" >/dev/null || return 0
    if [ ! -f "$dist_packages/_pygalmesh$suffix" ]; then
        say "Debian's pygalmesh is not for $($venv/bin/python -V): label volumes and the template head cannot be meshed;" \
            "PYTHON=/usr/bin/python3 takes the Python that it is for"
        return
    fi
    ln -sfn "$dist_packages/pygalmesh" "$site/pygalmesh"
    ln -sfn "$dist_packages/_pygalmesh$suffix" "$site/_pygalmesh$suffix"
    $venv/bin/python -c 'import pygalmesh' >>"$log" 2>&1 || failed "Debian's pygalmesh does not load in $venv"
}

main() {
    local extras=("$@") packages
    done_before "${extras[@]}" && return
    exec 9<setup.sh   # one set-up at a time in this folder
    if command -v flock >/dev/null; then flock 9; fi
    done_before "${extras[@]}" && return

    find_missing
    [ ${#missing[@]} -eq 0 ] || install_missing
    require_system
    find_petsc
    # Extras of earlier set-ups stay: make run after make test takes nothing away.
    [ ! -f $stamp ] || mapfile -t extras < <({ sed 1d $stamp; printf '%s\n' "${extras[@]}"; } | sed '/^$/d' | sort -u)
    packages=$(requirements "${extras[@]}") || exit 2
    # Without a stamp, a set-up was broken off and any package may be half there.
    if ! [ -f $stamp ] || ! same_python; then
        [ ! -e $venv ] || say "$venv is of a broken-off set-up or of another Python: making it anew"
        "$python" -m venv --clear $venv || fail "$python could not make a virtual environment in $venv"
    fi
    rm -f $stamp
    install_python_packages "$packages"
    link_pygalmesh
    ! wants_horovod || (install_horovod)   # a shell of its own, for its trap
    { state | sha256sum; printf '%s\n' "${extras[@]}"; } >$stamp.new
    mv $stamp.new $stamp
    say "done"
}

same_python() { [ "$($venv/bin/python -VV 2>/dev/null)" = "$("$python" -VV)" ]; }

main "$@"
