"""transformers + peft doing one GRPO step's work on the shape of SmolLM2-135M, for the benchmarks to time beside our engine.

Speaks lines: reads "rollouts" or "train-step", does one round, prints {"seconds": ...}. Random weights: speed does not depend on them.
As users run it: generate() over all rows with a static batch, then LoRA r16 on all linear layers with AdamW, in micro-batches.
--share: the prefix common to all prompts is computed once by hand and its key-value cache expanded (the best we can make of it);
in training its keys and values are leaves of every micro-batch's graph, and their summed gradients go back through the prefix once.
"""
import argparse, json, sys, time
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

arguments = argparse.ArgumentParser()
arguments.add_argument("--threads", type=int, default=2)
arguments.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
arguments.add_argument("--groups", type=int, default=8)
arguments.add_argument("--rollouts", type=int, default=4)
arguments.add_argument("--prompt", type=int, default=292)
arguments.add_argument("--common", type=int, default=249)
arguments.add_argument("--new", type=int, default=64)
arguments.add_argument("--micro-batch", type=int, default=4)
arguments.add_argument("--config", help="config.json of another Llama than SmolLM2-135M")
arguments.add_argument("--share", action="store_true")
a = arguments.parse_args()

torch.set_num_threads(a.threads)
torch.manual_seed(0)
dtype = torch.bfloat16 if a.dtype == "bf16" else torch.float32
config = LlamaConfig.from_json_file(a.config) if a.config else LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                     num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2)
model = LlamaForCausalLM(config).to(dtype).eval()
rows = a.groups * a.rollouts
common = torch.randint(10, config.vocab_size - 100, (a.common,))
prompts = torch.stack([torch.cat([common, torch.randint(10, config.vocab_size - 100, (a.prompt - a.common,))]) for _ in range(a.groups)]).repeat_interleave(a.rollouts, 0)


def expanded_prefix():
    with torch.no_grad():
        cache = DynamicCache()
        model(input_ids=common[None], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(rows)
        return cache


def rollouts():
    options = dict(max_new_tokens=a.new, min_new_tokens=a.new, do_sample=True, temperature=1.0, top_k=0)
    with torch.no_grad():
        cache = expanded_prefix() if a.share else None
        return model.generate(prompts, attention_mask=torch.ones_like(prompts), past_key_values=cache, **options)


def shared_prefix():
    """Keys and values of the common prefix with their graph, and the same as leaves."""
    cache = DynamicCache()
    trained.model(input_ids=common[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
    prefix = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return prefix, [tensor.detach().requires_grad_() for tensor in prefix]


def expanded(leaves, count):
    cache = DynamicCache()
    for layer in range(len(leaves) // 2):
        keys, values = leaves[2 * layer], leaves[2 * layer + 1]
        cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), layer)
    return cache


trained = None


def training():
    global trained
    if trained is None:
        from peft import LoraConfig, get_peft_model
        trained = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"))
        trained.train()
        trained.optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=5e-4)
    sequences = torch.cat([prompts, torch.randint(10, config.vocab_size - 100, (rows, a.new))], 1)
    advantages = torch.randn(rows, 1)
    prefix, leaves = shared_prefix() if a.share else (None, None)
    for start in range(0, rows, a.micro_batch):
        ids = sequences[start:start + a.micro_batch]
        cache = expanded(leaves, len(ids)) if a.share else None
        own = ids[:, a.common:] if a.share else ids
        logits = trained(input_ids=own, past_key_values=cache, use_cache=a.share, logits_to_keep=a.new + 1).logits[:, :-1].float()
        logprobs = torch.log_softmax(logits, -1).gather(-1, ids[:, -a.new:, None])[..., 0]
        loss = -((logprobs - logprobs.detach()).exp() * advantages[start:start + a.micro_batch]).sum() / (rows * a.new)
        loss.backward()
    if a.share:
        torch.autograd.backward(prefix, [leaf.grad for leaf in leaves])
    torch.nn.utils.clip_grad_norm_([p for p in trained.parameters() if p.requires_grad], 1.0)
    trained.optimizer.step()
    trained.optimizer.zero_grad()


import transformers
print(json.dumps({"peer": f"transformers {transformers.__version__}, torch {torch.__version__}", "threads": a.threads, "dtype": a.dtype,
                  "micro_batch": a.micro_batch, "share": a.share}), flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    {"rollouts": rollouts, "train-step": training}[line.strip()]()
    print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
