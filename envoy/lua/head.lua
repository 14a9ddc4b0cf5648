-- Answers HEAD like GET, without the body. The contracts bind only GET, so the transcoder would not find a HEAD. That is what
-- happens to a stream, which would be open for nothing.
--
-- `souk envoy` puts the table `streams`, of the paths of streams, before this program.

local function is_stream(path)
  path = string.match(path, "^[^?]*")
  for _, pattern in ipairs(streams) do
    if string.find(path, pattern) then
      return true
    end
  end
  return false
end

function envoy_on_request(handle)
  if handle:headers():get(":method") ~= "HEAD" or is_stream(handle:headers():get(":path")) then
    return
  end
  handle:headers():replace(":method", "GET")
  handle:clearRouteCache()
  handle:streamInfo():dynamicMetadata():set("souk.head", "is_head", true)
end

-- Also called for requests that were refused before this filter saw them, of any method.
function envoy_on_response(handle)
  if handle:streamInfo():dynamicMetadata():get("souk.head") then
    for chunk in handle:bodyChunks() do
      chunk:setBytes("")
    end
  end
end
