-- Refuses REST requests that the transcoder behind this filter would take otherwise than they were meant. It drops fields
-- that it does not know, lets the last of two values win, lets the query win over the path and the body, and its parser
-- reads texts that are not JSON. A GET without a query, and gRPC, do not come here: see the filter's matcher.
--
-- The first thing that is wrong is answered: its text as the body of a local reply, and its field, where it has one, as
-- dynamic metadata for the mapper of local replies.

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

-- A parameter is a field that neither the path nor the body has, and one that is no list is there once.
local function check_query(query, binding, bound)
  local seen = {}
  for parameter in gmatch(query, "[^&]+") do
    local name = decode(match(parameter, "^[^=]*"))
    trail[1] = name
    if binding.body == "*" then
      refuse(1, "must be in the body: there are no parameters beside it")
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
      refuse(1, "is there twice")
    end
    seen[name] = true
  end
end

local function find_binding(bindings, path)
  -- As the transcoder does, which is the one that counts: a slash at the end says nothing.
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

local function answer(handle, violation)
  if type(violation) ~= "table" then
    -- A mistake of this program. Envoy would let the request pass.
    handle:logErr(tostring(violation))
    handle:respond({[":status"] = "500"}, "")
    return
  end
  if violation.field ~= "" then
    handle:streamInfo():dynamicMetadata():set("souk.edge", "field", violation.field)
  end
  handle:respond({[":status"] = "400"}, violation.description)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local method, path = headers:get(":method"), headers:get(":path")
  local bindings = by_method[method]
  if not bindings then
    return
  end
  local mark = find(path, "?", 1, true) or #path + 1
  local binding, captures = find_binding(bindings, sub(path, 1, mark - 1))
  if not binding then
    if method ~= "GET" then
      -- Nothing that is not understood here reaches the transcoder with a body.
      handle:respond({[":status"] = "404"}, "")
    end
    return
  end
  if not binding.is_public and not headers:get("authorization") then
    -- It is refused for that, before its body is read.
    return
  end
  local bound = bind(binding.variables, captures)
  local is_good, violation = pcall(check_query, sub(path, mark + 1), binding, bound)
  if is_good and binding.body ~= "" and not binding.is_raw then
    local body = handle:body()
    if body and body:length() > 0 then
      text, values = body:getBytes(0, body:length()), 0
      is_good, violation = pcall(read_body, binding, bound)
      text = ""
    end
  end
  if not is_good then
    answer(handle, violation)
  end
end
