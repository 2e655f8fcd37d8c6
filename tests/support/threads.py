"""Work in several threads at the same time."""

import contextlib
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


@contextlib.contextmanager
def meanwhile(work):
    """Calls ``work()`` again and again in another thread while the block runs; its exception is raised at the end."""
    done, failures = threading.Event(), []

    def run():
        try:
            while not done.is_set():
                work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert failures == []
