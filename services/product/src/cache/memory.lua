-- Returns which part of its memory Redis uses, in percent: 0 if it has no bound, or does not tell.
local info = redis.pcall('INFO', 'memory')
if type(info) ~= 'string' then
  return {0}
end
local used = tonumber(string.match(info, '\nused_memory:(%d+)'))
local most = tonumber(string.match(info, '\nmaxmemory:(%d+)'))
if not used or not most or most == 0 then
  return {0}
end
return {math.floor(100 * used / most)}
