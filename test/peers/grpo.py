"""Arbor's own client, unmodified, trains through our server. Request: base_url, model, rows, max_tokens, steps, examples and
rollouts a step, train_kwargs. Answer: the calls it made (its chat calls aside), in order, and the trained program's model."""

import sys
import types

# `import arbor` imports its server, which wants torch, trl and vllm; the client asks no more of it than these two names.
server = types.ModuleType("arbor.cli")
server.start_server = server.stop_server = lambda *args, **kwargs: None
sys.modules["arbor.cli"] = server

import dspy
import requests
from arbor import ArborGRPO, ArborProvider

from client import accuracy
from wire import answer, request

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}


def watched(calls):
    """Notes every call of the client but its chat calls, which go another way."""
    post = requests.post

    def noted(url, *args, **kwargs):
        response = post(url, *args, **kwargs)
        path = url.split("/v1/")[-1]
        calls.append({"path": path, "request": kwargs.get("json"), "status": response.status_code, "answer": response.json()})
        return response

    requests.post = noted


def train(asked):
    calls = []
    watched(calls)
    lm = dspy.LM(
        f"openai/arbor:{asked['model']}",
        provider=ArborProvider(),
        api_base=asked["base_url"],
        api_key="none",
        max_tokens=asked["max_tokens"],
        **SAMPLING,
    )
    program = dspy.ChainOfThought("question -> answer")
    program.set_lm(lm)
    optimizer = ArborGRPO(
        metric=accuracy,
        adapter=dspy.ChatAdapter(use_json_adapter_fallback=False),
        num_train_steps=asked["steps"],
        num_dspy_examples_per_grpo_step=asked["examples"],
        num_rollouts_per_grpo_step=asked["rollouts"],
        exclude_demos=True,
        train_kwargs={**SAMPLING, **asked["train_kwargs"]},
    )
    trainset = [dspy.Example(**row).with_inputs("question") for row in asked["rows"]]
    trained = optimizer.compile(program, trainset=trainset)
    return {"calls": calls, "model": trained.predictors()[0].lm.model}


if __name__ == "__main__":
    asked = request()
    dspy.configure(adapter=dspy.ChatAdapter(use_json_adapter_fallback=False))
    answer(train(asked))
