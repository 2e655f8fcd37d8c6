"""HTTP itself: requests, bodies, responses, errors, and the protocol under them."""
