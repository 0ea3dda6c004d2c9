# Real engines for the tests. Included by the Makefile at the repository's root, whose folder paths are relative to.
#
#   make engines       install vLLM for CPUs and make the tiny models (7 GB, a minute or two; free when up to date)
#   make goldens       capture anew what the tests compare themselves with (five engine starts)

LLMD_CACHE ?= $(HOME)/.cache/llmd-sched
INSTALLED_VLLM = environment=$$(tests/engines/install_vllm.sh "$(LLMD_CACHE)") && "$$environment/bin/python"

.PHONY: engines goldens

engines:
	$(INSTALLED_VLLM) tests/engines/tiny_models.py "$(LLMD_CACHE)/models"

goldens: export LLMD_CACHE := $(LLMD_CACHE)
goldens: engines
	$(INSTALLED_VLLM) tests/engines/capture_goldens.py tests/goldens/vllm
	$(INSTALLED_VLLM) tests/engines/encode_sglang_goldens.py tests/goldens/sglang
