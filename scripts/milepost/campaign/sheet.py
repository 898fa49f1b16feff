"""The sheet of checkpoints, config/checkpoints.tsv: one checkpoint a row, or many by a pattern of their folders."""

from __future__ import annotations

import csv
import glob
import json
import os
import re
import shlex
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from milepost.campaign.frozen import frozen_folder
from milepost.campaign.options import check_options
from milepost.campaign.types import Checkpoint, Serving
from milepost.errors import ConfigError, did_you_mean
from milepost.schemas import check, check_names, defaults, expand_path, read_text

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
    places: dict[tuple[str | None, float], str] = {}
    for cells in read_rows(sheet):
        check(cells, "checkpoint", f"{sheet}, row {cells.get('name', '')!r}")
        ckpt = parse_checkpoint(cells, sheet, profiles, at_endpoint)
        if ckpt.name in checkpoints:
            raise ConfigError(f"{sheet} names the checkpoint {ckpt.name!r} twice. Names file results: rename one.")
        checkpoints[ckpt.name] = ckpt
        if ckpt.step is None:
            continue
        other = places.setdefault((ckpt.run, ckpt.step), ckpt.name)
        if other != ckpt.name:
            run = f"step {cells['step']} of run {ckpt.run!r}" if ckpt.run else f"step {cells['step']}, without a run"
            raise ConfigError(
                f"{sheet}: {other!r} and {ckpt.name!r} are both {run}. A curve has one checkpoint at a step: name another run"
                " or step, or leave both cells of one of them empty."
            )
    check_names(checkpoints, str(sheet))
    if any(run for run, _ in places) and (alone := [name for (run, _), name in places.items() if not run]):
        raise ConfigError(
            f"{sheet}, row {alone[0]!r} has a step and no run, where other rows have both: it would be on a curve of its own."
            " Fill in its run, or empty its step."
        )
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
    text = read_text(sheet, "It lists one checkpoint a row.").replace("\r\n", "\n")
    text = text if "\n" in text else text.replace("\r", "\n")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip() and line[0] != "#"]
    if not lines:
        return []
    header = _split(*lines[0], sheet)
    _check_header(header, sheet)
    rows = []
    for number, line in lines[1:]:
        values = _split(number, line, sheet)
        if len(values) != len(header):
            raise ConfigError(
                f"{sheet}, line {number}: the row of {values[0]!r} has {len(values)} columns, and the header has"
                f" {len(header)}. Separate columns by tabs, one between two cells, also where a cell is empty."
            )
        cells = {column: value for column, value in zip(header, values, strict=True) if value}
        if "model" in cells:
            # Here, and not where a step runs: its shell may have other variables.
            parts = cells["model"].split("{step}")
            where = f"{sheet}, line {number}, column 'model'"
            cells["model"] = "{step}".join(expand_path(part, where) for part in parts)
        rows += spread(cells, sheet)
    return rows


def _split(number: int, line: str, sheet: Path) -> list[str]:
    """The cells of a line. Quotation marks around a cell are a spreadsheet's."""
    if any(unicodedata.category(sign) == "Cc" for sign in line.replace("\t", "")):
        raise ConfigError(f"{sheet}, line {number}: {line!r} holds a control character. Take it out.")
    try:
        (values,) = csv.reader([line], delimiter="\t", strict=True)
    except (csv.Error, ValueError) as error:
        raise ConfigError(
            f"{sheet}, line {number} cannot be read: {error}. A cell that begins with a quotation mark ends with one, and has"
            ' those within it twice ("").'
        ) from None
    return [value.strip() for value in values]


def _check_header(header: list[str], sheet: Path) -> None:
    """See that the header's columns are separated by tabs, named, and different.

    Raises:
        ConfigError: They are not.
    """
    if len(header) == 1:
        signs = {",": "commas", ";": "semicolons", " ": "spaces"}
        separators = next((f", and has {name} in it" for sign, name in signs.items() if sign in header[0]), "")
        raise ConfigError(
            f"{sheet} has the header {header[0]!r}, which is one column{separators}. Separate columns by tabs: 'name', 'model' and"
            " further ones, in the header and in every row."
        )
    if "" in header:
        raise ConfigError(f"{sheet}: column {header.index('') + 1} has no name in the header. Name or remove it.")
    twice = [column for column in header if header.count(column) > 1]
    if twice:
        raise ConfigError(f"{sheet} has the column {twice[0]!r} twice. Remove or rename one: only one would be read.")


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
    targets: dict[str, str] = {}
    for _, step in sorted(folders):
        folder = f"{before}{step}{after}"
        other = targets.setdefault(os.path.realpath(folder), folder)
        if other != folder:
            raise ConfigError(
                f"{sheet}: the pattern {model!r} fits {other} and {folder}, which are one folder: one is a link to the other."
                " Move the link elsewhere, or give each checkpoint a row."
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
    name = cells.get("model_profile", defaults("checkpoint")["model_profile"])
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
        generation=parse_generation(cells),
        serving=serving,
        model_profile=name,
    )


def parse_step(cells: Mapping[str, str]) -> float | None:
    """The training step of a row; None if it has none."""
    step = cells.get("step")
    return None if not step else int(step) if step.isdigit() else float(step)


def parse_generation(cells: Mapping[str, str]) -> int:
    """The generation of a row: its answers are those of this one alone."""
    return int({**defaults("checkpoint"), **cells}["generation"])


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
