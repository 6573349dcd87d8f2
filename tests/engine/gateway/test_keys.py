"""Keys over the API, and a key file that changes while the gateway runs."""

from __future__ import annotations

import json

import pytest
import websockets

from engine.access.keys import Role
from tests.engine.gateway.ground import Ground, asked
from tests.engine_process import OPERATOR


async def test_operators_make_and_withdraw_keys_over_the_api(ground: Ground) -> None:
    """The secret is told once; a withdrawn key is refused at once, and what it has open is closed."""
    status, made = await asked(ground, OPERATOR, "POST", "/Key", {"role": "market-data", "name": "tape"})
    assert status == 201
    headers = {"Authorization": f"Bearer {made['key']}"}
    await ground.ask("PUT", "/MessageStore?storeId=s")
    async with websockets.connect(f"{ground.ws_url}/joined?storeId=s", additional_headers=headers) as socket:
        listed = await ground.ask("GET", "/Key")
        assert made["key"] not in json.dumps(listed)
        assert [(one["id"], one["name"], one["lastUsed"] > "2026") for one in listed] == [(made["id"], "tape", True)]
        assert (await ground.ask("DELETE", f"/Key?id={made['id']}"))["withdrawn"] > "2026"
        assert (await asked(ground, headers, "GET", "/MessageStore"))[0] == 401
        assert "withdrawn" in await socket.recv()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
    assert (await ground.ask("DELETE", "/Key?id=nobodyis", 404))["code"] == "UnknownKey"
    assert (await ground.ask("POST", "/Key", 422, role="trader"))["code"] == "InvalidKey"
    assert (await ground.ask("POST", "/Key", 422, role="trader", accounts="0"))["code"] == "InvalidKey"
    assert (await ground.ask("POST", "/Key", 400, role="king"))["code"] == "BadRequest"


async def test_a_key_file_that_breaks_changes_nothing(ground: Ground) -> None:
    """The last good keys count and the watch says why; mended, the new ones count."""
    desk = ground.key(Role.TRADER, "1")
    good = ground.keys.file.path.read_bytes()
    ground.keys.file.path.write_bytes(good[:-20])
    ground.keys.look()
    assert "Mend or restore it" in ground.keys.problem
    assert (await asked(ground, desk, "GET", "/Account/1"))[0] == 200
    assert (await ground.ask("POST", "/Key", 503, role="operator"))["code"] == "KeysUnavailable"
    ground.keys.file.path.unlink()
    ground.keys.look()
    assert "gone" in ground.keys.problem
    assert (await asked(ground, desk, "GET", "/Account/1"))[0] == 200
    ground.keys.file.path.write_bytes(good)
    ground.keys.look()
    assert not ground.keys.problem
    (key_id,) = ground.keys.register.ring.keys
    ground.keys.file.withdraw(key_id, 1)
    ground.keys.look()
    assert (await asked(ground, desk, "GET", "/Account/1"))[0] == 401
