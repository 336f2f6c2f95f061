"""The lines of the README for Python, as they stand there, and what people do beside them. Request: code, storage. Answer: what was printed, what arbor's own
functions said. The folder of arbor_nb.py is on PYTHONPATH."""

import contextlib
import io
import logging
import os

from wire import answer, request

asked = request()
os.environ["HOME"] = asked["storage"]  # arbor.init keeps its configuration and our server its runs under it
skipped = []  # groups that the client gave up, as dspy had dropped every rollout of an example
client = logging.getLogger("arbor.integrations.dspy.grpo_optimizer")
client.addFilter(lambda record: "Skipping example" not in record.getMessage() or skipped.append(record) or True)
printed = io.StringIO()
names = {"__name__": "readme"}
with contextlib.redirect_stdout(printed):
    exec(compile(asked["code"], "README.md", "exec"), names)

arbor = names["arbor"]
status = arbor.status()
job = names["trained"].predictors()[0].lm.model.removeprefix("openai/arbor:")
models = [model.id for model in arbor.get_client().models.list()]


def said(call):
    lines = io.StringIO()
    with contextlib.redirect_stdout(lines):
        result = call()
    return {"printed": lines.getvalue(), "result": result}


watched = said(lambda: arbor.watch_job(job, max_time=20, update_interval=1))
killed = said(lambda: arbor.shutdown_job("arbor-tiny"))
lm = names["dspy"].LM(
    "openai/arbor:arbor-tiny", provider=arbor.ArborProvider(), api_base=status["base_url"], api_key="none"
)
running = lm.reinforce({"num_generations": 4, "lora_config": None})
cancelled = said(lambda: arbor.shutdown_job(running.provider_job_id))
after = said(lambda: arbor.watch_job(running.provider_job_id, max_time=20, update_interval=1))
ended = said(arbor.shutdown)
again = arbor.init(silent=True)
lm = names["dspy"].LM("openai/arbor:arbor-tiny", api_base=again["base_url"], api_key="none", cache=False, max_tokens=8)
second = lm("Who are you?")
lm = names["dspy"].LM(f"openai/arbor:{job}@last", api_base=again["base_url"], api_key="none", cache=False, max_tokens=8)
remembered = lm("Who are you?")
answer(
    {
        "printed": printed.getvalue(),
        "scores": [names["before"], names["after"]],
        "skipped": len(skipped),
        "server": status,
        "job": job,
        "models": models,
        "watched": watched,
        "killed": killed,
        "cancelled": cancelled,
        "watched_after": after,
        "ended": ended,
        "second": {"server": again, "outputs": second, "remembered": remembered},
    }
)
