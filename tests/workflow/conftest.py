"""Campaigns for the tests of the workflow; campaigns.py says what they can do."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from campaigns import Campaign, copy_code


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workflow that no test changes."""
    return copy_code(tmp_path_factory.mktemp("code"))


@pytest.fixture(scope="class")
def make_campaign(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Iterator[Callable[..., Campaign]]:
    """Makes campaigns, `own_code` beside a copy of the workflow that the test may change; whatever they leave running is ended at the end."""
    made: list[Campaign] = []

    def make(*, own_code: bool = False, **options: Any) -> Campaign:
        project = tmp_path_factory.mktemp("project")
        campaign = Campaign(project / "campaign", copy_code(project / "code") if own_code else code, **options)
        made.append(campaign)
        return campaign

    yield make
    for campaign in made:
        campaign.end_all()
