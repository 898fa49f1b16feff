"""The folder of a shared endpoint: all that come at once have one key."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from milepost.endpoints.shared_place import place_of


def refuse_links(*args):
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("link", [os.link, refuse_links], ids=["links", "no links"])
def test_all_that_come_at_once_have_one_key(tmp_path, monkeypatch, link):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "link", link)
    for place in range(5):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(place_of, [f"judge{place}"] * 8))
        assert len({one.key for one in found}) == 1
        assert os.listdir(found[0].folder) == ["key"]
