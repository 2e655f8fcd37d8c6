"""Settings from the environment."""

import pytest

import zerocost
from zerocost.api.settings import Settings


def test_settings_from_the_environment():
    settings = Settings.from_environment(
        {"ZEROCOST_TOKEN": "abc", "ZEROCOST_MAX_BODY": "1000", "ZEROCOST_AUTH": "no", "ZEROCOST_REQUEST_TIMEOUT": "1.5"}
    )
    assert (settings.token, settings.max_body, settings.auth, settings.request_timeout) == ("abc", 1000, False, 1.5)
    for name, text in (
        ("ZEROCOST_MAX_BODY", "ten"),
        ("ZEROCOST_MAX_BODY", "-1"),
        ("ZEROCOST_AUTH", "maybe"),
        ("ZEROCOST_TOKEN", " "),
    ):
        with pytest.raises(zerocost.RangeError):
            Settings.from_environment({name: text})
