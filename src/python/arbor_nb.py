"""arbor-nb's server in place of Arbor's own: `import arbor_nb` first, then `import arbor`, and `arbor.init()` starts it.

arbor-ai's client imports its own server, which wants torch, trl, vllm and two GPUs. This module stands in for that part (`arbor.cli`), so the
client runs without those packages: `pip install dspy requests`, `pip install --no-deps arbor-ai`. The server needs Node and ends with Python.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import types

#: More options of `arbor-nb serve`, such as ["--model", "arbor-tiny", "--device", "cpu"]. Without a model the first one that is asked for is loaded.
serve_options: list[str] = []

_CLI = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "dist", "src", "cli", "main.js")


class Server:
    """A server process. Its standard input is a pipe of ours: when we are gone, it saves what runs and ends."""

    def __init__(self, command: list[str], log: str):
        self.log = log
        with open(log, "ab") as lines:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=lines)

    def wait_until_ready(self, timeout: float) -> None:
        ready = []
        reader = threading.Thread(target=lambda: ready.append(self.process.stdout.readline()), daemon=True)
        reader.start()
        reader.join(timeout)
        if ready and ready[0].startswith(b"{"):
            self.base_url = json.loads(ready[0])["base_url"]
            return
        code = self.process.poll() if reader.is_alive() else self.process.wait()
        self.stop()
        why = f"was not ready after {timeout} seconds" if code is None else f"ended with exit code {code}"
        raise RuntimeError(f"arbor-nb's server {why}. The end of {self.log}:\n{self.last_lines()}")

    def last_lines(self) -> str:
        with open(self.log, encoding="utf-8", errors="replace") as lines:
            return "".join(lines.readlines()[-12:])

    def stop(self, timeout: float = 60) -> None:
        """Saves what runs and ends."""
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def start_server(host="127.0.0.1", port=7453, storage_path="./storage", timeout=30) -> Server:
    """What `arbor.init()` calls. `storage_path` is a folder, or a config.yaml that names one."""
    storage = _storage(storage_path)
    os.makedirs(storage, exist_ok=True)
    command = [_node(), "--single-threaded-gc", _cli(), "serve", "--owner-pipe", "--ready-line"]
    command += ["--host", host, "--port", str(port), "--storage", storage, *serve_options]
    server = Server(command, os.path.join(storage, f"server-{port}.log"))
    # A model that was asked for here is loaded before the server is ready, and nobody knows how long that takes.
    server.wait_until_ready(3600 if "--model" in serve_options else timeout)
    return server


def stop_server(server: Server) -> None:
    """What `arbor.shutdown()` calls, also at Python's end."""
    server.stop()


def _storage(path: str) -> str:
    if not path.endswith((".yaml", ".yml")):
        return path
    with open(path, encoding="utf-8") as config:
        named = re.search(r"^storage_path:\s*[\"']?(.+?)[\"']?\s*$", config.read(), re.MULTILINE)
    return os.path.expanduser(named.group(1)) if named else os.path.dirname(os.path.abspath(path))


def _node() -> str:
    node = os.environ.get("ARBOR_NB_NODE") or shutil.which("node")
    if node is None:
        raise RuntimeError("arbor-nb's server needs Node 20.19 or newer, and there is no `node` on PATH. Install it, or set ARBOR_NB_NODE.")
    return node


def _cli() -> str:
    if not os.path.exists(_CLI):
        raise RuntimeError(f"{os.path.normpath(_CLI)} is missing: run `npm install && npm run build` in the arbor-nb folder.")
    return os.path.normpath(_CLI)


def _stand_in() -> None:
    """Plants what arbor-ai imports and isn't there."""
    if "arbor.client" in sys.modules:
        raise ImportError("arbor was imported before arbor_nb; import arbor_nb first.")
    cli = types.ModuleType("arbor.cli", "Stands in for Arbor's own server.")
    cli.start_server, cli.stop_server = start_server, stop_server
    sys.modules["arbor.cli"] = cli
    if importlib.util.find_spec("google") is None:  # arbor.init looks for google.colab, which is an error where no google.* is installed
        google = types.ModuleType("google")
        google.__path__ = []
        sys.modules["google"] = google
    try:
        import dspy
    except ImportError:
        return
    # arbor-ai imports dspy's settings as the module that they were before dspy 3: without it no fine-tuning job is made.
    sys.modules.setdefault("dspy.settings", dspy.settings)


_stand_in()
