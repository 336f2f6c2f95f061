"""Golden numbers for the model that ships (data/models/arbor-tiny): what transformers makes of it, in float32 on a CPU.

    python make_arbor_tiny.py        (needs torch, transformers; writes arbor-tiny.json beside itself)

To be run again whenever the weights change: the test compares their sha256 with the one noted here.
"""

import hashlib
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
MODEL = HERE.parents[2] / "data/models/arbor-tiny"
QUESTIONS = ["What is the capital of France?", "What is 40 + 27?", "What is the opposite of hot?", "What is the past tense of go?"]
TEXTS = ["Let me recall. ", "46 + 27 = 73", "[[ ## answer ## ]]\nCosta Rica\n\n[[ ## completed ## ]]\n<|im_end|>\n",
         "  two  spaces,\ttab, don't, naïve café, 日本語, 👩‍👧\r\n", "<|im_start|>user\n1234567890<|im_end|>", ""]
NEW_TOKENS = 48


SYSTEM = """Your input fields are:
1. `question` (str):
Your output fields are:
1. `reasoning` (str):\x20
2. `answer` (str):
All interactions will be structured in the following way, with the appropriate values filled in.

[[ ## question ## ]]
{question}

[[ ## reasoning ## ]]
{reasoning}

[[ ## answer ## ]]
{answer}

[[ ## completed ## ]]
In adhering to this structure, your objective is:\x20
        Given the fields `question`, produce the fields `answer`."""
USER = ("[[ ## question ## ]]\n%s\n\nRespond with the corresponding output fields, starting with the field `[[ ## reasoning ## ]]`, "
        "then `[[ ## answer ## ]]`, and then ending with the marker for `[[ ## completed ## ]]`.")


def chat(question):
    """What DSPy's ChatAdapter asks for dspy.ChainOfThought('question -> answer'), zero-shot."""
    return [dict(role="system", content=SYSTEM), dict(role="user", content=USER % question)]


def short(values):
    return [round(value, 6) for value in values.tolist()]


def case(model, tokenizer, question):
    messages = chat(question)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    with torch.no_grad():
        prompt, mask = torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long)
        greedy = model.generate(prompt, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False)[0, len(ids):].tolist()
        every = model(torch.tensor([ids + greedy])).logits[0].log_softmax(-1)
    chosen = every[:-1].gather(1, torch.tensor((ids + greedy)[1:])[:, None])[:, 0]
    best, tokens = every[len(ids) - 1].topk(20)
    second = every[len(ids) - 1 : -1].topk(2).values[:, 1]
    return dict(question=question, messages=messages, text=text, ids=ids, promptLogprobs=short(chosen[: len(ids) - 1]),
                greedy=greedy, greedyText=tokenizer.decode(greedy, skip_special_tokens=True),
                greedyLogprobs=short(chosen[len(ids) - 1 :]), leads=short(chosen[len(ids) - 1 :] - second),
                top=[dict(token=token, logprob=logprob) for token, logprob in zip(tokens.tolist(), short(best))])


def main():
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager").eval()
    encodings = [dict(text=text, ids=tokenizer(text, add_special_tokens=False).input_ids) for text in TEXTS]
    golden = dict(weights=hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest(),
                  parameters=model.num_parameters(), encodings=encodings,
                  cases=[case(model, tokenizer, question) for question in QUESTIONS])
    (HERE / "arbor-tiny.json").write_text(json.dumps(golden) + "\n")


main()
