"""Where a model answers: one module for each provider, all opened in one way.

`config/schemas/endpoint_NAME.yaml` describes what an entry of config/endpoints.yaml may say to the provider NAME, and the
module `NAME.py` of this package makes an `EndpointSpec` of it (its function `parse`). Nothing else knows a provider's name.
"""

from __future__ import annotations

from pathlib import Path

from milepost.client.endpoint import Endpoint

__all__ = ["ENDPOINTS", "Endpoint"]

ENDPOINTS = Path("config/endpoints.yaml")
