"""The checks of a cluster, on what a real one said (SLURM 22.05; a login host, a GPU host, two CPU hosts)."""

import subprocess

import pytest

from milepost.preflight import slurm as preflight_slurm
from milepost.preflight.slurm import check_slurm
from milepost.preflight.submission import JobRequest, Submission, read_submission
from milepost.runtime import slurm_site

SINFO = """\
main*|up|1-00:00:00|2|idle|64000|NOGPU|(null)
main*|up|1-00:00:00|1|idle|256000|A40,GPU|gpu:A40:2
"""
ASSOCIATIONS = "proj2||\nproj1||\n"
PARTITION = (
    "PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A"
    " DefaultTime=00:30:00 DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED"
    " MaxTime=1-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=cpu[01-02],gpu01 PriorityJobFactor=1"
    " PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=OFF State=UP TotalCPUs=96\n"
)
TRIAL = "sbatch: Job 9 to start at 2026-11-21T12:32:11 using 1 processors on nodes gpu01 in partition main\n"
ALL = {"sinfo": SINFO, "sacctmgr": ASSOCIATIONS, "scontrol": PARTITION, "sbatch": ("", TRIAL, 0)}
GOOD = JobRequest(
    "evaluate_checkpoint", ("c1",), 1, ("proj1",), "main", gpu_model="A40", mem_mb=64000, runtimes=(240, 480, 720)
)


@pytest.fixture
def site(monkeypatch, tmp_path):
    """A cluster that says what it is told to; a command that it is not told about is not on this host."""
    told = dict(ALL)
    calls = []

    def run(command, **options):
        calls.append(list(command))
        if command[0] not in told:
            raise FileNotFoundError(command[0])
        said = told[command[0]]
        if isinstance(said, Exception):
            raise said
        out, err, code = said if isinstance(said, tuple) else (said, "", 0)
        if code:
            raise subprocess.CalledProcessError(code, command, out, err)
        return subprocess.CompletedProcess(command, code, out, err)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm_site.subprocess, "run", run)
    for asked in (slurm_site.nodes, slurm_site.associations, slurm_site.partition_options):
        asked.cache_clear()
    yield told, calls
    for asked in (slurm_site.nodes, slurm_site.associations, slurm_site.partition_options):
        asked.cache_clear()


def look(*requests):
    submission = Submission("slurm", 3, "logs/slurm", requests=list(requests))
    return {check.what: check for check in check_slurm(submission)}


def change(**options):
    return JobRequest(**{**GOOD.__dict__, **options})


def test_what_a_site_has_is_well(site):
    _told, calls = site
    checks = look(GOOD, JobRequest("score_on_node", (), 0, ("proj1",), "main", "NOGPU", mem_mb=4000, runtimes=(30, 30)))
    assert {check.state for check in checks.values()} == {"ok"}
    assert checks["nodes for evaluate_checkpoint"].found.startswith("1 of partition main with 1 A40 GPU(s), 1 of them")
    assert checks["nodes for score_on_node"].found.startswith("2 of partition main, 2 of them")
    assert "2026-11-21T12:32:11" in checks["trial of evaluate_checkpoint"].found
    trial = next(call for call in calls if call[0] == "sbatch")
    assert trial[:2] == ["sbatch", "--test-only"], "nothing is submitted"
    assert {"-A", "proj1", "-p", "main", "--gpus", "A40:1", "-t", "240"} <= set(trial)


@pytest.mark.parametrize(
    ("options", "what", "words"),
    [
        ({"accounts": ("prj1",)}, "account", "'prj1' is no account of yours. You have: proj1, proj2. Did you mean 'proj1'?"),
        ({"partition": "mian"}, "partition", "there is no 'mian'. There are: main. Did you mean 'main'?"),
        ({"gpu_model": "A100"}, "nodes for evaluate_checkpoint", "partition main has no GPU 'A100'. Its GPUs: A40."),
        ({"gpu_model": "a40"}, "nodes for evaluate_checkpoint", "no GPU 'a40'. Its GPUs: A40."),
        ({"gres": "gpu:V100:1", "gpu_model": None}, "nodes for evaluate_checkpoint", "no GPU 'V100'"),
        ({"gpus": 4}, "nodes for evaluate_checkpoint", "4 A40 GPUs for one server, but a node of main has 2"),
        ({"constraint": "NOGPU"}, "nodes for evaluate_checkpoint", "constraint 'NOGPU': no such node has all of it in main"),
        ({"constraint": "IB"}, "nodes for evaluate_checkpoint", "no node has 'IB' in main. Features there: A40, GPU, NOGPU."),
        ({"mem_mb": 300000}, "nodes for evaluate_checkpoint", "mem_mb 300000, but such a node of main has 256000"),
        (
            {"runtimes": (600, 1200, 1800)},
            "walltime of evaluate_checkpoint",
            "600, 1200, 1800 minutes in attempts 1 to 3, but partition main ends jobs after 1440",
        ),
    ],
)  # fmt: skip
def test_what_a_site_lacks_is_found_with_what_to_do(site, options, what, words):
    checks = look(change(**options))
    assert checks[what].state == "failed"
    assert words in checks[what].found
    assert "profile" in checks[what].advice
    assert {name for name, check in checks.items() if check.state == "failed"} == {what}


def test_the_default_partition_holds_where_none_is_set(site):
    assert look(change(partition=None))["partition"].found == "main, the cluster's default"
    site[0]["sinfo"] = SINFO.replace("*", "")
    slurm_site.nodes.cache_clear()
    assert look(change(partition=None))["partition"].state == "failed"


def test_an_account_that_is_not_set_is_a_warning_if_there_are_several(site):
    assert look(change(accounts=()))["account"].state == "warning"
    site[0]["sacctmgr"] = "proj1||\n"
    slurm_site.associations.cache_clear()
    assert look(change(accounts=()))["account"].state == "ok"


@pytest.mark.parametrize(
    ("command", "said", "what"),
    [
        ("scontrol", PARTITION.replace("AllowAccounts=ALL", "AllowAccounts=proj2,staff"), "partition"),
        ("scontrol", PARTITION.replace("AllowQos", "DenyAccounts=proj1 AllowQos"), "partition"),
        ("sacctmgr", "proj1|other|\nproj2||\n", "partition"),
        ("sacctmgr", "proj1||10:00:00\n", "walltime of evaluate_checkpoint"),
        ("sinfo", SINFO.replace("|up|", "|inact|"), "partition"),
        (
            "sbatch",
            ("", "allocation failure: Invalid account or account/partition combination specified\n", 1),
            "trial of evaluate_checkpoint",
        ),
    ],
)
def test_who_may_go_where_and_for_how_long_counts(site, command, said, what):
    site[0][command] = said
    checks = look(GOOD)
    assert {name for name, check in checks.items() if check.state == "failed"} == {what}


def test_nodes_that_are_out_of_service_are_a_warning(site):
    site[0]["sinfo"] = SINFO.replace("|1|idle|", "|1|drained|")
    check = look(GOOD)["nodes for evaluate_checkpoint"]
    assert check.state == "warning"
    assert "sinfo -R" in check.advice


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (None, "there is no sinfo on this host: look again on a login host"),
        (subprocess.TimeoutExpired("sinfo", 15), "sinfo did not answer within 15 s"),
        (("", "slurm_load_partitions: Unable to contact slurm controller\n", 1), "Unable to contact slurm controller"),
    ],
)
def test_what_cannot_be_asked_is_skipped(site, said, words):
    if said is None:
        del site[0]["sinfo"]
    else:
        site[0]["sinfo"] = said
    check = look(GOOD)["partition, GPUs, walltime"]
    assert check.state == "skipped"
    assert words in check.found


def test_a_run_on_this_machine_asks_no_cluster(site):
    (check,) = check_slurm(Submission())
    assert check.state == "skipped"
    assert site[1] == []


def test_logs_of_slurm_need_a_folder(site, tmp_path):
    (tmp_path / "logs").write_text("a file in its place")
    check = look(GOOD)["SLURM's logs"]
    assert check.state == "failed"
    assert "slurm-logdir" in check.advice


def test_a_submission_is_read_as_the_rule_hands_it_over():
    told = (
        '{"executor": "slurm", "attempts": 2, "logdir": "logs/slurm", "locked": false, "jobs": [{"rule": "evaluate_checkpoint",'
        ' "ckpts": ["c1"], "attempts": [{"slurm_account": 2026, "runtime": 60, "gpu": 2, "gpu_model": "", "mem_mb": "<TBD>"},'
        ' {"runtime": 120}]}]}'
    )
    request = read_submission(told).request_of("c1")
    assert request == JobRequest("evaluate_checkpoint", ("c1",), 2, ("2026",), runtimes=(60, 120))
    assert not read_submission(None).to_slurm


def test_the_folder_that_the_plugin_takes_by_itself(site):
    assert preflight_slurm.check_logs(Submission("slurm")).state == "ok"
