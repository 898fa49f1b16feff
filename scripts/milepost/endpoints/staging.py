"""Copies a model's files to the node's own disk: a file system that many nodes share is slow to load weights from."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from milepost.campaign.identity import model_files
from milepost.errors import ServerError
from milepost.runtime.processes import ProcessGroup, Watchdog, last_lines

log = logging.getLogger("milepost")


@asynccontextmanager
async def staged(folder: Path, output: Path, watchdog: Watchdog) -> AsyncIterator[Path]:
    """Copy the files of a model that are served to $TMPDIR, and remove the copy at the end, whatever happens.

    Args:
        folder: The model's. What training keeps beside the weights is left behind.
        output: Log file of the copying.
        watchdog: Removes the copy, should this process be killed.

    Raises:
        ServerError: There is no room for it, or it could not be copied.
    """
    files = model_files(folder)
    size = sum(path.stat().st_size for path in files)
    place = Path(tempfile.gettempdir())
    free = shutil.disk_usage(place).free
    if free < size:
        raise ServerError(
            f"The model's files take {size / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB free: they cannot be staged there."
            " Nothing was started. Set TMPDIR to a larger disk of the node (in the profile, or where jobs get their"
            " environment), or 'stage: false' in the model profile."
        )
    copy = Path(tempfile.mkdtemp(prefix="milepost-model-", dir=place))
    watchdog.remove(copy)
    try:
        begun = time.monotonic()
        group = await ProcessGroup.start(
            ["cp", "--dereference", "--", *map(str, files), str(copy)], env=os.environ, log=output, watchdog=watchdog
        )
        try:
            code = await group.process.wait()
        finally:
            await group.stop()
        copied = sum(path.stat().st_size for path in copy.iterdir())
        if code != 0 or copied != size:
            raise ServerError(
                f"{copied / 1e9:.1f} of {size / 1e9:.1f} GB of the model's files were staged to {place} (cp ended with {code}):"
                f" {last_lines(output, 3)}"
            )
        log.info("staged %.1f GB to %s in %.0f s", size / 1e9, place, time.monotonic() - begun)
        yield copy
    finally:
        # Deleting gigabytes takes a moment, in which the other processes must be looked after.
        await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)
        watchdog.keep(copy)
