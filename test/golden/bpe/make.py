"""Golden vocabularies and encodings for src/pretrain/bpe.ts, by Hugging Face tokenizers' own trainer.

    python make.py        (needs tokenizers; writes golden.json beside itself)

Each case has the texts, the vocabulary's size, its merges in order and the ids of some sentences. "ties" is made of words that occur
equally often; "two ways" reaches the same token by two different merges, so a pair can stand in the trainer's queue twice.
"""

import json
import random
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SENTENCES = [
    "<|im_start|>user\nWhat is 46 + 27?<|im_end|>\n",
    "[[ ## answer ## ]]\nParis  isn't\t\there, is it?\n\n\n  São Tomé — naïve café, 3½ 🙂 Ωmega",
    "",
    "   leading and trailing   ",
    "aaaa aaa abab they'll we've I'm ¿qué? ١٢ x²",
]


def texts_of_a_task():
    draw = random.Random(3)
    names = ["San Jose", "Costa Rica", "North America", "copper", "otter", "Wednesday", "élan", "Zürich", "naïve", "twenty"]
    shapes = ["What is the capital of {}?", "Let me recall. {} lies in {}.", "I think it is {}.", "[[ ## answer ## ]]\n{}\n\n[[ ## completed ## ]]\n",
              "{} + {} = 73, so it's {}.", "  {}\t{}\n\n{}"]
    return [draw.choice(shapes).format(*draw.choices(names, k=3)) for _ in range(60)]


def train(texts, vocab):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=SPECIALS, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    saved = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(saved["vocab"], key=saved["vocab"].get)
    encoded = [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in SENTENCES]
    return dict(texts=texts, vocab=vocab, tokens=tokens[259:], merges=saved["merges"], encoded=encoded)


cases = {
    "a task": train(texts_of_a_task(), 420),
    "ties": train(["zx yw vu ts rq po", "ab ba ab ba aab bba", "zx yw vu ts rq po"], 290),
    "two ways": train(["aaaa aaaaa aaaaaaa aaa aa", "abc abcabc abab bcbc aabbcc cabcab", "abcd bcd cd dabc"] * 3, 300),
    "nothing left": train(["ab"], 300),
}
alphabet = "".join(sorted(pre_tokenizers.ByteLevel.alphabet()))
(HERE / "golden.json").write_text(
    json.dumps(dict(tokenizers=tokenizers.__version__, specials=SPECIALS, alphabet=alphabet, cases=cases), ensure_ascii=False) + "\n")
