"""pymemcache against a gateway with -F and -E: every operation of its client. Arguments: host, port."""

import sys
import threading

from pymemcache import MemcacheClientError, MemcacheServerError
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.serde import pickle_serde

address = (sys.argv[1], int(sys.argv[2]))
client = Client(address, timeout=20)


def same(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def fails(kind, call):
    try:
        found = call()
    except kind:
        return
    raise AssertionError(f"{found!r} instead of {kind.__name__}")


# Set, get, delete; with and without waiting for the answer.
for noreply in (False, True):
    same(client.set("key", b"one", noreply=noreply), True)
    same(client.get("key"), b"one")
    same(client.delete("key", noreply=noreply), True)
    same(client.get("key"), None)
same(client.delete("key", noreply=False), False)
same(client.get("key", default="none"), "none")

# Values of all lengths and all bytes.
for length in (0, 1, 2, 2047, 2048, 65535, 65536, 70000, 1048576):
    value = bytes(range(256)) * (length // 256 + 1)
    value = value[:length]
    same(client.set("long", value, noreply=False), True)
    same(client.get("long"), value)
fails(MemcacheServerError, lambda: client.set("long", bytes(1048577), noreply=False))
same(client.get("long"), None)
key = "k" * 250
same(client.set(key, b"x", noreply=False), True)
same(client.get(key), b"x")

# Conditions.
same(client.add("new", b"1", noreply=False), True)
same(client.add("new", b"2", noreply=False), False)
same(client.replace("new", b"b", noreply=False), True)
same(client.replace("none", b"b", noreply=False), False)
same(client.append("new", b"c", noreply=False), True)
same(client.prepend("new", b"a", noreply=False), True)
same(client.append("none", b"c", noreply=False), False)
same(client.get("new"), b"abc")

# Compare and swap.
value, unique = client.gets("new")
same(value, b"abc")
same(client.cas("new", b"swapped", unique, noreply=False), True)
same(client.cas("new", b"again", unique, noreply=False), False)
same(client.cas("none", b"again", unique, noreply=False), None)
same(client.get("new"), b"swapped")
same(client.gets("none"), (None, None))

# Numbers.
same(client.set("number", b"10", noreply=False), True)
same(client.incr("number", 5), 15)
same(client.decr("number", 20), 0)
same(client.incr("none", 1), None)
same(client.set("word", b"x", noreply=False), True)
fails(MemcacheClientError, lambda: client.incr("word", 1))

# Many keys at once.
many = {f"many{index}": b"%d" % index for index in range(500)}
same(client.set_many(many, noreply=False), [])
same(client.get_many(list(many) + ["none"]), many)
found = client.gets_many(list(many))
same({key: value for key, (value, _) in found.items()}, many)
same(client.delete_many(list(many)[:250], noreply=False), True)
same(len(client.get_many(many)), 250)

# Expiry.
same(client.set("short", b"x", expire=1000, noreply=False), True)
same(client.touch("short", 2000, noreply=False), True)
same(client.touch("none", 1, noreply=False), False)
same(client.raw_command("gat 3000 short", b"END\r\n"), b"VALUE short 0 1\r\nx\r\n")
value, unique = client.gets("short")
same(client.cas("short", b"y", unique, expire=-1, noreply=False), True)
same(client.get("short"), None)

# Flags: what the serialiser says of a value comes back with it.
objects = Client(address, serde=pickle_serde, timeout=20)
for value in ("text", 7, {"a": [1, 2.5, None]}):
    same(objects.set("object", value, noreply=False), True)
    same(objects.get("object"), value)

# The rest.
assert client.version().startswith(b"1.6"), client.version()
stats = client.stats()
assert stats[b"curr_connections"] >= 1 and stats[b"cmd_get"] > 0, stats
fails(MemcacheClientError, lambda: client.flush_all(noreply=False))
same(client.get("new"), b"swapped")

# Pools, several threads, and a ring of one.
pool = PooledClient(address, max_pool_size=4, timeout=20)
pool.set("sum", b"0", noreply=False)
threads = [threading.Thread(target=lambda: [pool.incr("sum", 1) for _ in range(50)]) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
same(pool.get("sum"), b"200")
ring = HashClient([address], timeout=20)
same(ring.set_many({"r1": b"1", "r2": b"2"}, noreply=False), [])
same(ring.get_many(["r1", "r2", "r3"]), {"r1": b"1", "r2": b"2"})
client.quit()
print("all as expected")
