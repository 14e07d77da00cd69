"""Reads a secret through thaw in each invocation."""

import json
import os
from urllib.request import Request, urlopen

# Where thaw listens. A test names another address.
THAW = os.environ.get("SECRETS_ADDR", "http://127.0.0.1:8200")


def read(path, request_id):
    """The data of a secret in KV version 2, as it is at this invocation."""
    request = Request(f"{THAW}/v1/{path}", headers={"Lambda-Runtime-Aws-Request-Id": request_id})
    with urlopen(request) as response:
        return json.load(response)["data"]["data"]


def handler(event, context):
    # Off unless the function has this variable: what thaw knows, for the event {"thaw": "status"}. It names paths, and no secret.
    if event.get("thaw") == "status" and os.environ.get("SHOW_THAW_STATUS") == "true":
        return json.load(urlopen(f"{THAW}/proxy/v1/status"))
    secret = read("secret/data/app", context.aws_request_id)
    # Use it here. What is returned, and logged, must not have it.
    return {"user": secret["user"], "password_length": len(secret["password"])}
