"""Arbor's own client, unmodified, trains through our server. Request: base_urls, model, rows, valset, max_tokens, steps, examples and
rollouts a step, train_kwargs. Answer: the model that the program ends with, once for each base URL; what it said to broken calls."""

import contextlib
import io

import arbor_client  # noqa: F401  before arbor
import dspy
from arbor import ArborGRPO, ArborProvider
from dspy.teleprompt.grpo import GRPO
from dspy.utils.exceptions import ContextWindowExceededError

from client import accuracy
from wire import answer, request

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}


def examples(rows):
    return [dspy.Example(**row).with_inputs("question") for row in rows]


def student(asked, base_url):
    lm = dspy.LM(
        f"openai/arbor:{asked['model']}",
        provider=ArborProvider(),
        api_base=base_url,
        api_key="none",
        max_tokens=asked["max_tokens"],
        **SAMPLING,
    )
    program = dspy.ChainOfThought("question -> answer")
    program.set_lm(lm)
    return program


def optimizer(asked, **train_kwargs):
    return ArborGRPO(
        metric=accuracy,
        adapter=dspy.ChatAdapter(use_json_adapter_fallback=False),
        num_train_steps=asked["steps"],
        num_dspy_examples_per_grpo_step=asked["examples"],
        num_rollouts_per_grpo_step=asked["rollouts"],
        num_steps_for_val=asked["steps"],
        exclude_demos=True,
        train_kwargs={**SAMPLING, **asked["train_kwargs"], **train_kwargs},
    )


def train(asked):
    """One optimizer for all: it remembers the batch ids that it served, and would wait for ever for one that it knows."""
    compiler = optimizer(asked)
    for base_url in asked["base_urls"]:
        program = student(asked, base_url)
        trained = compiler.compile(program, trainset=examples(asked["rows"]), valset=examples(asked["valset"]))
        yield trained.predictors()[0].lm.model


def train_with_dspys_own(asked):
    """dspy.teleprompt.grpo.GRPO, of which arbor-ai's is a copy: no checkpoints, no metrics, validation behind the step."""
    program = student(asked, asked["base_urls"][0])
    compiler = GRPO(
        metric=accuracy,
        adapter=dspy.ChatAdapter(use_json_adapter_fallback=False),
        num_train_steps=asked["steps"],
        num_dspy_examples_per_grpo_step=asked["examples"],
        num_rollouts_per_grpo_step=asked["rollouts"],
        num_steps_for_val=1,
        exclude_demos=True,
        train_kwargs=dict(asked["train_kwargs"]),
    )
    trained = compiler.compile(program, trainset=examples(asked["rows"]), valset=examples(asked["valset"]))
    return trained.predictors()[0].lm.model


def broken(asked, **train_kwargs):
    """What a person sees of a compile that can't be: the exception, and what was printed before."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            optimizer(asked, **train_kwargs).compile(student(asked, asked["base_urls"][0]), trainset=examples(asked["rows"]))
    except BaseException as error:
        return {"type": type(error).__name__, "message": str(error), "printed": printed.getvalue()}
    return None


def too_long(asked):
    try:
        student(asked, asked["base_urls"][0])(question="why? " * 4000)
    except ContextWindowExceededError as error:
        return str(error)


def launches(asked):
    """As people call them; each raises where the server doesn't answer 200."""
    lm = student(asked, asked["base_urls"][0]).predictors()[0].lm
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        lm.launch()
        lm.launch({"num_gpus": 1})
        lm.kill()
        lm.kill()
    return printed.getvalue().splitlines()


if __name__ == "__main__":
    asked = request()
    dspy.configure(adapter=dspy.ChatAdapter(use_json_adapter_fallback=False))
    answer(
        {
            "models": [*train(asked), train_with_dspys_own(asked)],
            "launches": launches(asked),
            "refused": broken(asked, loss_type="ppo"),
            "failed": broken(asked, learning_rate=1e30),
            "too_long": too_long(asked),
        }
    )
