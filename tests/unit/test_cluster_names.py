"""Two test clusters on one machine have no name in common."""

import subprocess
from pathlib import Path

CLUSTER = Path(__file__).parents[1] / "cluster"


def names(folder):
    script = (
        '. "$0/names.sh"; for one in "${hosts[@]%:*}"; do namespace_of "$one"; link_of "$one"; done; echo "$bridge"'
    )
    done = subprocess.run(
        ["bash", "-eu", "-c", script, CLUSTER], env={"CLUSTER_DIR": folder, "PATH": "/usr/bin:/bin"}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


def test_two_clusters_have_no_name_in_common():
    one, other = names("/tmp/milepost-cluster"), names("/tmp/milepost-cluster-2")
    assert len(set(one) | set(other)) == len(one) + len(other) == 18
    # The kernel takes no longer names for links.
    assert all(len(name) <= 15 for name in one + other)


def test_no_other_names_are_on_the_machine():
    for path in sorted(CLUSTER.glob("*.sh")):
        for line in path.read_text().splitlines():
            if line.lstrip().startswith(("ip link", "ip netns", "ip -n")):
                assert "$name" in line or "$link" in line or "$bridge" in line or "link_of" in line, (
                    f"{path.name}: {line}"
                )
