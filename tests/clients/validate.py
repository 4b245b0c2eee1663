"""Checks messages of topics against asyncapi.json. usage: validate.py ASYNCAPI LINES; each line is [name of a message, value]."""

import json
import sys

import jsonschema_rs

document = json.load(open(sys.argv[1]))
schemas = document["components"]["schemas"]


def strict(schema):
    """The schema without fields that it does not list, so that one that is missing in the document is found."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: strict(part) for name, part in schema.items()}
    return {**schema, "additionalProperties": False} if "properties" in schema else schema


validators = {}
count = 0
for line in open(sys.argv[2]):
    name, value = json.loads(line)
    if name not in validators:
        payload = document["components"]["messages"][name]["payload"]
        root = {**payload, "components": {"schemas": {key: strict(schema) for key, schema in schemas.items()}}}
        validators[name] = jsonschema_rs.validator_for(root)
    for error in validators[name].iter_errors(value):
        raise SystemExit(f"{name}: {error}\n{json.dumps(value)}")
    count += 1
print(count)
