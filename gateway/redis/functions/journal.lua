-- The journal: durable calls. Each has a record (how to make it again), a fence (who may write: a
-- number that grows with each owner) and a log of what it has told.
--
-- KEYS of a call: 1  hash  record, fence, gaps, ending
--                 2  list  chunks of the log
-- KEYS of all:    1  sorted set  when the lease of each call ends, in ms
--                 2  hash        calls that somebody wants cancelled

local NO_OWNER = '1000000000000'  -- a fence that nobody gets to

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function expire(keys, ttl)
  redis.call('PEXPIRE', keys[1], ttl)
  redis.call('PEXPIRE', keys[2], ttl)
end

-- Whether a fence is the one that stands: nil where there is no such call, or only what an earlier
-- owner has entered once more, after it was lost.
local function stands(keys, fence)
  local standing = redis.call('HGET', keys[1], 'fence')
  if not standing or tonumber(standing) < tonumber(fence) then
    return nil
  end
  return standing == fence
end

-- ARGV: fence, ms to keep it, record. Returns whether it is ours: not behind a later owner.
local function begin(keys, args)
  local standing = redis.call('HGET', keys[1], 'fence')
  if standing and tonumber(standing) > tonumber(args[1]) then
    return 0
  end
  redis.call('DEL', keys[1], keys[2])
  redis.call('HSET', keys[1], 'fence', args[1], 'record', args[3])
  expire(keys, args[2])
  return 1
end

-- ARGV: fence, ms to keep it, how many chunks are there already, chunks. Those that are there as
-- well, since an answer was lost, are left out. Returns 1; 0: a later owner has it; -1: it, or a
-- part of its log, is gone.
local function append(keys, args)
  local ours = stands(keys, args[1])
  local have = redis.call('LLEN', keys[2])
  local first = tonumber(args[3])
  if ours == false then
    return 0
  end
  if ours == nil or have < first then
    return -1
  end
  for place = 4 + have - first, #args do
    redis.call('RPUSH', keys[2], args[place])
  end
  expire(keys, args[2])
  return 1
end

-- ARGV: from which chunk, how many at most. Returns fence, record, gaps, ending and chunks; the
-- record only with the first chunk.
local function read(keys, args)
  local row = redis.call('HMGET', keys[1], 'fence', 'record', 'gaps', 'ending')
  if not row[2] then
    return {}
  end
  local first = tonumber(args[1])
  local chunks = redis.call('LRANGE', keys[2], first, first + tonumber(args[2]) - 1)
  return {row[1], first == 0 and row[2] or '', row[3] or '', row[4] or '', chunks}
end

-- ARGV: the fence that stands, ms to keep it. Returns whether it is ours now, one higher.
local function claim(keys, args)
  if not stands(keys, args[1]) or redis.call('HEXISTS', keys[1], 'ending') == 1 then
    return 0
  end
  redis.call('HINCRBY', keys[1], 'fence', 1)
  expire(keys, args[2])
  return 1
end

-- ARGV: fence, ms to keep it, field, value. Returns as append.
local function note(keys, args)
  local ours = stands(keys, args[1])
  if ours == nil then
    return -1
  end
  if not ours then
    return 0
  end
  redis.call('HSET', keys[1], args[3], args[4])
  expire(keys, args[2])
  return 1
end

-- ARGV: ms for which an owner that does not know it yet is kept from entering it once more.
local function forget(keys, args)
  redis.call('UNLINK', keys[1], keys[2])
  redis.call('HSET', keys[1], 'fence', NO_OWNER)
  return redis.call('PEXPIRE', keys[1], args[1])
end

-- ARGV: length of the lease in ms, calls. Returns those of them that are to be cancelled.
local function renew(keys, args)
  local ends, wished = now_ms() + tonumber(args[1]), {}
  for place = 2, #args do
    redis.call('ZADD', keys[1], ends, args[place])
    if redis.call('HEXISTS', keys[2], args[place]) == 1 then
      wished[#wished + 1] = args[place]
    end
  end
  return wished
end

-- ARGV: how many at most. Returns calls whose lease has ended.
local function due(keys, args)
  return redis.call('ZRANGEBYSCORE', keys[1], '-inf', now_ms(), 'LIMIT', 0, args[1])
end

-- ARGV: a call that has ended, or is nowhere.
local function done(keys, args)
  redis.call('HDEL', keys[2], args[1])
  return redis.call('ZREM', keys[1], args[1])
end

-- ARGV: a call, ms for which somebody may read this.
local function wish(keys, args)
  redis.call('HSET', keys[2], args[1], '')
  return redis.call('PEXPIRE', keys[2], args[2])
end

redis.register_function('penstock_journal_begin', begin)
redis.register_function('penstock_journal_append', append)
redis.register_function{
  function_name = 'penstock_journal_read', callback = read, flags = {'no-writes'},
}
redis.register_function('penstock_journal_claim', claim)
redis.register_function('penstock_journal_note', note)
redis.register_function('penstock_journal_forget', forget)
redis.register_function('penstock_runs_renew', renew)
redis.register_function{
  function_name = 'penstock_runs_due', callback = due, flags = {'no-writes'},
}
redis.register_function('penstock_runs_done', done)
redis.register_function('penstock_runs_wish', wish)
