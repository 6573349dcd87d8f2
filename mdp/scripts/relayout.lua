-- Puts the copies of a new layout in the place of the old one, all at once. Returns '' when done, else why nothing was changed.
-- KEYS  mdc:partitions, mdc:watched_news.
-- ARGV  partitions before, partitions after, TTL of a checkpoint (ms), what the copies' names begin with, n, n names of shares,
-- then the fence of each old partition.
-- Invariant: whoever has become the owner of a partition since the copies were begun has another fence; then nothing happens.
local call = redis.call
local before, after, copy, shares = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4], tonumber(ARGV[5])
if call('GET', KEYS[1]) ~= ARGV[1] then return 'another layout was made meanwhile' end
for p = 0, before - 1 do
  if call('GET', 'fence:partition:' .. p) ~= ARGV[6 + shares + p] then return 'a worker has taken partition ' .. p end
end
for p = 0, after - 1 do
  if call('EXISTS', copy .. 'cp:' .. p) == 0 then return 'the copy of partition ' .. p .. ' is gone' end
end
for p = 0, math.max(before, after) - 1 do
  call('UNLINK', 'cp:' .. p, 'watched:' .. p)
  if p < after then
    call('RENAME', copy .. 'cp:' .. p, 'cp:' .. p)
    call('PEXPIRE', 'cp:' .. p, ARGV[3])
  end
end
for i = 6, 5 + shares do
  call('UNLINK', ARGV[i])
  if call('EXISTS', copy .. ARGV[i]) == 1 then
    call('RENAME', copy .. ARGV[i], ARGV[i])
    call('PERSIST', ARGV[i])
  end
end
call('SET', KEYS[1], ARGV[2])
call('INCR', KEYS[2])
return ''
