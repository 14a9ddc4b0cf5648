-- Normalizes two headers: the scheme of `authorization`, whose case does not matter and which any number of spaces may
-- follow, and `grpc-timeout`, which is kept within a floor and a ceiling. A client that waits for less than the floor gives
-- up by itself; a service with less time could only fail.
--
-- `souk envoy` puts the table `deadlines`, in milliseconds, before this program.

local MILLISECONDS = {H = 3600000, M = 60000, S = 1000, m = 1, u = 0.001, n = 0.000001}

local function read_timeout(written)
  local digits, unit = string.match(written, "^(%d+)([HMSmun])$")
  return digits and #digits <= 8 and tonumber(digits) * MILLISECONDS[unit]
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local token = string.match(headers:get("authorization") or "", "^[bB][eE][aA][rR][eE][rR] +(.*)$")
  if token then
    headers:replace("authorization", "Bearer " .. token)
  end
  local written = headers:get("grpc-timeout")
  if not written then
    return
  end
  local timeout = read_timeout(written)
  if not timeout then
    handle:streamInfo():dynamicMetadata():set("souk.edge", "header", "grpc-timeout")
    handle:respond({[":status"] = "400"}, "")
    return
  end
  local bounded = math.max(deadlines.floor, math.min(timeout, deadlines.ceiling))
  if bounded ~= timeout then
    headers:replace("grpc-timeout", string.format("%dm", bounded))
  end
end
