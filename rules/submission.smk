# What a run would submit, what SLURM refused, and the servers that its jobs share. No rules here.
import subprocess

from snakemake.iocontainers import Wildcards

from milepost.endpoints.shared_jobs import SBATCH, sbatch_options
from milepost.endpoints.specs import load_endpoints
from milepost.preflight.failures import explain_failures

# What SLURM is asked for.
SUBMITTED = {
    "slurm_account",
    "slurm_partition",
    "constraint",
    "gpu",
    "gpu_model",
    "gres",
    "mem_mb",
    "runtime",
    "cpus_per_task",
}
# Endpoints that this campaign serves for many of its jobs.
SHARED = [spec for spec in load_endpoints().values() if spec.ours]
# Before this look takes the lock itself.
LOCKED = IS_MAIN and is_locked()


class TableOnly:
    """Lets nothing but a failure before the table through to the terminal, if there are only looks to take."""

    def __init__(self):
        self.begun = False

    def filter(self, record):
        if only_looks(LOOKS) and not workflow.dryrun:
            # The step's own words say what is wrong; Snakemake would add three times that the step failed.
            self.begun |= str(getattr(record, "event", "")) == "job_started"
            return record.levelname in ("ERROR", "CRITICAL") and not self.begun
        return True


for handler in logger.handlers:
    if handler.name == "DefaultStreamHandler":
        handler.addFilter(TableOnly())


def explain_failed_jobs(logs):
    """Say last on the terminal why jobs failed: Snakemake's words fill pages, and the reason stands above them."""
    if not only_looks(LOOKS):
        for paragraph in explain_failures(logs):
            print(f"\n{paragraph}", file=sys.stderr)
        print(file=sys.stderr)


def attempts_of(step, wildcards):
    """What the jobs of a rule ask for, attempt by attempt."""
    skipped = set(step.resources) - SUBMITTED - {"_cores"}
    asked = []
    for attempt in range(1, workflow.execution_settings.retries + 2):
        found = dict(step.expand_resources(Wildcards(fromdict=wildcards), [], attempt, skip_evaluation=skipped).items())
        asked.append({name: getattr(found[name], "value", found[name]) for name in sorted(SUBMITTED & set(found))})
    return asked


def submission(wildcards):
    """What a run with this profile would submit, for the script: jobs that ask for the same stand together."""
    settings = workflow.executor_settings
    # No job is submitted here, so no first status check is waited for.
    if hasattr(settings, "init_seconds_before_status_checks"):
        settings.init_seconds_before_status_checks = 1
    jobs = {}
    for step in workflow.rules:
        if workflow.is_local(step) or step.name == "all" or (step.name == "serve_shared" and not SHARED):
            continue
        fits = re.compile(step.wildcard_constraints.get("task", ".*")).fullmatch
        each = [{"ckpt": ckpt, "task": task} for ckpt in CHECKPOINTS for task in list(filter(fits, TASKS))[:1]]
        for wildcards in each if step.name == "evaluate_checkpoint" else each[:1]:
            asked = attempts_of(step, {name: wildcards[name] for name in step.wildcard_names})
            job = {"rule": step.name, "ckpts": [], "attempts": asked}
            same = jobs.setdefault(json.dumps(job, sort_keys=True, default=str), job)
            if step.name == "evaluate_checkpoint":
                same["ckpts"].append(wildcards["ckpt"])
    told = {
        "executor": workflow.executor_plugin.name,
        "attempts": workflow.execution_settings.retries + 1,
        "logdir": str(getattr(settings, "logdir", None) or ""),
        "locked": LOCKED,
        "jobs": list(jobs.values()),
    }
    return json.dumps(told, default=str)


def hand_down_resources(step):
    """Tell the jobs with which resources one of them starts a shared server: those that the profile gives to this rule.

    When the run starts: while rules are read, Snakemake does not know yet where they run.
    """
    if SHARED and IS_MAIN and workflow.executor_plugin.name == "slurm":
        os.environ[SBATCH] = json.dumps(sbatch_options(attempts_of(step, {})[0]))


def own_locks():
    """The files of this run's lock; a run without results has none."""
    return {Path(path) for path in workflow.persistence._lockfile.values()}


def keep_others_locks():
    """Have this run take away its own lock only: at the end of any run, of a look too, Snakemake takes away all there are."""
    if IS_MAIN:
        mine = own_locks()
        workflow.persistence.unlock = lambda: [path.unlink(missing_ok=True) for path in mine]


def others_run():
    """Whether another run works in this folder, on other files: Snakemake lets it."""
    return {path.name for path in Path(".snakemake/locks").glob("*")} > {path.name for path in own_locks()}


def stop_shared_servers():
    """A campaign that is over needs none of its servers. Without this, they would end when nobody asks for a while.

    One that only looked, or that others still run beside, leaves them: jobs may be asking them.
    """
    # A check may have started the server that it asked.
    looked = only_looks(LOOKS - {"check_endpoint"})
    if SHARED and IS_MAIN and not workflow.dryrun and not looked and not others_run():
        subprocess.run([sys.executable, CODE / "scripts" / "stop_servers.py", "--but-kept"], check=False)
