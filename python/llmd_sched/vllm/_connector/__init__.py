"""vLLM's KV cache, kept in a :class:`llmd_sched.kv.KvStore` beyond what the GPU holds.

`connector` is the class that vLLM makes twice, once beside its scheduler and once in each worker;
`planning` says which blocks are loaded and saved, `moving` does it; `settings` is what the user
gives, `groups` how the model's layers share block tables, `layout` where a block's bytes are,
`announcing` what routers are told.
"""
