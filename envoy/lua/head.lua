-- Answers HEAD as GET without its body. The contracts bind GET only, so the transcoder would not find the method.

function envoy_on_request(handle)
  if handle:headers():get(":method") ~= "HEAD" then
    return
  end
  handle:headers():replace(":method", "GET")
  handle:clearRouteCache()
  handle:streamInfo():dynamicMetadata():set("souk.head", "is_head", true)
end

-- Also called for what was refused before this filter saw the request, whatever its method.
function envoy_on_response(handle)
  if handle:streamInfo():dynamicMetadata():get("souk.head") then
    for chunk in handle:bodyChunks() do
      chunk:setBytes("")
    end
  end
end
