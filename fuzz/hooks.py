"""What is left out, as it changes the system under test itself, and with it every later answer."""

import schemathesis


@schemathesis.hook
def before_load_schema(context, schema):
    # A time that is too short is refused with a rightful 503, or ends what was begun with one. What
    # is malformed in it is tried by the services' own tests (`service::testing::bad_input`).
    for item in schema["paths"].values():
        for operation in item.values():
            given = operation.get("parameters", [])
            operation["parameters"] = [one for one in given if one["name"] != "X-Request-Timeout"]


@schemathesis.hook
def map_body(context, body):
    # A breaker that is held open answers every later request with a rightful 503.
    if isinstance(body, dict) and body.get("action") == "force_open":
        return {**body, "action": "reset"}
    return body
