// TEMPORARY dev client until tapeline.js lands.
import type { Connection } from "./freshness.ts";
import type { Listener, Options, Stream, Subscription } from "./stream.ts";
export function openStream(): Stream {
  const subs: { channels: readonly string[]; options: Options; listener: Listener }[] = [];
  const state = new Map<string, any>();
  let ws: WebSocket | null = null;
  let tell: (c: Connection, r: string) => void = () => {};
  const match = (p: string, ch: string) => p === ch || (p.endsWith("*") && ch.startsWith(p.slice(0, -1)));
  const send = (o: unknown) => ws?.readyState === 1 && ws.send(JSON.stringify(o));
  let reconnects = -1; let limit = 200;
  const handle = (f: any) => {
    if (f.t === "snap") state.set(f.ch, f.data);
    if (f.t === "upd") state.set(f.ch, { ...state.get(f.ch), ...f.data });
    if (f.t === "rows") { const s = state.get(f.ch) ?? { order: [], rows: {} }; const rows = { ...s.rows, ...f.set }; for (const d of f.del ?? []) delete rows[d]; state.set(f.ch, { order: f.order ?? s.order, rows }); }
    for (const s of subs) if (f.ch && s.channels.some((p) => match(p, f.ch))) {
      if (f.t === "snap") s.listener.snapshot(f.ch, f.data, f.ts);
      if (f.t === "upd") s.listener.update?.(f.ch, f.data, state.get(f.ch), f.ts);
      if (f.t === "rows") s.listener.rows?.(f.ch, state.get(f.ch).order, state.get(f.ch).rows, f.ts);
      if (f.t === "event") s.listener.event?.(f.ch, f.data, f.ts);
      if (f.t === "lost") s.listener.lost?.(f.ch, f.n);
      if (f.t === "status") s.listener.status?.(f.ch, f.state, f.reason ?? "");
    }
    if (f.t === "hello") limit = f.limits.subs;
    for (const o of f.subs ?? []) if (o.error) for (const s of subs) if (s.channels.includes(o.ch)) s.listener.refused?.(o.ch, o.error.code, o.error.message);
    if (f.t === "ping") send({ op: "pong" });
  };
  const open = async () => {
    try {
      const session = await (await fetch("/api/session")).json();
      ws = new WebSocket(session.wds_url);
      ws.onopen = () => { reconnects++; send({ id: 1, op: "auth", token: session.token }); for (const s of subs) send({ id: 2, op: "sub", ch: s.channels, ...s.options }); tell("open", ""); };
      ws.onmessage = (m) => { const f = JSON.parse(m.data); if (Array.isArray(f)) f.forEach(handle); else handle(f); };
      ws.onclose = () => { tell("connecting", "connection lost, reconnecting"); setTimeout(open, 500); };
    } catch { setTimeout(open, 500); }
  };
  return {
    get reconnects() { return Math.max(0, reconnects); },
    get subscriptionsMax() { return limit; },
    subscribe(channels, options, listener): Subscription {
      const s = { channels, options, listener }; subs.push(s); send({ id: 2, op: "sub", ch: channels, ...options });
      return { close() { subs.splice(subs.indexOf(s), 1); send({ op: "unsub", ch: channels }); }, ask() { send({ op: "get", ch: channels }); } };
    },
    onConnection(l) { tell = l; }, start: open,
  };
}
