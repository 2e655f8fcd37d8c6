"""Safetensors messages made by hand, such as no writer of the format makes."""

import json


def message(header, data=b"", *, size=None):
    """The header, bytes or a value for JSON, behind its length, and the data. ``size`` is claimed for the length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data
