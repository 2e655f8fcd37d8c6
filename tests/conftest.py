"""What holds for the whole suite."""

import signal

# A shell starts what runs in the background with SIGINT ignored, and child processes inherit that: those that tests
# interrupt would never end.
signal.signal(signal.SIGINT, signal.default_int_handler)
