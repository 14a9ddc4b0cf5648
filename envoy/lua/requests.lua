-- Refuses REST requests that the transcoder, which follows this filter, would misread. The transcoder drops unknown fields,
-- lets the last of two values win, lets the query win over the path and the body, and accepts texts that are not JSON.
-- This program is disabled for routes of gRPC, and of a GET without a query.
--
-- The response has the first violation: its text as the body of a local reply, and its field, if any, as dynamic metadata
-- for the mapper of local replies. `body.lua` sends the response for an invalid body, after the rate limits and the token
-- check.

-- HTTP method -> bindings without variables by their path, and the others in a list.
local by_method = {}
for _, binding in ipairs(contracts.bindings) do
  local bindings = by_method[binding.method] or {exact = {}, patterns = {}}
  by_method[binding.method] = bindings
  binding.fields = messages[binding.request]
  if #binding.variables == 0 then
    bindings.exact[gsub(sub(binding.path, 2, -2), "%%(.)", "%1")] = binding
  else
    table.insert(bindings.patterns, binding)
  end
end

local function decode(escaped)
  return (gsub(escaped, "%%(%x%x)", function(digits)
    return string.char(tonumber(digits, 16))
  end))
end

-- A parameter must be a field that neither the path nor the body has, and occur once unless it is a list.
local function check_query(query, binding, bound)
  local seen = {}
  for parameter in gmatch(query, "[^&]+") do
    local name = decode(match(parameter, "^[^=]*"))
    trail[1] = name
    if binding.body == "*" then
      refuse(1, "must be in the body: a request with a body has no parameters")
    end
    local fields, field, path, at = binding.fields, nil, {}, bound
    for step in gmatch(name .. ".", "(.-)%.") do
      field = fields and fields[step]
      if not field then
        refuse(1, "is not a field")
      end
      path[#path + 1] = field.name
      at = type(at) == "table" and at[field.name] or nil
      fields = not field.is_list and not field.is_map and field.fields
    end
    name = concat(path, ".")
    trail[1] = name
    if path[1] == binding.body then
      refuse(1, "must be in the body")
    elseif type(at) == "string" then
      refuse(1, "must be in the path")
    elseif seen[name] and not field.is_list then
      refuse(1, "occurs twice")
    end
    seen[name] = true
  end
end

local function find_binding(bindings, path)
  -- Like the transcoder, which decides: a slash at the end is ignored.
  path = byte(path, -1) == 47 and #path > 1 and sub(path, 1, -2) or path
  local exact = bindings.exact[path]
  if exact then
    return exact, {}
  end
  for _, binding in ipairs(bindings.patterns) do
    if find(path, binding.path) then
      return binding, {match(path, binding.path)}
    end
  end
end

-- {"product.product_id"} and {"1"} -> {product = {product_id = "1"}}
local function bind(variables, captures)
  local bound = {}
  for index, variable in ipairs(variables) do
    local at = bound
    for step in gmatch(variable, "([^.]+)%.") do
      at[step] = at[step] or {}
      at = at[step]
    end
    at[match(variable, "[^.]+$")] = decode(captures[index])
  end
  return bound
end

-- The status and text of the response to an invalid request; an empty status for a valid one.
local function conclude(handle, is_good, violation)
  if is_good then
    return "", ""
  elseif type(violation) ~= "table" then
    handle:logErr(tostring(violation))
    return "500", ""
  elseif violation.field ~= "" then
    handle:streamInfo():dynamicMetadata():set("souk.edge", "field", violation.field)
  end
  return "400", violation.description
end

-- Passes the response to `body.lua`, which sends it after the token check.
local function pass_on(handle, status, description)
  local found = handle:streamInfo():dynamicMetadata()
  found:set("souk.body", "status", status)
  found:set("souk.body", "description", description)
end

-- Reads the body while the headers proceed to the rate limits and the token check: a client that is refused there need not
-- send the body. Chunks are held back until the body is complete, and then pass as the last chunk, so that the transcoder
-- never sees a part of an invalid body.
local function validate_body(handle, binding, bound, length)
  local pieces, size, last = {}, 0, nil
  for chunk in handle:bodyChunks() do
    local piece = chunk:getBytes(0, chunk:length())
    pieces[#pieces + 1], size, last = piece, size + #piece, chunk
    if size == length then
      break
    end
    chunk:setBytes("")
  end
  if size == 0 then
    return true
  end
  text, values = concat(pieces), 0
  local is_good, violation = pcall(read_body, binding, bound)
  local rest = is_good and text or ""
  text = ""
  -- A valid body of one chunk was not held back. After trailers no chunk is left to change.
  local is_there = is_good and #pieces == 1 and size == length
  if not is_there and not pcall(last.setBytes, last, rest) and is_good then
    return false, {field = "", description = "the body must not have trailers"}
  end
  return is_good, violation
end

-- The transcoder distinguishes gRPC from REST in the same way.
local function is_grpc(content_type)
  return content_type == "application/grpc" or (content_type and sub(content_type, 1, 17) == "application/grpc+")
end

local function guard(handle)
  local headers = handle:headers()
  local method, path = headers:get(":method"), headers:get(":path")
  local bindings = by_method[method]
  if not bindings or is_grpc(headers:get("content-type")) then
    return
  end
  local mark = find(path, "?", 1, true) or #path + 1
  local binding, captures = find_binding(bindings, sub(path, 1, mark - 1))
  if not binding then
    -- The transcoder must not see a request that is not understood here.
    handle:respond({[":status"] = "404"}, "")
    return
  end
  local bound = bind(binding.variables, captures)
  local status, description = conclude(handle, pcall(check_query, sub(path, mark + 1), binding, bound))
  if status ~= "" then
    handle:respond({[":status"] = status}, description)
  elseif binding.body ~= "" and not binding.is_raw then
    local length = headers:get("content-length")
    status, description = conclude(handle, validate_body(handle, binding, bound, length and tonumber(length)))
    if status ~= "" then
      pass_on(handle, status, description)
    end
  end
end

function envoy_on_request(handle)
  local is_done, mistake = pcall(guard, handle)
  if is_done then
    return
  end
  -- Without a response, Envoy would let the request pass.
  handle:logErr(tostring(mistake))
  local method = handle:headers():get(":method")
  if method == "GET" or method == "HEAD" then
    -- Their routes do not have `body.lua`.
    handle:respond({[":status"] = "500"}, "")
  else
    pass_on(handle, "500", "")
  end
end
