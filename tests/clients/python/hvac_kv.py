"""Uses hvac as a program would, against the address and token that are given:
hvac_kv.py <address> <token> <KV v2 mount> <KV v1 mount>. Prints "ok".
An empty token is one that the client does not send."""

import sys

import hvac
import hvac.exceptions

address, token, kv, kv1, mode = (sys.argv[1:] + [""])[:5]
client = hvac.Client(url=address, token=token or None)
v2, v1 = client.secrets.kv.v2, client.secrets.kv.v1


def read():
    r = v2.read_secret_version(path="py/read", mount_point=kv)
    assert r["data"]["data"] == {"v": "kept"}, r
    assert r["data"]["metadata"]["version"] == 1, r


def missing(what):
    try:
        what()
    except hvac.exceptions.InvalidPath:
        return
    raise AssertionError("no InvalidPath")


def everything():
    v2.create_or_update_secret(path="py/read", secret={"v": "kept"}, mount_point=kv)
    read()
    read()

    def get(**more):
        return v2.read_secret_version(path="py/a", mount_point=kv, **more)["data"]["data"]

    v2.create_or_update_secret(path="py/a", secret={"v": "1"}, mount_point=kv)
    v2.patch(path="py/a", secret={"w": "2"}, mount_point=kv)
    assert get() == {"v": "1", "w": "2"}, get()
    v2.create_or_update_secret(path="py/a", secret={"v": "3"}, cas=2, mount_point=kv)
    assert get() == {"v": "3"}, get()
    assert get(version=1) == {"v": "1"}
    try:
        v2.create_or_update_secret(path="py/a", secret={}, cas=1, mount_point=kv)
        raise AssertionError("a stale check-and-set was accepted")
    except hvac.exceptions.InvalidRequest:
        pass
    assert v2.list_secrets(path="py", mount_point=kv)["data"]["keys"] == ["a", "read"]
    v2.update_metadata(path="py/a", max_versions=5, mount_point=kv)
    meta = v2.read_secret_metadata(path="py/a", mount_point=kv)["data"]
    assert meta["max_versions"] == 5 and meta["current_version"] == 3, meta
    v2.delete_latest_version_of_secret(path="py/a", mount_point=kv)
    missing(get)
    v2.undelete_secret_versions(path="py/a", versions=[3], mount_point=kv)
    assert get() == {"v": "3"}
    v2.destroy_secret_versions(path="py/a", versions=[1], mount_point=kv)
    missing(lambda: get(version=1))
    v2.delete_metadata_and_all_versions(path="py/a", mount_point=kv)
    missing(get)

    v1.create_or_update_secret(path="py/b", secret={"v": "one"}, mount_point=kv1)
    assert v1.read_secret(path="py/b", mount_point=kv1)["data"] == {"v": "one"}
    v1.create_or_update_secret(path="py/b", secret={"v": "two"}, mount_point=kv1)
    assert v1.read_secret(path="py/b", mount_point=kv1)["data"] == {"v": "two"}
    assert v1.list_secrets(path="py", mount_point=kv1)["data"]["keys"] == ["b"]
    v1.delete_secret(path="py/b", mount_point=kv1)
    missing(lambda: v1.read_secret(path="py/b", mount_point=kv1))

    assert client.sys.is_initialized() and not client.sys.is_sealed()
    if token:
        assert client.is_authenticated()
    wrapped = client.adapter.get("/v1/" + kv + "/data/py/read", wrap_ttl="60s")
    wrapped = wrapped if isinstance(wrapped, dict) else wrapped.json()
    plain = client.sys.unwrap(wrapped["wrap_info"]["token"])
    assert plain["data"]["data"] == {"v": "kept"}, plain
    try:
        v2.read_secret_version(path="x", mount_point="nowhere")
        raise AssertionError("a mount that is not there")
    except hvac.exceptions.Forbidden:
        pass


(read if mode == "read" else everything)()
print("ok")
