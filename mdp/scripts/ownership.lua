-- Handles one worker's heartbeat: renews its leases and claims its share of the free partitions.
-- Returns {members, surplus, p1, fence1, before1, p2, …}: what it owns now, with the fence of the owner before, and how many
-- too many.
-- KEYS  mdp:workers (sorted set worker → expiry), mdp:since, mdp:free, mdp:loads, mdp:of:{worker}.
-- ARGV  worker, lease TTL (ms), partitions, claims (1 = may take more), token, audit (1 = look whether the index is right),
-- then the partitions whose state it still has.
-- The token is the process: one of the same name that died may still have a flush on the wire, so it is another holder.
-- Invariant: a partition has one holder, whom its lease names; its fence grows with every change of holder. In a cache that was
-- just emptied, for one lease only those who still have a partition's state may claim it: nobody starts from nothing what
-- another knows.
-- The index (mdp:free, mdp:loads, mdp:of:*) says where to look, so that a beat costs by what its worker owns, not by how many
-- partitions and workers there are. It is believed only as far as the leases agree, and made anew of them every few seconds.
local call = redis.call
local worker, ttl, partitions, claims, token = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local WORKERS, SINCE, FREE, LOADS, MINE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local AUDIT_MS = 4000
local time = call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function add_all(key, numbers)
  local pairs_ = {}
  for _, p in ipairs(numbers) do
    pairs_[#pairs_ + 1] = p
    pairs_[#pairs_ + 1] = p
    if #pairs_ >= 1000 then
      call('ZADD', key, unpack(pairs_))
      pairs_ = {}
    end
  end
  if #pairs_ > 0 then call('ZADD', key, unpack(pairs_)) end
end

-- A membership ends a moment after the leases that were renewed with it: what is called free below is.
for _, gone in ipairs(call('ZRANGEBYSCORE', WORKERS, '-inf', now - 5)) do
  add_all(FREE, call('ZRANGE', 'mdp:of:' .. gone, 0, -1))
  call('DEL', 'mdp:of:' .. gone)
  call('ZREM', LOADS, gone)
  call('ZREM', WORKERS, gone)
end
local joined = false
if claims == '1' then
  joined = call('ZADD', WORKERS, now + ttl, worker) == 1
elseif call('ZREM', WORKERS, worker) == 1 then
  call('ZREM', LOADS, worker) -- leaving: the others' fair shares grow at once
end

local function audit()
  local free, of, members = {}, {}, call('ZRANGE', WORKERS, 0, -1)
  call('DEL', FREE, LOADS, MINE)
  for _, member in ipairs(members) do
    of[member] = {}
    call('DEL', 'mdp:of:' .. member)
  end
  of[worker] = of[worker] or {}
  for p = 0, partitions - 1 do
    local holder = call('HGET', 'lease:partition:' .. p, 'holder')
    if not holder then
      free[#free + 1] = p
    elseif of[holder] then
      of[holder][#of[holder] + 1] = p
    end
  end
  add_all(FREE, free)
  add_all(MINE, of[worker])
  for _, member in ipairs(members) do
    if member ~= worker then add_all('mdp:of:' .. member, of[member]) end
    call('ZADD', LOADS, #of[member], member)
  end
end
local emptied = joined and call('EXISTS', SINCE) == 0
if emptied then call('SET', SINCE, now) end
if emptied or ((joined or ARGV[6] == '1') and call('SET', 'mdp:audited', now, 'NX', 'PX', AUDIT_MS)) then audit() end

local owned, changed = {}, joined
for _, p in ipairs(call('ZRANGE', MINE, 0, -1)) do
  local lease = 'lease:partition:' .. p
  local held = call('HMGET', lease, 'holder', 'epoch', 'token', 'before')
  if held[1] == worker and held[3] == token and tonumber(p) < partitions then
    call('PEXPIRE', lease, ttl)
    owned[#owned + 1] = { p, held[2], held[4] }
  else
    changed = true
    call('ZREM', MINE, p)
    if not held[1] or held[1] == worker then call('ZADD', FREE, p, p) end
  end
end

local function claim(p)
  local lease = 'lease:partition:' .. p
  local held = call('HMGET', lease, 'holder', 'token')
  call('ZREM', FREE, p)
  if tonumber(p) >= partitions or (held[1] and (held[1] ~= worker or held[2] == token)) then return end
  -- at least Redis's clock: a fence that was given before a roll-back is not given again after it
  local before = call('GET', 'fence:partition:' .. p) or '0'
  local epoch = string.format('%.0f', math.max(tonumber(before) + 1, now))
  call('SET', 'fence:partition:' .. p, epoch)
  call('HSET', lease, 'holder', worker, 'epoch', epoch, 'before', before, 'token', token)
  call('PEXPIRE', lease, ttl)
  call('ZADD', MINE, p, p)
  owned[#owned + 1] = { p, epoch, before }
  changed = true
end

-- Everybody has `least` partitions or one more, and just `extra` of them one more: whoever has it already keeps it.
local members = call('ZCARD', WORKERS)
local least = claims == '1' and math.floor(partitions / members) or 0
local extra = claims == '1' and partitions - members * least or 0
local function with_more() return call('ZCOUNT', LOADS, least + 1, '+inf') end

local free = call('ZCARD', FREE)
if free > 0 then
  if now - tonumber(call('GET', SINCE) or now) < ttl then
    for i = 7, #ARGV do claim(ARGV[i]) end
  elseif claims == '1' then
    while #owned < least and free > 0 do
      for _, p in ipairs(call('ZRANGE', FREE, 0, least - #owned - 1)) do claim(p) end
      free = call('ZCARD', FREE)
    end
    if free > 0 and #owned == least and with_more() < extra then
      for _, p in ipairs(call('ZRANGE', FREE, 0, 0)) do claim(p) end
    end
  end
end
if changed and claims == '1' then call('ZADD', LOADS, #owned, worker) end

local surplus = 0
if claims ~= '1' then
  surplus = #owned
elseif #owned > least then
  surplus = #owned - least - 1
  local over = with_more() - extra
  if over > 0 and call('ZREVRANK', LOADS, worker) < over then surplus = surplus + 1 end
end

local reply = { members, surplus }
for _, one in ipairs(owned) do
  reply[#reply + 1] = tonumber(one[1])
  reply[#reply + 1] = tonumber(one[2])
  reply[#reply + 1] = tonumber(one[3])
end
return reply
