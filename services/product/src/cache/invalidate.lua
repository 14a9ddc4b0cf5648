-- Replaces entries that are older than these versions by a marker, which no read of an older version replaces.
-- KEYS: the epoch, then entries. ARGV: an epoch for a Redis that has none, the markers' lifetime in milliseconds, then the version
-- of each entry. Returns the epoch.
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = ARGV[1]
  redis.call('SET', KEYS[1], epoch)
end
for at = 2, #KEYS do
  local known = tonumber(string.match(redis.call('GETRANGE', KEYS[at], 0, 20), '^%d+'))
  if not known or known < tonumber(ARGV[at + 1]) then
    redis.call('SET', KEYS[at], ARGV[at + 1] .. ' changed', 'PX', ARGV[2])
  end
end
return {tonumber(epoch)}
