-- Counts an attempt to sign in, unless it comes too early. Redis runs this as one step, with its own clock, so the count is exact
-- however many replicas ask at once.
--
-- KEYS: whose attempts. ARGV: attempts without a wait; in milliseconds the first wait, the longest, and how long attempts are
-- remembered.
--
-- Returns the milliseconds to wait; 0 if the attempt was counted and may be made.

local free, first, longest, remembered = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local known = redis.call("HMGET", KEYS[1], "attempts", "not_before")
local attempts, not_before = (tonumber(known[1]) or 0) + 1, tonumber(known[2]) or 0
if now < not_before then
  return {not_before - now}
end

local wait = 0
if attempts >= free then
  wait = math.min(longest, first * 2 ^ math.min(attempts - free, 30))
end
redis.call("HSET", KEYS[1], "attempts", attempts, "not_before", string.format("%.0f", now + wait))
redis.call("PEXPIRE", KEYS[1], remembered)
return {0}
