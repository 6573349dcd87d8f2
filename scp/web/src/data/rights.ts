// Knows what whoever is signed in may do, as the session said: the page offers nothing that would be refused.

let scopes: ReadonlySet<string> = new Set();

export function learn(said: readonly string[]): void {
  scopes = new Set(said);
}

export function may(scope: string): boolean {
  return scopes.has(scope);
}
