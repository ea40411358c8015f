-- The registry: members, each with a lease that ends by the clock of Redis.
--
-- KEYS of every function, all in one slot:
--   1  hash   name -> "EPOCH LIFE FACTS"; the life is the process', at random
--   2  zset   name -> when its lease ends, ms
--   3  string the last epoch that was given
--
-- An epoch is the fencing token of a lease: greater than every one before it, also where these keys
-- were lost meanwhile, since it is no less than the clock.

local FORGET_MS = 24 * 3600 * 1000

local function clock_us()
  local now = redis.call('TIME')
  return now[1] * 1000000 + now[2]
end

-- %.0f, for Lua prints large numbers with an exponent.
local function whole(number)
  return string.format('%.0f', number)
end

local function drop(keys, name)
  redis.call('HDEL', keys[1], name)
  redis.call('ZREM', keys[2], name)
end

local function drop_ended(keys, now_us)
  local ended = redis.call('ZRANGEBYSCORE', keys[2], '-inf', whole(now_us / 1000))
  for _, name in ipairs(ended) do
    drop(keys, name)
  end
end

-- The epoch of the lease of a name, and whose it is; nothing where there is none.
local function holder(keys, name)
  local row = redis.call('HGET', keys[1], name)
  if not row then
    return nil, nil
  end
  local epoch, life = string.match(row, '^(%d+) (%S+) ')
  return tonumber(epoch), life
end

local function write(keys, name, epoch, life, facts, ends_ms)
  redis.call('HSET', keys[1], name, whole(epoch) .. ' ' .. life .. ' ' .. facts)
  redis.call('ZADD', keys[2], whole(ends_ms), name)
  redis.call('PEXPIRE', keys[1], FORGET_MS)
  redis.call('PEXPIRE', keys[2], FORGET_MS)
end

-- ARGV: name, life, facts, lease in ms, the epoch it had before or 0. Returns the epoch of its new
-- lease, or '0' where another process has had the name since: of two, the one that began last has it.
local function register(keys, args)
  local name, life, facts = args[1], args[2], args[3]
  local lease_ms, before = tonumber(args[4]), tonumber(args[5])
  local now_us = clock_us()
  drop_ended(keys, now_us)
  local held, whose = holder(keys, name)
  if held and whose ~= life and before > 0 and held > before then
    return '0'
  end
  local last = tonumber(redis.call('GET', keys[3]) or '0')
  local epoch = math.max(last + 1, now_us)
  redis.call('SET', keys[3], whole(epoch), 'PX', FORGET_MS)
  write(keys, name, epoch, life, facts, now_us / 1000 + lease_ms)
  return whole(epoch)
end

-- ARGV: name, life, facts, lease in ms, epoch. Returns 1, or 0 where that lease has ended: what is
-- fenced off once stays so, also where nobody else has come.
local function renew(keys, args)
  local name, life, facts = args[1], args[2], args[3]
  local lease_ms, epoch = tonumber(args[4]), tonumber(args[5])
  local now_us = clock_us()
  drop_ended(keys, now_us)
  local held = holder(keys, name)
  if held ~= epoch then
    return 0
  end
  write(keys, name, epoch, life, facts, now_us / 1000 + lease_ms)
  return 1
end

-- ARGV: name, epoch. Returns whether that lease was there.
local function leave(keys, args)
  local epoch = holder(keys, args[1])
  if epoch ~= tonumber(args[2]) then
    return 0
  end
  drop(keys, args[1])
  return 1
end

-- Returns name, row, name, row... of those whose leases go on.
local function members(keys)
  drop_ended(keys, clock_us())
  local told = {}
  for _, name in ipairs(redis.call('ZRANGE', keys[2], 0, -1)) do
    local row = redis.call('HGET', keys[1], name)
    if row then
      table.insert(told, name)
      table.insert(told, row)
    end
  end
  return told
end

redis.register_function('penstock_register', register)
redis.register_function('penstock_renew', renew)
redis.register_function('penstock_leave', leave)
redis.register_function('penstock_members', members)
