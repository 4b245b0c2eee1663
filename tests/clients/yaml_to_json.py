"""Converts YAML on the standard input to JSON on the standard output. Refuses a key that occurs twice in one mapping, where most
readers would silently take the last value."""

import json
import sys

import yaml


class Loader(yaml.SafeLoader):
    """A safe loader that refuses duplicate keys."""


def mapping(loader, node):
    keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"`{key}` occurs twice", node.start_mark)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
json.dump(yaml.load(sys.stdin, Loader), sys.stdout)
