"""TRL's GRPOTrainer doing whole GRPO steps on the shape of SmolLM2-135M, as its users run it on a CPU, for RESULTS.md's row of a whole step.

Random weights; prompts of 292 tokens of which 249 are common; 64 new tokens; LoRA r16 on all linear layers; dapo; 8 prompts x 4.
Prints a line a step: {"step": 1, "seconds": ...}, and the settings first. Needs trl, datasets and peft beside torch.
"""
import argparse, json, time
import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

arguments = argparse.ArgumentParser()
arguments.add_argument("--threads", type=int, default=2)
arguments.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
arguments.add_argument("--steps", type=int, default=2)
arguments.add_argument("--micro-batch", type=int, default=4)
arguments.add_argument("--groups", type=int, default=8)
arguments.add_argument("--rollouts", type=int, default=4)
arguments.add_argument("--prompt", type=int, default=292)
arguments.add_argument("--common", type=int, default=249)
arguments.add_argument("--new", type=int, default=64)
arguments.add_argument("--config", help="config.json of another Llama than SmolLM2-135M")
a = arguments.parse_args()

torch.set_num_threads(a.threads)
torch.manual_seed(0)
config = LlamaConfig.from_json_file(a.config) if a.config else LlamaConfig(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
    max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2)
model = LlamaForCausalLM(config).to(torch.bfloat16 if a.dtype == "bf16" else torch.float32)

# A word is a token, so lengths are exact.
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(config.vocab_size)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w1", eos_token="w2", pad_token="w2", unk_token="w0")
pick = lambda count: [f"w{i}" for i in torch.randint(10, config.vocab_size - 100, (count,)).tolist()]
common = pick(a.common)
prompts = [" ".join(common + pick(a.prompt - a.common)) for _ in range(a.groups)]

settings = GRPOConfig(
    output_dir="/tmp/trl-peer", use_cpu=True, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
    bf16=False, gradient_checkpointing=False, per_device_train_batch_size=a.micro_batch,
    gradient_accumulation_steps=a.groups * a.rollouts // a.micro_batch, num_generations=a.rollouts,
    max_completion_length=a.new, generation_kwargs={"min_new_tokens": a.new}, temperature=1.0, beta=0.0, loss_type="dapo",
    learning_rate=5e-4, max_steps=a.steps)


class Clock(TrainerCallback):
    def on_step_begin(self, *_, **__):
        self.began = time.perf_counter()

    def on_step_end(self, _, state, *__, **___):
        print(json.dumps({"step": state.global_step, "seconds": time.perf_counter() - self.began}), flush=True)


import trl, transformers
print(json.dumps({"peer": f"trl {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}", **vars(a)}), flush=True)
trainer = GRPOTrainer(
    model=model, args=settings, processing_class=tokenizer, reward_funcs=lambda completions, **_: torch.randn(len(completions)).tolist(),
    train_dataset=Dataset(InMemoryTable.from_pydict({"prompt": prompts}), fingerprint="peer"), callbacks=[Clock()],
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
trainer.train()
