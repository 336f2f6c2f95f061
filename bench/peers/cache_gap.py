"""python cache_gap.py: how far transformers' log-probabilities of one token come apart in bf16: token by token with a cache, and in one pass.

Random weights of deviation 0.02 in the shapes of SmolLM2-135M and Qwen2.5-1.5B, four rows, on the CPU: two minutes on two cores, 6 GB."""

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

PROMPT, ROWS = 64, 4
SHAPES = {  # layers, hidden, heads, heads of keys, inner, vocabulary, tokens sampled
    "SmolLM2-135M": (30, 576, 9, 3, 1536, 49152, 24),
    "Qwen2.5-1.5B": (28, 1536, 12, 2, 8960, 151936, 16),
}


@torch.no_grad()
def gaps(layers, hidden, heads, kv_heads, inner, vocab, new):
    torch.manual_seed(0)
    config = Qwen2Config(
        num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv_heads,
        intermediate_size=inner, vocab_size=vocab, tie_word_embeddings=True,
    )
    torch.set_default_dtype(torch.bfloat16)
    model = Qwen2ForCausalLM(config).eval()
    prompts = torch.randint(0, vocab, (ROWS, PROMPT))
    out, tokens, sampled = model(prompts, use_cache=True), [], []
    for _ in range(new):
        logprobs = torch.log_softmax(out.logits[:, -1].float(), -1)
        tokens.append(torch.multinomial(logprobs.exp(), 1))
        sampled.append(logprobs.gather(1, tokens[-1]))
        out = model(tokens[-1], past_key_values=out.past_key_values, use_cache=True)
    answers = torch.cat(tokens, 1)
    whole = model(torch.cat([prompts, answers], 1)).logits[:, PROMPT - 1 : -1].float()
    trained = torch.log_softmax(whole, -1).gather(2, answers[..., None])[..., 0]
    return (trained - torch.cat(sampled, 1)).abs()


for name, shape in SHAPES.items():
    gap = gaps(*shape)
    print(f"{name}: mean {gap.mean():.2e}, largest {gap.max():.2e}", flush=True)
