"""dspy's SIMBA and GEPA over a model that answers by a hash of what it is asked. Request: cases of {optimizer, mode, options, seed, train, val, demos}.
Answer: for each all prompts, programs, scores and the lineage. The same hashes are in searches.ts."""

import contextlib
import hashlib
import inspect
import io
import json
import logging

import dspy
from wire import answer, request

logging.disable(logging.CRITICAL)


def digest(*parts):
    return int(hashlib.md5("\x1f".join(parts).encode()).hexdigest()[:8], 16)


def respond(mode, text, turn):
    number = digest(text, str(turn))
    if mode == "reflect":
        return f"Sure:\n```\nInstruction {number % 100000}\n```"
    if mode == "prompt":
        advice = {name: f"ADVICE {name} {number % 1000}" for name in (["a", "b"] if number % 3 else ["b"])}
        return f"[[ ## discussion ## ]]\nd\n\n[[ ## module_advice ## ]]\n{json.dumps(advice)}\n\n[[ ## completed ## ]]"
    if mode == "rough" and number % 11 == 0:
        return "garbage"
    if "starting with the field `[[ ## hint ## ]]`" in text:
        return f"[[ ## hint ## ]]\nh{number % 3}\n\n[[ ## completed ## ]]"
    return f"[[ ## answer ## ]]\nr{number % 5}\n\n[[ ## completed ## ]]"


class HashLM(dspy.LM):
    """Copies share the count of how often a prompt was asked, and the list of prompts."""

    def __init__(self, mode, turns=None, asked=None):
        super().__init__("openai/hash", cache=False)
        self.mode, self.turns, self.asked = mode, {} if turns is None else turns, [] if asked is None else asked

    def copy(self, **kwargs):
        other = HashLM(self.mode, self.turns, self.asked)
        other.kwargs = {**self.kwargs, **kwargs}
        return other

    def __deepcopy__(self, memo):
        return self

    def __call__(self, prompt=None, messages=None, **kwargs):
        text = "\n".join(message["content"] for message in messages or [{"content": prompt}])
        turn = self.turns.get(text, 0)
        self.turns[text] = turn + 1
        self.asked.append(text)
        return [respond(self.mode, text, turn)]


class TwoSteps(dspy.Module):
    def __init__(self):
        super().__init__()
        self.a = dspy.Predict("question -> hint")
        self.b = dspy.Predict("question, hint -> answer")

    def forward(self, question):
        hint = self.a(question=question).hint
        return self.b(question=question, hint=hint)


def score(example, prediction):
    return 0.0 if prediction is None else (digest(example.question, prediction.answer) % 3) / 2


def examples(count, start=0):
    return [dspy.Example(question=f"q{i + start}.").with_inputs("question") for i in range(count)]


def state(program):
    return [
        {"instructions": predictor.signature.instructions, "demos": [demo.toDict() for demo in predictor.demos]}
        for predictor in program.predictors()
    ]


def gepa(case):
    writer, scored = HashLM("reflect"), []

    def metric(gold, pred, trace=None, pred_name=None, pred_trace=None):
        value = score(gold, pred)
        scored.append([gold.question, pred_name, value])
        return dspy.Prediction(score=value, feedback=f"fb {gold.question} {pred.answer}")

    optimizer = dspy.GEPA(metric=metric, reflection_lm=writer, num_threads=1, track_stats=True, seed=case["seed"], **case["options"])
    best = optimizer.compile(TwoSteps(), trainset=examples(case["train"]), valset=examples(case["val"], 100))
    found = best.detailed_results
    return {
        "best": state(best),
        "candidates": [state(candidate) for candidate in found.candidates],
        "parents": found.parents,
        "scores": [[scores[i] for i in range(case["val"])] for scores in found.val_subscores],
        "discovery": found.discovery_eval_counts,
        "metric_calls": found.total_metric_calls,
        "scored": scored,
        "written": writer.asked,
    }


def simba(case):
    writer, student = HashLM("prompt"), TwoSteps()
    student.a.demos = [dspy.Example(question=f"z{i}", hint="h") for i in range(case["demos"])]
    optimizer = dspy.SIMBA(metric=lambda gold, pred: score(gold, pred), prompt_model=writer, num_threads=1, **case["options"])
    best = optimizer.compile(student, trainset=examples(case["train"]), seed=case["seed"])
    return {
        "best": state(best),
        "candidates": [state(candidate["program"]) for candidate in best.candidate_programs],
        "scores": [candidate["score"] for candidate in best.candidate_programs],
        "written": writer.asked,
        "source": inspect.getsource(TwoSteps),
    }


def run(case):
    lm = HashLM(case["mode"])
    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        with dspy.context(lm=lm, adapter=adapter):
            found = (gepa if case["optimizer"] == "gepa" else simba)(case)
    return {**found, "asked": lm.asked}


answer([run(case) for case in request()])
