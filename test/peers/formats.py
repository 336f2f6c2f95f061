"""What dspy's adapters write and read. Request: cases of {signature, instructions, descriptions, demos, inputs, completions}.
Answer: for each {formats: {adapter: messages}, finetune, parses: [fields or {error}]}."""

from typing import Optional

import dspy
import pydantic
from dspy.adapters.utils import serialize_for_json
from dspy.utils.exceptions import AdapterParseError
from wire import answer, request


class Person(pydantic.BaseModel):
    name: str
    height: float
    tags: list[str] = []
    email: Optional[str] = None


ADAPTERS = {
    "chat": dspy.ChatAdapter(use_json_adapter_fallback=False),
    "json": dspy.JSONAdapter(),
    "xml": dspy.XMLAdapter(),
}


def signature_of(case):
    signature = dspy.Signature(case["signature"], case["instructions"], custom_types={"Person": Person})
    for name, desc in case["descriptions"].items():
        signature = signature.with_updated_fields(name, desc=desc)
    return signature


def typed(signature, row):
    """The row as Python holds it: whole numbers of float fields are floats, models are objects."""
    return {
        name: pydantic.TypeAdapter(signature.fields[name].annotation).validate_python(value) for name, value in row.items()
    }


def parsed(adapter, signature, completion):
    try:
        return {"fields": serialize_for_json(adapter.parse(signature, completion))}
    except AdapterParseError as error:
        return {"error": "AdapterParseError", "parsed": serialize_for_json(error.parsed_result)}
    except (ValueError, pydantic.ValidationError) as error:
        return {"error": "type"}


def results(case):
    signature = signature_of(case)
    demos = [typed(signature, demo) for demo in case["demos"]]
    inputs = typed(signature, case["inputs"])
    return {
        "formats": {name: adapter.format(signature, demos, dict(inputs)) for name, adapter in ADAPTERS.items()},
        "parses": [parsed(ADAPTERS[one["adapter"]], signature, one["text"]) for one in case["completions"]],
    }


if __name__ == "__main__":
    answer([results(case) for case in request()])
