"""pymemcache with the time-out of gomemcache, half a second, against a gateway with --allow-flush, -F and -E: as a test
suite uses it, which flushes between any two tests. Arguments: host, port."""

import sys
import threading
import time

from pymemcache.client.base import Client

address = (sys.argv[1], int(sys.argv[2]))
client, other = Client(address, timeout=0.5), Client(address, timeout=0.5)


def same(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


# Flush, with and without waiting for the answer, and use the same keys again at once.
for noreply in (False, True):
    for number in range(50):
        many = {f"key{index}": b"%d" % (number + index) for index in range(20)}
        same(client.set_many(many, noreply=False), [])
        same(client.get_many(list(many)), many)
        same(client.flush_all(noreply=noreply), True)
        same(client.get_many(list(many)), {})
        same(client.add("key0", b"new", noreply=False), True)
        same(client.incr("key1", 1), None)
        same(client.delete("key2", noreply=False), False)
        if not noreply:
            same(other.get("key0"), b"new")
        same(client.get_many(list(many)), {"key0": b"new"})

# Later, what is there by then.
same(client.flush_all(delay=1, noreply=False), True)
same(client.set("later", b"x", noreply=False), True)
same(client.get("later"), b"x")
deadline = time.monotonic() + 10
while client.get("later") is not None:
    assert time.monotonic() < deadline, "never flushed"
    time.sleep(0.05)
same(client.set("later", b"y", noreply=False), True)
same(client.get("later"), b"y")

# Several test runs at once.
failures = []


def flush():
    mine = Client(address, timeout=0.5)
    try:
        for _ in range(30):
            same(mine.flush_all(noreply=False), True)
    except Exception as error:  # noqa: BLE001
        failures.append(error)


threads = [threading.Thread(target=flush) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
same(failures, [])
print("all as expected")
