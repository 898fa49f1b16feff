"""The scorer ifbench: does the answer follow IFBench's instructions, by the checkers of the benchmark's own repository?

The checkers come from a checkout that the user names, in its older layout (modules at the top) or its newer one (modules in
the folder `ifbench`). A checker that crashes counts as not followed, for that instruction only.

Source: Pyatkin et al. (2025), arXiv 2507.02833.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from milepost.errors import ConfigError
from milepost.records import Followed, Prompt
from milepost.scorers import Needs
from milepost.scorers.following import CRASHED, LOOSE, STRICT, FollowingScorer

_REGISTRY = "instructions_registry.py"
_REPOSITORY = "https://github.com/allenai/IFBench"


class Scorer(FollowingScorer):
    """Checks an answer against the instructions of its prompt; the headline is the share of prompts, read loosely.

    Args:
        ifbench_dir: The folder of the checkout.
        compat: Where one check of a prompt crashes, count all of its instructions as not followed, as the package
            llm-eval-framework does.
    """

    name = "ifbench"
    metrics = (*LOOSE, *STRICT, CRASHED)
    environment = "ifbench"
    library = "ifbench"

    def __init__(self, *, ifbench_dir: str, compat: bool) -> None:
        super().__init__()
        self._checkout = Path(ifbench_dir)
        self._compat = compat

    def needs(self) -> Needs:
        """An interpreter with what the checkers import, and the checkers themselves."""
        modules = self._modules()
        files = sorted(str(path) for path in modules.glob("*.py")) if modules else []
        return Needs(environments=(self.environment,), files=tuple(files))

    def check(self, items: Sequence[Prompt]) -> None:
        """See that there is a checkout, and that every item has instructions.

        Raises:
            ConfigError: There is none.
        """
        self.folder()
        super().check(items)

    def folder(self) -> str:
        """The folder that the checkers are imported from.

        Raises:
            ConfigError: There is no checkout.
        """
        modules = self._modules()
        if modules is None:
            there = (
                "is no folder"
                if not os.path.isdir(self._checkout)
                else f"has no {_REGISTRY}, nor one in its folder ifbench"
            )
            raise ConfigError(
                f"The scorer ifbench takes its checkers from a checkout of the benchmark's repository, and `ifbench_dir: "
                f"{self._checkout}` {there} (looked for in {Path.cwd()}). Run `git clone {_REPOSITORY}`, and name its folder."
            )
        # A user may name the newer layout's inner folder; an older checkout may lie in a folder of that name.
        inner = modules != self._checkout or (modules.name == "ifbench" and (modules / "__init__.py").is_file())
        return str((modules.parent if inner else modules).resolve())

    def count(self, verdicts: Sequence[Followed]) -> Sequence[Followed]:
        """Its verdicts; with `compat`, none holds beside one whose check crashed."""
        if not self._compat or not any("crashed" in one for one in verdicts):
            return verdicts
        return [Followed(**{**one, "strict": False, "loose": False}) for one in verdicts]

    def _modules(self) -> Path | None:
        """The folder with the modules of the checkers; None where there is none."""
        # os.path takes a name that no file can have for one that is not there.
        places = (self._checkout / "ifbench", self._checkout)
        return next((place for place in places if os.path.isfile(place / _REGISTRY)), None)
