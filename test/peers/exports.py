"""What transformers and peft make of what we wrote, and an adapter that peft wrote. Request: base, merged, adapter (folders), written (a
folder for peft's adapter), logits (a file for what they compute), sequences and prompts of token ids, stop, length. Answer: greedy answers
to the prompts as text, of the merged folder and of base and adapter."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from wire import answer, request


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model, sequences):
    return [model(torch.tensor([tokens])).logits[0].contiguous() for tokens in sequences]


@torch.no_grad()
def greedy(model, asked):
    for prompt in asked["prompts"]:
        ids = torch.tensor([prompt])
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=asked["length"],
            do_sample=False,
            eos_token_id=asked["stop"],
            pad_token_id=asked["stop"][0],
        )
        yield out[0, len(prompt) :].tolist()


def new_adapter(base, folder):
    """An adapter of peft's own, other in shape than ours, with B far from zero."""
    torch.manual_seed(3)
    config = LoraConfig(r=6, lora_alpha=9, target_modules="all-linear", use_rslora=True, init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(load(base), config).eval()
    model.save_pretrained(folder)
    return model


if __name__ == "__main__":
    asked = request()
    merged = load(asked["merged"])
    ours = PeftModel.from_pretrained(load(asked["base"]), asked["adapter"]).eval()
    named = PeftModel.from_pretrained(load(ours.peft_config["default"].base_model_name_or_path), asked["adapter"]).eval()
    theirs = new_adapter(asked["base"], asked["written"])
    models = {"merged": merged, "adapter": ours, "named": named, "written": theirs}
    tensors = {f"{name}.{i}": row for name, model in models.items() for i, row in enumerate(logits(model, asked["sequences"]))}
    save_file(tensors, asked["logits"])
    tokenizer = AutoTokenizer.from_pretrained(asked["merged"])
    texts = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in greedy(merged, asked)]
    answer({"merged": texts, "adapter": [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in greedy(ours, asked)]})
