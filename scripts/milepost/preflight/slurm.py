"""Checks that SLURM would accept a run's jobs and could start them: account, partition, GPUs, features, walltime."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from milepost.errors import did_you_mean, listed
from milepost.preflight.checks import Check, write_probe
from milepost.preflight.submission import JobRequest, Submission
from milepost.runtime import slurm_site
from milepost.runtime.slurm_site import Association, Nodes, SiteUnknownError

SET = "`default-resources`, or under the rule in `set-resources`, of the profile"


def check_slurm(submission: Submission) -> list[Check]:
    """Make all checks of the cluster; one that cannot be made is reported as skipped, with the reason."""
    if not submission.to_slurm:
        return [
            Check(
                "SLURM", "skipped", "this run starts its jobs here; for a cluster: snakemake preflight --profile slurm"
            )
        ]
    requests = submission.requests
    checks = guarded("account", lambda: check_accounts(requests))
    checks += guarded("partition, GPUs, walltime", lambda: check_places(requests))
    if not any(check.state == "failed" for check in checks):
        # If a check failed above, SLURM would only repeat it in fewer words.
        checks += [check_trial(request) for request in requests]
    checks.append(check_logs(submission))
    return checks


def guarded(what: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    """Make checks that ask SLURM; if it cannot be asked, they are reported as skipped."""
    try:
        return list(look())
    except SiteUnknownError as error:
        return [Check(what, "skipped", str(error))]


def check_places(requests: list[JobRequest]) -> Iterator[Check]:
    """Check partitions, nodes and walltimes: all that depends on the nodes of a partition."""
    yield from check_partitions(requests)
    yield from check_nodes(requests)
    yield from check_walltimes(requests)


def check_accounts(requests: list[JobRequest]) -> Iterator[Check]:
    """Check that the accounts exist, and that this user may use them."""
    known = sorted({association.account for association in slurm_site.associations()})
    accounts = sorted({account for request in requests for account in request.accounts or [""]})
    for account in accounts:
        if not known:
            yield Check("account", "skipped", "sacctmgr knows no account of yours: fine where a site keeps none")
        elif not account and len(known) == 1:
            yield Check("account", "ok", f"none is set, and there is only {known[0]}")
        elif not account:
            yield Check(
                "account", "warning", f"none is set, and you have {', '.join(known)}: the one of your last job would pay",
                f"set slurm_account in {SET}",
            )  # fmt: skip
        elif account.lower() not in [name.lower() for name in known]:
            yield Check(
                "account", "failed", f"{account!r} is no account of yours. You have: {', '.join(known)}.{did_you_mean(account, known)}",
                f"set slurm_account in {SET}. To see more: sacctmgr show associations user=$USER format=account,partition",
            )  # fmt: skip
        else:
            yield Check("account", "ok", account)


def check_partitions(requests: list[JobRequest]) -> Iterator[Check]:
    """Check that the partitions exist, are up, and take jobs of the account."""
    known = sorted({node.partition for node in slurm_site.nodes()})
    places = {(account, one.partition or "") for one in requests for account in one.accounts or [""]}
    for account, name in sorted(places):
        partition = name or default_partition()
        if not partition:
            yield Check(
                "partition", "failed", f"none is set, and this cluster has no default. There are: {', '.join(known)}",
                f"set slurm_partition in {SET}",
            )  # fmt: skip
        elif partition not in known:
            yield Check(
                "partition", "failed", f"there is no {partition!r}. There are: {', '.join(known)}.{did_you_mean(partition, known)}",
                f"set slurm_partition in {SET}. To see more: sinfo -s",
            )  # fmt: skip
        elif not any(node.up for node in slurm_site.nodes() if node.partition == partition):
            yield Check("partition", "failed", f"{partition} is not up", "wait, or take another. To see more: sinfo -s")
        elif account and not takes_account(partition, account):
            yield Check(
                "partition", "failed", f"{partition} does not take jobs of account {account}",
                f"take another. To see more: scontrol show partition {partition}",
            )  # fmt: skip
        else:
            yield Check("partition", "ok", partition + ("" if name else ", the cluster's default"))


def default_partition() -> str | None:
    """The partition that takes jobs that name none."""
    return next((node.partition for node in slurm_site.nodes() if node.default), None)


def takes_account(partition: str, account: str) -> bool:
    """Whether a partition's lists and the user's associations allow an account; yes if that is unknown."""
    try:
        options = slurm_site.partition_options(partition)
    except SiteUnknownError:
        options = {}
    allowed, denied = options.get("AllowAccounts", "ALL"), options.get("DenyAccounts", "")
    if allowed != "ALL" and account.lower() not in allowed.lower().split(","):
        return False
    if account.lower() in denied.lower().split(","):
        return False
    try:
        places = {one.partition for one in slurm_site.associations() if one.account.lower() == account.lower()}
    except SiteUnknownError:
        return True
    return not places or "" in places or partition in places


def nodes_of(request: JobRequest) -> list[Nodes]:
    """The nodes of the partition that a job would go to; none if there is no such partition."""
    partition = request.partition or default_partition()
    return [node for node in slurm_site.nodes() if node.partition == partition]


def check_nodes(requests: list[JobRequest]) -> Iterator[Check]:
    """Check that some node of the partition has the GPUs, the features and the memory that a job asks for."""
    for request in requests:
        nodes = nodes_of(request)
        if not nodes:
            continue  # the check of the partition reports it
        fitting = nodes
        what = f"nodes for {request.rule}"
        partition = nodes[0].partition
        more = f"To see more: sinfo -p {partition} -o '%P %D %G %f %m'"
        kind, gpus = gpus_of(request)
        if gpus:
            types = {kind: number for node in nodes for kind, number in node.gpus.items()}
            shown = ", ".join(sorted(kind or "GPUs without a type" for kind in types)) or "none"
            if not types or (kind and kind not in types):
                near = did_you_mean(kind, types) if kind else ""
                yield Check(
                    what, "failed", f"partition {partition} has no {f'GPU {kind!r}' if kind else 'GPU'}. Its GPUs: {shown}.{near}",
                    f"set gpu_model (or slurm_partition) for {request.rule} in `set-resources` of the profile. {more}",
                )  # fmt: skip
                continue
            fitting = [node for node in nodes if gpus_on(node, kind) >= gpus]
            if not fitting:
                most = max(gpus_on(node, kind) for node in nodes)
                yield Check(
                    what, "failed", f"{gpus} {kind or ''} GPUs for one server, but a node of {partition} has {most}".replace("  ", " "),
                    f"fewer gpus and a smaller tensor-parallel-size in the model profile, or another GPU type. {more}",
                )  # fmt: skip
                continue
        if request.constraint:
            features = sorted({feature for node in nodes for feature in node.features})
            fitting = [node for node in fitting if slurm_site.fits_constraint(request.constraint, node.features)]
            if not fitting:
                unknown = [word for word in slurm_site.words_of(request.constraint) if word not in features]
                wrong = f"no node has {unknown[0]!r}" if unknown else "no such node has all of it"
                near = did_you_mean(unknown[0], features) if unknown else ""
                yield Check(
                    what, "failed",
                    f"constraint {request.constraint!r}: {wrong} in {partition}. Features there: {', '.join(features) or 'none'}.{near}",
                    f"set constraint for {request.rule} in the profile. {more}",
                )  # fmt: skip
                continue
        if request.mem_mb and request.mem_mb > max(node.memory_mb for node in fitting):
            most = max(node.memory_mb for node in fitting)
            yield Check(
                what, "failed", f"mem_mb {request.mem_mb}, but such a node of {partition} has {most}",
                f"set mem_mb for {request.rule} in the profile. {more}",
            )  # fmt: skip
            continue
        number = sum(node.count for node in fitting)
        usable = sum(node.count for node in fitting if node.usable)
        wanted = f" with {gpus} {kind or ''} GPU(s)".replace("  ", " ") if gpus else ""
        fitting_nodes = f"{number} of partition {partition}{wanted}"
        if usable:
            yield Check(what, "ok", f"{fitting_nodes}, {usable} of them in service")
        else:
            yield Check(
                what,
                "warning",
                f"{fitting_nodes}, but none is in service now: jobs will wait",
                f"To see why: sinfo -R -p {partition}",
            )


def gpus_of(request: JobRequest) -> tuple[str, int]:
    """Type ("" for any) and number of the GPUs that a job asks for."""
    if request.gres and request.gres.startswith("gpu"):
        return next(iter(slurm_site.parse_gpus(request.gres).items()))
    return (request.gpu_model or "", request.gpus) if request.gpus else ("", 0)


def gpus_on(node: Nodes, kind: str) -> int:
    """The number of GPUs of a type ("" for any) on a node."""
    return node.gpus.get(kind, 0) if kind else sum(node.gpus.values())


def check_walltimes(requests: list[JobRequest]) -> Iterator[Check]:
    """Check that every attempt's walltime is within the limits: SLURM lets a job above them wait for ever."""
    for request in requests:
        what = f"walltime of {request.rule}"
        nodes = nodes_of(request)
        if not nodes:
            continue
        if not request.runtimes:
            yield Check(
                what, "warning", "none is set: the partition's default holds", f"set runtime, in minutes, in {SET}"
            )
            continue
        limits = [(f"partition {nodes[0].partition}", nodes[0].limit_min)]
        limits += [(f"account {one.account}", one.limit_min) for one in own_limits(request)]
        over = [(whose, limit) for whose, limit in limits if limit is not None and max(request.runtimes) > limit]
        minutes = listed([f"{runtime:g}" for runtime in request.runtimes])
        attempts = f" in attempts 1 to {len(request.runtimes)}" if len(request.runtimes) > 1 else ""
        if over:
            whose, limit = min(over, key=lambda pair: pair[1] or 0)
            yield Check(
                what, "failed", f"{minutes} minutes{attempts}, but {whose} ends jobs after {limit:g}: SLURM would let it wait for ever",
                f"lower runtime for {request.rule} in the profile, for example min({min(request.runtimes):g} * attempt, {limit:g})",
            )  # fmt: skip
        else:
            yield Check(what, "ok", f"{minutes} minutes{attempts}")


def own_limits(request: JobRequest) -> list[Association]:
    """This user's associations that limit the walltime of a job."""
    try:
        known = slurm_site.associations()
    except SiteUnknownError:
        return []
    return [
        one
        for one in known
        if one.limit_min is not None
        and one.account.lower() in [account.lower() for account in request.accounts or [one.account]]
        and one.partition in ("", request.partition or default_partition())
    ]


def check_trial(request: JobRequest) -> Check:
    """Ask SLURM whether it would take such a job: its answer includes limits and priorities that stand in no list."""
    kind, gpus = gpus_of(request)
    asked = {
        "-A": request.accounts[0] if request.accounts else None,
        "-p": request.partition,
        "-C": request.constraint,
        "-t": f"{request.runtimes[0]:.0f}" if request.runtimes else None,
        "--gpus": f"{kind}:{gpus}".lstrip(":") if gpus else None,
        "--mem": str(request.mem_mb) if request.mem_mb else None,
    }
    options = [word for option, value in asked.items() if value for word in (option, value)]
    what = f"trial of {request.rule}"
    try:
        start = slurm_site.try_submission([*options, "-N", "1"])
    except SiteUnknownError as error:
        if "allocation failure" not in str(error):
            return Check(what, "skipped", str(error))
        shown = shlex.join(["sbatch", "--test-only", *options, "-N", "1", "--wrap", "true"])
        return Check(what, "failed", f"SLURM would not take the job: {error}", f"To see more: {shown}")
    return Check(what, "ok", f"SLURM would take the job now, and start it at {start}")


def check_logs(submission: Submission) -> Check:
    """Check the folder of SLURM's logs: if it is missing, SLURM ends jobs without any message."""
    # The plugin's own choice where the profile names none.
    folder = Path(submission.logdir or ".snakemake/slurm_logs")
    return write_probe(folder, "SLURM's logs", "set slurm-logdir in the profile to a folder of yours")
