"""What transformers makes of a model folder. Request: model, texts, sequences [{prompt, completion}] of token ids. Answer: the model's
configuration as transformers reads it, its tensors, every text's token ids and their text again; with torch the sequences' logprobs."""

import importlib.util
import os

from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

from wire import answer, request


def tensors(folder):
    with safe_open(os.path.join(folder, "model.safetensors"), framework="numpy") as file:
        views = {name: file.get_slice(name) for name in file.keys()}
        return {name: {"dtype": view.get_dtype(), "shape": view.get_shape()} for name, view in views.items()}


def texts(tokenizer, lines):
    for line in lines:
        ids = tokenizer(line, add_special_tokens=False)["input_ids"]
        yield {"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)}


def statistics(folder, sequences):
    """Logprob and entropy of every completion token at temperature 1, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for sequence in sequences:
        prompt, completion = sequence["prompt"], sequence["completion"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.double().log_softmax(-1)
        chosen = logprobs.gather(1, torch.tensor(completion)[:, None])[:, 0]
        yield {"logprobs": chosen.tolist(), "entropies": (-(logprobs.exp() * logprobs).sum(-1)).tolist()}


if __name__ == "__main__":
    asked = request()
    config = AutoConfig.from_pretrained(asked["model"])
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    has_torch = importlib.util.find_spec("torch") is not None
    answer(
        {
            "config": config.to_dict(),
            "tensors": tensors(asked["model"]),
            "tokenizer": {
                "vocab": len(tokenizer),
                "eos": tokenizer.eos_token,
                "pad": tokenizer.pad_token,
                "special": {text: tokenizer.convert_tokens_to_ids(text) for text in tokenizer.all_special_tokens},
            },
            "texts": list(texts(tokenizer, asked["texts"])),
            "statistics": list(statistics(asked["model"], asked["sequences"])) if has_torch else None,
        }
    )
