"""Real dspy against our server. Request: base_url, model, max_tokens, calls [{program, demos, question, temperature, seed}], evaluations
[{temperature, seed}] with their rows. Answer: what each call and each evaluation came to."""

from concurrent.futures import ThreadPoolExecutor

import dspy
from dspy.utils.exceptions import AdapterParseError

from wire import answer, request

THREADS = 8


def language_model(asked, **sampling):
    return dspy.LM(
        f"openai/{asked['model']}",
        api_base=asked["base_url"],
        api_key="none",
        cache=False,
        num_retries=0,
        max_tokens=asked["max_tokens"],
        **sampling,
    )


def call(asked, wish):
    """One call with a language model of its own, so that its history is this call's."""
    lm = language_model(asked, temperature=wish["temperature"])
    program = getattr(dspy, wish["program"])("question -> answer")
    program.predictors()[0].demos = [dspy.Example(**row) for row in wish["demos"]]
    program.set_lm(lm)
    try:
        prediction = program(question=wish["question"], config={"seed": wish["seed"]})
        outcome = {"fields": dict(prediction.items()), "failure": None}
    except AdapterParseError as error:
        outcome = {"fields": None, "failure": {"raw": error.lm_response, "parsed": error.parsed_result}}
    entry = lm.history[-1]
    text = entry["outputs"][0]
    return {
        **outcome,
        "text": text if isinstance(text, str) else text["text"],
        "messages": [{"role": message["role"], "content": message["content"]} for message in entry["messages"]],
        "prompt_tokens": entry["usage"]["prompt_tokens"],
        "completion_tokens": entry["usage"]["completion_tokens"],
        "calls": len(lm.history),
    }


def accuracy(example, prediction, trace=None):
    """The tutorial's metric."""
    gold, pred = example.answer.lower().strip(), prediction.answer.lower().strip()
    return gold in pred or pred in gold


def evaluation(asked, wish):
    program = dspy.ChainOfThought("question -> answer")
    program.set_lm(language_model(asked, temperature=wish["temperature"], seed=wish["seed"]))
    devset = [dspy.Example(**row).with_inputs("question") for row in asked["rows"]]
    evaluate = dspy.Evaluate(
        devset=devset, metric=accuracy, num_threads=THREADS, display_progress=False, max_errors=len(devset) + 1
    )
    result = evaluate(program)
    return {"score": result.score, "scores": [float(score) for _, _, score in result.results]}


if __name__ == "__main__":
    asked = request()
    dspy.configure(adapter=dspy.ChatAdapter(use_json_adapter_fallback=False))
    with ThreadPoolExecutor(THREADS) as pool:
        calls = list(pool.map(lambda wish: call(asked, wish), asked["calls"]))
    answer({"calls": calls, "evaluations": [evaluation(asked, wish) for wish in asked["evaluations"]]})
