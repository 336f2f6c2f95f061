"""jupyter_kernel_test, the public suite for kernels, over the kernel that KERNEL names. Every row has its sample."""

import os
import unittest

from jupyter_kernel_test import IopubWelcomeTests, KernelTests

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NAME = os.environ.get("KERNEL", "arbor-nb")


class Public(KernelTests):
    kernel_name = NAME
    language_name = "typescript"
    file_extension = ".ts"
    code_hello_world = 'console.log("hello, world")'
    code_stderr = 'console.error("oops")'
    completion_samples = [
        {"text": "console.lo", "matches": {"log"}},
        {"text": "Math.sqr", "matches": {"sqrt"}},
        {"text": "[1].flatM", "matches": {"flatMap"}},
    ]
    complete_code_samples = ["1", "const x = 1", 'console.log("hi")', "function f() {\n  return 1\n}", "`a${1}b`", "await f()"]
    incomplete_code_samples = ["function f() {", "const x = [1,", "f(", "`open", "/* open", "if (x) {\n  y()", "const x ="]
    invalid_code_samples = ["const = 1", "let 1a", "}", "a b c", "f(]"]
    code_page_something = "console.log?"
    code_generate_error = 'throw new Error("no")'
    code_execute_result = [
        {"code": "1 + 2", "result": "3"},
        {"code": '"a" + "b"', "result": "'ab'"},
        {"code": "[1, 2].map((x) => x * 2)", "result": "[ 2, 4 ]"},
        {"code": "await Promise.resolve(6 * 7)", "result": "42"},
        {"code": "// a comment\n3 + 4", "result": "7"},
    ]
    code_display_data = [
        {"code": 'display({ [Symbol.for("Jupyter.display")]: () => ({ "text/html": "<b>hi</b>" }) })', "mime": "text/html"},
        {"code": f'display(Buffer.from("{PNG}", "base64"))', "mime": "image/png"},
    ]
    supported_history_operations = ("tail", "range", "search")
    code_history_pattern = "1 + 2*"
    code_inspect_sample = "console.log"
    code_clear_output = "jupyter.clearOutput()"



class Welcome(IopubWelcomeTests):
    kernel_name = NAME
    support_iopub_welcome = True


if __name__ == "__main__":
    unittest.main(verbosity=2)
