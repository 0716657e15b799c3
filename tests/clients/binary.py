"""python-binary-memcached against a gateway with -F and -E: every operation of its client. Arguments: host, port."""

import sys

import bmemcached
from bmemcached.exceptions import MemcachedException

client = bmemcached.Client((f"{sys.argv[1]}:{sys.argv[2]}",), socket_timeout=20)


def same(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


# Values with the types that flags stand for.
for value in ("text", b"bytes", 7, 2**40, {"a": [1, 2.5, None]}, "", b"", "long" * 20000):
    same(client.set("binary-key", value, compress_level=0), True)
    same(client.get("binary-key"), value)
same(client.set("binary-key", "compressed" * 20000), True)
same(client.get("binary-key"), "compressed" * 20000)
same(client.delete("binary-key"), True)
same(client.get("binary-key"), None)
same(client.get("binary-key", "none"), "none")
same(client.delete("binary-key"), True)

# Conditions.
same(client.add("binary-new", "1"), True)
same(client.add("binary-new", "2"), False)
same(client.replace("binary-new", "b"), True)
same(client.replace("binary-none", "b"), False)
same(client.get("binary-new"), "b")

# Compare and swap.
value, unique = client.gets("binary-new")
same(value, "b")
same(client.cas("binary-new", "swapped", unique), True)
same(client.cas("binary-new", "again", unique), False)
same(client.cas("binary-none", "again", unique), False)
same(client.delete("binary-new", cas=unique), False)
value, unique = client.gets("binary-new")
same(value, "swapped")
same(client.delete("binary-new", cas=unique), True)
same(client.get("binary-new"), None)

# Numbers.
same(client.incr("binary-number", 5, default=10), 10)
same(client.incr("binary-number", 5), 15)
same(client.decr("binary-number", 20), 0)
same(client.set("binary-number", "41"), True)

# Many keys at once, by quiet commands.
many = {f"binary-many{index}": index for index in range(300)}
same(client.set_multi(many), [])
same(client.get_multi(list(many) + ["none"]), many)
found = client.get_multi(list(many), get_cas=True)
same({key: value for key, (value, _) in found.items()}, many)
same(client.delete_multi(list(many)[:100]), True)
same(len(client.get_multi(list(many))), 200)

# Too long is refused, and the connection goes on.
try:
    found = client.set("binary-long", b"x" * 1048577, compress_level=0)
    raise AssertionError(f"{found!r}")
except MemcachedException as error:
    assert "Too large" in str(error), error
same(client.set("binary-long", b"x" * 1048576, compress_level=0), True)
same(client.get("binary-long"), b"x" * 1048576)

# Expiry.
same(client.set("binary-short", "x", time=1000), True)
same(client.get("binary-short"), "x")

# The rest.
(stats,) = client.stats().values()
assert int(stats["curr_connections"]) >= 1, stats
(settings,) = client.stats("settings").values()
assert settings, settings
client.disconnect_all()
print("all as expected")
