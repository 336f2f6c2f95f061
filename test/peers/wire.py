"""How the tests talk to these scripts: a file with the request, a file for the answer. Standard output belongs to the libraries."""

import json
import sys


def request():
    with open(sys.argv[1], encoding="utf-8") as file:
        return json.load(file)


def answer(value):
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(value, file)
