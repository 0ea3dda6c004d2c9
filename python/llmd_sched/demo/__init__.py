"""The main job, end to end: chat sessions routed to engines by their own KV events.

``python -m llmd_sched.demo`` starts embedded engines (or attaches to running ones), drives the
same workload once per routing profile through :class:`llmd_sched.Router` over real HTTP and real
ZMQ events, and prints one column a profile: prefix-hit tokens by the engines' own counters, time
to first token, and requests per endpoint.
"""
