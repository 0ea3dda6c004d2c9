# Real engines. Included by the Makefile, which sets LLMD_CACHE, PYTHON and DEMO_VENV.
#
#   make engines     vLLM for CPUs and the tiny models (7 GB, one or two minutes; free when current)
#   make goldens     capture anew what the tests compare themselves with (five engine starts)
#   make demo-vllm   the demo's traffic through two real engines, in the demo's environment

INSTALLED_VLLM = environment=$$(tests/engines/install_vllm.sh "$(LLMD_CACHE)") && "$$environment/bin/python"

.PHONY: engines goldens demo-vllm

engines:
	$(INSTALLED_VLLM) tests/engines/tiny_models.py "$(LLMD_CACHE)/models"

goldens: engines
	$(INSTALLED_VLLM) tests/engines/capture_goldens.py tests/goldens/vllm
	$(INSTALLED_VLLM) tests/engines/capture_chats.py "$(LLMD_CACHE)/models/tiny-llama" tests/goldens/chats
	$(INSTALLED_VLLM) tests/engines/encode_sglang_goldens.py tests/goldens/sglang

# 24 sessions of 4 turns fill about 480 blocks of 32 tokens: both pools together hold 0.7 of that.
DEMO_VLLM_TRAFFIC := --sessions 24 --turns 4 --system-prompts 4 --system-tokens 512 \
	--user-tokens 120 --output-tokens 16 --think-s 0.5

demo-vllm: engines
	$(PYTHON) tests/engines/with_engines.py --model small-llama --num-blocks 168 --max-model-len 2048 -- \
		$(DEMO_VENV)/bin/python -m llmd_sched.demo --attach {urls} --model small-llama --block-size 32 \
		$(DEMO_VLLM_TRAFFIC) $(ARGS)
