"""What headers say of limits, in the forms in which servers say it, by clocks that may be wrong."""

import pytest

from milepost.client.quotas import Quota, read_quotas, told_pause_s

DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
LATER = "Thu, 01 Jan 2026 00:00:09 GMT"


@pytest.mark.parametrize(
    ("headers", "quotas"),
    [
        (
            {
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            {"requests": Quota(59, 1), "tokens": Quota(149984, 360)},
        ),
        (
            {
                "date": DATE,
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:30Z",
                "anthropic-ratelimit-output-tokens-remaining": "800",
                "anthropic-ratelimit-output-tokens-reset": "2026-01-01T00:01:00Z",
            },
            {"requests": Quota(0, 30), "output tokens": Quota(800, 60)},
        ),
        # Milliseconds since 1970, as OpenRouter's.
        (
            {"date": DATE, "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1767225612000"},
            {"requests": Quota(0, 12)},
        ),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "120ms"}, {"requests": Quota(3, 0.12)}),
        ({"x-ratelimit-remaining-requests": "3"}, {}),
        ({"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "soon"}, {}),
    ],
)
def test_the_forms_of_what_remains(headers, quotas):
    assert read_quotas(headers) == quotas


def test_a_date_is_told_by_the_servers_own_clock():
    assert told_pause_s({"date": DATE, "retry-after": LATER}) == 9.0, "whatever this host's clock shows"


def test_a_date_without_the_servers_clock_holds_nobody_for_hours():
    assert told_pause_s({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}) == 60.0
    assert told_pause_s({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0.0
