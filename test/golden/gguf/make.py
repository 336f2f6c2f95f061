"""Writes the golden files of this folder: tiny GGUF models, and what gguf-py, transformers and tokenizers read from them.

Run with torch, transformers, gguf and tokenizers installed:
    python test/golden/gguf/make.py [SmolLM2-135M-Instruct.Q4_1.gguf]
Without the argument smollm2.json stays as it is.
"""
import hashlib
import json
import os
import sys
import tempfile

import gguf
import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX as QWEN2_REGEX

HERE = os.path.dirname(os.path.abspath(__file__))
Q = gguf.GGMLQuantizationType
TEXTS = [
    "Hello, world!", "", " ", "  two  spaces  ", "I'm you're THEY'LL it's", "12345 + 6.78 = 90", "x1y22z333",
    "line\nline\r\n\n\nend\n", "\ttab\t\ttabs", "naïve café — “quotes” …", "日本語のテキスト", "مرحبا 123", "🤗👩‍👩‍👧 🏳️‍🌈", "e\u0301 vs \u00e9",
    "<|im_start|>user\nhi<|im_end|>\n", "<|im_start|>", "a<|im_end|>b<|endoftext|>", "<|im_start |> not special", "<field>name</field>",
    "def f(x):\n    return x**2  # ½\n", "\u200bzero\u00a0width", "ǅ ß ſ İ ı", "1st 2nd ٣ ४ ²", "a" * 40, "\x00\x01\x7f",
]


def byte_letters():
    """GPT-2's printable stand-ins for the 256 bytes."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters, extra = {}, 0
    for byte in range(256):
        letters[byte] = chr(byte) if byte in keep else chr(256 + extra)
        extra += byte not in keep
    return [letters[b] for b in range(256)]


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "t"), ("'", "s"), ("1", "2"), ("12", "3"), ("a", "a"), ("aa", "aa"),
          ("ð", "Ł"), ("Ã", "©"), ("Ġ", "Ġ"), ("Ċ", "Ċ"), ("i", "n"), ("e", "n"), ("n", "d"), ("e", "nd"), ("Ġ", "2"), ("p", "a")]
VOCAB = SPECIAL + byte_letters() + [a + b for a, b in MERGES] + ["whole"]


def write_model(path, arch, pre, types, heads=2, kv_heads=1, hidden=64, inner=96, seed=0):
    rng = np.random.default_rng(seed)
    w = gguf.GGUFWriter(path, arch)
    w.add_context_length(128)
    w.add_embedding_length(hidden)
    w.add_block_count(1)
    w.add_feed_forward_length(inner)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(10000.0)
    w.add_vocab_size(len(VOCAB))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(VOCAB)
    w.add_token_types([3] * len(SPECIAL) + [1] * (len(VOCAB) - len(SPECIAL)))
    w.add_token_merges([f"{a} {b}" for a, b in MERGES])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    head = hidden // heads
    shapes = {"token_embd.weight": (len(VOCAB), hidden), "output_norm.weight": (hidden,)}
    for name, shape in {"attn_norm": (hidden,), "ffn_norm": (hidden,), "attn_q": (hidden, hidden), "attn_k": (kv_heads * head, hidden),
                        "attn_v": (kv_heads * head, hidden), "attn_output": (hidden, hidden), "ffn_gate": (inner, hidden),
                        "ffn_up": (inner, hidden), "ffn_down": (hidden, inner)}.items():
        shapes[f"blk.0.{name}.weight"] = shape
    if arch == "qwen2":
        for name in ("attn_q", "attn_k", "attn_v"):
            shapes[f"blk.0.{name}.bias"] = (shapes[f"blk.0.{name}.weight"][0],)
    matrix = 0
    for name, shape in shapes.items():
        data = (rng.standard_normal(shape) * 0.3).astype(np.float32)
        kind = Q.F32
        if len(shape) == 2:
            kind = types[matrix % len(types)]
            matrix += 1
        if kind == Q.F16:
            w.add_tensor(name, data.astype(np.float16))
        elif kind == Q.F32:
            w.add_tensor(name, data)
        else:
            w.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def tensor_record(tensor):
    data = np.ascontiguousarray(tensor.detach().to(torch.float32).numpy())
    return {"shape": list(data.shape), "first": [float(x) for x in data.reshape(-1)[:4]], "sha256": hashlib.sha256(data.tobytes()).hexdigest()}


def load(folder, file):
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32, attn_implementation="eager").eval()


def tiny_tokenizer(pre):
    t = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(VOCAB)}, merges=MERGES, ignore_merges=pre == "llama-bpe"))
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_regex = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if pre == "smollm":
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_regex])
    elif pre == "gpt-2":
        t.pre_tokenizer = bytes_regex
    else:
        regex = QWEN2_REGEX if pre == "qwen2" else QWEN2_REGEX.replace(r"\p{N}|", r"\p{N}{1,3}|")
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), bytes_only])
    if pre == "qwen2":
        t.normalizer = normalizers.NFC()
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    return t


def encodings(encode, decode):
    rows = []
    for text in TEXTS + ["whole hello"]:
        ids = encode(text)
        rows.append({"text": text, "ids": ids, "decoded": decode(ids, False), "skipped": decode(ids, True)})
    return rows


def dump(name, value):
    with open(os.path.join(HERE, name), "w") as f:
        json.dump(value, f, ensure_ascii=True, indent=None, separators=(",", ":"))
        f.write("\n")


def main():
    everything = [Q.Q8_0, Q.Q4_1, Q.Q4_0, Q.F16, Q.BF16, Q.F32]
    golden = {}
    for arch, pre, types in [("llama", "smollm", everything), ("qwen2", "qwen2", [Q.Q4_1, Q.Q8_0, Q.F32])]:
        file = f"tiny-{arch}.gguf"
        write_model(os.path.join(HERE, file), arch, pre, types)
        state = load(HERE, file).state_dict()
        golden[file] = {name: tensor_record(t) for name, t in state.items() if name != "lm_head.weight"}
    write_model(os.path.join(HERE, "unsupported.gguf"), "llama", "smollm", [Q.Q5_0])
    dump("tensors.json", golden)
    tokens = {}
    for pre in ("smollm", "qwen2", "llama-bpe", "gpt-2"):
        t = tiny_tokenizer(pre)
        tokens[pre] = encodings(lambda s: t.encode(s, add_special_tokens=False).ids, lambda ids, skip: t.decode(ids, skip_special_tokens=skip))
    dump("tokenizers.json", {"vocab": VOCAB, "merges": [f"{a} {b}" for a, b in MERGES], "special": len(SPECIAL), "cases": tokens})
    if len(sys.argv) > 1:
        smollm2(os.path.abspath(sys.argv[1]))


def smollm2(path):
    folder, file = os.path.split(path)
    model, tokenizer = load(folder, file), AutoTokenizer.from_pretrained(folder, gguf_file=file)
    state = model.state_dict()
    names = ["model.embed_tokens.weight", "model.norm.weight"] + [f"model.layers.{i}.self_attn.{p}_proj.weight" for i in (0, 29) for p in "qkvo"]
    names += [f"model.layers.17.mlp.{p}_proj.weight" for p in ("gate", "up", "down")]
    logits = []
    for prompt in ["The capital of France is", "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n"]:
        ids = tokenizer.encode(prompt, add_special_tokens=False)
        with torch.no_grad():
            out = model(torch.tensor([ids])).logits[0]
            top = torch.topk(out[-1], 5)
            greedy = model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False, pad_token_id=2)[0, len(ids):].tolist()
            logprobs = torch.log_softmax(out[:-1], -1)[range(len(ids) - 1), ids[1:]].tolist()
        logits.append({"prompt": prompt, "ids": ids, "topIds": top.indices.tolist(), "topLogits": top.values.tolist(),
                       "greedy": greedy, "greedyText": tokenizer.decode(greedy), "promptLogprobs": logprobs})
    chats = [[{"role": "user", "content": "Hi <b>there</b>"}],
             [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "Why?"}]]
    rendered = [{"messages": c, "addGenerationPrompt": g, "text": tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=g)}
                for c in chats for g in (True, False)]
    dump("smollm2.json", {"tensors": {n: tensor_record(state[n]) for n in names}, "logits": logits, "chats": rendered,
                          "encodings": encodings(lambda s: tokenizer.encode(s, add_special_tokens=False),
                                                 lambda ids, skip: tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False))})


main()
