// Asks the control plane's API; what it refuses comes back as words for people.

export interface Refusal {
  status: number;
  detail: string;
}

/** Send a change. Returns the document, null where there is none. Throws a Refusal. */
export async function send(method: string, path: string, body?: unknown, csrf?: string): Promise<unknown> {
  let answer: Response;
  try {
    answer = await fetch(path, {
      method,
      cache: "no-store",
      headers: { "Content-Type": "application/json", ...(csrf ? { "X-CSRF-Token": csrf } : {}) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(15_000),
    });
  } catch {
    throw { status: 0, detail: "The control plane does not answer. Try again in a moment." } satisfies Refusal;
  }
  if (answer.ok) return answer.status === 204 || answer.status === 202 ? null : await answer.json();
  throw { status: answer.status, detail: await wordsOf(answer) } satisfies Refusal;
}

/** Return what a refusal says: problem+json has a `detail`, other answers are a line of text. */
export async function wordsOf(answer: Response): Promise<string> {
  const text = await answer.text();
  try {
    const { detail } = JSON.parse(text) as { detail?: string };
    if (detail) return /[.!?]$/.test(detail) ? detail : `${detail}.`;
  } catch {
    // not JSON
  }
  return text.slice(0, 200) || `The control plane answered ${answer.status}.`;
}
