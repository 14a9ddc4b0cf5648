-- Answers HEAD like GET, without the body. The contracts bind only GET, so the transcoder would not find a HEAD.

function envoy_on_request(handle)
  if handle:headers():get(":method") ~= "HEAD" then
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
