-- Parses a body as JSON and validates it against the contracts: `read_body`, for `requests.lua`, which follows this program.
-- Each name must be a field, in one of its two spellings, once, and each value of the field's kind. The transcoder checks
-- UTF-8, and the format of strings such as times.
--
-- `souk envoy` puts the tables `contracts` before this program.

local byte, concat, find, format = string.byte, table.concat, string.find, string.format
local gmatch, gsub, match, sub = string.gmatch, string.gsub, string.match, string.sub

-- No valid request comes near these; they bound the work for requests without a valid token. An escape in a string counts
-- as a value.
local MAX_DEPTH = 32
local MAX_VALUES = 10000
-- How much of an unknown name the error repeats.
local MAX_NAME = 100

local QUOTE, COMMA, COLON, LETTER_N, BACKSLASH = 34, 44, 58, 110, 92
local OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT = 91, 93, 123, 125
local ESCAPES = {['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}
-- The largest digits of each kind, below zero and above.
local LIMITS = {
  int32 = {"2147483648", "2147483647"},
  uint32 = {"0", "4294967295"},
  int64 = {"9223372036854775808", "9223372036854775807"},
  uint64 = {"0", "18446744073709551615"},
}

-- Message name -> each spelling of a field -> the field, one table for both spellings.
local messages = {}
for name in pairs(contracts.messages) do
  messages[name] = {}
end
for name, fields in pairs(contracts.messages) do
  for _, field in ipairs(fields) do
    field.fields, field.values = messages[field.type or ""], contracts.enums[field.type or ""]
    messages[name][field.name], messages[name][field.json] = field, field
  end
end

-- The body that is being read, the number of its values so far, and the names and indices that lead to the current one.
-- Parsing never yields, so one of each is enough for a worker thread.
local text, values, trail = "", 0, {}

local function shorten(name)
  if #name <= MAX_NAME then
    return name
  end
  -- Without a truncated character at its end.
  return (gsub(sub(name, 1, MAX_NAME), "[\192-\255][\128-\191]*$", "")) .. "..."
end

local function refuse(depth, description)
  local field = ""
  for level = 1, depth do
    local step = trail[level]
    if type(step) == "number" then
      field = format("%s[%d]", field, step)
    else
      field = level == 1 and shorten(step) or field .. "." .. shorten(step)
    end
  end
  error({field = field, description = depth == 0 and "the body " .. description or description})
end

local function refuse_syntax(depth, at)
  refuse(depth, format("is not JSON, at byte %d", at))
end

local function encode_utf8(code)
  if code < 0x80 then
    return string.char(code)
  elseif code < 0x800 then
    return string.char(0xC0 + math.floor(code / 0x40), 0x80 + code % 0x40)
  elseif code < 0x10000 then
    return string.char(0xE0 + math.floor(code / 0x1000), 0x80 + math.floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
  end
  return string.char(
    0xF0 + math.floor(code / 0x40000), 0x80 + math.floor(code / 0x1000) % 0x40,
    0x80 + math.floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
end

local function count(depth)
  values = values + 1
  if values > MAX_VALUES then
    refuse(0, "has too many values")
  elseif depth > MAX_DEPTH then
    refuse(depth, "is nested too deeply")
  end
end

-- Skips white space; returns the position and the byte there.
local function skip(at)
  local first = byte(text, at)
  if first and first > 32 then
    return at, first
  end
  at = find(text, "[^ \t\r\n]", at) or #text + 1
  return at, byte(text, at)
end

-- Functions that read take the position to start at, and return the position after what they read, and its value.

local function read_escape(at, depth)
  count(depth)
  local letter = sub(text, at + 1, at + 1)
  if ESCAPES[letter] then
    return at + 2, ESCAPES[letter]
  end
  local code = letter == "u" and tonumber(match(text, "^%x%x%x%x", at + 2) or "", 16)
  if not code or (code >= 0xDC00 and code <= 0xDFFF) then
    refuse_syntax(depth, at)
  elseif code < 0xD800 or code > 0xDFFF then
    return at + 6, encode_utf8(code)
  end
  local low = tonumber(match(text, "^\\u([dD][c-fC-F]%x%x)", at + 6) or "", 16)
  if not low then
    refuse_syntax(depth, at)
  end
  return at + 12, encode_utf8(0x10000 + (code - 0xD800) * 0x400 + low - 0xDC00)
end

local function read_string(at, depth)
  if byte(text, at) ~= QUOTE then
    refuse_syntax(depth, at)
  end
  local _, stop, plain = find(text, '^"([^"\\%c]*)"', at)
  if stop then
    return stop + 1, plain
  end
  local parts = {}
  at = at + 1
  while true do
    local stop = find(text, '["\\%z\1-\31]', at)
    local mark = stop and byte(text, stop)
    if not stop or (mark ~= QUOTE and mark ~= BACKSLASH) then
      refuse_syntax(depth, stop or #text + 1)
    end
    parts[#parts + 1] = sub(text, at, stop - 1)
    if mark == QUOTE then
      return stop + 1, concat(parts)
    end
    at, parts[#parts + 1] = read_escape(stop, depth)
  end
end

local function read_number(at, depth)
  local _, stop = find(text, "^-?%d+", at)
  if not stop or find(text, "^-?0%d", at) then
    refuse_syntax(depth, at)
  end
  local _, fraction = find(text, "^%.%d+", stop + 1)
  stop = fraction or stop
  local _, exponent = find(text, "^[eE][+-]?%d+", stop + 1)
  stop = exponent or stop
  return stop + 1, sub(text, at, stop)
end

local function is_integer(number, limits)
  local sign, digits = match(number, "^(-?)(%d+)$")
  if not digits then
    local value = tonumber(number)
    if not value or value % 1 ~= 0 or math.abs(value) > 2 ^ 64 then
      return false
    end
    sign, digits = match(format("%.0f", value), "^(-?)(%d+)$")
  end
  local limit = limits[sign == "-" and 1 or 2]
  return #digits < #limit or (#digits == #limit and digits <= limit) or not find(digits, "[^0]")
end

local function read_integer(at, field, depth)
  local next, number
  if byte(text, at) == QUOTE then
    next, number = read_string(at, depth)
    number = find(number, "^-?%d+$") and number or ""
  else
    next, number = read_number(at, depth)
  end
  if not is_integer(number, LIMITS[field.kind]) then
    refuse(depth, "must be " .. field.kind)
  end
  return next
end

local function expect(at, letter, depth, description)
  if byte(text, at) ~= letter then
    refuse(depth, description)
  end
end

-- JSON of a protobuf number may be a string.
local function expect_number(at, depth, description)
  if byte(text, at) ~= QUOTE and not find(text, "^[%d-]", at) then
    refuse(depth, description)
  end
end

local read_object, read_list, read_any

local read_one = {
  string = function(at, _, depth)
    expect(at, QUOTE, depth, "must be a string")
    return (read_string(at, depth))
  end,
  bool = function(at, _, depth)
    local _, stop = find(text, "^true", at)
    if not stop then
      _, stop = find(text, "^false", at)
    end
    return stop and stop + 1 or refuse(depth, "must be true or false")
  end,
  number = function(at, _, depth)
    expect_number(at, depth, "must be a number")
    if byte(text, at) ~= QUOTE then
      return (read_number(at, depth))
    end
    local next, number = read_string(at, depth)
    if not find(number, "^-?%d[%d%.eE+-]*$") and number ~= "NaN" and not find(number, "^-?Infinity$") then
      refuse(depth, "must be a number")
    end
    return next
  end,
  enum = function(at, field, depth)
    expect_number(at, depth, "must be one of its values")
    if byte(text, at) ~= QUOTE then
      return read_integer(at, {kind = "int32"}, depth)
    end
    local next, name = read_string(at, depth)
    if not field.values[name] then
      refuse(depth, "must be one of its values")
    end
    return next
  end,
  message = function(at, field, depth, bound)
    expect(at, OPEN_OBJECT, depth, "must be an object")
    return read_object(at, field, depth, bound)
  end,
  any = function(at, _, depth)
    return read_any(at, depth)
  end,
}
for kind in pairs(LIMITS) do
  read_one[kind] = function(at, field, depth)
    expect_number(at, depth, "must be " .. kind)
    return read_integer(at, field, depth)
  end
end

-- After a value: a comma, or the end of the list or object. Returns the next position and whether it was the end.
local function read_separator(at, close, depth)
  local at, mark = skip(at)
  if mark == close then
    return at + 1, true
  elseif mark ~= COMMA then
    refuse_syntax(depth, at)
  end
  at = skip(at + 1)
  return at, false
end

local function is_null(at)
  return byte(text, at) == LETTER_N and find(text, "^null", at) ~= nil
end

-- The value of a field. `bound` is the value that the path has for it.
local function read_value(at, field, depth, bound)
  count(depth)
  if is_null(at) then
    return at + 4
  elseif field.is_list then
    expect(at, OPEN_LIST, depth, "must be a list")
    return read_list(at, field, depth)
  elseif field.is_map then
    expect(at, OPEN_OBJECT, depth, "must be an object")
    return read_object(at, {item = field}, depth)
  end
  local next = read_one[field.kind](at, field, depth, bound)
  if type(bound) == "string" then
    local value = sub(text, at, next - 1)
    if byte(text, at) == QUOTE then
      next, value = read_string(at, depth)
    end
    if value ~= bound then
      refuse(depth, "must equal the value in the path, or be absent")
    end
  end
  return next
end

-- An item of a list or a map, which must not be null: the transcoder would drop it.
local function read_item(at, field, depth)
  count(depth)
  if field.kind ~= "any" and is_null(at) then
    refuse(depth, "must not be null")
  end
  return read_one[field.kind](at, field, depth)
end

read_list = function(at, field, depth)
  local next, first = skip(at + 1)
  if first == CLOSE_LIST then
    return next + 1
  end
  local index, is_last = 0, false
  while not is_last do
    trail[depth + 1] = index
    next, is_last = read_separator(read_item(next, field, depth + 1), CLOSE_LIST, depth + 1)
    index = index + 1
  end
  return next
end

local function read_name(at, depth)
  local at, name = read_string(at, depth)
  local at, mark = skip(at)
  if mark ~= COLON then
    refuse_syntax(depth, at)
  end
  at = skip(at + 1)
  return at, name
end

-- An object with the fields of a message, or a map.
read_object = function(at, object, depth, bound)
  local next, first = skip(at + 1)
  if first == CLOSE_OBJECT then
    return next + 1
  end
  local seen, name, is_last = {}, nil, false
  while not is_last do
    next, name = read_name(next, depth)
    local field = object.item or object.fields[name]
    -- Both spellings of a field are one name.
    local key = object.fields and field and field.name or name
    trail[depth + 1] = key
    if not field then
      refuse(depth + 1, "is not a field")
    elseif seen[key] then
      refuse(depth + 1, "occurs twice")
    end
    seen[key] = true
    if object.item then
      next = read_item(next, field, depth + 1)
    else
      next = read_value(next, field, depth + 1, bound and bound[key])
    end
    next, is_last = read_separator(next, CLOSE_OBJECT, depth + 1)
  end
  return next
end

local ANY = {kind = "any"}

read_any = function(at, depth)
  local first = byte(text, at)
  if first == OPEN_OBJECT then
    return read_object(at, {item = ANY}, depth)
  elseif first == OPEN_LIST then
    return read_list(at, ANY, depth)
  elseif first == QUOTE then
    return (read_string(at, depth))
  elseif is_null(at) then
    return at + 4
  elseif find(text, "^[tf]", at) then
    return read_one.bool(at, ANY, depth)
  end
  return (read_number(at, depth))
end

-- A whole body. `bound` has the values of the path, as a tree of field names.
local function read_body(binding, bound)
  local depth, field = 0, {kind = "message", fields = binding.fields}
  if binding.body ~= "*" then
    field = binding.fields[binding.body]
    depth, trail[1], bound = 1, field.name, bound[field.name]
  end
  local at = skip(1)
  if is_null(at) then
    refuse(depth, "must not be null")
  end
  local next, rest = skip(read_value(at, field, depth, bound))
  if rest then
    refuse_syntax(0, next)
  end
end

