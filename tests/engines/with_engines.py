#!/usr/bin/env python3
"""Runs a command beside real engines: with_engines.py [options] -- COMMAND...

Each argument `{urls}` of the command becomes the engines' base URLs, one argument each. The
engines stop when the command ends, and its exit status is this one's.
"""

import argparse
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from vllm_engine import EngineConfig, Installation, VllmEngine


def main() -> int:
    defaults = EngineConfig()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2, help="engines")
    parser.add_argument("--model", default=defaults.model, help="a model of tiny_models.py")
    parser.add_argument(
        "--num-blocks", type=int, default=defaults.num_blocks, help="KV blocks each"
    )
    parser.add_argument("--max-model-len", type=int, default=defaults.max_model_len, help="tokens")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parser.parse_args()
    config = EngineConfig(
        model=options.model, num_blocks=options.num_blocks, max_model_len=options.max_model_len
    )
    installation = Installation.find()
    with ExitStack() as cleanup:
        logs = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="llmd-engines-")))
        engines = [
            VllmEngine(installation, config, logs / f"engine-{index}.log")
            for index in range(options.count)
        ]
        for engine in engines:
            cleanup.callback(engine.close)
        sys.stderr.write(f"starting {options.count} vLLM engines (about half a minute) ...\n")
        for engine in engines:
            engine.start()
        for engine in engines:
            engine.wait_healthy()
        urls = [engine.url for engine in engines]
        command = [
            filled for part in options.command for filled in (urls if part == "{urls}" else [part])
        ]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
