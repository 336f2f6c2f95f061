"""openai-python against our server: every feature of chat and text completions, and answers in JSON of many schemas, judged by jsonschema and pydantic.
Request: base_url, model, schemas. Answer: what it got, as its own types see it."""

import asyncio
import json
from enum import Enum
from typing import Literal, Optional, Union

import jsonschema
import openai
import pydantic

from wire import answer, request

QUESTION = [{"role": "user", "content": "Which city is the capital of Norway?"}]


class Kind(str, Enum):
    city = "city"
    river = "river"


class Place(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=12)
    kind: Kind
    where: tuple[float, float]
    height: Optional[int] = pydantic.Field(default=None, ge=-430, le=8849)
    inside: list["Place"] = pydantic.Field(max_length=2)


class Told(pydantic.BaseModel):
    answer: Union[Place, Literal["unknown"], None]
    sure: bool


def failure(call):
    try:
        call()
    except openai.APIStatusError as error:
        return {"type": type(error).__name__, "status": error.status_code, "body": error.body}
    return None


def chat_features(client, model):
    ask = lambda **options: client.chat.completions.create(model=model, messages=QUESTION, **options)
    content = lambda reply: [choice.message.content for choice in reply.choices]
    greedy = ask(temperature=0, max_tokens=24)
    text = greedy.choices[0].message.content
    probed = ask(temperature=0, max_tokens=24, logprobs=True, top_logprobs=3)
    shaped = {"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.0}
    return {
        "greedy": greedy.model_dump(),
        "twice": content(ask(temperature=0, max_tokens=24)) == content(greedy),
        "seeds": content(ask(temperature=1, seed=5, n=4, max_tokens=16)) == content(ask(temperature=1, seed=5, n=4, max_tokens=16)),
        "different": len(set(content(ask(temperature=2, seed=5, n=4, max_tokens=16)))),
        "likeliest": content(ask(temperature=1, seed=1, max_tokens=24, extra_body=shaped)) == content(greedy),
        "stopped": content(ask(temperature=0, max_tokens=24, stop=[text[3:6], "never"])) == [text[: text.index(text[3:6])]],
        "cut": ask(temperature=0, max_completion_tokens=2).choices[0].finish_reason,
        "logprobs": [
            {"token": one.token, "logprob": one.logprob, "bytes": one.bytes, "top": [[top.token, top.logprob] for top in one.top_logprobs]}
            for one in probed.choices[0].logprobs.content
        ],
        "top_p": len(content(ask(temperature=1, top_p=0.5, seed=3, n=2, max_tokens=16))),
    }


def stream_features(client, model):
    options = {"temperature": 0, "max_tokens": 24, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model=model, messages=QUESTION, stream=True, **options))
    texts = list(client.completions.create(model=model, prompt="The capital of Norway is", stream=True, **options))
    return {
        "chat": "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices),
        "chat_chunks": len(chunks),
        "chat_usage": chunks[-1].usage.model_dump(),
        "text": "".join(choice.text for chunk in texts for choice in chunk.choices),
        "text_usage": texts[-1].usage.model_dump(),
        "reasons": [choice.finish_reason for chunk in texts for choice in chunk.choices if choice.finish_reason],
    }


def text_features(client, model):
    ask = lambda prompt, **options: client.completions.create(model=model, prompt=prompt, **{"temperature": 0, "max_tokens": 8, **options})
    prompts = ["The capital of Norway is", "Question: 2 + 3?"]
    both = ask(prompts, n=2, logprobs=2)
    echoed = ask(prompts[0], echo=True, logprobs=1, max_tokens=2)
    return {
        "both": both.model_dump(),
        "alone": [ask(prompt).choices[0].text for prompt in prompts],
        "tokens": ask(prompts[0]).usage.prompt_tokens,
        "echoed": echoed.model_dump(),
        "from_tokens": ask([[5, 6, 7], [8]]).usage.prompt_tokens,
        "sixteen": client.completions.create(model=model, prompt=prompts[0]).usage.completion_tokens,
    }


def json_answers(client, model, schemas):
    told = {}
    for name, schema in schemas.items():
        format = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        reply = client.chat.completions.create(model=model, messages=QUESTION, response_format=format, n=4, seed=1, temperature=1.5, max_tokens=300)
        for choice in reply.choices:
            jsonschema.validate(json.loads(choice.message.content), schema, format_checker=jsonschema.FormatChecker())
        told[name] = [[choice.finish_reason, choice.message.content] for choice in reply.choices]
    reply = client.chat.completions.parse(model=model, messages=QUESTION, response_format=Told, n=8, seed=2, max_tokens=300)
    told["pydantic"] = [["stop", choice.message.parsed.model_dump_json()] for choice in reply.choices]
    free = client.chat.completions.create(model=model, messages=QUESTION, response_format={"type": "json_object"}, n=4, seed=3, max_tokens=200)
    for choice in free.choices:
        assert isinstance(json.loads(choice.message.content), dict)
    told["object"] = [[choice.finish_reason, choice.message.content] for choice in free.choices]
    streamed = client.chat.completions.create(model=model, messages=QUESTION, response_format={"type": "json_object"}, stream=True, max_tokens=200)
    json.loads("".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices))
    return told


async def disconnect(base_url, model):
    """Clients that go away in the middle, streamed and not; afterwards nothing runs."""
    client = openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)
    long = {"model": model, "messages": QUESTION, "max_tokens": 400, "n": 16, "temperature": 2, "logprobs": False}
    asked = [asyncio.create_task(client.chat.completions.create(**long)) for _ in range(2)]
    stream = await client.chat.completions.create(**long, stream=True)
    async for _ in stream:
        break
    queue = lambda: client.get("/health", cast_to=object)
    for _ in range(500):
        if ran := (await queue())["queue"]["running"]:
            break
    await stream.close()
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    for _ in range(100):
        left = (await queue())["queue"]
        if left == {"running": 0, "waiting": 0}:
            break
        await asyncio.sleep(0.1)
    return {"ran": ran, **left}


def run(asked):
    client = openai.OpenAI(base_url=asked["base_url"], api_key="none", max_retries=0)
    model = asked["model"]
    chat = lambda **options: client.chat.completions.create(**{"model": model, "messages": QUESTION, "max_tokens": 1, **options})
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}
    return {
        "chat": chat_features(client, model),
        "stream": stream_features(client, model),
        "text": text_features(client, model),
        "json": json_answers(client, model, asked["schemas"]),
        "left": asyncio.run(disconnect(asked["base_url"], model)),
        "errors": {
            "model": failure(lambda: chat(model="some/body")),
            "field": failure(lambda: chat(temperature=-1)),
            "schema": failure(lambda: chat(response_format=wrong)),
            "penalty": failure(lambda: chat(frequency_penalty=1)),
            "context": failure(lambda: chat(messages=[{"role": "user", "content": "word " * 9000}])),
            "prompt": failure(lambda: client.completions.create(model=model, prompt="")),
        },
    }


if __name__ == "__main__":
    answer(run(request()))
