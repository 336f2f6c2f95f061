"""python rows.py SUITE [NAMES...]: runs a suite and prints one line of JSON for each row: its name, how it ended, and why."""

import importlib
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


class Rows(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.faults = {}

    def tell(self, test, outcome, why=""):
        name = test.id().split(".", 1)[1]
        print(json.dumps({"row": name, "outcome": outcome, "why": why}), flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        faults = self.faults.pop(test.id(), [])
        self.tell(test, "failed" if faults else "passed", "\n".join(faults))

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            text = f"{subtest._subDescription()}: {self._exc_info_to_string(err, test)}"
            self.faults.setdefault(test.id(), []).append(text)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.tell(test, "failed", self._exc_info_to_string(err, test))

    def addError(self, test, err):
        super().addError(test, err)
        self.tell(test, "failed", self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.tell(test, "skipped", reason)

    def stopTest(self, test):
        super().stopTest(test)
        # A row whose parts failed is never told a success.
        for name, faults in list(self.faults.items()):
            self.tell(test, "failed", "\n".join(faults))
            del self.faults[name]


def main():
    module = importlib.import_module(sys.argv[1])
    loader = unittest.TestLoader()
    suite = loader.loadTestsFromNames(sys.argv[2:], module) if sys.argv[2:] else own(loader, module)
    suite.run(Rows())


def own(loader, module):
    """The classes that the module itself defines: those it imports are templates."""
    classes = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    return unittest.TestSuite(loader.loadTestsFromTestCase(c) for c in classes if issubclass(c, unittest.TestCase))


if __name__ == "__main__":
    main()
