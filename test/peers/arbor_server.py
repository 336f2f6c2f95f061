"""Arbor's own server (arbor-ai 0.2.17), as it is but for what needs GPUs: its routes, request models, checks, error answers, jobs and batch numbering are the
package's; the trainer process only counts steps, and rollouts are passed on to another server. Arguments: that server's base URL, a storage folder.
Prints its own base URL once it answers, and ends when its standard input closes."""

import json
import os
import sys
import threading
import time
import types
from pathlib import Path

BACKEND, STORAGE = sys.argv[1], sys.argv[2]
GPUS = 4
#: What the trainer's processes would need for a step.
SECONDS_A_STEP = 0.02


def plant(name, **members):
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module
    return module


def apply_chat_template(example, tokenizer):
    """TRL's, as far as a prompt with its completion goes."""
    prompt, completion = example["prompt"], example["completion"]
    role = prompt[-1]["role"]
    if role not in ("user", "tool", "assistant"):
        raise ValueError(f"Invalid role in the last message: {role}")
    open_turn = {"continue_final_message": True} if role == "assistant" else {"add_generation_prompt": True}
    before = tokenizer.apply_chat_template(prompt, tokenize=False, **open_turn)
    whole = tokenizer.apply_chat_template(prompt + completion, tokenize=False)
    return {"prompt": before, "completion": whole[len(os.path.commonprefix([before, whole])) :]}


class Never(Exception):
    pass


class VLLMClient:
    """Its chat, with the backend in vLLM's place. `seeds` is an extension that vLLM doesn't know."""

    def __init__(self, **_):
        pass

    async def chat(self, json_body):
        import httpx

        body = {key: value for key, value in json_body.items() if key != "seeds"}
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.post(f"{BACKEND}chat/completions", json=body, timeout=300)
            response.raise_for_status()
            return response.json()


from transformers import AutoTokenizer, TrainingArguments  # noqa: E402, F401  before what it would look for is planted

plant("trl"), plant("trl.data_utils", apply_chat_template=apply_chat_template)
plant("peft", LoraConfig=object)
plant("coolname", generate_slug=lambda words: "calm-fox")
plant("psutil", NoSuchProcess=Never)
plant("zmq", Context=object, Socket=object, error=types.SimpleNamespace(Again=Never))
plant("arbor.server.services.inference.vllm_client", VLLMClient=VLLMClient)
plant("arbor.training.grpo.trainer", ArborGRPOTrainer=None)
plant("arbor.cli", start_server=None, stop_server=None)  # `import arbor` starts there

import arbor.server.main as main  # noqa: E402
import uvicorn  # noqa: E402
from arbor.core.config import Config  # noqa: E402
from arbor.server.services.comms.async_batch_requester import AsyncBatchRequester, BatchRequest  # noqa: E402
from arbor.server.services.jobs import grpo_job, inference_job  # noqa: E402
from arbor.server.services.managers import gpu_manager, grpo_manager, inference_manager  # noqa: E402

TRAINERS = {}


class Trainer:
    """The trainer's side and the control socket to it, in one: batches are asked for and counted, nothing is learned."""

    def __init__(self):
        self.port = self.endpoint = len(TRAINERS)
        TRAINERS[self.port] = self
        self.requester = AsyncBatchRequester("", num_batches_ahead=1)
        self.records = []
        self.global_step = 0
        self.stopped = False
        self.died = None

    def start(self):
        self.requester.start()

    def run(self, config, processes):
        """Checks that the trainer makes before its first step; where one fails, the process ends."""
        if config["max_steps"] <= 0:
            self.died = "ArborGRPOTrainer requires a finite `max_steps` when batches are supplied externally."
        elif config["num_generations"] < processes * config["gradient_accumulation_steps"]:
            self.died = "num_generations must be >= world_size * gradient_accumulation_steps."
        elif config["max_seq_len"] is None and config["max_completion_length"] is None:
            self.died = "max_seq_len is required when max_completion_length is not provided"
        else:
            threading.Thread(target=self.train, args=(config,), daemon=True).start()

    def train(self, config):
        asked = 0
        for step in range(config["max_steps"]):
            while asked <= min(step + 1, config["max_steps"] - 1):
                self.requester.request_batch(BatchRequest(batch_id=asked))
                asked += 1
            self.requester.get_batch(step)
            if config["loss_type"] not in ("grpo", "bnpo", "dr_grpo", "dapo"):
                return  # "Unknown loss type": the process dies, and nobody tells
            time.sleep(SECONDS_A_STEP)
            self.global_step += 1
            if self.stopped:
                return

    def wait_for_clients(self, expected_count):
        if self.died:
            raise TimeoutError(f"Timed out waiting for {expected_count} client response(s) on {self.endpoint}")

    def get_status(self):
        time.sleep(0.01)
        return {"ok": True, "pending_ids": self.requester.get_pending_batch_ids(), "checkpoints": list(self.records)}

    def submit_batch(self, batch):
        self.requester.submit_batch_result(batch)
        return {"ok": True}

    def request_checkpoint(self, name, metadata):
        record = {
            "checkpoint_name": name,
            "checkpoint_dir": f"/cluster/checkpoints/{name}",
            "global_step": self.global_step,
            "requested": True,
            "metadata": metadata,
            "timestamp": time.time(),
        }
        self.records = [one for one in self.records if one["checkpoint_name"] != name] + [record]
        return {"ok": True, "checkpoint": record}

    def request_terminate(self):
        self.stopped = True
        return {"ok": True}


class Process:
    """A process that runs and does nothing."""

    pid = 0

    def __init__(self, *_):
        self.running = True

    def start_training(self, *, num_processes, script_args, **_):
        options = dict(zip(script_args[::2], script_args[1::2]))
        TRAINERS[int(options["--command_port"])].run(json.loads(options["--trainer_config_json"]), num_processes)
        return self

    def start_inference_server(self, *_, **__):
        return self

    def is_running(self):
        return self.running

    def poll(self):
        return None

    def terminate(self, *_):
        self.running = False


grpo_job.TrainerControlServer = Trainer
grpo_job.AccelerateProcessRunner = inference_job.InferenceProcessRunner = Process
grpo_job.get_free_port = inference_job.get_free_port = lambda: 1
grpo_job.AutoTokenizer = types.SimpleNamespace(
    from_pretrained=lambda model, load=grpo_job.AutoTokenizer.from_pretrained: load(f"data/models/{model}")
)
inference_job.wait_for_server = lambda *_, **__: None
gpu_manager.get_gpu_state = lambda: {"total": list(range(GPUS)), "free": list(range(GPUS)), "busy": []}


def serve():
    config = Config(storage_path=STORAGE)
    Path(STORAGE).mkdir(parents=True, exist_ok=True)
    state = main.app.state
    state.config = config
    state.gpu_manager = gpu_manager.GPUManager(config=config)
    state.inference_manager = inference_manager.InferenceManager(config=config, gpu_manager=state.gpu_manager)
    state.grpo_manager = grpo_manager.GRPOManager(config=config, gpu_manager=state.gpu_manager)
    server = uvicorn.Server(uvicorn.Config(main.app, host="127.0.0.1", port=0, log_level="error", access_log=False))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    print(json.dumps({"base_url": f"http://127.0.0.1:{port}/v1/"}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve()
