import hashlib
import json
import os
from pathlib import Path

import pytest

from milepost.errors import ContainerError
from milepost.paths import WORKFLOW
from milepost.records import write_record
from milepost.runtime import images
from milepost.runtime.images import NOTE, describe_image, image_digests, prepare_images

# Stands in for `apptainer build TO FROM`: the image holds what it was made from.
BUILD = '#!/bin/sh\necho "$@" >>asked\n[ "$3" != docker://gone ] && echo "of $3" >"$2"\n'


@pytest.fixture(autouse=True)
def campaign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "apptainer"
    program.write_text(BUILD)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_what_is_missing_is_made_once_and_everything_is_described(tmp_path):
    (tmp_path / "own.def").write_text("Bootstrap: docker")
    config = {"containers": {"vllm": "docker://vllm/vllm-openai:v1", "nemo": "own.def", "folder": "i m"}}
    made = prepare_images(config)
    assert made["vllm"]["file"] == "i m/vllm_vllm-openai_v1.sif"
    assert made["vllm"]["sha256"] == sha("of docker://vllm/vllm-openai:v1\n")
    assert made["nemo"]["file"] == "i m/own.sif"
    assert made["nemo"]["sha256"] == sha("of own.def\n")
    assert prepare_images(config) == made
    also = prepare_images(config, ["docker://x/skills:2"])
    assert also["docker://x/skills:2"]["file"] == "i m/x_skills_2.sif"
    assert also.items() > made.items()
    assert len((tmp_path / "asked").read_text().splitlines()) == 3
    names = sorted(path.name for path in (tmp_path / "i m").iterdir())
    assert names == ["own.sif", "vllm_vllm-openai_v1.sif", "x_skills_2.sif"]


@pytest.mark.parametrize("name", sorted(path.name for path in (WORKFLOW / "containers").glob("*.def")))
def test_a_definition_of_the_project_finds_its_files(tmp_path, name):
    program = tmp_path / "bin" / "apptainer"
    program.write_text('#!/bin/sh\npwd >"$2"\n')
    prepare_images({"containers": {"vllm": name}})
    folder = Path((tmp_path / "results" / "images" / name).with_suffix(".sif").read_text().strip())
    section = (WORKFLOW / "containers" / name).read_text().partition("%files\n")[2].partition("\n\n")[0]
    files = [line.split()[0] for line in section.splitlines()]
    assert [file for file in files if not (folder / file).is_file()] == []
    assert len(files) == {"vllm.def": 0, "vllm-cpu.def": 5, "nemo.def": 4}[name]


def test_a_campaign_without_containers_has_no_images():
    assert prepare_images({}) == prepare_images({"containers": {"nv": False}}) == {}


@pytest.mark.parametrize(
    ("vllm", "words"),
    [
        (
            "lost.sif",
            r"results/images/lost.sif does not exist .* Images in results/images: none\. .*run `snakemake prepare_images`",
        ),
        ("docker://gone", r"results/images/gone.sif could not be made from docker://gone: Apptainer says why above"),
        ("lost.def", r"There is no definition 'lost.def'"),
    ],
)
def test_an_image_that_cannot_be_had(tmp_path, vllm, words):
    with pytest.raises(ContainerError, match=words):
        prepare_images({"containers": {"vllm": vllm}})
    folder = tmp_path / "results" / "images"
    assert not folder.exists() or list(folder.iterdir()) == [], "nothing half made is left"


def test_a_digest_is_taken_from_the_note_while_the_file_is_the_same(tmp_path, monkeypatch):
    image = tmp_path / "a.sif"
    image.write_text("one")
    first = describe_image(image)
    assert first["sha256"] == sha("one")
    write_record(NOTE, {"vllm": first})
    with monkeypatch.context() as patch:
        patch.setattr(images.hashlib, "file_digest", lambda *_: pytest.fail("it was read again"))
        assert image_digests({"vllm": image, "nemo": None}) == {"vllm-image": sha("one")}
    os.utime(image, (1, 1))
    image.write_text("two")
    assert describe_image(image)["sha256"] == sha("two")
    assert json.loads((tmp_path / NOTE).read_bytes())["vllm"]["sha256"] == sha("one")
