-- Holds a request, behind the limits and the check of the token, until `requests.lua` has judged its body, and refuses it for
-- what was found.

function envoy_on_request(handle)
  handle:body()
  local found = handle:streamInfo():dynamicMetadata():get("souk.body")
  if found then
    handle:respond({[":status"] = found.status}, found.description)
    return
  end
  -- Where chunks were held back there is one, of the JSON. gRPC behind the transcoder has another length.
  handle:headers():remove("content-length")
end
