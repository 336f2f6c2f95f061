"""transformers + peft doing one GRPO step's work on a GPU, with random weights at the shape that a config.json says.

Prints a line of JSON for each piece of work as soon as it is measured: {"peer": …, "rows": [{part, name, unit, values, note}]}. --work rollouts,train:
  rollouts  generate() with a static cache, which transformers compiles by itself (reduce-overhead), and as users run it (dynamic cache)
  train     LoRA r16 on all linear layers, AdamW: all rows in one batch in bf16, nothing else; and at the tutorial's own settings, a row at a time with gradient
            checkpointing and peft's f32 adapters
No piece begins after --limit seconds; one that runs out of memory says so in its note and the others go on.
"""
import argparse, json, statistics, sys, tempfile, time
import torch, transformers
from transformers import AutoConfig, AutoModelForCausalLM

arguments = argparse.ArgumentParser()
arguments.add_argument("--config", required=True, help="the text of a config.json")
arguments.add_argument("--work", default="rollouts,train")
for name, default in dict(groups=8, rollouts=4, prompt=256, common=0, new=128, repeat=5, warmup=3, limit=300).items():
    arguments.add_argument(f"--{name}", type=int, default=default)
arguments.add_argument("--device", default="cuda")
a = arguments.parse_args()

gpu = a.device == "cuda"
started = time.monotonic()
torch.manual_seed(0)
torch.backends.cuda.matmul.allow_tf32 = True


def load():
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/config.json", "w") as file:
            file.write(a.config)
        config = AutoConfig.from_pretrained(folder)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(a.device):
        model = AutoModelForCausalLM.from_config(config)
    torch.set_default_dtype(torch.float32)
    return model.eval()


def sync():
    if gpu:
        torch.cuda.synchronize()


def prompts(vocab):
    common = torch.randint(10, vocab - 100, (a.common,), device=a.device)
    own = torch.randint(10, vocab - 100, (a.groups, a.prompt - a.common), device=a.device)
    return torch.cat([common.expand(a.groups, -1), own], 1).repeat_interleave(a.rollouts, 0)


def generate(model, **how):
    rows = prompts(model.config.vocab_size)
    with torch.no_grad():
        model.generate(rows, attention_mask=torch.ones_like(rows), max_new_tokens=a.new, min_new_tokens=a.new, do_sample=True, temperature=1.0, top_k=0,
                       pad_token_id=0, **how)


def trainer(model, micro_batch, plain):
    from peft import LoraConfig, get_peft_model
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
    policy = get_peft_model(model, lora, autocast_adapter_dtype=not plain)
    policy.train()
    if not plain:
        policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        policy.enable_input_require_grads()
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step():
        first = prompts(model.config.vocab_size)
        rows = torch.cat([first, torch.randint(10, model.config.vocab_size - 100, (len(first), a.new), device=a.device)], 1)
        advantages = torch.randn(len(rows), 1, device=a.device)
        for start in range(0, len(rows), micro_batch):
            ids = rows[start:start + micro_batch]
            with torch.autocast(a.device, torch.bfloat16, enabled=not plain):
                logits = policy(input_ids=ids, use_cache=False, logits_to_keep=a.new + 1).logits[:, :-1].float()
            logprobs = torch.log_softmax(logits, -1).gather(-1, ids[:, -a.new:, None])[..., 0]
            loss = -((logprobs - logprobs.detach()).exp() * advantages[start:start + micro_batch]).sum() / (len(rows) * a.new)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(part, name, make, repeat):
    """One row of milliseconds, with the memory at its highest in the note."""
    if time.monotonic() - started > a.limit:
        return emit(part, name, [], "left out: out of time")
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    values = []
    try:
        work = make()
        for round in range(a.warmup + repeat):
            sync()
            begun = time.perf_counter()
            work()
            sync()
            if round >= a.warmup:
                values.append(1000 * (time.perf_counter() - begun))
            if time.monotonic() - started > a.limit and values:
                break
        note = f"{torch.cuda.max_memory_reserved() / 2**30:.1f} GiB" if gpu else ""
    except torch.OutOfMemoryError as error:
        note = f"out of memory: {str(error).splitlines()[0]}"
    emit(part, name, values, note)


def emit(part, name, values, note):
    peer = f"transformers {transformers.__version__}, torch {torch.__version__}"
    print(json.dumps({"peer": peer, "rows": [{"part": part, "name": name, "unit": "ms", "values": values, "note": note}]}), flush=True)
    if values:
        print(f"{name}: {statistics.median(values):.0f} ms {note}", file=sys.stderr, flush=True)


works = a.work.split(",")
if "rollouts" in works:
    model = load()
    if gpu:  # elsewhere transformers doesn't compile by itself
        measure("rollouts", "transformers generate(), static cache, compiled", lambda: lambda: generate(model, cache_implementation="static"), a.repeat)
    measure("rollouts", "transformers generate(), as users run it", lambda: lambda: generate(model), max(1, min(a.repeat, 3)))
    del model
if "train" in works:
    rows = a.groups * a.rollouts
    import peft
    measure("train", f"peft {peft.__version__}, {rows} rows at once in bf16", lambda: trainer(load(), rows, True), a.repeat)
    measure("train", f"peft {peft.__version__}, the tutorial's settings", lambda: trainer(load(), 1, False), max(1, min(a.repeat, 3)))
