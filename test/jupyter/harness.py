"""A kernel and one client of it, for the rows of own_suite.py."""

import os
import queue
import tempfile
import time
import unittest

from jupyter_client.manager import KernelManager

NAME = os.environ.get("KERNEL", "arbor-nb")
TIMEOUT = 30


class Run:
    """What one execution brought: its reply and what was published for it."""

    def __init__(self, reply, messages):
        self.reply = reply["content"]
        self.messages = messages

    def of(self, kind):
        return [m["content"] for m in self.messages if m["msg_type"] == kind]

    def text(self, name="stdout"):
        return "".join(c["text"] for c in self.of("stream") if c["name"] == name)

    def result(self):
        return self.of("execute_result")[0]["data"]

    def error(self):
        return self.of("error")[0]

    def traceback(self):
        return "\n".join(self.error()["traceback"])


class Session:
    """A kernel in folder `cwd`."""

    def __init__(self, cwd=None, transport="tcp", ip=None, **env):
        self.folder = tempfile.TemporaryDirectory() if cwd is None else None
        self.cwd = self.folder.name if self.folder else cwd
        self.km = KernelManager(kernel_name=NAME, transport=transport, **({"ip": ip} if ip else {}))
        self.started = time.monotonic()
        self.km.start_kernel(cwd=self.cwd, env={**os.environ, **env})
        self.kc = self.km.client()
        self.kc.start_channels()
        self.kc.wait_for_ready(timeout=TIMEOUT)
        self.ready = time.monotonic() - self.started

    def send(self, code, **options):
        return self.kc.execute(code, **options)

    def begin(self, code, **options):
        """Sends `code` and returns when it runs."""
        msg_id = self.kc.execute("console.log('begun');\n" + code, **options)
        self.late(msg_id, "stream", TIMEOUT)
        return msg_id

    def collect(self, msg_id, timeout=TIMEOUT):
        """The reply to an execution and all that was published until it was idle."""
        reply = self.reply(msg_id, timeout)
        return Run(reply, self.published(msg_id, timeout))

    def run(self, code, timeout=TIMEOUT, **options):
        return self.collect(self.send(code, **options), timeout)

    def value(self, code):
        return self.run(code).result()["text/plain"]

    def reply(self, msg_id, timeout=TIMEOUT, channel="shell"):
        get = self.kc.get_shell_msg if channel == "shell" else self.kc.get_control_msg
        end = time.monotonic() + timeout
        while True:
            message = get(timeout=max(0.01, end - time.monotonic()))
            if message["parent_header"].get("msg_id") == msg_id:
                return message

    def published(self, msg_id, timeout=TIMEOUT):
        """What was published for `msg_id` until it was idle; for others it is thrown away."""
        end = time.monotonic() + timeout
        messages = []
        while True:
            message = self.kc.get_iopub_msg(timeout=max(0.01, end - time.monotonic()))
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return messages
            messages.append(message)

    def late(self, msg_id, kind, timeout=5):
        """The next message of `kind` for `msg_id`, which is idle already."""
        end = time.monotonic() + timeout
        while True:
            message = self.kc.get_iopub_msg(timeout=max(0.01, end - time.monotonic()))
            if message["parent_header"].get("msg_id") == msg_id and message["msg_type"] == kind:
                return message["content"]

    def ask(self, method, *arguments, **options):
        msg_id = getattr(self.kc, method)(*arguments, **options)
        return self.reply(msg_id)["content"]

    def control(self, kind, content):
        message = self.kc.session.msg(kind, content)
        self.kc.control_channel.send(message)
        return message["header"]["msg_id"]

    def drain(self):
        for get in (self.kc.get_shell_msg, self.kc.get_iopub_msg, self.kc.get_control_msg):
            try:
                while True:
                    get(timeout=0.1)
            except queue.Empty:
                pass

    def close(self):
        self.kc.stop_channels()
        if self.km.has_kernel:
            self.km.shutdown_kernel(now=True)
        if self.folder:
            self.folder.cleanup()


class Case(unittest.TestCase):
    """Rows that share one kernel."""

    @classmethod
    def setUpClass(cls):
        cls.s = Session()
        cls.s.run("1")

    @classmethod
    def tearDownClass(cls):
        cls.s.close()

    def setUp(self):
        self.s.drain()
