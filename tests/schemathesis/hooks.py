"""What Schemathesis cannot know from the document: which parameters go together, and which answers do not end."""

import re

import schemathesis

# Streams do not end; they have tests of their own, which read them frame by frame.
STREAMS = ("watch=true", "hold=true")


def streams(parameter):
    """Whether a parameter asks for a stream, or goes with one. `Prefer` is a wait that could be long."""
    name = parameter["name"]
    return f"{name}=true" in STREAMS or parameter.get("x-with") in STREAMS or name in ("Prefer", "Last-Event-ID")


def without_streams(parameter):
    """The parameter without the words that ask for a stream."""
    if parameter["name"] != "format":
        return parameter
    words = [word for word in parameter["schema"]["enum"] if word not in ("ndjson", "sse")]
    return {**parameter, "schema": {"enum": words}, "example": words[0]} if words else None


@schemathesis.hook
def before_load_schema(context, raw_schema):
    shared = raw_schema["components"]["parameters"]
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            parameters = [
                shared[parameter["$ref"].rsplit("/", 1)[1]] if "$ref" in parameter else parameter
                for parameter in operation["parameters"]
            ]
            parameters = [without_streams(parameter) for parameter in parameters if not streams(parameter)]
            operation["parameters"] = [parameter for parameter in parameters if parameter]


def pair(text):
    """A parameter that another one needs, such as `consistency=stale`."""
    name, _, value = text.partition("=")
    return name, value


@schemathesis.hook
def map_query(context, query):
    query = dict(query or {})
    for parameter in context.operation.query:
        needed = parameter.definition.get("x-with")
        if needed and parameter.name in query:
            query.setdefault(*pair(needed))
    # One of several is required: complete the request, unless one is there.
    needed = context.operation.definition.raw.get("x-needs")
    if needed and "session" not in query and "key" not in query:
        query.setdefault(*pair(needed))
    # No request waits long for what does not come. What is not well formed stays as it is.
    if re.fullmatch(r"[0-9]+|([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+", str(query.get("wait"))):
        query["wait"] = "50ms"
    if re.fullmatch("[0-9]{1,19}", str(query.get("min_revision"))):
        query["min_revision"] = 0
    return query


@schemathesis.hook
def map_headers(context, headers):
    return {name: value for name, value in (headers or {}).items() if name.lower() != "accept"}


@schemathesis.check
def no_server_error_but_the_answer(ctx, response, case):
    """A node of one that is well never answers 5xx, unless that is the answer: nobody is there to be picked."""
    if response.status_code >= 500:
        code = response.json().get("code") if case.method.upper() != "HEAD" else None
        assert code == "no_healthy_instance", f"{response.status_code} {response.text}"
