-- Handles one worker's heartbeat: renews its leases and claims its share of the free partitions.
-- Returns {members, surplus, p1, fence1, before1, p2, …}: what it owns now, with the fence of the owner before, and how many
-- too many.
-- KEYS  mdp:workers (sorted set worker → expiry), mdp:since, mdp:ranks (the same workers, by name), mdp:due (sorted set
--       partition → when to look again whether it is free), mdp:held:{worker} (set of the partitions this one has claimed).
-- ARGV  worker, lease TTL (ms), partitions, claims (1 = may take more), token, then the partitions whose state it still has.
-- The token is the process: one of the same name that died may still have a flush on the wire, so it is another holder.
-- Invariant: a partition has one holder; its fence grows with every change of holder. In a cache that was just emptied,
-- for one lease only those who still have a partition's state may claim it: nobody starts from nothing what another knows.
-- What a beat costs grows with what its worker owns, not with the partitions and workers there are. The lease alone says who owns
-- a partition; the other keys only say where to look, and a lost or old one is made again.
local call = redis.call
local workers, since, ranks, due, held = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local worker, ttl, partitions, claims, token = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local tag = string.match(workers, '^{.-}') or '' -- in a cluster all of these keys lie in one slot
local time = call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

for _, gone in ipairs(call('ZRANGEBYSCORE', workers, '-inf', now)) do
  call('ZREM', workers, gone)
  call('ZREM', ranks, gone)
  call('DEL', tag .. 'mdp:held:' .. gone)
end
-- What would last for longer than a lease was written before this server's clock went back: it gets one lease from now.
for _, ahead in ipairs(call('ZRANGEBYSCORE', workers, '(' .. string.format('%.0f', now + ttl), '+inf')) do
  call('ZADD', workers, 'XX', now + ttl, ahead)
end
if claims == '1' then
  if call('ZADD', workers, now + ttl, worker) == 1 then
    call('ZADD', ranks, 0, worker)
    call('PERSIST', held)
  end
else
  call('ZREM', workers, worker) -- leaving: the others' fair shares grow at once
  call('ZREM', ranks, worker)
  call('PEXPIRE', held, ttl)
end
local members = call('ZCARD', workers)
if call('ZCARD', ranks) ~= members then -- somebody who knows only one of the two has changed it
  call('DEL', ranks)
  for _, member in ipairs(call('ZRANGE', workers, 0, -1)) do
    call('ZADD', ranks, 0, member)
  end
end

local share = 0
local rank = claims == '1' and call('ZRANK', ranks, worker)
if rank then
  share = math.floor(partitions / members)
  if rank < partitions % members then share = share + 1 end
end

local owned, left = {}, {}
for _, p in ipairs(call('SMEMBERS', held)) do
  local lease = tag .. 'lease:partition:' .. p
  local holder = call('HMGET', lease, 'holder', 'epoch', 'token', 'before')
  if holder[1] == worker and holder[3] == token then
    call('PEXPIRE', lease, ttl)
    owned[#owned + 1] = { tonumber(p), holder[2], holder[4] }
  else
    call('SREM', held, p)
    if holder[1] == worker then left[#left + 1] = p end -- of a process of our name: it is dead
  end
end

local function claim(p)
  local lease = tag .. 'lease:partition:' .. p
  -- at least Redis's clock: a fence that was given before a roll-back is not given again after it
  local before = call('GET', tag .. 'fence:partition:' .. p) or '0'
  local epoch = string.format('%.0f', math.max(tonumber(before) + 1, now))
  call('SET', tag .. 'fence:partition:' .. p, epoch)
  call('HSET', lease, 'holder', worker, 'epoch', epoch, 'before', before, 'token', token)
  call('PEXPIRE', lease, ttl)
  call('SADD', held, p)
  call('ZADD', due, 'XX', now + ttl, p)
  owned[#owned + 1] = { tonumber(p), epoch, before }
end

local remembered = {}
for i = 6, #ARGV do remembered[#remembered + 1] = ARGV[i] end
if #owned < math.max(share, #remembered) then
  call('SET', since, now, 'NX')
  local ago = now - tonumber(call('GET', since))
  if ago < 0 then call('SET', since, now) end
  local settled = ago >= ttl
  local known = {}
  for _, own in ipairs(owned) do known[own[1]] = true end
  for _, p in ipairs(settled and left or remembered) do
    local may = settled and #owned < share or not settled and call('EXISTS', tag .. 'lease:partition:' .. p) == 0
    if may and not known[tonumber(p)] then claim(p) end
  end
  if settled and #owned < share then
    if call('ZCARD', due) ~= partitions then
      call('DEL', due)
      for p = 0, partitions - 1 do
        call('ZADD', due, 0, p)
      end
    end
    for _, p in ipairs(call('ZRANGEBYSCORE', due, '(' .. string.format('%.0f', now + ttl), '+inf')) do
      call('ZADD', due, 'XX', now, p)
    end
    for _, p in ipairs(call('ZRANGEBYSCORE', due, '-inf', now)) do
      local left_ms = call('PTTL', tag .. 'lease:partition:' .. p)
      if left_ms > ttl then call('PEXPIRE', tag .. 'lease:partition:' .. p, ttl) end
      if left_ms == -2 then
        claim(p)
        if #owned == share then break end
      else
        left_ms = math.min(left_ms, ttl)
        call('ZADD', due, 'XX', now + (left_ms >= 0 and left_ms or ttl), p)
      end
    end
  end
end

table.sort(owned, function(one, other) return one[1] < other[1] end)
local reply = { members, math.max(0, #owned - share) }
for _, own in ipairs(owned) do
  reply[#reply + 1] = own[1]
  reply[#reply + 1] = tonumber(own[2])
  reply[#reply + 1] = tonumber(own[3])
end
return reply
