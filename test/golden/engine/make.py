"""Golden numbers for the engine: a tiny random Llama and Qwen2 by transformers, peft and PyTorch, in float32 on a CPU.

    python make.py        (needs torch, transformers, peft, safetensors; writes llama/ and qwen2/ beside itself)

Each folder gets: the model (config.json, model.safetensors), the starting adapter as peft saves it (adapter/, B not zero),
its weights after ten updates (final.safetensors), logits and adapter gradients (tensors.safetensors), and golden.json with
the sequences, per-token logprobs and entropies, losses, gradient norms and learning rates.
"""

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, get_scheduler

HERE = Path(__file__).parent
SIZES = dict(vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.15, eos_token_id=2, bos_token_id=1)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
CASES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=False, rms_norm_eps=1e-5, rope_parameters=LLAMA3),
              LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", lora_dropout=0.0, target_modules=[
                  "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])),
    # Members of fused weights that are not targeted: k_proj, gate_proj; a whole one: o_proj.
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES, tie_word_embeddings=True, rms_norm_eps=1e-6,
                                            rope_parameters=dict(rope_type="default", rope_theta=1000000.0)),
              LoraConfig(r=3, lora_alpha=6, task_type="CAUSAL_LM", lora_dropout=0.0, target_modules=[
                  "q_proj", "v_proj", "up_proj", "down_proj"])),
}
STEPS = dict(base=1e-3, warmup=2, total=10, beta1=0.9, beta2=0.95, eps=1e-8, weightDecay=0.01, maxGradNorm=0.4, temperature=0.9)


def sequences(generator):
    """Two prompts with a common beginning, three completions each; two of them begin alike, one is a single token."""
    draw = lambda n: torch.randint(3, 256, (n,), generator=generator).tolist()
    common, prompts = draw(11), [draw(7), draw(4)]
    out = []
    for prompt in prompts:
        start = draw(3)
        for completion in (start + draw(6), start + draw(2), draw(1)):
            out.append(dict(prompt=common + prompt, completion=completion))
    return out


def statistics(model, data, temperature):
    """Logprob and entropy of every completion token, one sequence at a time (no padding), joined."""
    logprobs, entropies = [], []
    for s in data:
        ids = torch.tensor([s["prompt"] + s["completion"]])
        logits = model(input_ids=ids).logits[0, len(s["prompt"]) - 1 : -1] / temperature
        every = logits.log_softmax(-1)
        logprobs.append(every.gather(1, torch.tensor(s["completion"])[:, None])[:, 0])
        entropies.append(-(every.exp() * every).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


def adapter_weights(model):
    return {name: value.detach().clone().contiguous() for name, value in get_peft_model_state_dict(model).items()}


def gradients(model, data, weights, temperature):
    model.zero_grad()
    logprobs, entropies = statistics(model, data, temperature)
    (logprobs @ weights[0] + entropies @ weights[1]).backward()
    # peft's names, as in adapter_model.safetensors.
    return {n.replace(".default", ""): p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def train(model, data, weights):
    """Ten updates of -sum(w * ratio) / tokens, the ratio against the first step's logprobs."""
    s = STEPS
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=s["base"], betas=(s["beta1"], s["beta2"]), eps=s["eps"], weight_decay=s["weightDecay"])
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=s["warmup"], num_training_steps=s["total"])
    old, log = None, dict(losses=[], gradNorms=[], learningRates=[])
    for _ in range(s["total"]):
        logprobs, _ = statistics(model, data, s["temperature"])
        old = logprobs.detach() if old is None else old
        loss = -(weights[0] * (logprobs - old).exp()).sum() / len(weights[0])
        optimizer.zero_grad()
        loss.backward()
        log["gradNorms"].append(torch.nn.utils.clip_grad_norm_(parameters, s["maxGradNorm"]).item())
        log["losses"].append(loss.item())
        log["learningRates"].append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return log


def make(name, seed):
    model_class, config, lora = CASES[name]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    base = model_class(config).float().eval()
    with torch.no_grad():
        for parameter_name, parameter in base.named_parameters():
            if "norm" in parameter_name or "bias" in parameter_name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    base.save_pretrained(folder)
    generator = torch.Generator().manual_seed(seed + 1)
    data = sequences(generator)
    count = sum(len(s["completion"]) for s in data)
    weights = torch.randn(2, count, generator=generator)
    tensors, golden = {}, dict(sequences=data, weights=weights.tolist(), steps=STEPS)
    with torch.no_grad():
        for i in (0, 5):
            ids = torch.tensor([data[i]["prompt"] + data[i]["completion"]])
            tensors[f"base.logits.{i}"] = base(input_ids=ids).logits[0].contiguous()
    model = get_peft_model(base, lora).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(folder / "adapter")
    for temperature in (1.0, 0.7):
        with torch.no_grad():
            logprobs, entropies = statistics(model, data, temperature)
        golden[f"T{temperature}"] = dict(logprobs=logprobs.tolist(), entropies=entropies.tolist())
        tensors |= {f"T{temperature}.{n}": g for n, g in gradients(model, data, weights, temperature).items()}
    with torch.no_grad():
        for i in (0, 5):
            ids = torch.tensor([data[i]["prompt"] + data[i]["completion"]])
            tensors[f"adapter.logits.{i}"] = model(input_ids=ids).logits[0].contiguous()
    golden["training"] = train(model, data, weights)
    save_file(adapter_weights(model), folder / "final.safetensors")
    save_file(tensors, folder / "tensors.safetensors")
    (folder / "golden.json").write_text(json.dumps(golden))
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    (folder / "generation_config.json").unlink(missing_ok=True)


for index, case in enumerate(CASES):
    make(case, 7 + index)
