-- Stores what was read from the database, unless Redis knows of a later version, or has lost its memory since the read began.
-- KEYS: the epoch, the entry. ARGV: the epoch when the read began, the version, the entry, its lifetime in milliseconds.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {0}
end
local known = tonumber(string.match(redis.call('GETRANGE', KEYS[2], 0, 20), '^%d+'))
if known and known > tonumber(ARGV[2]) then
  return {0}
end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
return {1}
