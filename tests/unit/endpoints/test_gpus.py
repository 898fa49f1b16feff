import pytest

from milepost.campaign.types import Checkpoint, Serving
from milepost.endpoints.gpus import check_visible, visible_gpus
from milepost.errors import ServerError


def checkpoint(gpus, **env):
    return Checkpoint("c1", "m1", None, None, None, 1, Serving(gpus=gpus, env=env))


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A stand-in for nvidia-smi that says what it is told to; without a call, there is none."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def say(words, code=0):
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{words}'\nexit {code}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return say


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [("0", 1), ("0,1", 2), ("", 0), ("NoDevFiles", 0), ("-1", 0), ("GPU-5f2a,GPU-77aa", 2), ("MIG-0b1c", 1)],
)
def test_what_slurm_gave_counts(driver, chosen, seen):
    assert visible_gpus(chosen)[0] == seen


def test_the_driver_is_asked_where_nobody_chose(driver):
    driver("GPU 0: NVIDIA A40 (UUID: GPU-1)\nGPU 1: NVIDIA A40 (UUID: GPU-2)")
    assert visible_gpus(None)[0] == 2
    driver("NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.", 9)
    assert visible_gpus(None) == (
        0,
        "nvidia-smi failed and said: NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.",
    )


def test_a_job_without_its_gpus_says_so_and_where_to_look(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with pytest.raises(ServerError) as error:
        check_visible(checkpoint(2))
    said = str(error.value)
    for words in ("'c1' needs 2 GPU(s)", "sees 0: CUDA_VISIBLE_DEVICES is ''", "scontrol show job 4711", "gpu_model"):
        assert words in said
    assert "\n" not in said, "one paragraph"


def test_a_job_with_its_gpus_goes_on(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    check_visible(checkpoint(1))
    check_visible(checkpoint(2, CUDA_VISIBLE_DEVICES="0,1"))  # as the model profile says
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_visible(checkpoint(0))  # the CPU build
