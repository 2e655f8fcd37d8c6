"""``zerocost info``."""

import json

import numpy as np

import zerocost


def test_info(succeeds):
    facts = json.loads(succeeds("info", "--json"))
    assert facts["version"] == zerocost.__version__
    assert facts["cpu_level"] in facts["cpu_levels"]
    assert facts["threads"] == zerocost.num_threads()
    assert facts["numpy"] == np.__version__
    text = succeeds("info")
    assert facts["cpu_level"] in text
    assert facts["numpy"] in text
