"""The configuration of the original service's browser app: /api/get_config, served with WDS_COMPAT=true."""

from __future__ import annotations

import msgspec

from scp.api.calls import Answer, Call, Route
from scp.problems import Problem
from service import VERSION


class AppConfig(msgspec.Struct):
    """Where the app finds its stream, and its key: good until this sign-in ends. Keys of vendors are not handed out."""

    api_key: str
    ws_endpoint: str
    massive_api_key: None
    finlight_api_key: None
    app_version: str


def get_config(call: Call) -> Answer:
    """Get what the original service's app asks for when it starts."""
    if not call.control.compat_url:
        raise Problem(404, "compat_off", "The original service's app is served with WDS_COMPAT=true, for WDS and SCP alike")
    session = call.me.session
    if session is None:
        raise Problem(403, "session_needed", "The key ends with a sign-in; scripts use POST /api/v1/stream-tokens")
    now_s, operator = int(call.asked.now_s), "operate" in call.me.scopes
    key = call.control.minter.compat_key(call.me.username, session.public_id, operator, now_s, session.ends_ms // 1000)
    return Answer(AppConfig(key.text, call.control.compat_url, None, None, VERSION))


ROUTES = (Route("GET", "/api/get_config", "view", get_config, gives=AppConfig, may_answer=(404,)),)
