-- Idempotency keys: which call each stands for.
--
-- KEYS: 1  string  CALL ASKED

-- ARGV: claim, for how long in ms. Returns the claim that stands.
local function claim(keys, args)
  local standing = redis.call('GET', keys[1])
  if standing then
    return standing
  end
  redis.call('SET', keys[1], args[1], 'PX', args[2])
  return args[1]
end

-- ARGV: claim. Returns whether it stood.
local function forget(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then
    return 0
  end
  return redis.call('DEL', keys[1])
end

redis.register_function('penstock_claim', claim)
redis.register_function('penstock_forget_claim', forget)
