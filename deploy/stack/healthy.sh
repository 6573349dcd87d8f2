#!/bin/sh
# Waits until every container of a stack runs and is healthy: healthy.sh docker compose -f … [SERVICE]; exit code 1 says which is not.
# Compose's own --wait ends at the first container that is unhealthy, also when it only misses what is being started (an exchange
# with `sync` its standby) or the machine is busy for a moment.
tries=0
fallen=0
while [ "$tries" -lt 120 ]; do
  ids=$("$@" ps -aq) || exit 1
  # One look at each: what Compose lists puts two together, and one that dies again and again passes as running in between.
  [ -n "$ids" ] || { echo "make: nothing was started" >&2; exit 1; }
  all=$(docker inspect -f '{{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}' $ids) ||
    { tries=$((tries + 1)); left="docker "; sleep 1; continue; }  # one was replaced meanwhile
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
