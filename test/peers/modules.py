"""dspy's modules against a scripted model. Request: base_url, calls [{module, signature, inputs, demos, config}].
Answer: {results: [the prediction's fields], history: the text of `inspect_history`}; what was asked stands in the stub's record."""

import io

import dspy
from dspy.utils.inspect_history import pretty_print_history

from wire import answer, request


def search(query: str, k: int = 2) -> list[str]:
    """Finds passages.

    Best first."""
    return [f"{query} {i}\n«ß»" for i in range(k)]


def facts(about: str, places: list[str]) -> dict:
    """Knows facts."""
    return {"about": about, "places": places, "flags": [True, None, 1.5], "é": "日本"}


def count(items: dict[str, int]) -> int:
    """Counts."""
    return len(items)


TOOLS = [search, facts, count]


def module(wish):
    kind, signature = wish["module"], wish["signature"]
    if kind == "ReAct":
        return dspy.ReAct(signature, tools=TOOLS, max_iters=5)
    if kind == "MultiChainComparison":
        return dspy.MultiChainComparison(signature, M=2)
    program = getattr(dspy, kind)(signature)
    program.predictors()[0].demos = [dspy.Example(**row) for row in wish["demos"]]
    return program


def call(wish):
    inputs = dict(wish["inputs"])
    if "history" in inputs:
        inputs["history"] = dspy.History(**inputs["history"])
    if wish["config"]:
        inputs["config"] = wish["config"]
    return module(wish)(**inputs).toDict()


def history(lm):
    file = io.StringIO()
    pretty_print_history(lm.history, n=2, file=file)
    return file.getvalue()


if __name__ == "__main__":
    asked = request()
    lm = dspy.LM("openai/stub", api_base=asked["base_url"], api_key="none", cache=False, num_retries=0, max_tokens=100, seed=3)
    dspy.configure(lm=lm)
    results = [call(wish) for wish in asked["calls"]]
    answer({"results": results, "history": history(lm)})
