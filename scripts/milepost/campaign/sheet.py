"""The sheet of checkpoints, config/checkpoints.tsv: one checkpoint a row, or many by a pattern of their folders."""

from __future__ import annotations

import csv
import glob
import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from milepost.campaign.frozen import frozen_folder
from milepost.campaign.options import check_options
from milepost.campaign.schemas import check
from milepost.campaign.types import Checkpoint, Serving
from milepost.errors import ConfigError, did_you_mean

# Takes the cells of a row and the words that name the row in a message.
ReadsRow = Callable[[Mapping[str, str], str], Checkpoint]


def read_checkpoints(
    sheet: Path, profiles: Mapping[str, Mapping[str, Any]], at_endpoint: ReadsRow
) -> dict[str, Checkpoint]:
    """Read the sheet of checkpoints; rows with `{step}` are spread over the folders that fit.

    Args:
        sheet: The file.
        profiles: The model profiles of the configuration.
        at_endpoint: Makes the checkpoint of a row that names an endpoint.

    Raises:
        ConfigError: An unknown column or profile, a pattern without a folder, or a name that stands twice.
    """
    checkpoints: dict[str, Checkpoint] = {}
    for cells in read_rows(sheet):
        check(cells, "checkpoint", f"{sheet}, row {cells.get('name', '')!r}")
        ckpt = parse_checkpoint(cells, sheet, profiles, at_endpoint)
        if ckpt.name in checkpoints:
            raise ConfigError(f"{sheet} names the checkpoint {ckpt.name!r} twice. Names file results: rename one.")
        checkpoints[ckpt.name] = ckpt
    if not checkpoints:
        raise ConfigError(
            f"{sheet} lists no checkpoint. Add a row for each: a name and the model's folder, separated by a tab."
        )
    return checkpoints


def read_rows(sheet: Path) -> list[dict[str, str]]:
    """The cells of each row by their columns, patterns spread over the folders that fit; those of a run's own copy in a run.

    Raises:
        ConfigError: The sheet is missing or is no table, or a pattern fits no folder.
    """
    frozen = frozen_folder()
    if frozen is not None:
        return list(json.loads((frozen / "checkpoints.json").read_bytes()))
    try:
        text = sheet.read_text(encoding="utf-8-sig")  # spreadsheets put a byte order mark first
        lines = [line for line in text.splitlines() if line.strip() and line[0] != "#"]
    except FileNotFoundError:
        raise ConfigError(
            f"{sheet} does not exist (looked for in {Path.cwd()}). It lists one checkpoint a row."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{sheet} is not UTF-8 ({error}). Save it as UTF-8 text.") from None
    rows = []
    for row in csv.DictReader(lines, delimiter="\t"):
        if None in row or None in row.values():
            raise ConfigError(
                f"{sheet}: the row of {row.get('name')!r} has not as many columns as the header. Separate by tabs."
            )
        cells = {key: value.strip() for key, value in row.items() if value.strip()}
        rows += spread(cells, sheet)
    return rows


def spread(cells: dict[str, str], sheet: Path) -> list[dict[str, str]]:
    """Spread a row with `{step}` over the folders that fit its `model`: one row for each, by ascending step."""
    model = re.sub("/+", "/", cells.get("model", ""))
    if "{step}" not in "".join(cells.values()):
        return [cells]
    if model.count("{step}") != 1 or "{step}" not in cells.get("name", ""):
        raise ConfigError(
            f"{sheet}: a row with {{step}} needs it once in 'model', and in 'name' (row {cells.get('name')!r})."
        )
    before, after = model.split("{step}")
    fits = re.compile(f"{re.escape(before)}([0-9]+){re.escape(after)}")
    paths = glob.iglob(f"{glob.escape(before)}*{glob.escape(after)}")
    folders = [(int(fit[1]), fit[1]) for fit in map(fits.fullmatch, paths) if fit]
    if not folders:
        raise ConfigError(
            f"{sheet}: no folder fits the pattern {model!r} (from {Path.cwd()}). Train first, or correct it."
        )
    return [{key: value.replace("{step}", step) for key, value in cells.items()} for _, step in sorted(folders)]


def parse_checkpoint(
    cells: Mapping[str, str], sheet: Path, profiles: Mapping[str, Mapping[str, Any]], at_endpoint: ReadsRow
) -> Checkpoint:
    """Make a checkpoint of its row and its model profile."""
    where = f"{sheet}, row {cells['name']!r}"
    if "endpoint" in cells:
        return at_endpoint(cells, where)
    if "model" not in cells:
        raise ConfigError(f"{where} has neither a model nor an endpoint. Fill in one of these columns.")
    name = cells.get("model_profile", "default")
    if name not in profiles and name != "default":
        raise ConfigError(
            f"{where} asks for model profile {name!r}. Profiles in config/config.yaml: {', '.join(sorted(profiles)) or 'none'}."
            f"{did_you_mean(name, profiles)}"
        )
    options = dict(profiles.get(name, {}))
    env = options.get("env", {})
    profile = check_options(options.get("vllm_args", {}), env, f"{where}, model profile {name!r}")
    own = check_options(parse_options(cells.get("vllm_args", ""), where), env, where)
    options["vllm_args"] = {**profile, **own}
    if "gpus" in cells:
        options["gpus"] = int(cells["gpus"])
    serving = Serving(**options)
    size = 1
    for kind in ("tensor", "pipeline", "data"):
        given_size = str(serving.vllm_args.get(f"{kind}-parallel-size", 1))
        if not re.fullmatch("[1-9][0-9]*", given_size):
            raise ConfigError(f"{where}: {kind}-parallel-size is {given_size!r}. It must be a whole number from 1 on.")
        size *= int(given_size)
    if serving.gpus not in (size, 0) or (serving.gpus == 0 and size > 1):
        raise ConfigError(
            f"{where}: tensor x pipeline x data parallel sizes make {size}, but gpus is {serving.gpus}. They must be the same"
            " (gpus 0 is for vLLM's CPU build)."
        )
    return Checkpoint(
        name=cells["name"],
        model=cells["model"],
        revision=cells.get("revision"),
        run=cells.get("run"),
        step=parse_step(cells),
        generation=int(cells.get("generation", 1)),
        serving=serving,
        model_profile=name,
    )


def parse_step(cells: Mapping[str, str]) -> float | None:
    """The training step of a row; None if it has none."""
    step = cells.get("step")
    return None if not step else int(step) if step.isdigit() else float(step)


def parse_options(text: str, where: str) -> dict[str, Any]:
    """Read options of a command line into a mapping; a switch becomes true.

    >>> parse_options("--dtype float32 --enforce-eager --seed=1", "")
    {'dtype': 'float32', 'enforce-eager': True, 'seed': '1'}
    """
    options: dict[str, Any] = {}
    name = None
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{where}: vllm_args cannot be read: {error}.") from None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            options[name] = value if equals else True
            name = None if equals else name
        elif name:
            options[name] = word
            name = None
        else:
            raise ConfigError(f"{where}: vllm_args holds {word!r} where an option (--name value) is expected.")
    return options
