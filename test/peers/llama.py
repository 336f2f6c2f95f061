"""What llama.cpp makes of GGUF files. With a prompt of token ids: what it goes on with. Else, request: files, conversations (lists of messages), length. Answer, for each file: its greedy
answers to the conversations by its own template and tokenizer, how many tokens each prompt has, and the logprobs of its answers' tokens."""

import xllamacpp
from wire import answer, request


def server(path):
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 1024
    params.n_parallel = 1
    params.warmup = False
    params.verbosity = 0
    params.cpuparams.n_threads = 2
    # What llama.cpp rounds to f16 by default: keys, values, and the sums of its flash attention (5e-4 in a logprob).
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    return xllamacpp.Server(params)


def ask(model, messages, length):
    # No penalties and the likeliest token always; "cache_prompt" would make an answer depend on the one before.
    options = {"temperature": 0, "max_tokens": length, "logprobs": True, "cache_prompt": False}
    return model.handle_chat_completions({"messages": messages, **options})


def answers(path, asked):
    model = server(path)
    got = [ask(model, messages, asked["length"]) for messages in asked["conversations"]]
    return {
        "texts": [one["choices"][0]["message"]["content"] for one in got],
        "prompt_tokens": [one["usage"]["prompt_tokens"] for one in got],
        "logprobs": [[token["logprob"] for token in one["choices"][0]["logprobs"]["content"]] for one in got],
    }


def continued(path, prompt, length):
    """Greedy tokens after a prompt of token ids, with their logprobs. Tokens that end within a character are not among them."""
    options = {"temperature": 0, "max_tokens": length, "logprobs": 1, "cache_prompt": False}
    got = server(path).handle_completions({"prompt": prompt, **options})
    return [{"id": token["id"], "logprob": token["logprob"]} for token in got["choices"][0]["logprobs"]["content"]]


if __name__ == "__main__":
    asked = request()
    if "prompt" in asked:
        answer({name: continued(path, asked["prompt"], asked["length"]) for name, path in asked["files"].items()})
    else:
        answer({name: answers(path, asked) for name, path in asked["files"].items()})
