"""What the real wandb and the real TensorBoard read of runs. Request: bin (of this environment), runs (each with its offline run's folder as wandb and
its tensorboard), columns and rows of a table. Answer: of each run the records of the log, scalars and texts of the event file, and the artifacts'
digests by the client; and how the client itself writes the table."""

import json
import os
import subprocess

import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wire import answer, request


def records(folder, bin):
    """wandb-core reads the log; its inspector prints a record a line."""
    command = [os.path.join(bin, "wandb"), "leet", "inspect", "--json", folder]
    return [json.loads(line) for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()]


def events(folder):
    accumulator = EventAccumulator(folder, size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    scalars = {tag: [[e.step, e.value, e.wall_time] for e in accumulator.Scalars(tag)] for tag in tags["scalars"]}
    texts = {
        tag: [[e.step, e.tensor_proto.string_val[0].decode(), accumulator.SummaryMetadata(tag).plugin_data.plugin_name] for e in accumulator.Tensors(tag)]
        for tag in tags["tensors"]
    }
    return {"scalars": scalars, "texts": texts}


def table(asked):
    """The same rows in the client's own table and artifact."""
    artifact = wandb.Artifact("run-abc-completions", type="tables")
    entry = artifact.add(wandb.Table(columns=asked["columns"], data=asked["rows"]), "completions")
    with open(entry.local_path, encoding="utf-8") as file:
        content = json.load(file)
    return {"content": content, "path": entry.path}


def digests(path, name):
    """Of a file that is there: the entry's digest and the artifact's, by the client."""
    artifact = wandb.Artifact("run-abc-completions", type="tables")
    entry = artifact.add_file(path, name=name, skip_cache=True)
    return {"entry": entry.digest, "artifact": artifact.digest}


def read(run, bin):
    log = records(run["wandb"], bin)
    entries = [record["artifact"]["manifest"]["contents"][0] for record in log if record["type"] == "artifact"]
    return {"records": log, **events(run["tensorboard"]), "digests": [digests(entry["local_path"], entry["path"]) for entry in entries]}


asked = request()
answer({"runs": [read(run, asked["bin"]) for run in asked["runs"]], "table": table(asked)})
