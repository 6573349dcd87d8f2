#!/bin/sh
# Waits until every container of a stack runs and is healthy: healthy.sh docker compose -f … [SERVICE]; exit code 1 says which is not.
# Compose's own --wait ends at the first container that is unhealthy, also when it only misses what is being started (an exchange
# with `sync` its standby) or the machine is busy for a moment.
tries=0
fallen=0
while [ "$tries" -lt 120 ]; do
  all=$("$@" ps -a --format '{{.Service}} {{.State}} {{.Health}}') || exit 1
  left=$(printf '%s\n' "$all" | grep -v -e ' running healthy$' -e ' running $')
  [ -n "$left" ] || exit 0
  printf '%s\n' "$left" | grep -q -e ' restarting ' -e ' exited ' && fallen=$((fallen + 1))
  [ "$fallen" -lt 20 ] || break
  tries=$((tries + 1))
  sleep 1
done
names=$(printf '%s\n' "$left" | cut -d ' ' -f 1 | sort -u | tr '\n' ' ')
echo "make: not healthy: ${names}(see why: $1 $2 -f deploy/compose.yaml --profile '*' logs --tail 5 ${names% })" >&2
exit 1
