"""What the shell that calls Snakemake holds for other Pythons does not get into steps and servers."""

import os

SHELL = {
    "PYTHONPATH": "{}:",
    "PYTHONSAFEPATH": "1",  # without the folder of a script, there is no milepost for it
    "PYTHONSTARTUP": "{}/numpy/__init__.py",
    "PYTHONUSERBASE": "{}",
    "VIRTUAL_ENV": "{}",
    "CONDA_PREFIX": "{}",
    "CONDA_DEFAULT_ENV": "base",
}


def test_a_foreign_shell_changes_nothing(make_campaign, monkeypatch, tmp_path):
    foreign = tmp_path / "for another Python"
    # Snakemake itself needs none of these.
    for name in ("numpy", "pandas", "orjson", "aiohttp", "httptools", "matplotlib", "milepost"):
        (foreign / name).mkdir(parents=True)
        (foreign / name / "__init__.py").write_text(f"raise ImportError('{name} of another Python')")
    (foreign / "core_evals").mkdir()
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value.format(foreign))
    campaign = make_campaign(own_code=True, checkpoints="c1 m1", tasks=("t1",))
    python = campaign.code / "envs/vllm/.venv/bin/python"
    python.write_text(python.read_text().replace("exec", f"env >{tmp_path}/of-the-server\nexec"))
    run = campaign.run()
    assert run.rc == 0, run.said
    assert campaign.stale() == []
    server = dict(line.partition("=")[::2] for line in (tmp_path / "of-the-server").read_text().splitlines())
    assert server["PYTHONPATH"] == str(campaign.code / "scripts")
    assert not {*SHELL, "PYTHONHOME"} - {"PYTHONPATH"} & set(server)
    assert os.fspath(foreign) not in server["PATH"]
    for look in ("plan", "partial_report"):
        assert campaign.run(look).rc == 0
