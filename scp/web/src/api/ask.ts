// Asks the control plane's API; what it refuses comes back as words for people.

export interface Refusal {
  /** 0 = the control plane does not answer. */
  status: number;
  detail: string;
  /** For programs; "" where the answer has none. */
  code: string;
}

/** Send a change. Returns the document, null where there is none. Throws a Refusal. */
export async function send(method: string, path: string, body?: unknown, csrf?: string, headers: Record<string, string> = {}): Promise<unknown> {
  let answer: Response;
  try {
    answer = await fetch(path, {
      method,
      cache: "no-store",
      headers: { "Content-Type": "application/json", ...(csrf ? { "X-CSRF-Token": csrf } : {}), ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(15_000),
    });
    if (answer.ok) return answer.status === 204 || answer.status === 202 ? null : await answer.json();
  } catch {
    throw { status: 0, detail: "The control plane does not answer. Try again in a moment.", code: "" } satisfies Refusal;
  }
  throw { status: answer.status, ...(await problemOf(answer)) } satisfies Refusal;
}

/** Return what a refusal says: problem+json has a `detail`, other answers are a line of text. */
export async function wordsOf(answer: Response): Promise<string> {
  return (await problemOf(answer)).detail;
}

async function problemOf(answer: Response): Promise<{ detail: string; code: string }> {
  const text = await answer.text().catch(() => "");
  try {
    const { detail, code = "" } = JSON.parse(text) as { detail?: string; code?: string };
    if (detail) return { detail: /[.!?]$/.test(detail) ? detail : `${detail}.`, code };
  } catch {
    // not JSON
  }
  return { detail: text.slice(0, 200) || `The control plane answered ${answer.status}.`, code: "" };
}
