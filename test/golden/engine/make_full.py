"""Golden numbers for training all weights: a tiny random Llama (tied head) and Qwen2 (own head, biases), in float32 on a CPU.

    python make_full.py   (needs torch, transformers, safetensors; writes full-llama/ and full-qwen2/ beside itself)

Each folder gets: the model (config.json, model.safetensors), every weight's gradient (tensors.safetensors), all weights after ten
AdamW updates (final.safetensors), and golden.json with the sequences, logprobs, losses, gradient norms and learning rates.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, get_scheduler

HERE = Path(__file__).parent
SIZES = dict(vocab_size=112, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.15, eos_token_id=2, bos_token_id=1,
             rope_parameters=dict(rope_type="default", rope_theta=10000.0))
CASES = {
    "full-llama": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True, rms_norm_eps=1e-5)),
    "full-qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES, tie_word_embeddings=False, rms_norm_eps=1e-6)),
}
STEPS = dict(base=3e-3, warmup=2, total=10, beta1=0.9, beta2=0.95, eps=1e-8, weightDecay=0.05, maxGradNorm=1.0, temperature=0.9)


def sequences(generator):
    """Three documents with a common beginning; the last has two turns that are trained on, so two sequences, one a part of the other."""
    draw = lambda n: torch.randint(3, SIZES["vocab_size"], (n,), generator=generator).tolist()
    common = draw(9)
    out = [dict(prompt=common + draw(4), completion=draw(7)), dict(prompt=common + draw(6), completion=draw(1))]
    first = dict(prompt=common + draw(3), completion=draw(5))
    return out + [first, dict(prompt=first["prompt"] + first["completion"] + draw(4), completion=draw(6))]


def statistics(model, data, temperature):
    """Logprob and entropy of every completion token, one sequence at a time, joined."""
    logprobs, entropies = [], []
    for s in data:
        logits = model(input_ids=torch.tensor([s["prompt"] + s["completion"]])).logits[0, len(s["prompt"]) - 1 : -1]
        every = (logits / temperature).log_softmax(-1)
        logprobs.append(every.gather(1, torch.tensor(s["completion"])[:, None])[:, 0])
        entropies.append(-(every.exp() * every).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


def gradients(model, data, weights, temperature):
    model.zero_grad()
    logprobs, entropies = statistics(model, data, temperature)
    (logprobs @ weights[0] + entropies @ weights[1]).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def train(model, data):
    """Ten updates of the cross-entropy; only matrices decay."""
    s = STEPS
    parameters = list(model.parameters())
    groups = [dict(params=[p for p in parameters if p.dim() == 2], weight_decay=s["weightDecay"]),
              dict(params=[p for p in parameters if p.dim() == 1], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=s["base"], betas=(s["beta1"], s["beta2"]), eps=s["eps"])
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=s["warmup"], num_training_steps=s["total"])
    log = dict(losses=[], gradNorms=[], learningRates=[])
    for _ in range(s["total"]):
        loss = -statistics(model, data, s["temperature"])[0].mean()
        optimizer.zero_grad()
        loss.backward()
        log["gradNorms"].append(torch.nn.utils.clip_grad_norm_(parameters, s["maxGradNorm"]).item())
        log["losses"].append(loss.item())
        log["learningRates"].append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return log


def make(name, seed):
    model_class, config = CASES[name]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    model = model_class(config).float().eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name or "bias" in parameter_name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    generator = torch.Generator().manual_seed(seed + 1)
    data = sequences(generator)
    weights = torch.randn(2, sum(len(s["completion"]) for s in data), generator=generator)
    golden = dict(sequences=data, weights=weights.tolist(), steps=STEPS)
    with torch.no_grad():
        golden["logprobs"] = statistics(model, data, STEPS["temperature"])[0].tolist()
    save_file(gradients(model, data, weights, STEPS["temperature"]), folder / "tensors.safetensors")
    golden["training"] = train(model, data)
    save_file({n: p.detach().clone() for n, p in model.named_parameters()}, folder / "final.safetensors")
    (folder / "golden.json").write_text(json.dumps(golden))


for index, case in enumerate(CASES):
    make(case, 21 + index)
