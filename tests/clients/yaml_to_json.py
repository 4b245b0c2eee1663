"""YAML from the standard input to JSON on the standard output. A key that stands twice in one mapping is refused: most readers take
the last of them without a word."""

import json
import sys

import yaml


class Loader(yaml.SafeLoader):
    """As safe, and stricter."""


def mapping(loader, node):
    keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"`{key}` stands twice", node.start_mark)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
json.dump(yaml.load(sys.stdin, Loader), sys.stdout)
