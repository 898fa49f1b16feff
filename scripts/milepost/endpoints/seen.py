"""Who has answered so far in a job: an endpoint of others that passes questions on to another model is found out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from milepost.endpoints import ENDPOINTS, Endpoint
from milepost.errors import ServerError

log = logging.getLogger("milepost")


class Seen:
    """Who has answered so far: a gateway may pass questions on to another model, and say so in its replies only."""

    def __init__(self, model: str | None = None, met: Callable[[str], object] = lambda name: None) -> None:
        """Begin with the name that is known, where one is; `met` gets the first one that is not."""
        self.model, self._met = model, met
        self.fingerprint: str | None = None

    def check(self, who: Mapping[str, str], endpoint: Endpoint, kept: str) -> None:
        """See that the model that answered is the one that answered first.

        Raises:
            ServerError: It is another.
        """
        name, fingerprint = who.get("model"), who.get("fingerprint")
        if name is not None and self.model is None:
            # A name that was asked for may resolve to a dated one.
            self.model = name
            self._met(name)
        if name is not None and name != self.model and name not in endpoint.accepts:
            raise ServerError(
                f"The server at {endpoint.url} answers as {name!r} now, and answered as {self.model!r} before: it has passed"
                f" a question on to another model. That answer was not kept. Write `accepts: [{name}]` into its entry in"
                f" {ENDPOINTS} if both are the same to you, or have it send no question elsewhere. {kept}"
            )
        if fingerprint is not None and fingerprint != self.fingerprint:
            if self.fingerprint is not None:
                log.warning("the model's fingerprint has changed from %s to %s", self.fingerprint, fingerprint)
            self.fingerprint = fingerprint
