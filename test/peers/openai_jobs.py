"""openai-python against our server: files, fine-tuning jobs with their events, models, and the errors that it makes of our answers. Request: base_url, model,
rows (question, answer), hyperparameters. Answer: what it got, as its own types see it."""

import io
import json
import time

import openai

from wire import answer, request


def training_file(rows):
    lines = [
        {"messages": [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]}
        for row in rows
    ]
    return ("train.jsonl", io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode()))


def failure(call):
    try:
        call()
    except openai.APIStatusError as error:
        return {"type": type(error).__name__, "status": error.status_code, "body": error.body, "message": str(error)}
    return None


def train(client, asked):
    file = client.files.create(file=training_file(asked["rows"]), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=asked["model"], training_file=file.id, suffix="taught", hyperparameters=asked["hyperparameters"]
    )
    first = job.status
    while job.finished_at is None:
        time.sleep(0.2)
        job = client.fine_tuning.jobs.retrieve(job.id)
    paged = [event.id for event in client.fine_tuning.jobs.list_events(job.id, limit=3)]
    whole = client.fine_tuning.jobs.list_events(job.id).data
    said = client.chat.completions.create(
        model=job.fine_tuned_model,
        messages=[{"role": "user", "content": asked["rows"][0]["question"]}],
        temperature=0,
        max_tokens=32,
    )
    return {
        "first": first,
        "job": job.model_dump(),
        "paged": paged,
        "whole": [event.model_dump() for event in whole],
        "content": client.files.content(file.id).text,
        "answer": said.choices[0].message.content,
    }


def cancel(client, asked):
    file = client.files.create(file=training_file(asked["rows"]), purpose="fine-tune")
    hyperparameters = {**asked["hyperparameters"], "n_epochs": 1000}
    job = client.fine_tuning.jobs.create(model=asked["model"], training_file=file.id, hyperparameters=hyperparameters)
    at_once = client.fine_tuning.jobs.cancel(job.id).status
    while job.finished_at is None:
        time.sleep(0.1)
        job = client.fine_tuning.jobs.retrieve(job.id)
    deleted = client.files.delete(file.id).deleted
    return {"at_once": at_once, "in_the_end": job.status, "deleted": deleted, "again": failure(lambda: client.fine_tuning.jobs.cancel(job.id))}


def run(asked):
    client = openai.OpenAI(base_url=asked["base_url"], api_key="none", max_retries=0)
    trained = train(client, asked)
    name = trained["job"]["fine_tuned_model"]
    jobs = client.fine_tuning.jobs
    return {
        "trained": trained,
        "cancelled": cancel(client, asked),
        "jobs": [job.id for job in jobs.list()],
        "files": [file.filename for file in client.files.list(purpose="fine-tune")],
        "models": [model.id for model in client.models.list()],
        "model": client.models.retrieve(name).id,
        "errors": {
            "no job": failure(lambda: jobs.retrieve("ftjob:nobody")),
            "no file": failure(lambda: client.files.retrieve("file-0")),
            "no model": failure(lambda: client.models.retrieve("some/body")),
            "no such file to train on": failure(lambda: jobs.create(model=asked["model"], training_file="file-0")),
            "a wrong option": failure(
                lambda: jobs.create(model=asked["model"], training_file="x", hyperparameters={"learning_rat": 1})
            ),
            "a wrong file": failure(
                lambda: client.files.create(file=("train.jsonl", io.BytesIO(b'{"prompt": "x"}\n')), purpose="fine-tune")
            ),
        },
    }


if __name__ == "__main__":
    answer(run(request()))
