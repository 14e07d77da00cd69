"""A function's behaviour when a secret is rotated, and when Vault is down. Needs thaw-dev: see ../README.md."""

import json
import re
import subprocess
import urllib.error
import urllib.request
import uuid

import pytest

import app


class Context:
    """What the handler uses of Lambda's context. Each has an id of its own: a new invocation."""

    def __init__(self):
        self.aws_request_id = str(uuid.uuid4())


class Secrets:
    """thaw-dev, with a file of secrets."""

    def __init__(self, folder):
        self.file = folder / "secrets.json"
        self.set("one")
        command = ["thaw-dev", "-listen", "127.0.0.1:0", str(self.file)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if found := re.search(r"VAULT_ADDR=(http://\S+)", line):
                self.addr = found.group(1)
                break

    def set(self, password):
        self.file.write_text(json.dumps({"secret/data/app": {"user": "app", "password": password}}))

    def rotate(self, password):
        self.set(password)
        for line in self.process.stdout:
            if line.startswith("rotated"):
                return

    def control(self, what):
        urllib.request.urlopen(urllib.request.Request(f"{self.addr}/dev/{what}", method="POST")).close()

    def stop(self):
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    s = Secrets(tmp_path)
    monkeypatch.setattr(app, "THAW", s.addr)
    yield s
    s.stop()


def test_the_next_invocation_sees_a_rotation(secrets):
    assert app.handler({}, Context()) == {"user": "app", "password_length": 3}
    secrets.rotate("longer")
    assert app.handler({}, Context()) == {"user": "app", "password_length": 6}


def test_an_outage_does_not_stop_the_function(secrets):
    before = app.handler({}, Context())
    secrets.control("down")
    assert app.handler({}, Context()) == before


def test_the_status_is_shown_where_it_is_switched_on(secrets, monkeypatch):
    assert app.handler({"thaw": "status"}, Context()) == {"user": "app", "password_length": 3}
    monkeypatch.setenv("SHOW_THAW_STATUS", "true")
    assert app.handler({"thaw": "status"}, Context())["cache"]["entries"] == 1


def test_without_vault_a_new_function_fails(secrets):
    secrets.control("down")
    with pytest.raises(urllib.error.HTTPError) as failed:
        app.handler({}, Context())
    assert failed.value.code == 502
