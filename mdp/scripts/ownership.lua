-- Handles one worker's heartbeat: renews its leases and claims its share of the free partitions.
-- Returns {members, surplus, p1, fence1, before1, p2, …}: what it owns now, with the fence of the owner before, and how many
-- too many.
-- KEYS  mdp:workers (sorted set worker → expiry), mdp:since.
-- ARGV  worker, lease TTL (ms), partitions, claims (1 = may take more), token, then the partitions whose state it still has.
-- The token is the process: one of the same name that died may still have a flush on the wire, so it is another holder.
-- Invariant: a partition has one holder; its fence grows with every change of holder. In a cache that was just emptied,
-- for one lease only those who still have a partition's state may claim it: nobody starts from nothing what another knows.
local call = redis.call
local worker, ttl, partitions, claims, token = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
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
for i = 6, #ARGV do remembered[tonumber(ARGV[i])] = true end

local owned, free = {}, {}
for p = 0, partitions - 1 do
  local lease = 'lease:partition:' .. p
  local holder = call('HMGET', lease, 'holder', 'epoch', 'token', 'before')
  if not holder[1] or (holder[1] == worker and holder[3] ~= token) then
    free[#free + 1] = p
  elseif holder[1] == worker then
    call('PEXPIRE', lease, ttl)
    owned[#owned + 1] = { p, holder[2], holder[4] }
  end
end
for _, p in ipairs(free) do
  if remembered[p] and not settled or settled and #owned < share then
    local lease = 'lease:partition:' .. p
    -- at least Redis's clock: a fence that was given before a roll-back is not given again after it
    local before = call('GET', 'fence:partition:' .. p) or '0'
    local epoch = string.format('%.0f', math.max(tonumber(before) + 1, now))
    call('SET', 'fence:partition:' .. p, epoch)
    call('HSET', lease, 'holder', worker, 'epoch', epoch, 'before', before, 'token', token)
    call('PEXPIRE', lease, ttl)
    owned[#owned + 1] = { p, epoch, before }
  end
end

local reply = { #members, math.max(0, #owned - share) }
for _, claim in ipairs(owned) do
  reply[#reply + 1] = claim[1]
  reply[#reply + 1] = tonumber(claim[2])
  reply[#reply + 1] = tonumber(claim[3])
end
return reply
