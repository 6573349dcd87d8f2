-- Handles one worker's heartbeat: renews its leases and claims its share of the free partitions.
-- Returns {members, surplus, p1, epoch1, p2, epoch2, …}: what it owns now and how many too many.
-- KEYS  mdp:workers (sorted set worker → expiry), mdp:since.
-- ARGV  worker, lease TTL (ms), partitions, claims (1 = may take more), then the partitions whose state it still has.
-- Invariant: a partition has one holder; its fence grows with every change of holder. In a cache that was just emptied,
-- for one lease only those who still have a partition's state may claim it: nobody starts from nothing what another knows.
local call = redis.call
local worker, ttl, partitions, claims = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local time = call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if claims == '1' then
  call('ZADD', KEYS[1], now + ttl, worker)
else
  call('ZREM', KEYS[1], worker) -- leaving: the others' fair shares grow at once
end
local members = call('ZRANGE', KEYS[1], 0, -1)
table.sort(members)

local share = 0
for rank, member in ipairs(members) do
  if member == worker then
    share = math.floor(partitions / #members)
    if rank <= partitions % #members then share = share + 1 end
  end
end

if call('EXISTS', KEYS[2]) == 0 then call('SET', KEYS[2], now) end
local settled = now - tonumber(call('GET', KEYS[2])) >= ttl
local remembered = {}
for i = 5, #ARGV do remembered[tonumber(ARGV[i])] = true end

local owned, free = {}, {}
for p = 0, partitions - 1 do
  local lease = 'lease:partition:' .. p
  local holder = call('HMGET', lease, 'holder', 'epoch')
  if not holder[1] then
    free[#free + 1] = p
  elseif holder[1] == worker then
    call('PEXPIRE', lease, ttl)
    owned[#owned + 1] = { p, holder[2] }
  end
end
for _, p in ipairs(free) do
  if remembered[p] and not settled or settled and #owned < share then
    local lease = 'lease:partition:' .. p
    local epoch = call('INCR', 'fence:partition:' .. p)
    call('HSET', lease, 'holder', worker, 'epoch', epoch)
    call('PEXPIRE', lease, ttl)
    owned[#owned + 1] = { p, epoch }
  end
end

local reply = { #members, math.max(0, #owned - share) }
for _, pair in ipairs(owned) do
  reply[#reply + 1] = pair[1]
  reply[#reply + 1] = tonumber(pair[2])
end
return reply
