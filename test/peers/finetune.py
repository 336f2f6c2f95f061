"""dspy.BootstrapFinetune with arbor-ai's client, unmodified, fine-tunes through our server. Request: base_url, model, rows (question, reasoning,
answer), max_tokens, train_kwargs. Answer: the model that the program ends with, and what it answers to each question."""

import os
import sys

import arbor_client  # noqa: F401  before arbor
import dspy
from arbor import ArborProvider
from dspy.utils import DummyLM

from wire import answer, request

# arbor-ai imports dspy's settings as a module, which they are no more since dspy 3.
sys.modules["dspy.settings"] = dspy.settings


def train(asked):
    lm = dspy.LM(
        f"openai/arbor:{asked['model']}",
        provider=ArborProvider(),
        api_base=asked["base_url"],
        api_key="none",
        temperature=0.0,
        max_tokens=asked["max_tokens"],
        cache=False,
    )
    student = dspy.ChainOfThought("question -> answer")
    teacher = student.deepcopy()
    student.set_lm(lm)
    teacher.set_lm(DummyLM([{"reasoning": row["reasoning"], "answer": row["answer"]} for row in asked["rows"]]))
    trainset = [dspy.Example(question=row["question"], answer=row["answer"]).with_inputs("question") for row in asked["rows"]]
    optimizer = dspy.BootstrapFinetune(
        metric=lambda example, prediction, trace=None: prediction.answer == example.answer,
        train_kwargs=asked["train_kwargs"],
        num_threads=1,
    )
    trained = optimizer.compile(student, trainset=trainset, teacher=teacher)
    answers = [trained(question=row["question"]).toDict() for row in asked["rows"]]
    return {"model": trained.predictors()[0].lm.model, "answers": answers}


if __name__ == "__main__":
    asked = request()
    os.environ["OPENAI_API_KEY"] = "none"
    dspy.configure(adapter=dspy.ChatAdapter(use_json_adapter_fallback=False), arbor_api_base=asked["base_url"])
    answer(train(asked))
