-- The room that stored responses take, over all gateways: when each was used last, and its bytes.
--
-- KEYS, in one slot:
--   1  zset  tag -> when it was put or used last, ms
--   2  hash  tag -> its bytes; '' -> those of all together
--
-- The responses are elsewhere, each in a slot of its own, and end by their own time to live. Whoever
-- is told that some should go deletes those first, and then says here that they are gone: where a
-- gateway dies in between, the next one is told the same names.

local AT_ONCE = 64

local function clock_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

local function bytes_of(keys, tag)
  return tonumber(redis.call('HGET', keys[2], tag) or '0')
end

local function drop(keys, tag)
  redis.call('HINCRBY', keys[2], '', whole(0 - bytes_of(keys, tag)))
  redis.call('HDEL', keys[2], tag)
  redis.call('ZREM', keys[1], tag)
end

local function add(keys, tag, bytes, now)
  redis.call('ZADD', keys[1], whole(now), tag)
  redis.call('HSET', keys[2], tag, bytes)
  redis.call('HINCRBY', keys[2], '', bytes)
end

-- Of those whose time to live is over, a few: more come with the next calls.
local function drop_ended(keys, before)
  local ended = redis.call('ZRANGE', keys[1], '-inf', whole(before), 'BYSCORE', 'LIMIT', 0, AT_ONCE)
  for _, tag in ipairs(ended) do
    drop(keys, tag)
  end
end

-- Those without which the rest is within bytes and count, longest unused first; a few at a time.
local function surplus(keys, most_bytes, most)
  local bytes, count = bytes_of(keys, '') - most_bytes, redis.call('ZCARD', keys[1]) - most
  local found = {}
  if bytes <= 0 and count <= 0 then
    return found
  end
  for _, tag in ipairs(redis.call('ZRANGE', keys[1], 0, AT_ONCE - 1)) do
    if bytes <= 0 and count <= 0 then
      break
    end
    table.insert(found, tag)
    bytes, count = bytes - bytes_of(keys, tag), count - 1
  end
  return found
end

-- ARGV: how long one stays unused in ms, the bytes and the count there may be; then tag, bytes, tag,
-- bytes... of what was put or used just now, 0 bytes: it is gone. Returns the tags that should go.
-- May be sent again.
local function note(keys, args)
  local now, ttl = clock_ms(), tonumber(args[1])
  drop_ended(keys, now - ttl)
  for place = 4, #args, 2 do
    drop(keys, args[place])
    if args[place + 1] ~= '0' then
      add(keys, args[place], args[place + 1], now)
    end
  end
  redis.call('PEXPIRE', keys[1], whole(ttl))
  redis.call('PEXPIRE', keys[2], whole(ttl))
  return surplus(keys, tonumber(args[2]), tonumber(args[3]))
end

redis.register_function('penstock_note_responses', note)
