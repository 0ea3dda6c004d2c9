"""KV blocks that the engines of a node share: in shared memory, and below it on a disk.

>>> import numpy as np
>>> from llmd_sched import kv
>>> kv.Store.unlink("example")
>>> store = kv.Store("example", block_bytes=4096, host_bytes=64 * 4096, fingerprint=b"llama/bf16")
>>> layer = np.arange(8 * 1024, dtype=np.float32).reshape(8, 1024)  # eight blocks of one layer
>>> hashes = [bytes([number]) * 32 for number in range(3)]          # as the engine names them
>>> store.put(hashes, layer, rows=[5, 0, 2])
3
>>> store.matched([*hashes, b"another"])
3
>>> other = np.zeros_like(layer)
>>> store.get(hashes, other, rows=[1, 3, 4])
array([ True,  True,  True])
>>> bool((other[1] == layer[5]).all())
True
>>> kv.Store.unlink("example")

No daemon: whoever opens a store first makes it, and it outlives its processes. Any of them may be
killed at any time. See ``docs/kv-store.md``.
"""

from llmd_sched._core import KvStore
from llmd_sched.kv._store import Lease, Store

__all__ = ["KvStore", "Lease", "Store"]
