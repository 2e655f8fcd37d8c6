"""Names of artifacts, models and entries that have a meaning in paths or headers."""

import pytest

from support.raw_http import head, status
from support.servers import needs_proc

pytestmark = needs_proc


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../../etc/passwd",
        "%2e%2e",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "scale%00",
        "%00",
        "a%0d%0ax-injected:%201",
        "%ff%fe",
        "x" * 10_240,
        "%C3%BC" * 1000,
        "scale/../scale",
    ],
)
@pytest.mark.parametrize("pattern", ["/artifacts/{}/execute", "/v2/models/{}/infer", "/services/memory/entries/{}"])
def test_names_with_a_meaning_in_paths_or_headers(bounded, name, pattern):
    method = "GET" if "entries" in pattern else "POST"
    body = b"" if method == "GET" else b"{}"
    answer = bounded.send(head(pattern.format(name), method, content_length=len(body)), body)
    # A key of the memory may be any text of up to 1000 characters; anything else is an invalid input.
    is_no_key = method == "GET" and (name == "%ff%fe" or len(name) > 10_000)
    assert status(answer) == (422 if is_no_key else 404), answer[:300]
    assert b"x-injected" not in answer.partition(b"\r\n\r\n")[0]
    assert b"root:" not in answer
    assert len(answer) < 8000
