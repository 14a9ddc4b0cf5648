-- Counts a request against all of its limits, or against none: it is admitted if each of them admits it. Redis runs this as
-- one step, with its own clock, so the count is exact however many gateways ask at once.
--
-- KEYS: one for each limit. ARGV: for each limit its kind and two numbers:
--   window <count> <microseconds>: at most so many in any period of this length. The key is the list of the times of those
--     that were admitted.
--   bucket <microseconds> <burst>: a token bucket that gets a token in each period of this length. The key is the time at
--     which the bucket will be full (GCRA).
--
-- Returns for each limit: whether it admits the request, how many more it admits now, and the milliseconds until it admits
-- more.

local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]

local function format(number)
  return string.format("%.0f", number)
end

local function milliseconds(microseconds)
  return math.ceil(microseconds / 1000)
end

local look = {}

function look.window(key, count, period)
  local oldest = tonumber(redis.call("LINDEX", key, 0))
  -- Each time is removed once, so this is no more work than adding them.
  while oldest and oldest <= now - period do
    redis.call("LPOP", key)
    oldest = tonumber(redis.call("LINDEX", key, 0))
  end
  local used = redis.call("LLEN", key)
  return {
    admits = used < count,
    remaining = math.max(count - used, 0),
    wait = (oldest or now) + period - now,
    admit = function()
      redis.call("RPUSH", key, format(now))
      redis.call("PEXPIRE", key, milliseconds(period))
    end,
  }
end

function look.bucket(key, period, burst)
  local full = math.max(tonumber(redis.call("GET", key)) or 0, now)
  local spare = now + burst * period - full
  return {
    admits = spare >= period,
    remaining = math.max(math.floor(spare / period), 0),
    wait = spare >= period and full + period - now or period - spare,
    admit = function()
      redis.call("SET", key, format(full + period), "PX", milliseconds(full + period - now))
    end,
  }
end

local limits, admits = {}, true
for index, key in ipairs(KEYS) do
  local kind, first, second = ARGV[3 * index - 2], tonumber(ARGV[3 * index - 1]), tonumber(ARGV[3 * index])
  limits[index] = look[kind](key, first, second)
  admits = admits and limits[index].admits
end

local response = {}
for _, limit in ipairs(limits) do
  if admits then
    limit.admit()
    limit.remaining = limit.remaining - 1
  end
  table.insert(response, limit.admits and 1 or 0)
  table.insert(response, limit.remaining)
  table.insert(response, milliseconds(limit.wait))
end
return response
