"""dspy's optimizers against a scripted model. Request: base_url, rows, bootstrap {options}, mipro {options, compile}, code.
Answer: {bootstrap: {predictor: demos}, mipro: {demos, instructions}}; what was asked stands in the stub's record."""

import dspy
from dspy.propose import grounded_proposer

from wire import answer, request


class Riddle(dspy.Module):
    def __init__(self):
        super().__init__()
        self.think = dspy.ChainOfThought("question -> hint")
        self.answer = dspy.Predict("question, hint -> answer")

    def forward(self, question):
        return self.answer(question=question, hint=self.think(question=question).hint)


def exact(example, prediction, trace=None):
    return example.answer == prediction.answer


def plain(demos):
    return [demo.toDict() for demo in demos]


def bootstrap(asked, trainset):
    program = dspy.BootstrapFewShot(metric=exact, **asked["bootstrap"]).compile(Riddle(), trainset=trainset)
    return {name: plain(predictor.demos) for name, predictor in program.named_predictors()}


def mipro(asked, trainset):
    """All of MIPROv2 up to its trials, which need optuna."""
    optimizer = dspy.MIPROv2(metric=exact, num_threads=1, **asked["mipro"]["options"])
    found = {}

    def stop_here(program, instructions, demos, *_):
        found["instructions"] = [instructions[i] for i in range(len(instructions))]
        found["demos"] = [[plain(one) for one in demos[i]] for i in range(len(demos))]
        return program

    optimizer._optimize_prompt_parameters = stop_here
    # The source of a Python class is no TypeScript: both sides show the same text.
    grounded_proposer.get_dspy_source_code = lambda _program: asked["code"]
    optimizer.compile(Riddle(), trainset=trainset, **asked["mipro"]["compile"])
    return found


if __name__ == "__main__":
    asked = request()
    dspy.configure(
        lm=dspy.LM("openai/stub", api_base=asked["base_url"], api_key="none", cache=False, num_retries=0, temperature=0, max_tokens=100)
    )
    trainset = [dspy.Example(**row).with_inputs("question") for row in asked["rows"]]
    answer({"bootstrap": bootstrap(asked, trainset), "mipro": mipro(asked, trainset)})
