-- Holds a request, behind the limits and the check of the token, until `requests.lua` has judged its body, and refuses it for
-- what was found.

function envoy_on_request(handle)
  handle:body()
  local found = handle:streamInfo():dynamicMetadata():get("souk.body")
  if not found or found.status ~= "" then
    handle:respond({[":status"] = found and found.status or "500"}, found and found.description or "")
    return
  end
  -- Where chunks were held back there is one, of the JSON. gRPC behind the transcoder has another length.
  handle:headers():remove("content-length")
end
