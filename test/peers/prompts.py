"""dspy's prompts and transformers' token ids. Request: model, questions, demos {name: rows}. Answer: a list of
{program, demos, question, messages, ids}."""

import dspy
from transformers import AutoTokenizer

from wire import answer, request


def prompts(asked):
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
    for program in ("ChainOfThought", "Predict"):
        predictor = getattr(dspy, program)("question -> answer").predictors()[0]
        for name, rows in asked["demos"].items():
            demos = [dspy.Example(**row) for row in rows]
            for question in asked["questions"]:
                messages = adapter.format(predictor.signature, demos, {"question": question})
                ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
                yield {"program": program, "demos": name, "question": question, "messages": messages, "ids": list(ids)}


if __name__ == "__main__":
    answer(list(prompts(request())))
