"""Programs saved and loaded by dspy. Request: {folder, ours: {name: file text}}. Answer: {theirs: {name: file text}, loaded: {name: state or error}}."""

from pathlib import Path

import dspy
from wire import answer, request


class Inner(dspy.Module):
    def __init__(self):
        super().__init__()
        self.p = dspy.Predict("question -> answer")


class Pipeline(dspy.Module):
    def __init__(self):
        super().__init__()
        self.draft = dspy.ChainOfThought(dspy.Signature("question, docs: list[str] -> outline", "Draft ünïcode.\n\nTwo parts."))
        self.many = [dspy.Predict("outline -> text, words: int"), Inner()]
        self.table = {"x": dspy.Predict("text -> label: Literal['a', 'b']")}


class Other(dspy.Module):
    def __init__(self):
        super().__init__()
        self.something = dspy.Predict("a -> b")


PROGRAMS = {"pipeline": Pipeline, "bare": lambda: dspy.Predict("question -> answer"), "other": Other}


def trained(name):
    """A program as an optimizer leaves it."""
    program = PROGRAMS[name]()
    for i, predictor in enumerate(program.predictors()):
        fields = list(predictor.signature.fields)
        predictor.demos = [
            dspy.Example(**{field: f"{field} «{i}»\nnext" for field in fields}, augmented=True),
            {fields[0]: "plain", fields[-1]: 0.5},
        ]
        predictor.signature = predictor.signature.with_instructions(f"Instructions {i}: naïve.").with_updated_fields(
            fields[-1], desc=f"the {i}th"
        )
    lm = dspy.LM("openai/gpt-4o-mini", temperature=0.7, max_tokens=50, top_p=0.9, api_key="SECRET", num_retries=5)
    program.predictors()[0].lm = lm
    return program


def saved(name, folder):
    path = Path(folder) / f"{name}.json"
    trained(name).save(path)
    return path.read_text(encoding="utf-8")


def loaded(name, text, folder):
    path = Path(folder) / f"loaded-{name}.json"
    path.write_text(text, encoding="utf-8")
    program = PROGRAMS[name]()
    program.load(path)
    return program.dump_state()


if __name__ == "__main__":
    asked = request()
    folder = asked["folder"]
    answer(
        {
            "theirs": {name: saved(name, folder) for name in PROGRAMS},
            "loaded": {name: loaded(name, text, folder) for name, text in asked["ours"].items()},
        }
    )
