// The documents that the operators' pages show. Shapes are those of /openapi.json.

export interface Component {
  id: string;
  kind: string;
  name: string;
  state: "ready" | "unready" | "stale" | "missing";
  reasons: string[];
  age_ms: number;
  version: string;
  host: string;
  started_ms: number;
  log_level: string;
  rates: Record<string, number>;
  lag_ms: number | null;
  partitions: number[] | null;
  more: Record<string, unknown>;
  controllable: boolean;
  why_not: string;
}

export interface Components {
  components: Component[];
  next: string | null;
  total: number;
  states: Record<string, number>;
}

export interface Queue {
  name: string;
  stream: string;
  depth: number;
  consumers: number;
  age_ms: number;
  ttl_ms: number;
}

export interface Queues {
  queues: Queue[];
  next: string | null;
  streams: { stream: string; events: number; expired: number; dropped: number }[];
  seen_by: string;
}

export interface Client {
  conn: string;
  worker: string;
  user: string | null;
  address: string;
  transport: string;
  open_s: number;
  subscriptions: number;
  buffered_bytes: number;
  pace: string;
  hidden: boolean;
}

export interface Clients {
  clients: Client[];
  total: number;
  unreachable: { component: string; detail: string }[];
}

export interface Store {
  name: string;
  first_index: number;
  last_index: number;
  messages: number;
  oldest_age_ms: number;
  age_ms_max: number;
  suspended: boolean;
  consumers: number;
}

export interface Trading {
  suspended: boolean;
  reasons: string[];
  note: string;
  who: string;
}

export interface BadEvent {
  ts: number;
  stream: string;
  partition: number;
  reason: string;
  event: string;
}

export interface DeadOrder {
  id: string;
  reason: string;
  detail: string;
  at: string;
  attempts: number;
  body: string;
}

export interface Listener {
  name: string;
  version: number;
  managed: boolean;
  running: { component: string; state: string; configuration: string; in_force: boolean; fault: string }[];
}

export interface Configuration extends Listener {
  listener: string;
  configuration: Record<string, unknown>;
  secrets: string[];
  note: string;
  who: string;
  at_ms: number;
}

export interface Version {
  version: number;
  configuration: Record<string, unknown>;
  note: string;
  who: string;
  at_ms: number;
}

export interface StreamKey {
  kid: string;
  state: string;
  made_ms: number;
  signs_ms: number;
}
