"""The profiles agree with how Snakemake puts them together."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def profile(name):
    return yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())


def test_default_shares_no_key_with_a_cluster():
    # profiles/default loads by itself and wins over --profile, key by key.
    for folder in (ROOT / "profiles").iterdir():
        if folder.name != "default":
            assert not set(profile("default")) & set(profile(folder.name))


def test_slurm_is_found_by_its_plain_name():
    link = ROOT / "slurm"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "profiles" / "slurm"


def test_one_server_at_a_time_here_and_any_number_on_a_cluster():
    assert profile("default")["resources"] == ["server=1"]
    assert profile("slurm")["set-resources"]["evaluate_checkpoint"]["server"] == 0
