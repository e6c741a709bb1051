"""What Schemathesis cannot know from the document: which parameters go together, and which answers do not end."""

import schemathesis

# Streams do not end; they have tests of their own, which read them frame by frame.
STREAMS = ("watch=true", "hold=true")


def pair(text):
    """A parameter that another one needs, such as `consistency=stale`."""
    name, _, value = text.partition("=")
    return name, value


@schemathesis.hook
def map_query(context, query):
    query = dict(query or {})
    operation = context.operation.definition.raw
    known = {parameter.name: parameter.definition for parameter in context.operation.query}
    for name in list(query):
        needed = known.get(name, {}).get("x-with", "")
        if f"{name}=true" in STREAMS or needed in STREAMS:
            del query[name]
        elif needed:
            query.setdefault(*pair(needed))
    if "format" in query and query["format"] in ("ndjson", "sse"):
        del query["format"]
    # One of several is required: complete the request, unless one is there.
    needed = operation.get("x-needs", "")
    if needed and "session" not in query and "key" not in query:
        query.setdefault(*pair(needed))
    # Long waits prove nothing here; a revision far away is waited for until the request times out.
    if "wait" in query:
        query["wait"] = "50ms"
    if isinstance(query.get("min_revision"), int):
        query["min_revision"] = 0
    return query


@schemathesis.hook
def map_headers(context, headers):
    return {name: value for name, value in (headers or {}).items() if name.lower() not in ("prefer", "accept")}


@schemathesis.check
def no_server_error_but_the_answer(ctx, response, case):
    """A node of one that is well never answers 5xx, unless that is the answer: nobody is there to be picked."""
    if response.status_code >= 500:
        code = response.json().get("code") if case.method.upper() != "HEAD" else None
        assert code == "no_healthy_instance", f"{response.status_code} {response.text}"
