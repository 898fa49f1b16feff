import os
from pathlib import Path

import pytest

from milepost.errors import ContainerError
from milepost.runtime.containers import Containers, bind_points, inside, mount, read_containers
from milepost.runtime.environments import harness_folders, surroundings


@pytest.fixture(autouse=True)
def site(tmp_path, monkeypatch):
    """A host with an Apptainer, and little in its environment."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "campaign").mkdir()
    put(tmp_path, "apptainer")
    monkeypatch.chdir(tmp_path / "campaign")
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def put(tmp_path, name):
    (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
    (tmp_path / "bin" / name).chmod(0o755)


def handed(env):
    """What goes into the image."""
    return {name.partition("_")[2]: value for name, value in env.items() if name.startswith("APPTAINERENV_")}


def test_without_an_image_the_command_is_as_it_was():
    own = {**os.environ, "PYTHONNOUSERSITE": "1", "KEY": "k"}
    assert inside(["a", "b c"], None, env={"KEY": "k"}) == (["a", "b c"], own)


def test_a_program_sees_nothing_of_another_python(monkeypatch, tmp_path):
    for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "PYTHONWARNINGS", "VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.setenv(name, str(tmp_path))
    _, env = inside(["x"], None, env={"PYTHONPATH": "/ours"})
    assert {name for name, value in env.items() if value == str(tmp_path)} == set()
    assert env["PYTHONPATH"] == "/ours"


def test_harnesses_of_the_users_own_stay_known(monkeypatch, tmp_path):
    """NeMo Evaluator finds them on PYTHONPATH; what else lies there is for another Python."""
    (tmp_path / "mine" / "core_evals").mkdir(parents=True)
    (tmp_path / "others").mkdir()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/others:{tmp_path}/mine::{tmp_path}/missing")
    handed_down = surroundings()
    assert "PYTHONPATH" not in handed_down
    monkeypatch.delenv("PYTHONPATH")
    assert harness_folders() == []
    assert harness_folders(handed_down) == harness_folders(surroundings(handed_down)) == [tmp_path / "mine"]


def test_a_key_stands_in_the_environment_alone(tmp_path):
    command, env = inside(["serve", "--x"], "/i.sif", env={"VLLM_API_KEY": "secret"}, nv=True)
    assert command[:4] == [str(tmp_path / "bin" / "apptainer"), "exec", "--cleanenv", "--no-eval"]
    assert command[-3:] == ["/i.sif", "serve", "--x"]
    assert "--nv" in command
    assert "secret" not in " ".join(command)
    assert handed(env)["VLLM_API_KEY"] == "secret"
    assert "--nv" not in inside(["x"], "/i.sif", env={})[0]


def test_only_named_variables_of_the_environment_go_in(monkeypatch):
    passed = {"HF_TOKEN": "t", "CUDA_VISIBLE_DEVICES": "0", "SLURM_JOB_ID": "7", "https_proxy": "p", "TMPDIR": "/t"}
    kept = {
        "OPENAI_API_KEY": "o",
        "PYTHONPATH": "/mine",
        "LD_LIBRARY_PATH": "/l",
        "LD_PRELOAD": "x",
        "VIRTUAL_ENV": "v",
    }
    for name, value in (passed | kept).items():
        monkeypatch.setenv(name, value)
    _, env = inside(["x"], "/i.sif", env={"OWN": "$(id) `id`", "HF_TOKEN": "other"})
    assert handed(env) == {**passed, "HF_TOKEN": "other", "OWN": "$(id) `id`", "PYTHONNOUSERSITE": "1"}


def test_folders_in_front_of_path_come_before_the_images_own(tmp_path):
    _, env = inside(["x"], "/i.sif", env={"PATH": f"/env/bin:{tmp_path / 'bin'}"})
    assert handed(env)["PREPEND_PATH"] == "/env/bin"
    _, env = inside(["x"], "/i.sif", env={"PATH": str(tmp_path / "bin")})
    assert "PREPEND_PATH" not in handed(env)
    assert "PATH" not in handed(env)


def test_singularity_serves_too_and_neither_is_an_error(tmp_path):
    (tmp_path / "bin" / "apptainer").unlink()
    with pytest.raises(ContainerError, match="neither apptainer nor singularity on PATH"):
        inside(["x"], "/i.sif", env={})
    put(tmp_path, "singularity")
    command, env = inside(["x"], "/i.sif", env={"KEY": "k"})
    assert command[0].endswith("/singularity")
    assert env["SINGULARITYENV_KEY"] == "k"


@pytest.mark.parametrize("name", ["plain", "two words", "a,b", "a:b", 'quo"te', "ünï"])
def test_what_is_bound_has_its_name_inside(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    command, _ = inside(["x"], "/i.sif", env={}, binds=[folder])
    assert mount(str(folder)) in command


def test_a_link_is_bound_by_its_own_name_and_where_it_leads(tmp_path):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    points = bind_points([tmp_path / "link", tmp_path / "real" / "deep", tmp_path / "real"])
    assert sorted(points) == [str(tmp_path / "link"), str(tmp_path / "real")]


def test_what_cannot_be_bound_is_refused(tmp_path):
    with pytest.raises(ContainerError, match=r"lost does not exist, so it cannot be bound"):
        inside(["x"], "/i.sif", env={}, binds=[tmp_path / "lost"])
    with pytest.raises(ContainerError, match="control characters"):
        mount("/a\nb")


def test_the_configuration_of_containers():
    assert read_containers({}) == Containers()
    spec = {"vllm": "v.sif", "folder": "/apps", "nv": False, "binds": ["/data"], "bind_environments": True}
    assert read_containers({"containers": spec}) == Containers(
        vllm=Path("/apps/v.sif"), nv=False, binds=(Path("/data"),), bind_environments=True, folder=Path("/apps")
    )
