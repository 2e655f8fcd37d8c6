"""``zerocost list``."""

import json

from support.command_line import FREE, SCALE, SPLIT


def test_list_shows_names_interfaces_and_the_first_paragraph(succeeds):
    rows = [line.split(maxsplit=2) for line in succeeds("list", *SCALE, *SPLIT).splitlines()]
    assert rows[0] == ["name", "interface", "description"]
    assert ["scale", "attention", "Multiplies every entry."] in rows
    assert ["split", "parallel", "Cuts a tensor into views."] in rows


def test_list_of_one_interface_as_json(succeeds):
    listed = json.loads(succeeds("list", *FREE, *SCALE, "--interface", "free", "--json"))
    assert listed == [{"name": "free", "interface": "free", "description": "Takes anything and returns it."}]


def test_list_of_an_unknown_interface_names_the_close_one(refused):
    assert "did you mean 'free'?" in refused("list", *FREE, "--interface", "fre")
