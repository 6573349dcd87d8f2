-- Writes and publishes one partition's changes, all or nothing. Returns 0 applied (once), 1 fenced off, 2 another cache
-- life, 3 the cache was rolled back to an older state.
-- KEYS  fence, mdc:epoch, checkpoint; in a cluster then every other key that is touched: while a slot moves to another node, a
--       call whose keys are not all in one place is refused before it has written anything.
-- ARGV  fence number, epoch, flush number (0 = not numbered), start over (1 = drop the old checkpoint), checkpoint TTL (ms),
-- then sections, each led by its count:
--   removed keys: key                        removed from an index: key, member
--   removed checkpoint fields: field         keys that live on (for the checkpoint's TTL): key
--   update groups: pub/sub channel, keep (0 = one document, else a list of so many), TTL (ms), n, n × (key, document)
--   history: key, drop first (n = the newest n entries, -t = those of bars from t ms on), value ('' = none), keep, TTL
--   checkpoint pairs: field, value           hash shares: key, field, value
--   index: key, member                       dead letters: value (newest last)
--   shared: channel, keep, TTL, ts, data     (many writers: the sequence number is given here)
-- In a cluster keys begin with the hash tag of their partition, updates are sharded, and a partition puts what several write
-- into its own stream `out`: whoever owns partition 0 merges these (mdp/leader/merging.py) with a flush of what all share.
local call, argv = redis.call, ARGV -- a local is several times quicker than a global here
local home = string.match(KEYS[1], '^{.-}') or ''
local publish = home == '' and 'PUBLISH' or 'SPUBLISH'
if call('GET', KEYS[1]) ~= ARGV[1] then return 1 end
if call('GET', KEYS[2]) ~= ARGV[2] then return 2 end
local number = tonumber(ARGV[3])
if ARGV[4] == '1' then
  local known = call('HMGET', KEYS[3], 'life', 'flush')
  if known[1] == ARGV[2] and known[2] == ARGV[3] then return 0 end
  call('DEL', KEYS[3])
elseif number > 0 then
  local last = tonumber(call('HGET', KEYS[3], 'flush') or 0)
  if last == number then return 0 end -- the answer to this flush was lost, not the flush
  if last ~= number - 1 then return 3 end
end

-- A script that fails in the middle is not taken back. So nothing here may fail after the first write: a key of ours that
-- somebody has written with another type makes room, and the flush number is written last.
local function sure(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) == 'table' and answer.err then
    if not string.find(tostring(answer.err), 'WRONGTYPE') then error(answer.err) end
    call('DEL', key)
    return call(command, key, ...)
  end
  return answer
end

local SLACK = 64 -- lists are trimmed this late, so that most appends cost one call
local a = 6
local function take()
  local value = argv[a]
  a = a + 1
  return value
end

for _ = 1, tonumber(take()) do
  call('UNLINK', take())
end
for _ = 1, tonumber(take()) do
  call('SREM', take(), take())
end
for _ = 1, tonumber(take()) do
  call('HDEL', KEYS[3], take())
end
for _ = 1, tonumber(take()) do
  call('PEXPIRE', take(), argv[5])
end

local function append(key, keep, ...)
  if sure('RPUSH', key, ...) > keep + SLACK then call('LTRIM', key, -keep, -1) end
end

local function drop_newest(key, drop)
  if drop > 0 then return sure('LTRIM', key, 0, -drop - 1) end
  local newest = sure('LINDEX', key, -1)
  while newest and tonumber(string.match(newest, '%d+')) >= -drop do
    call('RPOP', key)
    newest = call('LINDEX', key, -1)
  end
end

for _ = 1, tonumber(take()) do
  local channel, keep, ttl, count = take(), tonumber(take()), take(), tonumber(take())
  local documents = {}
  if keep > 0 then
    local i = 0
    while i < count do -- one append for all new entries of a list: they stand together
      local key, entries = argv[a], {}
      repeat
        i = i + 1
        documents[i] = argv[a + 1]
        entries[#entries + 1] = argv[a + 1]
        a = a + 2
      until i == count or argv[a] ~= key or #entries == 1000
      append(key, keep, unpack(entries))
      call('PEXPIRE', key, ttl)
    end
  else
    for i = 1, count do
      documents[i] = argv[a + 1]
      call('SET', argv[a], argv[a + 1], 'PX', ttl)
      a = a + 2
    end
  end
  call(publish, channel, '[' .. table.concat(documents, ',') .. ']')
end

for _ = 1, tonumber(take()) do
  local key, drop, value, keep, ttl = take(), tonumber(take()), take(), tonumber(take()), take()
  if drop ~= 0 then drop_newest(key, drop) end
  if value ~= '' then
    append(key, keep, value)
    if argv[a] ~= key then call('PEXPIRE', key, ttl) end
  end
end

local pairs_left = tonumber(take())
while pairs_left > 0 do
  local some = math.min(pairs_left, 1000)
  call('HSET', KEYS[3], unpack(argv, a, a + 2 * some - 1))
  a = a + 2 * some
  pairs_left = pairs_left - some
end
for _ = 1, tonumber(take()) do
  sure('HSET', take(), take(), take())
end
for _ = 1, tonumber(take()) do
  sure('SADD', take(), take())
end
local letters = tonumber(take())
for _ = 1, letters do
  sure('LPUSH', home .. 'mdc:dead_letters', take())
end
if letters > 0 then call('LTRIM', home .. 'mdc:dead_letters', 0, 999) end

local shared, shared_left = {}, tonumber(take())
if home ~= '' and home ~= '{mdc}' and shared_left > 0 then
  local out = home .. 'out'
  for _ = 1, shared_left do
    sure('XADD', out, 'MAXLEN', '~', 10000, '*', 'c', argv[a], 's', argv[a + 3], 'd', argv[a + 4])
    a = a + 5
  end
  call('PEXPIRE', out, argv[5])
  shared_left = 0
end
while shared_left > 0 do -- entries of one channel stand together: an opening makes hundreds of alerts
  local channel, keep, ttl, some = argv[a], tonumber(argv[a + 1]), argv[a + 2], 1
  while some < shared_left and some < 1000 and argv[a + 5 * some] == channel do some = some + 1 end
  local seq, documents = sure('INCRBY', home .. 'seq:' .. channel, some) - some, {}
  local head = '{"ch":"' .. channel .. '","epoch":"' .. argv[2] .. '","seq":'
  for i = 1, some do
    local ts, data = argv[a + 3], argv[a + 4]
    documents[i] = head .. string.format('%d', seq + i) .. ',"ts":' .. ts .. ',"data":' .. data .. '}'
    shared[#shared + 1] = documents[i]
    a = a + 5
  end
  local key = home .. 'ch:' .. channel
  if keep > 0 then
    append(key, keep, unpack(documents))
    call('PEXPIRE', key, ttl)
  elseif ttl == '0' then
    call('SET', key, documents[some])
  else
    call('SET', key, documents[some], 'PX', ttl)
  end
  shared_left = shared_left - some
end
if #shared > 0 then call(publish, home .. 'up:shared:0', '[' .. table.concat(shared, ',') .. ']') end
if number > 0 then
  call('HSET', KEYS[3], 'flush', ARGV[3], 'life', ARGV[2])
  call('PEXPIRE', KEYS[3], ARGV[5])
end
return 0
