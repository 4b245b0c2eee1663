"""Sends Windfall queries and mutations that schemathesis generates from the schema, and compares every response with the schema.

These responses fail: a status of 500 or more, a body that is not JSON or does not fit the schema, and an error that has no
`extensions.code` or has the code INTERNAL. An operation fails if every example has an error. With a token that is not an admin's,
an operation passes if one of these errors is FORBIDDEN.

Takes WINDFALL_URL, WINDFALL_TOKEN (which sends the requests), WINDFALL_ADMIN_TOKEN (which looks up names), WINDFALL_SCHEMA (the
path of schema.graphql) and WINDFALL_FUZZ_EXAMPLES (the number of examples of each operation; the default is 60). The program
writes whatever it generates, so give it a server of its own that has some awards.
"""

import base64
import json
import os
import re
import sys
from collections import Counter

import graphql
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.graphql import nodes

URL = os.environ["WINDFALL_URL"]
HEADERS = {"Authorization": f"Bearer {os.environ['WINDFALL_TOKEN']}"}
# The role in the payload of the token.
ROLE = json.loads(base64.urlsafe_b64decode(os.environ["WINDFALL_TOKEN"].split(".")[1] + "=="))["role"]
EXAMPLES = int(os.environ.get("WINDFALL_FUZZ_EXAMPLES", "60"))
SEED = 1
TIMEOUT_SECONDS = 60
MAX_EXACT = 2**53 - 1

with open(os.environ["WINDFALL_SCHEMA"], encoding="utf-8") as file:
    SCHEMA = graphql.build_schema(file.read())


# Requests


def mostly(strategy, otherwise):
    """Draws from the first strategy 15 times of 16, and otherwise from the second."""
    return st.integers(0, 15).flatmap(lambda n: otherwise if n == 15 else strategy)


def texts(*patterns):
    return st.one_of([st.from_regex(pattern, fullmatch=True) for pattern in patterns])


NONSENSE = st.one_of(
    st.text(max_size=20).map(nodes.String),
    st.integers().map(nodes.Int),
    st.floats(allow_nan=False, allow_infinity=False).map(nodes.Float),
    st.booleans().map(nodes.Boolean),
    st.lists(st.just(nodes.Int(1)), max_size=2).map(nodes.List),
)
SCALARS = {
    "Count": st.one_of(st.integers(0, 3), st.integers(0, MAX_EXACT)).map(nodes.Int),
    "CurrencyCode": st.sampled_from(["EUR", "EUR", "USD", "JPY", "KWD"]).map(nodes.String),
    "DateTime": texts(
        r"20[12]\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d)T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]0\d:[03]0)"
    ).map(nodes.String),
    "Decimal": texts(r"[0-9]{1,4}(\.[0-9]{1,2})?", r"-?[0-9]{1,20}(\.[0-9]{1,9})?").map(nodes.String),
    "Duration": texts(r"P[1-9]\d?[DW]", r"PT[1-9]\d?[HMS]", r"P\dDT\dH\dM").map(nodes.String),
    "LocalTime": texts(r"([01]\d|2[0-3]):[0-5]\d").map(nodes.String),
    "Points": st.one_of(st.integers(-1000, 1000), st.integers(-MAX_EXACT, MAX_EXACT)).map(nodes.Int),
    "TimeZone": st.sampled_from(["UTC", "Europe/Vienna", "Asia/Kathmandu", "America/Santiago"]).map(nodes.String),
}
for scalar, strategy in SCALARS.items():
    schemathesis.graphql.scalar(scalar, mostly(strategy, NONSENSE))


def names():
    """The oldest names that the server knows, by the argument or input field that takes them. Later ones may be of this run."""
    query = """{
      customers(last: 5) {
        nodes {
          id externalId
          awards(first: 2) { nodes { id } } ledger(first: 2) { nodes { id } } purchases(first: 2) { nodes { id externalId } }
        }
      }
      campaigns(last: 20) { nodes { id } }
    }"""
    admin = {"Authorization": f"Bearer {os.environ['WINDFALL_ADMIN_TOKEN']}"}
    data = requests.post(URL, json={"query": query}, headers=admin, timeout=TIMEOUT_SECONDS).json()["data"]
    customers = data["customers"]["nodes"]
    lists = ("awards", "ledger", "purchases")
    of_customers = [node for customer in customers for name in lists for node in customer[name]["nodes"]]
    campaigns = [campaign["id"] for campaign in data["campaigns"]["nodes"]]
    ids = campaigns + [node["id"] for node in customers + of_customers]
    purchases = [node["externalId"] for node in of_customers if "externalId" in node]
    customers = [customer["externalId"] for customer in customers]
    return {
        "id": st.sampled_from(ids),
        "ids": st.lists(st.sampled_from(ids), max_size=5),
        "campaignId": st.sampled_from(campaigns),
        "externalId": st.sampled_from(customers + purchases),
        "customerExternalId": st.sampled_from(customers),
        "purchaseExternalId": st.sampled_from(purchases),
    }


NAMES = names()
# With random arguments, the server would refuse nearly every list.
PAGES = {
    "first": st.integers(0, 5).map(nodes.Int),
    "last": st.just(nodes.Null),
    "after": st.just(nodes.Null),
    "before": st.just(nodes.Null),
}


class Mend(graphql.Visitor):
    """Changes a generated document so that the server mostly runs it, and adds `__typename` to selections of abstract types."""

    def __init__(self, draw, types):
        super().__init__()
        self.draw = draw
        self.types = types

    def value(self, name, value):
        """The value for an argument or input field of this name."""
        if name in PAGES:
            return self.draw(mostly(PAGES[name], st.just(value)))
        if name in NAMES and not isinstance(value, graphql.NullValueNode) and self.draw(st.booleans()):
            known = self.draw(NAMES[name])
            return nodes.List([nodes.String(item) for item in known]) if isinstance(known, list) else nodes.String(known)
        return value

    def enter_argument(self, node, *_):
        return graphql.ArgumentNode(name=node.name, value=self.value(node.name.value, node.value))

    def enter_object_field(self, node, *_):
        return graphql.ObjectFieldNode(name=node.name, value=self.value(node.name.value, node.value))

    def enter_object_value(self, node, *_):
        type_ = graphql.get_named_type(self.types.get_input_type())
        fields = [field for field in node.fields if not isinstance(field.value, graphql.NullValueNode)]
        if not (graphql.is_input_object_type(type_) and type_.is_one_of and fields):
            return None
        one = st.sampled_from(fields).map(lambda field: (field,))
        return graphql.ObjectValueNode(fields=self.draw(mostly(one, st.just(node.fields))))

    def enter_selection_set(self, node, *_):
        if graphql.is_abstract_type(self.types.get_parent_type()):
            typename = graphql.FieldNode(name=graphql.NameNode(value="__typename"), arguments=(), directives=())
            return graphql.SelectionSetNode(selections=(typename, *node.selections))
        return None


@st.composite
def cases(draw, operation):
    case = draw(operation.as_strategy())
    types = graphql.TypeInfo(SCHEMA)
    document = graphql.visit(graphql.parse(case.body), graphql.TypeInfoVisitor(types, Mend(draw, types)))
    case.body = graphql.print_ast(document)
    return case


# Responses


def whole(value, least):
    return type(value) is int and least <= value <= MAX_EXACT


def text(pattern):
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


LEAVES = {
    "Boolean": lambda value: type(value) is bool,
    "Count": lambda value: whole(value, 0),
    "CurrencyCode": text(r"[A-Z]{3}"),
    "DateTime": text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"),
    "Decimal": text(r"-?\d+(\.\d+)?"),
    "Duration": text(r"P.+"),
    "ID": text(r".+"),
    "Int": lambda value: type(value) is int and -(2**31) <= value < 2**31,
    "LocalTime": text(r"\d\d:\d\d"),
    "Points": lambda value: whole(value, -MAX_EXACT),
    "String": lambda value: isinstance(value, str),
    "TimeZone": text(r".+"),
}


def check(type_, selection_set, value, path):
    """Asserts that a value fits its type, and that it has the selected fields in their order."""
    if graphql.is_non_null_type(type_):
        assert value is not None, f"{path} must not be null"
        type_ = type_.of_type
    if value is None:
        return
    if graphql.is_list_type(type_):
        assert isinstance(value, list), f"{path} must be a list"
        for index, item in enumerate(value):
            check(type_.of_type, selection_set, item, f"{path}.{index}")
    elif graphql.is_enum_type(type_):
        assert value in type_.values, f"{path} must be one of {type_}"
    elif graphql.is_scalar_type(type_):
        assert LEAVES[type_.name](value), f"{path} must be of {type_}"
    else:
        assert isinstance(value, dict), f"{path} must be an object"
        if graphql.is_abstract_type(type_):
            type_ = SCHEMA.get_type(value["__typename"])
        fields = {}
        collect(type_, selection_set, fields)
        assert list(value) == list(fields), f"{path} must have {list(fields)}"
        for key, field in fields.items():
            if field.name.value == "__typename":
                assert value[key] == type_.name, f"{path}.{key} must be {type_}"
            else:
                check(type_.fields[field.name.value].type, field.selection_set, value[key], f"{path}.{key}")


def collect(type_, selection_set, fields):
    """Collects the selected fields of an object type by their keys. Joins the selections of a field that is selected twice."""
    for selection in selection_set.selections:
        if isinstance(selection, graphql.FieldNode):
            key = (selection.alias or selection.name).value
            if key in fields and selection.selection_set:
                below = (*fields[key].selection_set.selections, *selection.selection_set.selections)
                all_below = graphql.SelectionSetNode(selections=below)
                selection = graphql.FieldNode(name=selection.name, selection_set=all_below)
            fields[key] = selection
        else:
            condition = SCHEMA.get_type(selection.type_condition.name.value)
            if condition is type_ or (graphql.is_abstract_type(condition) and SCHEMA.is_sub_type(condition, type_)):
                collect(type_, selection.selection_set, fields)


def answered(case, response):
    """Asserts what is promised of every response. Returns the codes of its errors."""
    assert response.status_code < 500, f"status {response.status_code}"
    body = response.json()
    assert isinstance(body, dict) and body.keys() <= {"data", "errors", "extensions"}, "this is not a GraphQL response"
    codes = []
    for error in body.get("errors", []):
        assert isinstance(error["message"], str), "an error has no message"
        code = error.get("extensions", {}).get("code")
        assert isinstance(code, str) and code != "INTERNAL", f"an error has the code {code}"
        codes.append(code)
    assert codes or "errors" not in body, "errors are empty"
    if body.get("data") is None:
        assert codes, "there is neither data nor an error"
    else:
        [operation] = graphql.parse(case.body).definitions
        check(SCHEMA.get_root_type(operation.operation), operation.selection_set, body["data"], "data")
    return codes


def fuzz(operation):
    """Runs the examples of an operation. Returns how often each outcome occurred, and what is wrong, or None."""
    fared = Counter()

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],  # shrinking needs many more requests and takes minutes
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases(operation))
    def run(case):
        response = case.call(base_url=URL, headers=HEADERS, timeout=TIMEOUT_SECONDS)
        try:
            fared.update(answered(case, response) or ["run"])
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise AssertionError(f"{error}\n{case.body}\n{response.status_code} {response.text[:2000]}") from error

    try:
        run()
    except Exception as error:  # Hypothesis wraps an exception in several ways
        return fared, str(error)
    forbidden = fared["FORBIDDEN"] and ROLE != "admin"
    return fared, None if fared["run"] or forbidden else "no example was answered without an error"


def main():
    schema = schemathesis.graphql.from_dict(graphql.introspection_from_schema(SCHEMA))
    passed = failed = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        fared, wrong = fuzz(operation)
        told = ", ".join(f"{code} {count}" for code, count in fared.items())
        print(f"{operation.label}: {told}", flush=True)
        if wrong:
            failed += 1
            print(f"FAILED {operation.label}: {wrong}", file=sys.stderr)
        else:
            passed += 1
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
