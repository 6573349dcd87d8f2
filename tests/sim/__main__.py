"""Runs many seeds."""
import dataclasses, sys, time
from tests.sim.plan import draw
from tests.sim.world import simulate
first, n = int(sys.argv[1]), int(sys.argv[2])
t=time.time(); bad=0
for seed in range(first, first+n):
    p=draw(seed)
    if len(sys.argv)>3: p=dataclasses.replace(p,sources=('stocks',))
    r=simulate(p)
    if r.report:
        bad+=1
        print(r.report if n==1 else f"{seed} {r.report.splitlines()[-2][:400]}")
    elif n==1: print(r)
print(bad, "of", n, "failed", time.time()-t)
