-- One partition's changes in, written and published all or nothing; out: 0 applied (once), 1 fenced off, 2 another cache
-- life, 3 the cache was rolled back to an older state.
-- KEYS  fence, mdc:epoch, checkpoint.
-- ARGV  fence number, epoch, flush number (0 = not numbered), start over (1 = drop the old checkpoint), checkpoint TTL (ms),
-- then sections, each led by its count:
--   update groups: pub/sub channel, keep (0 = one document, else a list of so many), TTL (ms, 0 = none), n, n × (key, document)
--   history: key, how many of the newest entries to drop first, value ('' = none), keep, TTL
--   checkpoint pairs: field, value           hash shares: key, field, value
--   index: key, member                       dead letters: value (newest last)
--   shared: channel, keep, TTL, ts, data     (many writers: the sequence number is given here)
-- Not for Redis Cluster: keys come in ARGV too.
local call = redis.call
if call('GET', KEYS[1]) ~= ARGV[1] then return 1 end
if call('GET', KEYS[2]) ~= ARGV[2] then return 2 end
local number = tonumber(ARGV[3])
if ARGV[4] == '1' then
  if call('HGET', KEYS[3], 'life') == ARGV[2] then return 0 end
  call('DEL', KEYS[3])
  call('HSET', KEYS[3], 'life', ARGV[2])
elseif number > 0 then
  local last = tonumber(call('HGET', KEYS[3], 'flush') or 0)
  if last == number then return 0 end -- the answer to this flush was lost, not the flush
  if last ~= number - 1 then return 3 end
end
if number > 0 then
  call('HSET', KEYS[3], 'flush', ARGV[3])
  call('PEXPIRE', KEYS[3], ARGV[5])
end

local SLACK = 64 -- lists are trimmed this late, so that most appends cost one call
local a = 6
local function take()
  local value = ARGV[a]
  a = a + 1
  return value
end

local function append(key, keep, ttl, value)
  local length = call('RPUSH', key, value)
  if length == 1 or length > keep + SLACK then
    if length > 1 then call('LTRIM', key, -keep, -1) end
    if ttl ~= '0' then call('PEXPIRE', key, ttl) end
  end
end

for _ = 1, tonumber(take()) do
  local channel, keep, ttl, count = take(), tonumber(take()), take(), tonumber(take())
  local documents = {}
  for i = 1, count do
    local key, document = ARGV[a], ARGV[a + 1]
    a = a + 2
    documents[i] = document
    if keep > 0 then
      append(key, keep, ttl, document)
    elseif ttl == '0' then
      call('SET', key, document)
    else
      call('SET', key, document, 'PX', ttl)
    end
  end
  call('PUBLISH', channel, '[' .. table.concat(documents, ',') .. ']')
end

for _ = 1, tonumber(take()) do
  local key, drop, value, keep, ttl = take(), tonumber(take()), take(), tonumber(take()), take()
  if drop > 0 then call('LTRIM', key, 0, -drop - 1) end
  if value ~= '' then append(key, keep, ttl, value) end
end

local pairs_left = tonumber(take())
while pairs_left > 0 do
  local some = math.min(pairs_left, 1000)
  call('HSET', KEYS[3], unpack(ARGV, a, a + 2 * some - 1))
  a = a + 2 * some
  pairs_left = pairs_left - some
end
for _ = 1, tonumber(take()) do
  call('HSET', take(), take(), take())
end
for _ = 1, tonumber(take()) do
  call('SADD', take(), take())
end
local letters = tonumber(take())
for _ = 1, letters do
  call('LPUSH', 'mdc:dead_letters', take())
end
if letters > 0 then call('LTRIM', 'mdc:dead_letters', 0, 999) end

local shared = {}
for i = 1, tonumber(take()) do
  local channel, keep, ttl, ts, data = take(), tonumber(take()), take(), take(), take()
  local seq = call('INCR', 'seq:' .. channel)
  local document = '{"ch":"' .. channel .. '","epoch":"' .. ARGV[2] .. '","seq":' .. string.format('%d', seq) .. ',"ts":' .. ts .. ',"data":' .. data .. '}'
  shared[i] = document
  if keep > 0 then
    append('ch:' .. channel, keep, ttl, document)
  elseif ttl == '0' then
    call('SET', 'ch:' .. channel, document)
  else
    call('SET', 'ch:' .. channel, document, 'PX', ttl)
  end
end
if #shared > 0 then call('PUBLISH', 'up:shared:0', '[' .. table.concat(shared, ',') .. ']') end
return 0
