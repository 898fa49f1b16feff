"""Start scripts/evaluate_endpoint.py with the interpreter that has its packages: that of envs/workflow beside us."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Become that program, with the same arguments."""
    python = ROOT / "envs" / "workflow" / ".venv" / "bin" / "python"
    if not python.is_file():
        sys.exit(f"Milepost is not installed: {python} does not exist. Run `envs/setup.sh workflow` in {ROOT}.")
    # What NeMo Evaluator's own interpreter was told to import from is not for this one.
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    script = ROOT / "scripts" / "evaluate_endpoint.py"
    os.execve(python, [str(python), str(script), *sys.argv[1:]], env)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main()
