"""python kernel_times.py KERNEL: starts a kernel once and prints its times in seconds as JSON.

start: from the spawn to the reply to kernel_info; first: the first cell, sent right then; the others are medians of 30."""

import json
import os
import statistics
import sys
import time

from jupyter_client.manager import KernelManager

REPEATS = 30
CELLS = {
    "typescript": ("'first'", "1 + 1", "const q{i}: string[] = ['a']; q{i}", "console.lo"),
    "python": ("'first'", "1 + 1", "q{i}: list[str] = ['a']; q{i}", "print.__do"),
}


def main():
    name = sys.argv[1]
    km = KernelManager(kernel_name=name)
    began = time.perf_counter()
    km.start_kernel()
    kc = km.client()
    kc.start_channels()
    start = answered(kc, began)
    first, small, typed, stem = CELLS["python" if name == "python3" else "typescript"]
    times = {"start": start, "first": execute(kc, first)}
    times["1+1"] = middle(lambda i: execute(kc, small))
    times["typed"] = middle(lambda i: execute(kc, typed.format(i=i)))
    times["complete"] = middle(lambda i: replied(kc, kc.complete(stem, len(stem))))
    times["memory_mib"] = memory(km.provisioner.process.pid)
    kc.stop_channels()
    km.shutdown_kernel(now=True)
    print(json.dumps(times))


def answered(kc, began):
    """kernel_info is asked again until somebody answers: before, nobody listens."""
    while time.perf_counter() - began < 60:
        try:
            replied(kc, kc.kernel_info(), timeout=0.05)
            return time.perf_counter() - began
        except TimeoutError:
            pass
    raise TimeoutError("no kernel_info_reply in 60 s")


def execute(kc, code):
    began = time.perf_counter()
    msg_id = kc.execute(code)
    while True:
        message = kc.get_iopub_msg(timeout=60)
        content = message["content"]
        if message["parent_header"].get("msg_id") == msg_id and content.get("execution_state") == "idle":
            break
    replied(kc, msg_id, began=began)
    return time.perf_counter() - began


def replied(kc, msg_id, timeout=60, began=None):
    began = began or time.perf_counter()
    while True:
        left = timeout - (time.perf_counter() - began)
        try:
            message = kc.get_shell_msg(timeout=max(0.001, left))
        except Exception as error:
            raise TimeoutError from error
        if message["parent_header"].get("msg_id") == msg_id:
            return time.perf_counter() - began


def middle(measure):
    return statistics.median(measure(i) for i in range(REPEATS))


def memory(pid):
    try:
        with open(f"/proc/{pid}/status") as file:
            return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmRSS"))
    except OSError:
        return None


if __name__ == "__main__":
    os.environ.setdefault("DENO_NO_UPDATE_CHECK", "1")
    main()
