-- The quota of one API key: tokens per minute by the generic cell rate algorithm, calls in flight by
-- leases. gateway/memory_limiter.py has the same rules; one suite tests both.
--
-- KEYS, in one slot:
--   1  string when nothing will be spent any more, us: the algorithm's theoretical arrival time
--   2  zset   lease -> when it ends, us; one for each call in flight
--
-- The clock is that of Redis. A gateway that dies renews no leases, so its calls are counted out; what
-- they had reserved comes back as time passes. All three verbs may be sent again: a lease is taken
-- once, and given back once.

local MINUTE_US = 60000000

local function clock_us()
  local now = redis.call('TIME')
  return now[1] * 1000000 + now[2]
end

local function whole(number)
  return string.format('%.0f', number)
end

local function cost_us(tokens, per_minute)
  if per_minute == 0 then
    return 0
  end
  return tokens * MINUTE_US / per_minute
end

local function owed_us(keys, now)
  return math.max(0, tonumber(redis.call('GET', keys[1]) or '0') - now)
end

local function owe(keys, now, owed)
  if owed <= 0 then
    redis.call('DEL', keys[1])
  else
    redis.call('SET', keys[1], string.format('%.17g', now + owed), 'PX', whole(math.ceil(owed / 1000)))
  end
end

local function hold(keys, lease, now, lease_us)
  redis.call('ZADD', keys[2], whole(now + lease_us), lease)
  redis.call('PEXPIRE', keys[2], whole(math.ceil(lease_us / 1000)))
end

-- ARGV: lease, its length in us, tokens, tokens per minute, calls in flight; 0: no such limit.
-- Returns what is spent ('', 'requests' or 'tokens'), calls in flight, us owed, us to wait.
local function reserve(keys, now, args)
  local lease, lease_us, tokens = args[2], tonumber(args[3]), tonumber(args[4])
  local per_minute, most = tonumber(args[5]), tonumber(args[6])
  local in_flight, owed = redis.call('ZCARD', keys[2]), owed_us(keys, now)
  if redis.call('ZSCORE', keys[2], lease) then
    return {'', in_flight, whole(owed), '0'}
  end
  if most > 0 and in_flight >= most then
    return {'requests', in_flight, whole(owed), '0'}
  end
  local asked = cost_us(tokens, per_minute)
  if per_minute > 0 and owed > 0 and owed + asked > MINUTE_US then
    return {'tokens', in_flight, whole(owed), whole(math.ceil(math.min(owed, owed + asked - MINUTE_US)))}
  end
  hold(keys, lease, now, lease_us)
  owe(keys, now, owed + asked)
  return {'', in_flight + 1, whole(owed + asked), '0'}
end

-- ARGV: lease, tokens to give back, tokens per minute. Returns whether the lease was there.
local function settle(keys, now, args)
  if redis.call('ZREM', keys[2], args[2]) == 0 then
    return 0
  end
  owe(keys, now, owed_us(keys, now) - cost_us(tonumber(args[3]), tonumber(args[4])))
  return 1
end

-- ARGV: the length of leases in us, leases. Returns how many of them there still are.
local function renew(keys, now, args)
  local found = 0
  for place = 3, #args do
    if redis.call('ZSCORE', keys[2], args[place]) then
      hold(keys, args[place], now, tonumber(args[2]))
      found = found + 1
    end
  end
  return found
end

local verbs = {reserve = reserve, settle = settle, renew = renew}

local function limit(keys, args)
  local now = clock_us()
  redis.call('ZREMRANGEBYSCORE', keys[2], '-inf', whole(now))
  return verbs[args[1]](keys, now, args)
end

redis.register_function('penstock_limit', limit)
