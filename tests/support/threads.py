"""Work in several threads at the same time."""

import threading


def together(count, work, seconds=15):
    """The results (or exceptions) of ``work(n)`` in ``count`` threads."""
    results = [None] * count

    def run(n):
        try:
            results[n] = work(n)
        except BaseException as error:
            results[n] = error

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    assert not any(thread.is_alive() for thread in threads), "it hangs"
    return results
